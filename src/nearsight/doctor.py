"""Looks at this machine the way nearsight will use it, and says what to do about what it finds."""

import importlib.util
import os
import platform
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
from nearsight.errors import CollectionNotFoundError, NearsightError, UnsupportedMachineError
from nearsight.settings import Settings
from nearsight.text_format import count, size

# Below this, the next collection or cache file may already fail.
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
    """One thing looked at.

    Attributes
    ----------
    name : str
        What.
    status : {"ok", "warn", "fail"}
        ``fail`` means that indexing or searching will not work; ``warn`` that something optional won't.
    detail : str
        What was found.
    fix : str
        The way out, where there is something to get out of.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def run_checks(settings: Settings, collection: str) -> Iterator[Check]:
    """Yield the checks one after another, so that they show while the slow ones run.

    Parameters
    ----------
    settings : Settings
        Where the cache is.
    collection : str
        URI of the collection to check, if it exists.
    """
    yield python()
    yield system()
    processor = cpu()
    yield processor
    yield packages()
    yield onnx_runtime()
    yield fast_runtime()
    yield gpu()
    yield words()
    yield faces()
    yield formats()
    yield cache(settings.cache_dir)
    yield _guarded("model", lambda: embedding(settings.cache_dir))
    if processor.status == "fail":
        # Importing the store would end the process with an illegal instruction.
        yield Check("collection", "fail", "not opened: the processor cannot run LanceDB")
    else:
        yield _guarded("collection", lambda: stored(collection, settings.cache_dir))


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except NearsightError as error:
        return Check(name, "fail", str(error))
    except Exception as error:  # whatever is broken here is what the doctor is for
        return Check(
            name,
            "fail",
            f"{type(error).__name__}: {error}",
            "reinstall: pip install --force-reinstall nearsight",
        )


def fast_runtime() -> Check:
    """Look whether bfloat16 can be had."""
    from nearsight.errors import MissingExtraError
    from nearsight.models.runtimes import openvino

    try:
        found = openvino.require_bfloat16()
    except MissingExtraError:
        return Check("bf16", "ok", "OpenVINO is not installed; float32 needs none")
    except NearsightError as error:
        return Check("bf16", "ok", str(error))
    return Check("bf16", "ok", f"OpenVINO {found.__version__.split('-')[0]}: --precision bf16 is faster here")


def gpu() -> Check:
    """Look for a GPU, and whether it can be used."""
    from nearsight.models.runtimes import devices, onnx

    try:
        offered = onnx.offered_devices()
    except Exception:  # the check of onnxruntime tells what is wrong with it
        offered = []
    if offered:
        said = f"onnxruntime offers {', '.join(offered)}: --device auto tries them"
        if "cuda" in offered and not processor.has_nvidia_gpu():
            said += "; no NVIDIA GPU with its driver is seen"
        return Check("gpu", "ok", said)
    if said := devices.idle_gpu(()):
        said, _, fix = said.partition(" To use it: ")
        return Check("gpu", "warn", said, f"run: {fix}")
    return Check("gpu", "ok", "none seen")


def words() -> Check:
    """Look whether the default model can be asked with words."""
    from nearsight.models.text import minilm

    extra = all(importlib.util.find_spec(name) for name in ("safetensors", "tokenizers"))
    if extra and minilm.locate():
        return Check("words", "ok", "search --text works: all-MiniLM-L6-v2 is here")
    return Check("words", "warn", "search --text has no text encoder", f"run: {minilm.INSTALL}")


def faces() -> Check:
    """Look whether faces can be found and compared."""
    from nearsight.faces.models import weights

    if weights.is_available():
        detector, recognizer = weights.CENTERFACE_SPEC, weights.DLIB_SPEC
        licenses = f"{detector.id} ({detector.license}) and {recognizer.id} ({recognizer.license})"
        return Check("faces", "ok", f"nearsight faces works: {licenses} are here")
    return Check("faces", "warn", "nearsight faces has no models", f"run: {weights.INSTALL}")


def python() -> Check:
    """Look at the interpreter."""
    detail = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    if sys.maxsize < 2**32:
        return Check("python", "fail", f"{detail}, 32-bit", "install a 64-bit Python")
    return Check("python", "ok", detail)


def system() -> Check:
    """Look at the operating system."""
    return Check("system", "ok", f"{platform.platform()}, {platform.machine()}")


def cpu() -> Check:
    """Look at the processor: how many cores may be used, and whether the installed wheels run on it."""
    from nearsight.store import check_machine

    usable, present = processor.n_cores(), os.cpu_count() or 1
    detail = f"{count(usable, 'core')} usable" + (f" of {present}" if usable != present else "")
    try:
        check_machine()
    except UnsupportedMachineError as error:
        return Check("processor", "fail", f"{detail}; {error}")
    return Check("processor", "ok", f"{detail}; has what LanceDB needs (AVX2 on x86)")


def packages() -> Check:
    """Look at the versions of what nearsight stands on."""
    from nearsight.models.runtimes import devices

    found, missing = [], []
    try:
        requirements = metadata.requires("nearsight") or []
    except metadata.PackageNotFoundError:
        return Check("packages", "warn", "nearsight runs from its source, not installed", "pip install -e .")
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        name = requirement.partition(";")[0].strip().rstrip("0123456789.,<>=!~* ")
        if name == "onnxruntime":
            # Whichever build there is; to ask for this one beside another would break both.
            name = next(iter(devices.installed_wheels()), name)
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("packages", "fail", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    return Check("packages", "ok", ", ".join([f"nearsight {nearsight.__version__}", *found]))


def onnx_runtime() -> Check:
    """Look at the runtime of the networks, and at what it can run on."""
    from nearsight.models.runtimes import devices

    try:
        # By name: only nearsight.models.runtimes.onnx may depend on it, and here its absence is an answer.
        onnxruntime = importlib.import_module("onnxruntime")
    except Exception as error:  # a broken native library raises more than ImportError
        fix = f"run: {devices.repair_command(devices.installed_wheels())}; on Windows, install the Visual C++"
        fix += " runtime as well"
        return Check("onnxruntime", "fail", str(error), fix)
    detail = f"{onnxruntime.__version__}, {', '.join(onnxruntime.get_available_providers())}"
    wheels = devices.installed_wheels()
    if len(wheels) > 1:
        said = f"{detail}; {' and '.join(wheels)} have overwritten each other's files"
        return Check("onnxruntime", "warn", said, f"run: {devices.repair_command(wheels)}")
    return Check("onnxruntime", "ok", detail)


def formats() -> Check:
    """Look at which image formats can be read here."""
    import PIL
    from PIL import features

    readable = {label: bool(features.check(feature)) for feature, label in _FORMATS.items()}
    readable["HEIC"] = importlib.util.find_spec("pillow_heif") is not None
    detail = f"Pillow {PIL.__version__}: {', '.join(label for label, ok in readable.items() if ok)}"
    if lacking := [label for label, ok in readable.items() if not ok]:
        fix = "pip install --force-reinstall --only-binary :all: pillow pillow-heif"
        return Check("formats", "warn", f"{detail}; not {', '.join(lacking)}", fix)
    return Check("formats", "ok", detail)


def cache(folder: Path) -> Check:
    """Look whether converted models can be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"nearsight")
    except OSError as error:
        fix = "set NEARSIGHT_CACHE to a folder that you may write to"
        return Check("cache", "fail", f"{folder}: {error.strerror or error}", fix)
    return _with_disk("cache", str(folder), folder)


def _with_disk(name: str, detail: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    status: Literal["ok", "warn"] = "warn" if free < _LOW_DISK_BYTES else "ok"
    fix = f"free some space on the disk of {folder}" if status == "warn" else ""
    return Check(name, status, f"{detail}, {size(free)} free", fix)


def embedding(cache_dir: Path) -> Check:
    """Embed a made-up image for real."""
    import numpy as np

    started = time.perf_counter()
    embedder = nearsight.Embedder(cache_dir=cache_dir, progress=False)
    loaded = time.perf_counter()
    ramp = np.linspace(0, 255, 320, dtype=np.uint8)
    image = np.stack(np.broadcast_arrays(ramp, ramp[:240, None], np.uint8(128)), axis=-1)
    result = embedder.embed([image], on_error="raise")
    spent = time.perf_counter() - loaded
    spec = embedder.backend.spec
    length = float(np.linalg.norm(result.vectors))
    detail = (
        f"{spec.id} turned an image into {result.vectors.shape[1]} numbers in {spent * 1000:.0f} ms"
        f" on {getattr(embedder.backend, 'device', 'cpu')}"
        f" (loaded in {(loaded - started) * 1000:.0f} ms)"
    )
    if result.vectors.shape != (1, spec.dim) or (spec.normalize and abs(length - 1) > 1e-3):
        fix = f"delete {cache_dir} and run again; if that does not help, reinstall onnxruntime"
        return Check("model", "fail", f"{detail}, of length {length:.3f}: that is wrong", fix)
    return Check("model", "ok", detail)


def stored(uri: str, cache_dir: Path) -> Check:
    """Look into the collection, if there is one."""
    try:
        collection = nearsight.Collection.open(uri, cache_dir=cache_dir)
    except CollectionNotFoundError:
        return Check("collection", "ok", f"none at {uri} yet; nearsight index FOLDER creates one")
    directory = collection.directory
    detail = f"{directory}: {count(len(collection), 'image')} by {collection.spec.id}"
    if not os.access(directory, os.W_OK):
        return Check(
            "collection", "warn", f"{detail}, read-only", f"to index, get write permission for {directory}"
        )
    return _with_disk("collection", detail, directory)
