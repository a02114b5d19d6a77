"""Words for images: ConSE as nearsight does it beside ConSE as its paper first describes it, in one run.

FOLDER has a folder of images for each class, at any depth; a class is asked for by its folder's name, or by
the phrase that ``--name FOLDER=PHRASE`` gives. Told are, with an image's class as the truth:

*precision@10* of searching for each class by its name, the mean over classes;
*zero-shot*: the share of images given the right one of all names.

With ``--captions``, images that have a text beside them (``a.png``, ``a.txt``: its first line) are searched
for by it. The files are split in two by their names' hash: nearsight's settings were chosen on half A of
Tux Paint's stamps (Debian's ``tuxpaint-stamps-default``), so that half B is what counts. With ``--dim``,
classes are asked for through projected vectors too, those of ``nearsight index --dim``.

The plain recipe: softmax of 5 × (vector · head weights) over the ten likeliest classes, their first names in
"a photo of a ...", and the cosine with the query in the same words.
"""

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np

from nearsight import Embedder, load_text_encoder
from nearsight.models.pca import ProjectedTextEncoder, fit_projection
from nearsight.models.text.conse import ConseTextEncoder, classes
from nearsight.models.text.zero_shot import ZeroShotClassifier


class Plain:
    """The first recipe, over the same encoder and head."""

    def __init__(self, tower: ConseTextEncoder) -> None:
        self.encoder, self.head = tower._encoder, tower._head
        self.labels = self.embed([names[0] for names, _ in classes()])

    def embed(self, texts: list[str]) -> np.ndarray:
        return self.encoder.embed([f"a photo of a {text}" for text in texts])

    def to_text_space(self, X: np.ndarray) -> np.ndarray:
        logits = 5 * X @ self.head
        likeliest = np.argsort(-logits, axis=1)[:, :10]
        chosen = np.take_along_axis(logits, likeliest, 1)
        weights = np.exp(chosen - chosen.max(1, keepdims=True))
        places = np.einsum("nk,nkd->nd", weights, self.labels[likeliest])
        return places / np.linalg.norm(places, axis=1, keepdims=True)


def precision_at_10(similarities: np.ndarray, y: np.ndarray, n_classes: int) -> float:
    found = np.argsort(-similarities, axis=0, kind="stable")[:10]
    hits = [(y[found[:, j]] == j).sum() / min(10, (y == j).sum()) for j in range(n_classes)]
    return float(np.mean(hits))


def by_class(tower: ConseTextEncoder, X: np.ndarray, y: np.ndarray, names: list[str]) -> dict[str, float]:
    plain = Plain(tower)
    theirs = plain.to_text_space(X) @ plain.embed(names).T
    ours = tower.to_text_space(X) @ tower.embed(names).T
    found = ZeroShotClassifier(tower, names).predict(X)
    return {
        "images": len(X),
        "classes": len(names),
        "precision@10": precision_at_10(ours, y, len(names)),
        "precision@10 plain": precision_at_10(theirs, y, len(names)),
        "zero-shot": float((found.probabilities.argmax(1) == y).mean()),
        "zero-shot plain": float((theirs.argmax(1) == y).mean()),
        "called unknown": float(found.unknown.mean()),
    }


def projected(
    tower: ConseTextEncoder, X: np.ndarray, y: np.ndarray, names: list[str], dim: int
) -> dict[str, float]:
    projection = fit_projection(X, dim, tower.spec)
    short = projection.apply(X)
    near = ProjectedTextEncoder(tower, projection, projection.spec("projected"))
    found = ZeroShotClassifier(near, names).predict(short)
    return {
        f"precision@10 dim {dim}": precision_at_10(
            near.to_text_space(short) @ near.embed(names).T, y, len(names)
        ),
        f"zero-shot dim {dim}": float((found.probabilities.argmax(1) == y).mean()),
    }


def by_caption(
    tower: ConseTextEncoder, X: np.ndarray, captions: list[str], is_b: np.ndarray
) -> dict[str, float]:
    plain = Plain(tower)
    result: dict[str, float] = {"captions": len(captions)}
    for label, model in (("", tower), (" plain", plain)):
        similarities = model.to_text_space(X) @ model.embed(captions).T
        ranks = 1 + (similarities > similarities.diagonal()).sum(0)
        for half, chosen in (("A", ~is_b), ("B", is_b)):
            result[f"recall@10 {half}{label}"] = float((ranks[chosen] <= 10).mean())
            result[f"reciprocal rank {half}{label}"] = float((1 / ranks[chosen]).mean())
    return result


def captions_of(paths: list[str]) -> list[str]:
    texts = [Path(path).with_suffix(".txt") for path in paths]
    lines = [text.read_text(errors="replace").splitlines()[:1] if text.is_file() else [] for text in texts]
    return [line[0].strip().rstrip(".") if line else "" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--name", action="append", default=[], metavar="FOLDER=PHRASE")
    parser.add_argument("--only", action="append", default=[], help="a class to take; by default all")
    parser.add_argument("--skip", action="append", default=[], help="a folder of the path to leave out")
    parser.add_argument("--fewest", type=int, default=5, help="images a class needs to count")
    parser.add_argument("--dim", type=int, nargs="*", default=[], help="projected to so many numbers, too")
    parser.add_argument("--captions", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    phrases = dict(pair.split("=", 1) for pair in options.name)
    tower = load_text_encoder(options.model)
    result = Embedder(options.model).embed(options.folder)
    folders = [Path(path).parent.name for path in result.paths]
    kept = np.array([not set(Path(path).parts) & set(options.skip) for path in result.paths])
    if options.captions:
        captions = captions_of(result.paths)
        kept &= np.array(captions) != ""
        is_b = np.array([int(hashlib.md5(Path(p).name.encode()).hexdigest(), 16) % 2 for p in result.paths])
        told = by_caption(
            tower,
            result.vectors[kept],
            [c for c, k in zip(captions, kept, strict=True) if k],
            is_b[kept] == 1,
        )
    else:
        counts = Counter(folder for folder, keep in zip(folders, kept, strict=True) if keep)
        chosen = sorted(
            name
            for name, n in counts.items()
            if n >= options.fewest and (not options.only or name in options.only)
        )
        if not chosen:
            raise SystemExit(f"{options.folder} has no class with {options.fewest} images")
        kept &= np.isin(folders, chosen)
        y = np.array([chosen.index(folder) for folder, keep in zip(folders, kept, strict=True) if keep])
        names = [phrases.get(name, name) for name in chosen]
        told = by_class(tower, result.vectors[kept], y, names)
        for dim in options.dim:
            told |= projected(tower, result.vectors[kept], y, names, dim)
    if options.json:
        print(json.dumps(told))
        return
    for key, value in told.items():
        print(f"{key:26} {value:.3f}" if isinstance(value, float) else f"{key:26} {value}")


if __name__ == "__main__":
    main()
