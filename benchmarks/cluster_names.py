"""Names of clusters, by a table of names that are right.

    python -m benchmarks.cluster_names FOLDER [--json]

Forty images of each class, or all if there are fewer, are named beside those of the other classes. A
name is right if its first word is one of those that NAMES accepts for the class. "perhaps" is the share of
names with "perhaps", "mixed" of those that say so.

"Two classes" puts two in one cluster that have no accepted name in common, of which the smaller is at least
three tenths: how they are named, and of the names with "mixed", how many have a word of each class ("right").

± is half of the 95 % interval over draws.
"""

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import labeled_vectors
from nearsight import Embedder, load_text_encoder
from nearsight.analyses.cluster_names import names_from_words
from nearsight.models.text.vocabulary import default_vocabulary

N_DRAWS, LEAST_NAMED, LEAST_SHARE = 10, 8, 0.3
# Names that are right, by the folder of the class: of clothes, and of the stamps of Debian's
# tuxpaint-stamps-default (photographs and drawings of single things).
NAMES = {
    "dress": ("gown", "dress", "clothing"),
    "hat": ("hat", "headwear", "cap", "cowboy hat", "sombrero", "bonnet", "bathing cap", "shower cap"),
    "longsleeve": ("sweatshirt", "cardigan", "jersey", "shirt"),
    "outwear": ("coat", "jacket", "trench coat", "fur coat", "cloak", "lab coat", "poncho"),
    "pants": ("jean",),
    "shirt": ("shirt",),
    "shoes": ("shoe", "footwear", "running shoe", "Loafer", "sandal", "clog", "cowboy boot", "boot"),
    "shorts": ("swimming trunks",),
    "skirt": ("skirt", "miniskirt", "overskirt", "hoopskirt", "sarong"),
    "t-shirt": ("shirt", "jersey"),
    "birds": ("bird", "waterbird"),
    "fish": ("fish", "rock beauty"),
    "insects": ("insect",),
    "mammals": ("mammal",),
    "fruit": ("fruit", "fruit and vegetables"),
    "vegetables": ("vegetable", "fruit and vegetables"),
    "dishes": ("crockery", "tableware", "kitchen utensil", "container", "bottle", "water jug"),
    "tools": ("tool",),
    "flowers": ("flower", "plant", "daisy"),
    "sports": ("ball", "sports equipment"),
    "houses": ("house", "building"),
    "monuments": ("monument", "megalith", "building"),
    "roadsigns": ("street sign",),
    "planets": ("planet", "space"),
    "music": ("musical instrument",),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    X, y, classes = images(options.folder, options.model)
    labeled_vectors.show(names(X, y, classes, options.model), as_json=options.json)


def images(folder: Path, model: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return vectors and classes; folders of kinds, such as birds/owls, count as the folder above."""
    found = Embedder(model).embed(folder)
    folders = [Path(path).parent for path in found.paths]
    named = [next((part for part in reversed(f.parts) if part in NAMES), f.name) for f in folders]
    classes, y = np.unique(named, return_inverse=True)
    return found.vectors, y, classes.tolist()


def names(X: np.ndarray, y: np.ndarray, all_classes: list[str], model: str) -> list[dict[str, Any]]:
    """Name forty images of each class; mixed clusters are of two classes."""
    known = [c for c, name in enumerate(all_classes) if name in NAMES and (y == c).sum() >= LEAST_NAMED]
    classes = [all_classes[c] for c in known]
    tower, each, mixed = load_text_encoder(model), [], []
    for draw in range(N_DRAWS):
        rng = np.random.default_rng(draw)
        rows = [rng.permutation(np.flatnonzero(y == c))[:40] for c in known]
        labels, drawn = np.repeat(range(len(known)), [len(part) for part in rows]), X[np.concatenate(rows)]
        name = partial(
            names_from_words, tower, drawn, vocabulary=default_vocabulary(), is_cached=True, random_state=draw
        )
        each.append([Named.of(found.name, own) for found, own in zip(name(labels), classes, strict=True)])
        order = rng.permutation(len(known))
        pairs = np.empty(len(known), int)
        pairs[order] = np.arange(len(known)) // 2
        for pair, found in enumerate(name(pairs[labels])):
            members = np.flatnonzero(pairs == pair)
            if is_mixed([classes[c] for c in members], [len(rows[c]) for c in members]):
                mixed.append(Named.of(found.name, *(classes[c] for c in members)))
    return [
        {
            "method": "all",
            **summary(named for draw in each for named in draw),
            "±": labeled_vectors.half_interval(
                np.array([[n.is_right for n in draw] for draw in each]).mean(1)
            ),
        },
        {"method": "sure", **summary(n for draw in each for n in draw if n.kind == "sure")},
        {"method": "two classes", **summary(mixed)},
        {"method": "two classes, mixed", **summary(n for n in mixed if n.kind == "mixed")},
        *({"method": name, **summary(draw[i] for draw in each)} for i, name in enumerate(classes)),
    ]


def is_mixed(classes: list[str], sizes: list[int]) -> bool:
    if len(classes) < 2 or min(sizes) < LEAST_SHARE * sum(sizes):
        return False
    return not set(NAMES[classes[0]]) & set(NAMES[classes[1]])


@dataclass(frozen=True)
class Named:
    """How a cluster is named, and whether that is right for its classes."""

    kind: str
    is_right: bool

    @classmethod
    def of(cls, name: str | None, *classes: str) -> "Named":
        text = name or "perhaps"
        kind = next((kind for kind in ("mixed", "perhaps") if text.startswith(kind)), "sure")
        words = [re.sub(r"^perhaps |^mixed: | \d+$", "", part) for part in text.split(", ")]
        if len(classes) == 1:
            words = words[:1]
        return cls(kind, all(set(words) & set(NAMES[c]) for c in classes))


def summary(named: Iterable[Named]) -> dict[str, Any]:
    rows = list(named)
    if not rows:
        return {"n": 0}
    shares = {kind: sum(row.kind == kind for row in rows) / len(rows) for kind in ("perhaps", "mixed")}
    return {"n": len(rows), "right": sum(row.is_right for row in rows) / len(rows), **shares}


if __name__ == "__main__":
    main()
