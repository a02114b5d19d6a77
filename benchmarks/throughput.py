"""Images per second from files to vectors and to a searchable collection, beside what the cores can do.

Each size of images has its own rows, all from one run on one machine:

*index*: `Collection.add`: reads, hashes, decodes, makes a thumbnail, embeds and writes. With threads only,
with worker processes, and as nearsight chooses. *embed*: `Embedder.stream`, without thumbnails, rows and the
start of workers.

*cores × one core*: reading, decoding and inference one after another on one thread, times the cores. No
schedule can pass that, except that one core is faster while the others rest.

*decode and resize*: Pillow as nearsight uses it, in a pool of as many processes as cores, without a network.
No pipeline that decodes on the processor can be faster than that.

*data loader*: what one would write with PyTorch: worker processes decode each JPEG in full with Pillow and
resize it, batches of 32 arrays come back, and the network runs in the parent on all cores. Where torch is
installed, its DataLoader does this, otherwise a pool of `multiprocessing` does; the network is the same ONNX
file in ONNX Runtime. *plain loop*: the same without workers.

A shared machine is faster in one minute than in the next, so all are measured by turns, and the median of the
rounds is told. Each ratio is the median of the rounds' ratios.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from joblib import cpu_count
from PIL import Image

from benchmarks.sample_images import make
from nearsight import Collection, Embedder, load_model
from nearsight.embedder.plan import Plan, choose_plan
from nearsight.images import decode, find
from nearsight.models.preprocess import Preprocessing
from nearsight.process_memory import free_bytes

SIZES = {"640x480": (640, 480), "12 Mpx": (4000, 3000)}
PEER_BATCH = 32


def read_plainly(file: Path) -> np.ndarray:
    """Decode one JPEG in full, as one would write first."""
    image = Image.open(file).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
    return ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)


class PlainNetwork:
    """The ONNX file in ONNX Runtime with its defaults: one image after another, or a batch, on all cores."""

    def __init__(self, onnx_file: Path) -> None:
        self.session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def rate(self, batches: Iterable[np.ndarray], n_images: int) -> float:
        started = time.perf_counter()
        n = sum(len(self.session.run(None, {self.name: batch})[0]) for batch in batches)
        if n != n_images:
            raise SystemExit(f"{n} of {n_images} images came back")
        return n / (time.perf_counter() - started)


def plain_batches(files: Sequence[Path], read: Callable[[Sequence[Path]], Iterable[np.ndarray]], size: int):
    images = iter(read(files))
    for at in range(0, len(files), size):
        yield np.stack([next(images) for _ in files[at : at + size]])


class LoaderDataset:
    """What torch's DataLoader asks for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_plainly(self.files[index])


class DataLoader:
    """Batches that worker processes have decoded: torch's where it is installed, else a pool."""

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self.has_torch = find_spec("torch") is not None
        self.pool = None if self.has_torch else multiprocessing.get_context("spawn").Pool(n_workers)

    def batches(self, files: Sequence[Path]) -> Iterator[np.ndarray]:
        if self.pool is not None:
            yield from plain_batches(files, partial(self.pool.imap, read_plainly), PEER_BATCH)
            return
        from torch.utils.data import DataLoader as TorchLoader

        loader = TorchLoader(LoaderDataset(files), batch_size=PEER_BATCH, num_workers=self.n_workers)
        for batch in loader:
            yield batch.numpy()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.terminate()


def index_rate(
    folder: Path, warm: Path, cache_dir: Path, n_processes: int | None, *, warm_processes: int = 0
) -> float:
    """Return the images/s of `Collection.add`, from files to rows on disk; the start of workers counts."""
    with tempfile.TemporaryDirectory() as directory:
        collection = Collection.create(Path(directory) / "c", cache_dir=cache_dir)
        collection.add(warm, progress=False, n_processes=warm_processes)
        report = collection.add(folder, progress=False, n_processes=n_processes)
    if report.failed or not report.embedded:
        raise SystemExit(f"{len(report.failed)} of {report.embedded} images failed")
    return report.embedded / report.seconds


def embed_rate(folder: Path, n_processes: int) -> float:
    """Return the images/s of `Embedder.stream` on its way: as much is ahead at the end as at the start."""
    embedder = Embedder(n_processes=n_processes)
    files = sorted(folder.iterdir())
    n_ahead = 2 * (embedder.n_threads + 1) * embedder.batch_size
    sources = find(islice(cycle(files), n_ahead + len(files) + n_ahead))
    started = 0.0
    for n, _ in enumerate(embedder.stream(sources), 1):
        if n == n_ahead:
            started = time.perf_counter()
        elif n == n_ahead + len(files):
            return len(files) / (time.perf_counter() - started)
    raise SystemExit("images are missing")


def parent_milliseconds(folder: Path, warm: Path, cache_dir: Path, n_processes: int) -> float:
    """Return the processor time that the parent of worker processes takes for an image that it indexes."""
    started = time.process_time()
    n_images = sum(1 for _ in find(warm)) + sum(1 for _ in find(folder))
    index_rate(folder, warm, cache_dir, n_processes, warm_processes=n_processes)
    return 1000 * (time.process_time() - started) / n_images


def decode_only(preparation: Preprocessing, file: Path) -> int:
    image = decode(file.read_bytes(), path=str(file), min_side_px=preparation.decode_px)
    return len(preparation.prepare(image.image))


def decode_rate(pool: ProcessPoolExecutor, preparation: Preprocessing, files: Sequence[Path]) -> float:
    """Return the images/s of decoding and resizing in processes, which have started."""
    started = time.perf_counter()
    n = sum(1 for _ in pool.map(decode_only, repeat(preparation), files, chunksize=4))
    return n / (time.perf_counter() - started)


class OneCore:
    """The images/s of one thread that decodes and then embeds."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.backend = load_model()
        self.rate()

    def rate(self) -> float:
        started = time.perf_counter()
        for file in self.files:
            image = decode(file.read_bytes(), path=str(file), min_side_px=self.backend.decode_px)
            self.backend.embed([self.backend.prepare(image.image)])
        return len(self.files) / (time.perf_counter() - started)


def measure(folder: Path, warm: Path, cache_dir: Path, onnx_file: Path, rounds: int) -> dict[str, Any]:
    """Return the median of each rate, and the ratios, for the images of one folder."""
    files = sorted(folder.iterdir())
    few = files[: max(16, len(files) // 8)]
    some = files[: max(32, len(files) // 3)]
    n_cores = cpu_count()
    one_core = OneCore(few)
    backend = one_core.backend
    plan = choose_plan(
        max(n_cores, 5),
        seconds_per_image=1 / one_core.rate(),
        busy_share=0.0,
        model_bytes=backend.spec.size_bytes or 0,
        memory_bytes=free_bytes(),
    )
    # Few cores would have no processes; one each shows what they cost.
    n_processes = plan.n_processes if n_cores > 4 else n_cores
    network = PlainNetwork(onnx_file)
    loader = DataLoader(n_cores)
    preparation = Preprocessing(backend.spec, backend.decode_px)
    measured = []
    with ProcessPoolExecutor(n_cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        decode_rate(pool, preparation, few)
        for _ in range(rounds):
            before = one_core.rate()
            rates = {
                "index": index_rate(folder, warm, cache_dir, None),
                "index, threads": index_rate(folder, warm, cache_dir, 0),
                "index, processes": index_rate(folder, warm, cache_dir, n_processes),
                "embed, threads": embed_rate(folder, 0),
                "embed, processes": embed_rate(folder, n_processes),
                "decode and resize": decode_rate(pool, preparation, files),
                "data loader": network.rate(loader.batches(some), len(some)),
                "plain loop": network.rate(plain_batches(few, partial(map, read_plainly), 8), len(few)),
            }
            rates["cores × one core"] = n_cores * (before + one_core.rate()) / 2
            measured.append(rates)
    loader.close()
    names = measured[0].keys()
    result: dict[str, Any] = {name: statistics.median(rates[name] for rates in measured) for name in names}
    for name in ("index", "embed, processes"):
        for other in ("cores × one core", "decode and resize", "data loader", "plain loop"):
            ratio = statistics.median(rates[name] / rates[other] for rates in measured)
            result[f"{name} / {other}"] = ratio
    result["parent of processes, ms an image"] = parent_milliseconds(folder, warm, cache_dir, n_processes)
    result["workers"] = str(Plan(n_processes, -(-n_cores // n_processes)))
    return result


def kept_images(directory: Path | None) -> AbstractContextManager[Any]:
    return nullcontext(directory) if directory is not None else tempfile.TemporaryDirectory()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", type=int, default=96, help="12-megapixel images")
    parser.add_argument("--small", type=int, default=3000, help="640x480 images")
    parser.add_argument("--rounds", type=int, default=5, help="repeats, of which the median is told")
    parser.add_argument("--size", choices=SIZES, action="append", help="measure only images of this size")
    parser.add_argument("--images", type=Path, help="folder in which the images are kept for the next time")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    n_images = {"640x480": options.small, "12 Mpx": options.large}
    columns: dict[str, dict[str, Any]] = {}
    with kept_images(options.images) as directory, tempfile.TemporaryDirectory() as cache:
        load_model(cache_dir=Path(cache))
        [onnx_file] = Path(cache).glob("models/*.onnx")
        warm = made(Path(directory) / "warm", 2 * 8 * cpu_count(), (600, 500))
        for name in options.size or SIZES:
            folder = made(Path(directory) / f"{name}-{n_images[name]}", n_images[name], SIZES[name])
            columns[name] = measure(folder, warm, Path(cache), onnx_file, options.rounds)
    rows = [
        {"images/s, or ratio": row, **{name: rounded(column[row]) for name, column in columns.items()}}
        for row in next(iter(columns.values()))
    ]
    loader = (
        "torch's DataLoader" if find_spec("torch") else "a pool of multiprocessing, since torch is missing"
    )
    result = {"cores": cpu_count(), "data loader": loader, "rounds": options.rounds, "rates": rows}
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    print(f"{cpu_count()} cores; the data loader is {loader}")
    for row in rows:
        title, *values = row.values()
        print(f"{title:32}" + "".join(f"{value:>28}" for value in values))


def made(folder: Path, n: int, size: tuple[int, int]) -> Path:
    """Return a folder of so many images, which may be there from the last time."""
    complete = folder.is_dir() and len(list(folder.iterdir())) == n
    return folder if complete else make(folder, n, size)


def rounded(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return round(value, 3) if value < 10 else round(value, 1)


if __name__ == "__main__":
    main()
