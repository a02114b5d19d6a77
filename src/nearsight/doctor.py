"""Checks of this machine and installation, each with a fix if it does not pass."""

import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import nearsight
from nearsight import processor
from nearsight.errors import (
    CollectionNotFoundError,
    MissingExtraError,
    NearsightError,
    UnsupportedMachineError,
)
from nearsight.settings import Settings
from nearsight.store import CheckedLocation, Location, is_directory, locate, shown_uri
from nearsight.text_format import count, size

# Below this, a new collection or cache file may already fill the disk.
_LOW_DISK_BYTES = 1_000_000_000

_FORMATS = {
    "jpg": "JPEG",
    "zlib": "PNG",
    "webp": "WebP",
    "avif": "AVIF",
    "libtiff": "TIFF",
    "jpg_2000": "JPEG 2000",
}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check.

    Attributes
    ----------
    name : str
        What was checked.
    status : {"ok", "warn", "fail"}
        ``fail``: indexing or searching will not work. ``warn``: an optional feature will not work.
    detail : str
        The finding.
    fix : str
        What to do; empty if there is nothing to do.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def run_checks(settings: Settings, collection: str) -> Iterator[Check]:
    """Run the checks one after another, and yield each result at once.

    Parameters
    ----------
    settings : Settings
    collection : str
        URI of the collection to check, if it exists.
    """
    yield check_python()
    yield Check("system", "ok", f"{platform.platform()}, {platform.machine()}")
    processor_check = check_processor()
    yield processor_check
    yield check_packages()
    yield check_onnxruntime()
    yield check_bfloat16()
    yield check_gpu()
    yield check_gpu_decoding()
    yield check_text_encoder()
    yield check_face_models()
    yield check_formats()
    yield check_cache(settings.cache_dir)
    yield _no_exception("model", lambda: check_model(settings.cache_dir))
    yield _no_exception("workers", lambda: check_workers(settings))
    store_checks = []
    for check in check_store(collection):
        store_checks.append(check)
        yield check
    if any(check.status == "fail" for check in store_checks):
        yield Check("collection", "fail", "not opened: a check of its storage failed", "see the checks above")
    elif processor_check.status == "fail":
        # Importing LanceDB would end the process with an illegal instruction.
        yield Check("collection", "fail", "not opened: the processor cannot run LanceDB")
    else:
        yield _no_exception("collection", lambda: check_collection(collection, settings.cache_dir))
        yield from check_upgrade(collection)


def _no_exception(name: str, check: Callable[[], Check]) -> Check:
    """Return the result of a check; an exception is a failed check."""
    try:
        return check()
    except NearsightError as error:
        return Check(name, "fail", str(error))
    except Exception as error:  # a broken installation raises anything
        fix = "reinstall: pip install --force-reinstall nearsight"
        return Check(name, "fail", f"{type(error).__name__}: {error}", fix)


def check_python() -> Check:
    """Check the interpreter."""
    detail = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if sys.maxsize < 2**32:
        return Check("python", "fail", f"{detail}, 32-bit", "install a 64-bit Python")
    return Check("python", "ok", detail)


def check_processor() -> Check:
    """Check the usable cores, and the instructions that LanceDB needs."""
    from nearsight.store import check_machine

    n_usable, n_cores = processor.n_cores(), os.cpu_count() or 1
    detail = f"{count(n_usable, 'core')} usable" + (f" of {n_cores}" if n_usable != n_cores else "")
    try:
        check_machine()
    except UnsupportedMachineError as error:
        return Check("processor", "fail", f"{detail}; {error}")
    return Check("processor", "ok", f"{detail}; has the instructions that LanceDB needs (AVX2 on x86)")


def check_packages() -> Check:
    """Check that the required packages are installed."""
    from nearsight.models.runtimes import devices

    installed, missing = [], []
    try:
        requirements = metadata.requires("nearsight") or []
    except metadata.PackageNotFoundError:
        return Check("packages", "warn", "nearsight runs from its source, not installed", "pip install -e .")
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if name == "onnxruntime":
            # Another build, such as onnxruntime-gpu, will do; two builds side by side break each other.
            name = next(iter(devices.installed_onnxruntime_packages()), name)
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Check("packages", "ok", ", ".join([f"nearsight {nearsight.__version__}", *installed]))


def check_onnxruntime() -> Check:
    """Check ONNX Runtime and its devices."""
    from nearsight.models.runtimes import devices

    wheels = devices.installed_onnxruntime_packages()
    try:
        # By name: only nearsight.models.runtimes.onnx_session may import it.
        onnxruntime = importlib.import_module("onnxruntime")
    except Exception as error:  # a broken native library raises more than ImportError
        fix = f"run: {devices.repair_onnxruntime_command(wheels)}; on Windows, install the Visual C++ runtime"
        return Check("onnxruntime", "fail", str(error), fix)
    detail = f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"
    if len(wheels) > 1:
        detail += f"; {' and '.join(wheels)} have overwritten each other's files"
        return Check("onnxruntime", "warn", detail, f"run: {devices.repair_onnxruntime_command(wheels)}")
    return Check("onnxruntime", "ok", detail)


def check_bfloat16() -> Check:
    """Check whether `--precision bf16` works."""
    from nearsight.models.runtimes import openvino

    try:
        runtime = openvino.require_bfloat16()
    except MissingExtraError:
        return Check("bf16", "ok", "OpenVINO is not installed; only --precision bf16 needs it")
    except NearsightError as error:
        return Check("bf16", "ok", str(error))
    version = runtime.__version__.split("-")[0]
    return Check("bf16", "ok", f"OpenVINO {version}: --precision bf16 is faster on this processor")


def check_gpu() -> Check:
    """Check for a GPU, and whether it can be used."""
    from nearsight.models.runtimes import devices, onnx_session

    try:
        offered = onnx_session.offered_devices()
    except Exception:  # `check_onnxruntime` reports it
        offered = []
    if offered:
        detail = f"onnxruntime supports {', '.join(offered)}; --device auto tries them"
        if "cuda" in offered and not processor.has_nvidia_gpu():
            detail += "; no NVIDIA GPU with its driver was found"
        return Check("gpu", "ok", detail)
    if idle := devices.idle_gpu_hint(()):
        detail, _, fix = idle.partition(" To use it: ")
        return Check("gpu", "warn", detail, f"run: {fix}")
    return Check("gpu", "ok", "none found")


def check_gpu_decoding() -> Check:
    """Check whether a GPU decodes JPEGs."""
    from nearsight.models.runtimes import gpu_decode, onnx_session

    name = "gpu decoding"
    try:
        has_cuda = "cuda" in onnx_session.offered_devices()
    except Exception:  # `check_onnxruntime` reports it
        has_cuda = False
    if not processor.has_nvidia_gpu() or not has_cuda:
        return Check(name, "ok", "the cores decode: there is no NVIDIA GPU, or onnxruntime has no CUDA")
    if not gpu_decode.is_installed():
        # Not the extra: it would install a second build of onnxruntime.
        fix = f"run: pip install {gpu_decode.PACKAGES}"
        return Check(name, "warn", "the cores decode for the GPU: nvImageCodec is not installed", fix)
    return Check(name, "ok", "nvImageCodec is installed: the GPU decodes JPEGs of --decode full")


def check_text_encoder() -> Check:
    """Check whether `search --text` works with the default model."""
    from nearsight.models.text import minilm

    has_packages = all(importlib.util.find_spec(name) for name in ("safetensors", "tokenizers"))
    if has_packages and minilm.locate():
        return Check("text", "ok", "search --text works: all-MiniLM-L6-v2 is installed")
    return Check("text", "warn", "search --text has no text encoder", f"run: {minilm.INSTALL}")


def check_face_models() -> Check:
    """Check whether `nearsight faces` works."""
    from nearsight.faces.models import weights

    if weights.is_available():
        models = " and ".join(
            f"{spec.id} ({spec.license})" for spec in (weights.CENTERFACE_SPEC, weights.DLIB_SPEC)
        )
        return Check("faces", "ok", f"nearsight faces works: {models} are installed")
    return Check("faces", "warn", "nearsight faces has no models", f"run: {weights.INSTALL}")


def check_formats() -> Check:
    """Check which image formats can be read."""
    import PIL
    from PIL import features

    readable = {label: bool(features.check(feature)) for feature, label in _FORMATS.items()}
    readable["HEIC"] = importlib.util.find_spec("pillow_heif") is not None
    detail = f"Pillow {PIL.__version__}: {', '.join(label for label, ok in readable.items() if ok)}"
    if missing := [label for label, ok in readable.items() if not ok]:
        fix = "pip install --force-reinstall --only-binary :all: pillow pillow-heif"
        return Check("formats", "warn", f"{detail}; not {', '.join(missing)}", fix)
    return Check("formats", "ok", detail)


def check_cache(folder: Path) -> Check:
    """Check whether converted models can be stored."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"nearsight")
    except OSError as error:
        fix = "set NEARSIGHT_CACHE to a folder in which you may write"
        return Check("cache", "fail", f"{folder}: {error.strerror or error}", fix)
    return _with_free_space("cache", str(folder), folder)


def check_model(cache_dir: Path) -> Check:
    """Check the default model by embedding a synthetic image."""
    import numpy as np

    started = time.perf_counter()
    embedder = nearsight.Embedder(cache_dir=cache_dir, progress=False)
    loaded = time.perf_counter()
    ramp = np.linspace(0, 255, 320, dtype=np.uint8)
    image = np.stack(np.broadcast_arrays(ramp, ramp[:240, None], np.uint8(128)), axis=-1)
    vectors = embedder.embed([image], on_error="raise").vectors
    finished = time.perf_counter()
    spec = embedder.backend.spec
    length = float(np.linalg.norm(vectors))
    detail = (
        f"{spec.id} embedded an image into {vectors.shape[1]} dimensions in"
        f" {(finished - loaded) * 1000:.0f} ms on {getattr(embedder.backend, 'device', 'cpu')}"
        f" (loaded in {(loaded - started) * 1000:.0f} ms)"
    )
    if vectors.shape != (1, spec.dim) or (spec.normalize and abs(length - 1) > 1e-3):
        fix = f"delete {cache_dir} and run again; if that does not help, reinstall onnxruntime"
        return Check("model", "fail", f"{detail}; the vector has length {length:.3f}, not 1", fix)
    return Check("model", "ok", detail)


def check_workers(settings: Settings) -> Check:
    """Tell which threads and processes embed, and what was measured with the default model."""
    from nearsight.embedder.plan import MAX_CORES_OF_THREADS
    from nearsight.embedder.rates import Rates
    from nearsight.models import DEFAULT_MODEL, find_model

    n_cores = processor.n_cores()
    if settings.n_processes is not None:
        return Check(
            "workers",
            "ok",
            f"{count(settings.n_processes, 'process', 'processes')}, as NEARSIGHT_PROCESSES says",
        )
    spec = find_model(DEFAULT_MODEL).spec
    rates = Rates(settings.cache_dir, spec.fingerprint.digest, n_cores).read_all()
    measured = [
        f"at {size}: " + ", ".join(f"{name} {rate:g} images/s" for name, rate in _fastest_first(plans))
        for size, plans in rates.items()
    ]
    if measured:
        return Check("workers", "ok", f"{spec.id} {'; '.join(measured)}; measured on your images")
    if n_cores <= MAX_CORES_OF_THREADS:
        return Check(
            "workers", "ok", f"threads, since {MAX_CORES_OF_THREADS} cores or fewer need no processes"
        )
    return Check(
        "workers", "ok", f"{spec.id}: threads or processes, measured at the next index of some seconds"
    )


def _fastest_first(plans: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(plans.items(), key=lambda plan: -plan[1])


def check_store(uri: str) -> Iterator[Check]:
    """Check the server that keeps the collection, and the tables there, where the engine can."""
    if is_directory(uri):
        return
    try:
        place = locate(uri)
        if not isinstance(place, CheckedLocation):
            return
        is_sound = True
        for check in place.checks():
            is_sound = is_sound and check.status != "fail"
            yield Check(check.name, check.status, check.detail, check.fix)
        for name, model in _stores_of(place) if is_sound else ():
            for check in place.store_checks(name):
                yield Check(f"{check.name}{model}", check.status, check.detail, check.fix)
    except NearsightError as error:
        yield Check("server", "fail", str(error), "check the URI, and what the message says")


def _stores_of(place: Location) -> list[tuple[str, str]]:
    """Return the names of the collection's stores, and what tells their checks apart."""
    from nearsight.collection.manifest import STORE, CollectionManifest
    from nearsight.collection.upgrade_state import UpgradeState

    try:
        current, state = CollectionManifest.read(place).store, UpgradeState.read(place)
    except NearsightError:  # there is none, or `check_collection` says what is wrong
        return [(STORE, "")]
    if state is None:
        return [(current, "")]
    if state.phase == "switched":
        return [(current, ""), (state.previous_store, " of the model before")]
    return [(current, ""), (state.store, " of the new model")]


def check_upgrade(uri: str) -> Iterator[Check]:
    """Check the rows that an upgrade is building, or has left, if there was one."""
    from nearsight.collection.upgrade_state import UpgradeState

    place = locate(uri)
    try:
        state = UpgradeState.read(place)
    except CollectionNotFoundError:
        return
    except NearsightError as error:
        yield Check("upgrade", "warn", str(error))
        return
    if state is None:
        return
    (_, (name, _)) = _stores_of(place)
    ends = state.ending
    if state.deleting:
        yield Check(
            "upgrade",
            "warn",
            "rows of a model were being deleted when a command was interrupted",
            f"run: {ends}",
        )
        return
    try:
        n_rows = place.open_store(name).count()
    except CollectionNotFoundError as error:
        if state.phase != "sampling":  # which comes before the new rows
            yield Check("upgrade", "warn", str(error), f"run: {ends}")
            return
        n_rows = 0
    except NearsightError as error:
        yield Check("upgrade", "warn", str(error), f"restore what is missing, or run: {ends}")
        return
    if state.phase == "switched":
        detail = (
            f"{count(n_rows, 'row')} of the model before are kept for nearsight rollback; {ends} deletes them"
        )
    else:
        detail = f"{count(n_rows, 'row')} of {state.model} are written; {ends} deletes them"
    yield Check("upgrade", "ok", detail)


def check_collection(uri: str, cache_dir: Path) -> Check:
    """Check the collection, if there is one."""
    try:
        collection = nearsight.Collection.open(uri, cache_dir=cache_dir)
    except CollectionNotFoundError:
        return Check("collection", "ok", f"none at {shown_uri(uri)} yet; nearsight index PATH creates one")
    directory = collection.directory
    detail = f"{collection.uri}: {count(len(collection), 'image')} embedded by {collection.spec.id}"
    if not os.access(directory, os.W_OK):
        fix = f"to index, get write permission for {directory}"
        return Check("collection", "warn", f"{detail}, read-only", fix)
    return _with_free_space("collection", detail, directory)


def _with_free_space(name: str, detail: str, folder: Path) -> Check:
    n_free = shutil.disk_usage(folder).free
    detail = f"{detail}, {size(n_free)} free"
    if n_free < _LOW_DISK_BYTES:
        return Check(name, "warn", detail, f"free space on the disk of {folder}")
    return Check(name, "ok", detail)
