"""How many near-duplicates of a collection of photographs are right, by how well their pixels agree.

FOLDERS have photographs with no duplicates that anyone made. Whatever is found in them is false, or a
duplicate that was there already, which only a person can say. So the report counts the pairs (each image with
the one that it was verified against) by agreement, and --sheet writes a sample of each band side by side to
look at. Pairs that a person found to be one photograph are named in a text file (--same): two file names a
line, separated by a tab.

    python -m benchmarks.duplicates_tiers FOLDER... [--sheet FILE.png] [--same FILE] [--json]
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.duplicates import wilson
from nearsight import Collection

#: The lower edges of the bands of agreement.
_EDGES = (0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
# Size of a pair on the sheet, and pairs of a band.
_CELL_PX, _SHOWN = 150, 10


def pairs_of(folders: list[Path], keep: Path) -> tuple[int, list[tuple[float, bool, str, str]]]:
    """Return the number of images, and agreement, whether certain, and both paths of every pair."""
    if keep.exists():
        collection = Collection.open(keep)
    else:
        collection = Collection.create(keep)
        collection.add(folders)
    found = collection.find_duplicates(progress=None)
    path_of = {item.id: item.path for group in found.groups for item in group.items}
    pairs = [
        (agreement, group.certain, path_of[other], item.path)
        for group in found.groups
        for agreement, other, item in zip(
            group.agreements, group.verified_against, group.items[1:], strict=True
        )
    ]
    return found.n_images, sorted(pairs)


def band(agreement: float) -> int:
    return int(np.searchsorted(_EDGES, agreement, "right")) - 1


def report(
    n_images: int, pairs: list[tuple[float, bool, str, str]], same: set[frozenset[str]]
) -> dict[str, object]:
    def row(chosen: list[tuple[float, bool, str, str]]) -> dict[str, object]:
        right = sum(frozenset((Path(a).name, Path(b).name)) in same for _, _, a, b in chosen)
        return {"pairs": len(chosen), "right": right, "precision_95": wilson(right, len(chosen))}

    rows = {
        f"agreement {edge:.2f}": row([pair for pair in pairs if band(pair[0]) == at])
        for at, edge in enumerate(_EDGES)
    }
    for tier, is_certain in (("certain", True), ("review", False)):
        rows[tier] = row([pair for pair in pairs if pair[1] == is_certain])
    return {"images": n_images, **rows}


def sheet(pairs: list[tuple[float, bool, str, str]], seed: int) -> Image.Image:
    rng, cell = np.random.default_rng(seed), _CELL_PX
    image = Image.new("RGB", (2 * cell * _SHOWN + 60, cell * len(_EDGES)), "white")
    draw = ImageDraw.Draw(image)
    for at, edge in enumerate(_EDGES):
        draw.text((4, at * cell + 4), f"{edge:.2f}", fill="black")
        own = [pair for pair in pairs if band(pair[0]) == at]
        for column, number in enumerate(rng.permutation(len(own))[:_SHOWN].tolist()):
            for side, path in enumerate(own[number][2:]):
                shown = Image.open(path).convert("RGB")
                shown.thumbnail((cell - 4, cell - 4))
                image.paste(shown, (60 + (2 * column + side) * cell, at * cell))
    return image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--sheet", type=Path, help="write a sample of the pairs of each band, side by side")
    parser.add_argument("--list", type=Path, help="write agreement and both paths of every pair")
    parser.add_argument("--same", type=Path, help="pairs that are one photograph: two names a line")
    parser.add_argument("--collection", type=Path, help="keep the collection here, and use it again")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        n_images, pairs = pairs_of(options.folders, options.collection or Path(directory, "collection"))
    if options.sheet:
        sheet(pairs, options.seed).save(options.sheet)
    if options.list:
        options.list.write_text("".join(f"{a:.3f}\t{one}\t{other}\n" for a, _, one, other in pairs))
    same: set[frozenset[str]] = set()
    if options.same:
        same = {frozenset(line.split("\t")) for line in options.same.read_text().splitlines()}
    result = report(n_images, pairs, same)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, row in result.items():
        print(f"{name:16} {row}")


if __name__ == "__main__":
    main()
