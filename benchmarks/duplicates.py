"""Copies found among images that are merely alike, beside imagehash and a cut-off on the cosine.

FOLDER has photographs. Of some, chosen at random, eleven edits are made: JPEG at quality 30, half the size,
10 % of width and height cropped off, turned by 3 to 8 degrees, mirrored, colors shifted, a watermark over the
whole width, turned by a quarter or a half, that mirrored, turned or mirrored by the EXIF orientation alone,
and scanned again (a slight turn, gray, noise, other brightness and contrast, 50 to 90 % of the size, JPEG at
quality 40 to 80). All images, edited or not, are then searched for copies, by each method in the same
run:

- nearsight: `Collection.find_duplicates`, at its own threshold, of this only what is certain, and at a stated
  rate of false alarms;
- imagehash: `phash` of 64 bits, at most 10 bits apart (the cut-off that imagededup uses for it);
- cosine: imagededup's CNN rule, a cosine of at least 0.9, on nearsight's default vectors. Its own network
  needs torchvision and weights from a hub, and is not run.

For the last two, the cut-off that gives the best F1 on this very truth is told as well. Recall is over
(original, edit) pairs, precision over all pairs that a method declares; both with 95 % intervals (Wilson).
`alarmed` is the share of the images without any copy that were given one. FOLDER's own copies count as
wrong for all.

    pip install imagehash
    python -m benchmarks.duplicates FOLDER
    python -m benchmarks.duplicates FOLDER --other-edits    five that its hash was not made for
    python -m benchmarks.duplicates FOLDER --rows 100000    only time and memory, for so many rows
    python -m benchmarks.duplicates FOLDER --rows 100000 --least -1     the same at its worst
    python -m benchmarks.duplicates FOLDER --rows 1000000 --stage neighbors     neighbors of 512 numbers only
    python -m benchmarks.duplicates FOLDER --rows 1000000 --side 96 --storage float16

With --rows, a collection is filled with made rows and searched for copies: vectors are mixtures of two of
FOLDER's, thumbnails are pieces of the same two side by side, and one in ten is a near copy of another row.
On two cores, 100,000 rows take some minutes, two or three of them to make the rows, and 4 GB on the disk. The
neighbors of a million take some 15 minutes and 6 GB of memory; all of the last command an hour or more, 18 GB
on the disk and 10 GB of memory. TMPDIR names the folder of the rows and of temporary arrays.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path
from zlib import crc32

import numpy as np
from joblib import cpu_count
from PIL import Image, ImageDraw, ImageFont

from benchmarks import neighbors
from benchmarks.process_cost import ProcessCost
from nearsight import Collection
from nearsight.analyses.duplicate_groups import DuplicateGroup, Duplicates
from nearsight.collection.arrays import read_vectors
from nearsight.collection.schema import table
from nearsight.parallel import ordered_map
from nearsight.verification import dense

# Fields of noise that made rows share, each shifted.
_N_NOISES = 32
IMAGES = {".jpg", ".jpeg", ".png", ".pgm"}

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]
Pairs = set[tuple[int, int]]


def crop(image: Image.Image, rng: np.random.Generator, left: float = 0.9) -> Image.Image:
    width, height = round(image.width * left), round(image.height * left)
    x, y = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    return image.crop((x, y, x + width, y + height))


def turn(image: Image.Image, rng: np.random.Generator, least: float = 3, most: float = 8) -> Image.Image:
    degrees = float(rng.choice([-1, 1]) * rng.uniform(least, most))
    return image.rotate(degrees, Image.Resampling.BICUBIC)


def straighten(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn, and crop what the turn left black."""
    degrees = float(rng.choice([-1, 1]) * rng.uniform(2, 10))
    angle = np.deg2rad(abs(degrees))
    share = (1 - 1 / (np.cos(angle) + np.sin(angle))) / 2
    x, y = round(image.width * share), round(image.height * share)
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    return turned.crop((x, y, image.width - x, image.height - y))


def recolor(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float32) * rng.uniform(0.8, 1.25, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def mark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw, font = ImageDraw.Draw(layer), ImageFont.load_default(size=image.width // 9)
    for line in range(3):
        place = (image.width * 0.05, image.height * (0.1 + 0.3 * line))
        draw.text(place, "© EXAMPLE 2026", font=font, fill=(255, 255, 255, 140))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def quarter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    turns = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
    return image.transpose(turns[rng.integers(3)])


def mirrored_quarter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    turns = (Image.Transpose.TRANSPOSE, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSVERSE)
    return image.transpose(turns[rng.integers(3)])


def orient(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn or mirror by the EXIF orientation alone."""
    oriented = image.copy()
    oriented.getexif()[0x0112] = int(rng.integers(2, 9))
    return oriented


def rescan(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    ground = int(np.median(np.asarray(image.convert("L"))))
    turned = image.convert("L").rotate(rng.uniform(-2, 2), Image.Resampling.BICUBIC, fillcolor=ground)
    share = rng.uniform(0.5, 0.9)
    size = round(image.width * share), round(image.height * share)
    pixels = np.asarray(turned.resize(size, Image.Resampling.LANCZOS), np.float32)
    pixels = 255 * (pixels / 255) ** rng.uniform(0.8, 1.25) * rng.uniform(0.82, 1) + rng.uniform(0, 20)
    pixels += rng.normal(size=pixels.shape) * rng.uniform(2, 8)
    file = io.BytesIO()
    scanned = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    scanned.save(file, "JPEG", quality=int(rng.integers(40, 81)))
    return Image.open(file)


EDITS: dict[str, Edit] = {
    "jpeg30": lambda image, rng: image,
    "half": lambda image, rng: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "crop": crop,
    "turn": turn,
    "mirror": lambda image, rng: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "color": recolor,
    "watermark": mark,
    "quarter": quarter,
    "flip+quart": mirrored_quarter,
    "exif": orient,
    "rescan": rescan,
}

OTHER_EDITS: dict[str, Edit] = {
    "crop 13 %": partial(crop, left=0.87),
    "crop 18 %": partial(crop, left=0.82),
    "straighten": straighten,
    "turn 9-12": partial(turn, least=9, most=12),
    "flip+crop": lambda image, rng: crop(EDITS["mirror"](image, rng), rng, left=0.92),
}


def make(source: Path, target: Path, n_edited: int, seed: int, edits: Mapping[str, Edit] = EDITS) -> None:
    """Write every image as N_original.jpg, and the edits of some as N_edit.jpg."""
    rng = np.random.default_rng(seed)
    paths = sorted(path for path in source.rglob("*") if path.suffix in IMAGES)
    chosen = set(rng.choice(len(paths), min(n_edited, len(paths)), replace=False).tolist())
    for number, path in enumerate(paths):
        (target / f"{number:05}_original{path.suffix}").write_bytes(path.read_bytes())
        if number in chosen:
            image = Image.open(path).convert("RGB")
            for name, edit in edits.items():
                quality = 30 if name == "jpeg30" else 90
                # A new edit leaves the draws of the others as they were.
                edited = edit(image, np.random.default_rng([seed, number, crc32(name.encode())]))
                edited.save(target / f"{number:05}_{name}.jpg", quality=quality, exif=edited.getexif())


class Truth:
    """Which images are one, from their names."""

    def __init__(self, paths: list[str], edits: Iterable[str] = EDITS) -> None:
        names = [Path(path).stem.split("_") for path in paths]
        self.number = np.array([int(number) for number, _ in names])
        self.edit = np.array([edit for _, edit in names])
        originals = {n: row for row, n in enumerate(self.number.tolist()) if self.edit[row] == "original"}
        self.wanted = {
            edit: [
                tuple(sorted((originals[int(self.number[row])], int(row))))
                for row in np.flatnonzero(self.edit == edit)
            ]
            for edit in edits
        }
        edited = set(self.number[self.edit != "original"].tolist())
        self.alone = [row for row, number in enumerate(self.number.tolist()) if number not in edited]

    def judge(self, pairs: Pairs) -> dict[str, object]:
        found = {edit: sum(pair in pairs for pair in wanted) for edit, wanted in self.wanted.items()}
        n_wanted = sum(map(len, self.wanted.values()))
        right = sum(self.number[i] == self.number[j] for i, j in pairs)
        precision, recall = right / max(1, len(pairs)), sum(found.values()) / n_wanted
        in_pairs = {row for pair in pairs for row in pair}
        return {
            "precision": precision,
            "precision_95": wilson(int(right), len(pairs)),
            "recall": recall,
            "recall_95": wilson(sum(found.values()), n_wanted),
            "f1": 2 * precision * recall / max(1e-9, precision + recall),
            "recall_of": {edit: n / len(self.wanted[edit]) for edit, n in found.items()},
            "alarmed": sum(row in in_pairs for row in self.alone) / len(self.alone),
            "n_pairs": len(pairs),
        }


def wilson(k: int, n: int) -> list[float]:
    if n == 0:
        return [0.0, 1.0]
    z, p = 1.96, k / n
    center, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return [(center - half) / (1 + z * z / n), (center + half) / (1 + z * z / n)]


def ours(collection: Collection, rate: float | None) -> tuple[Duplicates, float]:
    started = time.perf_counter()
    found = collection.find_duplicates(false_alarm_rate=rate, progress=None)
    return found, time.perf_counter() - started


def pairs_in(groups: Iterable[DuplicateGroup], row_of: Mapping[str, int]) -> Pairs:
    return {
        tuple(sorted(pair))
        for group in groups
        for pair in combinations([row_of[item.id] for item in group.items], 2)
    }


def certain_pairs(groups: Iterable[DuplicateGroup], row_of: Mapping[str, int]) -> Pairs:
    """Return the kept image of each group with each that can go without a look."""
    return {
        tuple(sorted((row_of[group.keep.id], row_of[item.id])))
        for group in groups
        for item, doubt in zip(group.items[1:], group.doubts, strict=True)
        if not doubt
    }


def hashes(paths: list[str]) -> np.ndarray:
    import imagehash

    return np.stack([imagehash.phash(Image.open(path)).hash.ravel() for path in paths])


def above(similarity: np.ndarray, cut: float) -> Pairs:
    i, j = np.nonzero(np.triu(similarity >= cut, 1))
    return set(zip(i.tolist(), j.tolist(), strict=True))


def best_of(truth: Truth, similarity: np.ndarray, cuts: Iterator[float]) -> tuple[float, dict[str, object]]:
    judged = [(cut, truth.judge(above(similarity, cut))) for cut in cuts]
    return max(judged, key=lambda pair: float(pair[1]["f1"]))  # type: ignore[arg-type]  # f1 is one


def compare(options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory, "images")
        folder.mkdir()
        edits = OTHER_EDITS if options.other_edits else EDITS
        make(options.folder, folder, options.edited, options.seed, edits)
        collection = Collection.create(Path(directory, "collection"))
        collection.add(folder)
        rows = read_vectors(collection, columns=["path"])
        paths = rows.columns["path"]
        truth, row_of = Truth(paths, edits), {id: row for row, id in enumerate(rows.ids)}
        result: dict[str, object] = {"images": len(paths), "edited": options.edited}
        for name, rate in (("nearsight", None), *((f"nearsight, rate {r:g}", r) for r in options.rates)):
            found, seconds = ours(collection, rate)
            judged = truth.judge(pairs_in(found.groups, row_of))
            result[name] = {"cut": found.threshold, "seconds": seconds, **judged}
            if rate is None:
                judged = truth.judge(certain_pairs(found.groups, row_of))
                result[f"{name}, certain"] = {"cut": dense.REVIEW_AGREEMENT, **judged}
        started = time.perf_counter()
        bits = hashes(paths).astype(np.float32) * 2 - 1
        same_bits = (bits @ bits.T + 64) / 2
        seconds = time.perf_counter() - started
        result["imagehash"] = {"cut": 10, "seconds": seconds, **truth.judge(above(same_bits, 54))}
        cut, judged = best_of(truth, same_bits, iter(range(40, 65, 2)))
        result["imagehash, best cut"] = {"cut": 64 - cut, **judged}
        cosine = rows.X @ rows.X.T
        result["cosine"] = {"cut": 0.9, **truth.judge(above(cosine, 0.9))}
        cut, judged = best_of(truth, cosine, iter(np.arange(0.8, 1, 0.01).tolist()))
        result["cosine, best cut"] = {"cut": round(cut, 3), **judged}
        return result


def scale(options: argparse.Namespace) -> dict[str, object]:
    """Time a search for copies in a collection of so many rows, made from few photographs."""
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as directory:
        collection = Collection.create(Path(directory, "collection"), storage=options.storage)
        collection.add(options.folder)
        started = time.perf_counter()
        wanted = fill(collection, options.rows - len(collection), rng, options.side)
        fill_seconds = time.perf_counter() - started
        with ProcessCost() as cost:
            found = collection.find_duplicates(n_threads=options.threads, min_similarity=options.least)
        group_of = {item.id: at for at, group in enumerate(found.groups) for item in group.items}
        together = [group_of.get(one, -1) == group_of.get(other, -2) for one, other in wanted]
        return {
            "rows": len(collection),
            "dim": collection.info()["dim"],
            "threads": options.threads,
            "min_similarity": options.least,
            "fill_seconds": fill_seconds,
            "groups": len(found.groups),
            "copies": len(wanted),
            "copies_found": float(np.mean(together)),
            **cost.figures,
        }


def fill(collection: Collection, n: int, rng: np.random.Generator, side: int = 192) -> list[tuple[str, str]]:
    """Add n rows, one in ten a near copy of another; return the ids of copies and what they are copies of."""
    store = collection._store  # made rows have no file that could be added
    rows = [row for batch in store.scan(store.schema.names) for row in batch.to_pylist()]
    X = np.array([row["vector"] for row in rows], np.float32)
    looks = [np.asarray(Image.open(io.BytesIO(row["thumbnail"])).convert("RGB")) for row in rows]
    n_copies = n // 10
    sources, others = rng.integers(len(X), size=(2, n - n_copies))
    weights = rng.uniform(0.3, 0.7, n - n_copies).astype(np.float32)
    copied = rng.choice(n - n_copies, n_copies, replace=False)
    noises = rng.integers(-12, 13, (_N_NOISES, side, side, 3), np.int16)

    def vector(number: int) -> np.ndarray:
        """Return a mixture of two photographs' vectors."""
        mixed = weights[number] * X[sources[number]] + (1 - weights[number]) * X[others[number]]
        return noisy(mixed, 0.6, np.random.default_rng(number))

    def made(number: int) -> dict[str, object]:
        of = number if number < n - n_copies else int(copied[number - n + n_copies])
        row = rows[sources[of]]
        # Each row a photograph of its own: a piece of either, and other noise.
        scene, noise = np.random.default_rng(of), np.random.default_rng(n + number)
        look = np.hstack([piece(looks[one], scene, side) for one in (sources[of], others[of])])
        own_noise = np.roll(noises[noise.integers(_N_NOISES)], noise.integers(side), axis=0)
        look = np.clip(look + own_noise, 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(look).save(file, "JPEG", quality=85)
        own = vector(of) if of == number else noisy(vector(of), 0.3, noise)
        key = f"{number:032x}"
        return (
            row
            | {"id": key, "path": key, "paths": [key], "keys": [key], "vector": own}
            | {"stamps": [0], "thumbnail": file.getvalue()}
        )

    for at in range(0, n, 4096):
        some = list(ordered_map(made, range(at, min(at + 4096, n)), n_threads=cpu_count()))
        store.append(table(some, store.schema))
    return [(f"{n - n_copies + at:032x}", f"{row:032x}") for at, row in enumerate(copied.tolist())]


def piece(look: np.ndarray, rng: np.random.Generator, side: int) -> np.ndarray:
    """Return a quarter to a half of an image, `side` pixels high and half as wide."""
    height, width = (round(size * rng.uniform(0.5, 0.7)) for size in look.shape[:2])
    y, x = rng.integers(look.shape[0] - height + 1), rng.integers(look.shape[1] - width + 1)
    image = Image.fromarray(look[y : y + height, x : x + width])
    return np.asarray(image.resize((side // 2, side)), np.int16)


def noisy(vector: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    vector = vector + rng.standard_normal(len(vector), np.float32) * np.float32(noise / len(vector) ** 0.5)
    return vector / np.linalg.norm(vector)


def show(result: dict[str, object]) -> None:
    edits = list(result["nearsight"]["recall_of"])  # type: ignore[index]  # it is a row
    print(f"{result['images']} images, {result['edited']} of them in {1 + len(edits)} versions")
    print(f"{'':22} {'cut':>6} precision  recall  {'  '.join(f'{edit:>10}' for edit in edits)}  alarmed")
    for name, row in result.items():
        if isinstance(row, dict):
            each = "  ".join(f"{row['recall_of'][edit]:10.3f}" for edit in edits)
            print(
                f"{name:22} {row['cut']:6.3g} {row['precision']:9.3f} {row['recall']:7.3f}  {each}"
                f"  {row['alarmed']:7.4f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--edited", type=int, default=200, help="photographs that are edited")
    parser.add_argument("--other-edits", action="store_true", help="edits that nothing was made for")
    parser.add_argument("--rates", type=float, nargs="*", default=[0.01, 0.05], help="of false alarms")
    parser.add_argument("--rows", type=int, help="measure time and memory instead, for so many rows")
    parser.add_argument(
        "--stage", choices=["all", "neighbors"], default="all",
        help="with --rows: the neighbors by vector only, see benchmarks/neighbors.py",
    )  # fmt: skip
    parser.add_argument("--side", type=int, default=192, help="with --rows: pixels of a thumbnail's side")
    parser.add_argument("--storage", choices=["float32", "float16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--least", type=float, default=0.7, help="with --rows: cosine of candidates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    if options.rows and options.stage == "neighbors":
        options.dim, options.k, options.noise = 512, 10, neighbors.NOISE
        options.exact = options.peers = options.graph = False
        result = neighbors.run(options)
        if not options.json:
            neighbors.show(result)
    elif options.rows:
        result = scale(options)
        if not options.json:
            for name, value in result.items():
                print(f"{name:>22}  {value:,.4g}" if isinstance(value, float) else f"{name:>22}  {value:,}")
    else:
        result = compare(options)
        if not options.json:
            show(result)
    if options.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
