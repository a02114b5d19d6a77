"""Vectors with labels, for benchmarks of clusters: from a folder, or from well-known sets."""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from nearsight import Embedder
from nearsight.estimators.neighbors import unit_length

N_IMAGES = 6000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, help="images, each in a folder of its class's name")
    parser.add_argument(
        "--fashion", type=Path, help="Fashion-MNIST: the folder with t10k-images-idx3-ubyte.gz"
    )
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits, by their 64 pixels")
    parser.add_argument("--vectors", type=Path, help="a .npz file with X and y, of images embedded before")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--json", action="store_true")


def is_given(options: argparse.Namespace) -> bool:
    return bool(options.folder or options.fashion or options.digits or options.vectors)


def load(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, d) vectors of unit length, and the number of each one's class."""
    if options.vectors:
        with np.load(options.vectors) as arrays:
            X, y = arrays["X"], arrays["y"]
    elif options.digits:
        X, y = load_digits(return_X_y=True)
        X = X - X.mean(0)
    elif options.fashion:
        X, y = fashion_vectors(options.fashion, options.model)
    else:
        found = Embedder(options.model).embed(options.folder)
        X, y = found.vectors, [Path(path).parent.name for path in found.paths]
    return unit_length(np.asarray(X, np.float32)), np.unique(y, return_inverse=True)[1]


def fashion_vectors(
    folder: Path, model: str, *, per_class: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors and classes of Fashion-MNIST's test part: the first 6,000, or so many of each class."""
    pixels, y = fashion_images(folder)
    rows = np.arange(N_IMAGES)
    if per_class is not None:
        rows = np.concatenate([np.flatnonzero(y == c)[:per_class] for c in np.unique(y)])
    found = Embedder(model).embed([Image.fromarray(pixels[row]).convert("RGB") for row in rows])
    return found.vectors, y[rows]


def fashion_images(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the (10000, 28, 28) images of Fashion-MNIST's test part, and their classes."""

    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(folder / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    pixels = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return pixels, read("t10k-labels-idx1-ubyte.gz", 8).astype(int)


def half_interval(values: np.ndarray) -> float:
    """Return half of the 95 % interval of a mean over draws."""
    return float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5)


def show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"methods": rows}, indent=2))
        return
    names = list(dict.fromkeys(name for row in rows for name in row if name != "method"))
    width = max(len(row["method"]) for row in rows)
    print(" " * width + "  " + "  ".join(f"{name:>11}" for name in names))
    for row in rows:
        cells = [row.get(name, "") for name in names]
        text = [f"{c:>11.3f}" if isinstance(c, float) else f"{c:>11}" for c in cells]
        print(f"{row['method']:<{width}}  " + "  ".join(text))
