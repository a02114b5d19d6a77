"""SIFT and VLAD beside a network: the same image again, and the same kind of thing.

    python -m benchmarks.baseline [FOLDER] [--images N] [--json]

Near-duplicates: each image is the answer to edits of itself (cropped, turned, scaled, compressed,
mirrored), among all images. Kinds: with class sub-folders, the nearest other image should be of the
same class. Both as recall@1. Three models: the default network, VLAD with the vocabulary that comes along,
and VLAD with one learned on the folder itself, or on another (--learn); then the same with
the first ten verified geometrically. "Mean" is over the edits.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks.sample_images import make
from nearsight.embedder import Embedder
from nearsight.errors import ImageFailure
from nearsight.images import find
from nearsight.models import Backend, load_model
from nearsight.models.sift_vlad.model import fit_sift_vlad
from nearsight.verification.keypoints import geometric_rerank, local_features
from nearsight.verification.sift import Keypoints


def crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 5, height // 10, width * 9 // 10, height * 4 // 5))


def turn(image: Image.Image) -> Image.Image:
    return image.rotate(20, Image.Resampling.BICUBIC, expand=True, fillcolor=(255, 255, 255))


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "crop 49 %": crop,
    "turn 20°": turn,
    "turn 90°": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "scale 0.4": lambda image: image.resize(
        (max(1, image.width * 2 // 5), max(1, image.height * 2 // 5)), Image.Resampling.LANCZOS
    ),
    "jpeg q30": lambda image: image,
    "mirror": ImageOps.mirror,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="images, in class sub-folders if there are any")
    parser.add_argument("--images", type=int, default=60, help="how many are edited, evenly spaced")
    parser.add_argument("--top", type=int, default=10, help="how many are verified")
    parser.add_argument("--learn", type=Path, help="learn the vocabulary from these images instead")
    parser.add_argument("--words", type=int, nargs="*", default=[64], help="sizes of the learned vocabulary")
    parser.add_argument(
        "--dim", type=int, help="whiten the learned vocabulary's vectors to this many numbers"
    )
    parser.add_argument("--size-px", type=int, default=640)
    parser.add_argument("--max-features", type=int, default=800)
    parser.add_argument("--power", type=float, default=0.5)
    parser.add_argument("--no-intra", action="store_true", help="do not intra-normalize")
    parser.add_argument("--no-rerank", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = options.folder or make(Path(directory) / "images", options.images, (640, 480))
        rows = run(options, folder, Path(directory))
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)


def run(options: argparse.Namespace, folder: Path, directory: Path) -> list[dict[str, Any]]:
    paths = [Path(found.path) for found in find(folder) if not isinstance(found, ImageFailure)]
    edited = paths[:: max(1, len(paths) // options.images)][: options.images]
    queries = {name: write(edited, edit, directory / name) for name, edit in EDITS.items()}
    answers = [paths.index(path) for path in edited]
    rerank = None if options.no_rerank else Rerank(paths, options)
    rows = []
    for name, model in models(options, folder).items():
        started = time.perf_counter()
        index = embed(model, paths)
        seconds = time.perf_counter() - started
        found = {edit: embed(model, files) @ index.T for edit, files in queries.items()}
        row: dict[str, Any] = {
            "model": name,
            "dim": model.spec.dim,
            "ms an image": 1e3 * seconds / len(paths),
        }
        rows.append(row | scores({e: s.argmax(axis=1) for e, s in found.items()}, answers, index, paths))
        if rerank:
            best = {edit: rerank.best(queries[edit], s) for edit, s in found.items()}
            others = index @ index.T - 2 * np.eye(len(index))
            nearest = rerank.best(paths, others) if n_classes(paths) > 1 else None
            rows.append({"model": f"{name}, verified"} | scores(best, answers, index, paths, nearest))
    return rows


def models(options: argparse.Namespace, folder: Path) -> dict[str, Backend]:
    found: dict[str, Backend] = {"network": load_model(), "vlad": load_model("sift-vlad")}
    for n_words in options.words:
        found[f"vlad {n_words} words, learned"] = fit_sift_vlad(
            options.learn or folder,
            n_words=n_words,
            dim=options.dim,
            size_px=options.size_px,
            max_features=options.max_features,
            power=options.power,
            intra_normalize=not options.no_intra,
        )
    return found


def write(paths: list[Path], edit: Callable[[Image.Image], Image.Image], folder: Path) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{number:06}.jpg" for number in range(len(paths))]
    for path, file in zip(paths, files, strict=True):
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        edit(upright).save(file, quality=30 if folder.name == "jpeg q30" else 85)
    return files


def embed(model: Backend, paths: list[Path]) -> np.ndarray:
    result = Embedder(model).embed(paths)
    vectors = np.zeros((len(paths), model.spec.dim), np.float32)
    # An image without keypoints finds nothing and is found by nothing.
    vectors[result.positions] = result.vectors
    return vectors


def scores(
    best: dict[str, np.ndarray],
    answers: list[int],
    index: np.ndarray,
    paths: list[Path],
    nearest: np.ndarray | None = None,
) -> dict[str, float]:
    row = {edit: float(np.mean(np.asarray(found) == answers)) for edit, found in best.items()}
    row["mean"] = float(np.mean(list(row.values())))
    if n_classes(paths) > 1:
        if nearest is None:
            nearest = (index @ index.T - 2 * np.eye(len(index))).argmax(axis=1)
        labels = np.array([path.parent.name for path in paths])
        row["kind"] = float(np.mean(labels[nearest] == labels))
    return row


def n_classes(paths: list[Path]) -> int:
    return len({path.parent for path in paths})


class Rerank:
    """The first few of each search, put in order by their verified details."""

    def __init__(self, paths: list[Path], options: argparse.Namespace) -> None:
        self._paths = paths
        self._top = options.top
        self._known: dict[Path, Keypoints] = {}

    def best(self, queries: list[Path], similarities: np.ndarray) -> np.ndarray:
        first = np.argsort(-similarities, axis=1, kind="stable")[:, : self._top]
        return np.array([self._first(query, row) for query, row in zip(queries, first, strict=True)])

    def _first(self, query: Path, row: np.ndarray) -> int:
        candidates = [self._features(self._paths[i]) for i in row]
        return int(row[geometric_rerank(query, candidates, mirror=True)[0].position])

    def _features(self, path: Path) -> Keypoints:
        if path not in self._known:
            self._known[path] = local_features(path)
        return self._known[path]


def show(rows: list[dict[str, Any]]) -> None:
    names = [name for name in rows[0] if name != "model"]
    width = max(len(row["model"]) for row in rows)
    print(f"{'recall@1':<{width}}  " + "  ".join(f"{name:>12}" for name in names))
    for row in rows:
        cells = [
            f"{row[n]:>12.3f}" if isinstance(row.get(n), float) else f"{row.get(n, ''):>12}" for n in names
        ]
        print(f"{row['model']:<{width}}  " + "  ".join(cells))


if __name__ == "__main__":
    main()
