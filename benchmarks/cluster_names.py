"""Names of clusters, by a table of names that are right.

    python -m benchmarks.cluster_names FOLDER [--json]

Forty images of each class, or all if there are fewer, are named beside those of the other classes. A
name is right if it is one of those that NAMES accepts for the class. "share" is the share of names without
"perhaps". "Mixed" puts two classes in one cluster: the share that is named by shares or with "perhaps".

± is half of the 95 % interval over draws.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import labeled_vectors
from nearsight import Embedder, load_text_encoder
from nearsight.analyses.cluster_names import names_from_words
from nearsight.models.text.vocabulary import default_vocabulary

N_DRAWS, LEAST_NAMED = 10, 8
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
    tower, right = load_text_encoder(model), np.zeros((N_DRAWS, len(known)))
    sure, mixed = np.zeros_like(right), []
    for draw in range(N_DRAWS):
        rng = np.random.default_rng(draw)
        rows = [rng.permutation(np.flatnonzero(y == c))[:40] for c in known]
        labels, drawn = np.repeat(range(len(known)), [len(part) for part in rows]), X[np.concatenate(rows)]
        found = names_from_words(tower, drawn, labels, default_vocabulary(), random_state=draw)
        for i, (name, own) in enumerate(zip(classes, found, strict=True)):
            first = re.sub(r"^perhaps |,.*| \d+%?$", "", own.name or "")
            right[draw, i] = first in NAMES[name]
            sure[draw, i] = not (own.name or "perhaps").startswith("perhaps")
        order = rng.permutation(len(known))
        pairs = np.empty(len(known), int)
        pairs[order] = np.arange(len(known)) // 2
        found = names_from_words(tower, drawn, pairs[labels], default_vocabulary(), random_state=draw)
        mixed += [("%" in (own.name or "")) or (own.name or "perhaps").startswith("perhaps") for own in found]
    each = right.mean(1)
    return [
        {"method": "all", "right": float(each.mean()), "±": labeled_vectors.half_interval(each)},
        {"method": "without perhaps", "right": float(right[sure > 0].mean()), "share": float(sure.mean())},
        {"method": "mixed: shares or perhaps", "share": float(np.mean(mixed))},
        *(
            {"method": name, "right": float(right[:, i].mean()), "share": float(sure[:, i].mean())}
            for i, name in enumerate(classes)
        ),
    ]


if __name__ == "__main__":
    main()
