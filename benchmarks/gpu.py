"""Images per second with a GPU: decoded on the cores, and on the GPU; beside what a user would write instead.

    python -m benchmarks.gpu                     all that this machine can run
    python -m benchmarks.gpu --n 400 --n-large 40

It makes its images itself and fetches nothing, so it also runs on a machine without package access, with
wheels brought along: nearsight's, `nearsight[cuda]`, and torch for the comparison. What cannot run here is
named with the reason, and the exit code is 0.

*Pipeline*: `Embedder` and `Collection.add`, the second of two passes over different files. *Limit*: worker
processes that only decode and resize with Pillow. *DataLoader*: torch's, with a worker process per core that
decodes and resizes with Pillow, and the same network in float16 on the GPU. *Host*: `GpuPipeline` with a
device that answers at once; no GPU can be faster than what this process reads, hashes and judges. *Same
vectors*: of the GPU, and of ``--decode full`` on the processor.
"""

import argparse
import io
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nearsight import Collection, Embedder, load_model
from nearsight.embedder.batch import ReadOptions
from nearsight.embedder.gpu_pipeline import GpuPipeline
from nearsight.errors import NearsightError
from nearsight.images import Limits, decode, find
from nearsight.models import find_model
from nearsight.models.preprocess import resize_and_crop
from nearsight.models.runtimes import gpu_decode
from nearsight.models.runtimes.gpu_decode import EmbeddedJpeg
from nearsight.models.runtimes.onnx_session import offered_devices
from nearsight.models.runtimes.work_split import WorkSplit
from nearsight.processor import has_nvidia_gpu, n_cores

MODEL = "efficientnet-lite0"
SMALL, LARGE = (640, 480), (4000, 3000)
PACKAGES = (
    "nearsight",
    "onnxruntime",
    "onnxruntime-gpu",
    "nvidia-nvimgcodec-cu13",
    "torch",
    "pillow",
    "numpy",
)
#: On an H100 with 16 cores: images per second, or times the limit or the DataLoader.
GOALS = {
    "cuda, decoded on the cores": {"640x480": ">= 1 x limit"},
    "cuda, decoded on the GPU: embed": {
        "640x480": ">= 10,000; >= 6 x loader",
        "12 Mpx": ">= 700; >= 20 x loader",
    },
    "cuda, decoded on the GPU: index": {"640x480": ">= 6,000", "12 Mpx": ">= 600"},
    "smallest cosine to full decoding on the processor": ">= 0.9999, same fingerprint",
}


class NotHereError(Exception):
    """This machine cannot run a part, for the reason given."""


def make(folder: Path, n: int, size: tuple[int, int], quality: int) -> Path:
    """Write `n` different JPEGs: smooth shapes with sensor noise, so that they have a camera's bytes.

    A few are encoded; the others are those with another comment, which changes the file and not its cost.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(sum(size))
    masters = []
    for _ in range(min(n, 12)):
        shapes = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        noise = rng.normal(0, 6, (size[1] // 2, size[0] // 2)).repeat(2, 0).repeat(2, 1)
        pixels = np.clip(np.asarray(shapes) + noise[..., None], 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        masters.append(file.getvalue())
    for i in range(n):
        comment = f"{i:08}".encode()
        data = masters[i % len(masters)]
        (folder / f"{i:06}.jpg").write_bytes(data[:2] + b"\xff\xfe\0\x0a" + comment + data[2:])
    return folder


def files_of(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.iterdir())]


def embed_rate(folder: Path, **options: Any) -> dict[str, Any]:
    """Return the images/s of `Embedder.embed`, the second pass."""
    embedder = Embedder(MODEL, progress=False, **options)
    half = len(files_of(folder)) // 2
    embedder.embed(files_of(folder)[:half])
    started = time.perf_counter()
    result = embedder.embed(files_of(folder)[half:])
    seconds = time.perf_counter() - started
    if result.failed:
        raise SystemExit(f"{len(result.failed)} images failed: {result.failed[0].reason}")
    backend = embedder.backend
    return {
        "images_per_second": round(len(result.vectors) / seconds, 1),
        "device": getattr(backend, "device", "cpu"),
        "fingerprint": backend.spec.fingerprint.digest,
    }


def index_rate(folder: Path, *, decode: str, device: str) -> dict[str, Any]:
    """Return the images/s of `Collection.add`, with thumbnails and rows on disk, the second half."""
    name = f"{MODEL}#decode=full" if decode == "full" else MODEL
    half = len(files_of(folder)) // 2
    with tempfile.TemporaryDirectory() as directory:
        collection = Collection.create(Path(directory) / "c", model=name, device=device)
        collection.add(files_of(folder)[:half], progress=False)
        report = collection.add(files_of(folder)[half:], progress=False)
    return {"images_per_second": round(report.embedded / report.seconds, 1)}


def _decode_one(file: str) -> int:
    spec = find_model(MODEL).spec
    return int(resize_and_crop(decode(Path(file).read_bytes(), min_side_px=256).image, spec)[0, 0, 0])


def decode_limit(folder: Path) -> dict[str, Any]:
    """Return the images/s of worker processes that only decode and resize, one per core."""
    files = files_of(folder)
    with multiprocessing.get_context("spawn").Pool(n_cores()) as pool:
        pool.map(_decode_one, files[: 2 * n_cores()], chunksize=1)
        started = time.perf_counter()
        pool.map(_decode_one, files, chunksize=4)
        seconds = time.perf_counter() - started
    return {"images_per_second": round(len(files) / seconds, 1), "processes": n_cores()}


class _InstantDecoder:
    """A device that answers at once."""

    def __init__(self, dim: int) -> None:
        self.split = WorkSplit()
        self._vector = np.full(dim, dim**-0.5, np.float32)
        self._choose = gpu_decode.GpuDecoder.choose
        self._is_broken = False

    def choose(self, files: Sequence[bytes], limits: Limits) -> list[Any]:
        return self._choose(self, files, limits)  # type: ignore[arg-type]  # it has what `choose` needs

    def submit(self, jpegs: Sequence[Any], *, thumbnails: bool) -> Callable[[], list[EmbeddedJpeg | None]]:
        rows: list[EmbeddedJpeg | None] = [
            EmbeddedJpeg(self._vector, *jpeg.header.upright_size, jpeg.header.exif, None) for jpeg in jpegs
        ]
        return lambda: rows


def host_rate(folder: Path) -> dict[str, Any]:
    """Return the images/s and the processor's time of all that is not on the GPU."""
    backend = load_model(f"{MODEL}#decode=full", device="cpu")
    decoder: Any = _InstantDecoder(backend.spec.dim)
    sources = list(find(files_of(folder)))
    rates, cpu = [], []
    for _ in range(3):
        started, busy = time.perf_counter(), time.process_time()
        pipeline = GpuPipeline(backend, decoder, ReadOptions(Limits()), None, n_threads=n_cores() + 4)
        with closing(pipeline):
            rows: list[Future[Any]] = [
                pipeline.submit(sources[at : at + 8]) for at in range(0, len(sources), 8)
            ]
            n = sum(len(row.result()) for row in rows)
        rates.append(n / (time.perf_counter() - started))
        cpu.append((time.process_time() - busy) / n)
    return {
        "images_per_second": round(statistics.median(rates), 1),
        "cpu_microseconds_per_image": round(1e6 * statistics.median(cpu), 1),
    }


class _Files:
    """A torch data set of prepared images."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, at: int) -> np.ndarray:
        with Image.open(self._files[at]) as image:
            scale = 256 / min(image.size)
            size = (round(image.width * scale), round(image.height * scale))
            image = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
        return ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)


def torch_network(torch: Any, graph: bytes) -> Callable[[Any], Any]:
    """Return an ONNX graph of convolutions as a function of torch, in float16 on the GPU."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(graph).graph
    held = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()).cuda()
        for tensor in model.initializer
    }
    held = {name: value.half() if value.is_floating_point() else value for name, value in held.items()}
    # Bounds as numbers: reading them from the GPU each time would hold it up.
    held = {name: value.item() if value.dim() == 0 else value for name, value in held.items()}
    functional = torch.nn.functional

    def run(pixels: Any) -> Any:
        values = {**held, model.input[0].name: pixels}
        for node in model.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            inputs = [values[name] for name in node.input if name]
            if node.op_type == "Conv":
                top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
                x = functional.pad(inputs[0], (left, right, top, bottom))
                bias = inputs[2] if len(inputs) > 2 else None
                y = functional.conv2d(
                    x, inputs[1], bias, attributes.get("strides", [1, 1]), groups=attributes.get("group", 1)
                )
            elif node.op_type == "Clip":
                y = inputs[0].clamp(inputs[1], inputs[2])
            elif node.op_type == "Add":
                y = inputs[0] + inputs[1]
            elif node.op_type == "GlobalAveragePool":
                y = inputs[0].mean((2, 3), keepdim=True)
            elif node.op_type == "ReduceMean":
                y = inputs[0].mean((2, 3))
            elif node.op_type in ("Flatten", "Reshape"):
                y = inputs[0].flatten(1)
            else:
                raise NotHereError(f"the comparison knows no {node.op_type}")
            values[node.output[0]] = y
        return values[model.output[0].name]

    return run


def loader_rate(folder: Path) -> dict[str, Any]:
    """Return the images/s of a plain torch DataLoader and the same network in float16, the second pass."""
    try:
        import torch
    except ImportError as error:
        raise NotHereError("torch is not installed") from error
    if not torch.cuda.is_available():
        raise NotHereError("torch has no GPU")
    variants: Any = find_model(MODEL).variants
    network = torch_network(torch, variants.graph(None))
    loader = torch.utils.data.DataLoader(
        _Files(files_of(folder)),
        batch_size=64,
        num_workers=n_cores(),
        pin_memory=True,
        persistent_workers=True,
    )
    for _ in range(2):
        started, n = time.perf_counter(), 0
        with torch.inference_mode():
            for batch in loader:
                n += len(network(batch.half().cuda(non_blocking=True)).float().cpu())
        seconds = time.perf_counter() - started
    return {"images_per_second": round(n / seconds, 1), "workers": n_cores(), "torch": torch.__version__}


def same_vectors(folder: Path, n: int = 100) -> dict[str, Any]:
    """Return how similar the GPU's vectors are to those of full decoding on the processor."""
    files = files_of(folder)[:n]
    options = {"decode": "full", "progress": False}
    gpu, cpu = (Embedder(MODEL, device=device, **options) for device in ("cuda", "cpu"))
    X, exact = (embedder.embed(files).vectors for embedder in (gpu, cpu))
    return {
        "smallest_cosine": round(float((X * exact).sum(1).min()), 6),
        "same_fingerprint": gpu.backend.spec.fingerprint == cpu.backend.spec.fingerprint,
        "images": len(files),
        "decoded_on_the_gpu": gpu_decode.decoder_for(gpu.backend, gpu._cache_dir) is not None,
    }


def require_gpu() -> None:
    if not has_nvidia_gpu():
        raise NotHereError("no NVIDIA GPU with its driver was found")
    if "cuda" not in offered_devices():
        raise NotHereError("this onnxruntime has no CUDA")


def require_gpu_decoding() -> None:
    require_gpu()
    if not gpu_decode.is_installed():
        raise NotHereError("nvImageCodec is not installed: pip install 'nearsight[cuda]'")


def require_nothing() -> None:
    return


def part(
    require: Callable[[], None], run: Callable[..., dict[str, Any]], folder: Path, **options: Any
) -> Callable[[], dict[str, Any]]:
    def measure() -> dict[str, Any]:
        require()
        return run(folder, **options)

    return measure


def parts(small: Path, large: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the name of each part, and what runs it."""
    for label, folder in (("640x480", small), ("12 Mpx", large)):
        yield f"limit: decode in processes, {label}", part(require_nothing, decode_limit, folder)
        yield f"host: all but the GPU, {label}", part(require_nothing, host_rate, folder)
        for mode in ("draft", "full"):
            measure = part(require_nothing, embed_rate, folder, decode=mode, device="cpu")
            yield f"cpu, {mode}: embed, {label}", measure
        for kind, run in (("embed", embed_rate), ("index", index_rate)):
            measure = part(require_gpu, run, folder, decode="draft", device="cuda")
            yield f"cuda, decoded on the cores: {kind}, {label}", measure
            measure = part(require_gpu_decoding, run, folder, decode="full", device="cuda")
            yield f"cuda, decoded on the GPU: {kind}, {label}", measure
        yield f"loader: torch, float16, {label}", part(require_gpu, loader_rate, folder)
        yield f"same vectors, {label}", part(require_gpu_decoding, same_vectors, folder)


def machine() -> dict[str, Any]:
    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": n_cores(),
        "cores_of_machine": os.cpu_count(),
        "gpu": has_nvidia_gpu(),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=8000, help="images of 640x480")
    parser.add_argument("--n-large", type=int, default=600, help="images of 12 megapixels")
    parser.add_argument("--only", default="", help="parts whose name contains this")
    parser.add_argument("--json", action="store_true", help="print the document only")
    options = parser.parse_args()
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="nearsight-gpu-") as name:
        small = make(Path(name) / "small", options.n, SMALL, 88)
        large = make(Path(name) / "large", options.n_large, LARGE, 75)
        sizes = {
            label: round(statistics.mean(path.stat().st_size for path in folder.iterdir()))
            for label, folder in (("640x480", small), ("12 Mpx", large))
        }
        for part, run in parts(small, large):
            if options.only not in part:
                continue
            try:
                measured[part] = run()
            except NotHereError as reason:
                measured[part] = {"not_run": str(reason)}
            except (NearsightError, RuntimeError, OSError, ImportError) as error:
                measured[part] = {"failed": f"{type(error).__name__}: {error}"}
            print(f"{part}: {json.dumps(measured[part])}", file=sys.stderr, flush=True)
    document = {
        "machine": machine(),
        "images": {"640x480": options.n, "12 Mpx": options.n_large, "mean_bytes": sizes},
        "goals_on_an_h100_with_16_cores": GOALS,
        "measured": measured,
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
