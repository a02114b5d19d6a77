"""Searches with several parts beside searches with one of them, in one run.

FOLDER has a folder of images for each class, at any depth; an image's class is the truth. A class is searched
for by its folder's name, or by the phrase that ``--name FOLDER=PHRASE`` gives.

*Several images*: precision@10 of 1, 3 and 5 random images of a class, without the query images themselves.
*Image and text*: precision@10 of a random image of a class, of the class's name, and of both together.
*Not*: for each class and each other class that fills at least a tenth of its first 20 matches by text: the
share of the wanted and of the unwanted class among the first 20, without and with ``not_text``.
*Not an image*: for random images of a class, the share of their class among the first 20 matches, without and
with their first wrong match (and their first three) in ``not_id``. Half A has weights to choose from, half B
the one that was chosen; each image is in one half.

Standard errors are over queries.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nearsight import Collection
from nearsight.collection import search

N_DRAWS = 20
N_SHOWN, MIN_SHARE = 20, 0.1


class Truth:
    """The class of each image, and searches scored by it."""

    def __init__(self, collection: Collection, phrases: dict[str, str], min_images: int) -> None:
        self.collection = collection
        folders = {item.id: Path(item.path).parent.name for item in collection.items()}
        sizes = Counter(folders.values())
        self.classes = sorted(name for name, n in sizes.items() if n >= min_images)
        self.phrase = {name: phrases.get(name, name) for name in self.classes}
        self.ids = {name: [id for id, own in folders.items() if own == name] for name in self.classes}
        self.folders = folders

    def shares(self, k: int, **query: object) -> Counter[str]:
        """Return the share of each class among the first k matches."""
        matches = self.collection.search(k=k, exact=True, **query)
        counts = Counter(self.folders[match.id] for match in matches)
        return Counter({name: n / len(matches) for name, n in counts.items()})

    def share(self, wanted: str, k: int, **query: object) -> float:
        return self.shares(k, **query)[wanted]


def mean_and_error(values: Iterable[float]) -> list[float]:
    array = np.fromiter(values, float)
    return [round(float(array.mean()), 4), round(float(array.std(ddof=1) / np.sqrt(len(array))), 4)]


def several_images(truth: Truth, rng: np.random.Generator) -> dict[str, list[float]]:
    draws = [(name, rng.permutation(truth.ids[name])[:5]) for name in truth.classes for _ in range(N_DRAWS)]
    return {
        f"{n} images": mean_and_error(truth.share(name, 10, id=list(ids[:n])) for name, ids in draws)
        for n in (1, 3, 5)
    }


def image_and_text(truth: Truth, rng: np.random.Generator) -> dict[str, list[float]]:
    draws = [(name, str(rng.choice(truth.ids[name]))) for name in truth.classes for _ in range(N_DRAWS)]
    return {
        "image": mean_and_error(truth.share(name, 10, id=id) for name, id in draws),
        "text": mean_and_error(truth.share(name, 10, text=truth.phrase[name]) for name in truth.classes),
        "image and text": mean_and_error(
            truth.share(name, 10, id=id, text=truth.phrase[name]) for name, id in draws
        ),
    }


def unwanted_images(truth: Truth, rng: np.random.Generator) -> dict[str, object]:
    halves: dict[str, list[tuple[str, str]]] = {"A": [], "B": []}
    for name in truth.classes:
        for number, id in enumerate(rng.permutation(truth.ids[name])[: 2 * N_DRAWS]):
            halves["AB"[number % 2]].append((name, str(id)))
    chosen = search._UNWANTED_WEIGHT
    result: dict[str, object] = {}
    for half, weights in (("A", (0.1, 0.25, 0.5, 0.75)), ("B", (chosen,))):
        for weight in weights:
            search._UNWANTED_WEIGHT = weight
            for n in (1, 3):
                label = f"half {half}, {n} unwanted, weight {weight}:"
                result |= {f"{label} {key}": v for key, v in _with_unwanted(truth, halves[half], n).items()}
    search._UNWANTED_WEIGHT = chosen
    return result


def _with_unwanted(truth: Truth, draws: list[tuple[str, str]], n: int) -> dict[str, object]:
    before, after = [], []
    for name, id in draws:
        matches = truth.collection.search(id=id, k=N_SHOWN, exact=True)
        wrong = [match.id for match in matches if truth.folders[match.id] != name][:n]
        if len(wrong) == n:
            # The unwanted images are gone from the matches; without them, they count for neither side.
            rest = truth.collection.search(id=id, k=N_SHOWN + n, exact=True)
            kept = [truth.folders[match.id] == name for match in rest if match.id not in wrong]
            before.append(float(np.mean(kept[:N_SHOWN])))
            after.append(truth.share(name, N_SHOWN, id=id, not_id=wrong))
    gains = [b - a for a, b in zip(before, after, strict=True)]
    shares = {"without": before, "with": after, "gain": gains}
    return {"queries": len(before), **{key: mean_and_error(values) for key, values in shares.items()}}


def unwanted_texts(truth: Truth) -> dict[str, object]:
    rows = []
    for wanted in truth.classes:
        text = truth.phrase[wanted]
        before = truth.shares(N_SHOWN, text=text)
        for other in truth.classes:
            if other == wanted or before[other] < MIN_SHARE:
                continue
            after = truth.shares(N_SHOWN, text=text, not_text=truth.phrase[other])
            rows.append((before[wanted], after[wanted], before[other], after[other]))
    if not rows:
        return {"pairs": 0}
    labels = ("wanted without", "wanted with not", "unwanted without", "unwanted with not")
    columns = np.array(rows).T
    return {"pairs": len(rows)} | {
        label: mean_and_error(column) for label, column in zip(labels, columns, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--name", action="append", default=[], metavar="FOLDER=PHRASE")
    parser.add_argument("--min-images", type=int, default=20, help="images a class needs to count")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        collection = Collection.create(Path(folder) / "collection", model=options.model)
        collection.add(options.folder)
        truth = Truth(collection, dict(pair.split("=", 1) for pair in options.name), options.min_images)
        rng = np.random.default_rng(0)
        figures = {
            "several images": several_images(truth, rng),
            "image and text": image_and_text(truth, rng),
            "not": unwanted_texts(truth),
            "not an image": unwanted_images(truth, rng),
        }
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for title, rows in figures.items():
        print(title)
        for label, value in rows.items():
            print(
                f"  {label:20} {value}" if isinstance(value, int) else f"  {label:20} {value[0]} ± {value[1]}"
            )


if __name__ == "__main__":
    main()
