"""Images per second from files to a searchable collection, beside a plain loop and beside the limit.

*12 megapixels*: a plain loop decodes each JPEG in full with Pillow, resizes, and runs the same ONNX file in
ONNX Runtime on all cores. It keeps its vectors in a list; nearsight also hashes each file, makes a thumbnail
and writes a collection.

*640 x 480*: the limit is n_cores / (decode seconds + inference seconds), each measured alone on one thread:
decoding is reading the file, decoding it and preprocessing it; inference is the network at its best batch
size.

A shared machine is faster in one minute than in the next, so the two sides of each ratio are measured by
turns, the limit both before and after nearsight, and the median of the rounds' ratios is told.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from joblib import cpu_count
from PIL import Image

from benchmarks.sample_images import make
from nearsight import Collection, load_model
from nearsight.images import decode


def plain_loop(files: Sequence[Path], onnx_file: Path, batch_size: int = 8) -> float:
    """Return the images/s of what one would write first."""
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def embed(batch: list[np.ndarray]) -> np.ndarray:
        return session.run(None, {name: np.stack(batch)})[0]

    def read(file: Path) -> np.ndarray:
        image = Image.open(file).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize(
            (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
        )
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32)
        return ((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1)

    embed([read(files[0])])
    started = time.perf_counter()
    vectors = [
        embed([read(file) for file in files[at : at + batch_size]]) for at in range(0, len(files), batch_size)
    ]
    seconds = time.perf_counter() - started
    return sum(map(len, vectors)) / seconds


def nearsight_rate(folder: Path, warm: Path) -> float:
    """Return the images/s of `Collection.add`, from files to rows on disk."""
    with tempfile.TemporaryDirectory() as directory:
        collection = Collection.create(Path(directory) / "c")
        collection.add(warm, progress=False)
        report = collection.add(folder, progress=False)
    if report.failed or not report.embedded:
        raise SystemExit(f"{len(report.failed)} of {report.embedded} images failed")
    return report.embedded / report.seconds


class Limit:
    """The images/s at which decoding and inference, each alone on one thread, would fill all cores."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.backend = load_model()
        self.prepared = [self.read(file) for file in files]
        self.batch_size = min((1, 2, 4, 8), key=lambda size: min(self.infer(size) for _ in range(3)))

    def read(self, file: Path) -> Any:
        image = decode(file.read_bytes(), path=str(file), min_side_px=self.backend.decode_px)
        return self.backend.prepare(image.image)

    def infer(self, size: int) -> float:
        """Return the seconds that the network takes for all images."""
        started = time.perf_counter()
        for at in range(0, len(self.prepared), size):
            self.backend.embed(self.prepared[at : at + size])
        return time.perf_counter() - started

    def rate(self) -> float:
        started = time.perf_counter()
        for file in self.files:
            self.read(file)
        decoding = time.perf_counter() - started
        return cpu_count() * len(self.files) / (decoding + self.infer(self.batch_size))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", type=int, default=96, help="12-megapixel images")
    parser.add_argument("--small", type=int, default=3000, help="640x480 images")
    parser.add_argument("--rounds", type=int, default=5, help="repeats, of which the median is told")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="tell each round as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        large = make(root / "large", options.large, (4000, 3000))
        small = make(root / "small", options.small, (640, 480))
        warm = make(root / "warm", 2 * cpu_count(), (600, 500))
        load_model(cache_dir=root)
        [onnx_file] = root.glob("models/*.onnx")
        large_files = sorted(large.iterdir())[: max(16, options.large // 4)]
        limit = Limit(sorted(small.iterdir())[:256])
        rounds = []
        for _ in range(options.rounds):
            plain = plain_loop(large_files, onnx_file)
            ours_large = nearsight_rate(large, warm)
            before = limit.rate()
            ours_small = nearsight_rate(small, warm)
            ceiling = (before + limit.rate()) / 2
            rounds.append((plain, ours_large, ours_large / plain, ceiling, ours_small, ours_small / ceiling))
    names = (
        "plain_12mp",
        "nearsight_12mp",
        "ratio_12mp",
        "limit_640x480",
        "nearsight_640x480",
        "ratio_640x480",
    )
    medians = map(statistics.median, zip(*rounds, strict=True))
    result = {name: round(value, 3) for name, value in zip(names, medians, strict=True)}
    result["cores"] = cpu_count()
    if options.json:
        print(json.dumps(result))
        return
    line = "{:14} {:10} {:7.1f}/s   nearsight {:7.1f}/s   {:.2f} x"
    print(line.format("12 Mpx JPEG", "plain loop", *list(result.values())[:3]))
    print(line.format("640x480 JPEG", "limit", *list(result.values())[3:6]))
    if options.verbose:
        for values in rounds:
            print("  " + "  ".join(f"{value:.3f}" for value in values))


if __name__ == "__main__":
    main()
