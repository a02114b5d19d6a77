"""What may help a classifier of a few examples: inner layers, views, whitening and images without a label.

    python -m benchmarks.fewshot_gains FOLDER... [--fashion FOLDER] [--shots 1 5 20] [--episodes 20] [--json]

FOLDER has one folder of images a class, with folders train and test above or below; without a split, half of
each class is drawn for either. Of each class, at most 45 images are there to learn from and 45 to judge. An
episode draws k of each class. Each way is compared with `FewShotClassifier` on the model's own vectors in
the same episodes: accuracy, calibration error (ECE, ten bins) and log loss (nats), with the half width of the
differences' 95 % interval over episodes (Student's t).

*layers*: the vectors of MODEL#layers. *layers, of the set*: the same statistics of inner layers, standardized
on the images to learn from without their labels, with the weight 0.5. *mirror*, *views*: the mean of an image
and its mirror image, or of four views, as one example. *views as examples*: each view is an example.
*whitened*: whitening within classes, learned from the four views of all examples, with that shrinkage.
*unlabeled*: the other images to learn from, without their labels. *layers, unlabeled*: both. *half of the
classes*: the examples and the judged images are of every other class, and the images without a label of all.

A way is kept if nothing gets significantly worse, neither accuracy nor log loss, and accuracy gets
significantly better at one number of shots at least, on each of two sets.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats

from benchmarks.labeled_vectors import fashion_images
from nearsight import Embedder
from nearsight.estimators.classification import FewShotClassifier
from nearsight.estimators.classification.temperature_scaling import calibration_error
from nearsight.estimators.neighbors import unit_length
from nearsight.evaluation import read_labeled_folder
from nearsight.models.cache import user_cache_dir
from nearsight.training.augmentation import ViewsBackend, augmentation
from nearsight.training.closed_form import ClassScatter
from nearsight.training.network_features import feature_network

N_EACH, N_VIEWS = 45, 4
LAYER_WEIGHT = 0.5
BASE, HALF = "model", ", half of the classes"


class LabeledSet:
    """Features of the views of images to learn from and of images to judge, and `MODEL#layers` of both."""

    def __init__(self, images: list, y: np.ndarray, is_train: np.ndarray, model: str, augment: str) -> None:
        rng = np.random.default_rng(0)
        rows = [
            rng.permutation(np.flatnonzero(part & (y == c)))[:N_EACH]
            for part in (is_train, ~is_train)
            for c in np.unique(y)
        ]
        n_classes = len(np.unique(y))
        train, test = np.concatenate(rows[:n_classes]), np.concatenate(rows[n_classes:])
        network = feature_network(model, user_cache_dir())
        self.dim = network.base.dim

        def features(rows: np.ndarray, n_views: int) -> np.ndarray:
            backend = ViewsBackend(network.backend(), augmentation(augment), n_views)
            found = Embedder(backend, progress=False).embed([images[row] for row in rows])
            return found.vectors.reshape(len(rows), n_views, network.dim)

        def layers(rows: np.ndarray) -> np.ndarray:
            return Embedder(f"{model}#layers", progress=False).embed([images[row] for row in rows]).vectors

        self.y, self.wanted = y[train], y[test]
        self.views, self.tested = features(train, N_VIEWS), features(test, 1)[:, 0]
        self.layers, self.tested_layers = layers(train), layers(test)
        statistics = self.views[:, 0, self.dim :]
        self._mean, self._scale = statistics.mean(axis=0), statistics.std(axis=0) + 1e-6

    def vector(self, X: np.ndarray) -> np.ndarray:
        return unit_length(X[:, : self.dim])

    def with_layers(self, X: np.ndarray) -> np.ndarray:
        second = unit_length((X[:, self.dim :] - self._mean) / self._scale)
        return np.concatenate([self.vector(X), LAYER_WEIGHT * second], axis=1)


def ways(of: LabeledSet, rows: np.ndarray) -> dict[str, tuple[np.ndarray | None, ...]]:
    """Return vectors of examples, their labels, vectors to judge, and others without a label."""
    y, views, tested = of.y[rows], of.views[rows], of.vector(of.tested)
    plain = of.vector(views[:, 0])
    vectors = [of.vector(views[:, view]) for view in range(N_VIEWS)]
    everything, labels = np.concatenate(vectors), np.tile(y, N_VIEWS)
    result = {
        BASE: (plain, y, tested),
        "layers": (of.layers[rows], y, of.tested_layers),
        "layers, of the set": (of.with_layers(views[:, 0]), y, of.with_layers(of.tested)),
        "mirror": (unit_length(np.mean(vectors[:2], axis=0)), y, tested),
        "views": (unit_length(np.mean(vectors, axis=0)), y, tested),
        "views as examples": (everything, labels, tested),
    }
    scatter = ClassScatter(everything, np.unique(labels, return_inverse=True)[1])
    for shrinkage in (0.3, 0.6):
        both = np.concatenate([plain, tested])
        mapped = scatter.whitened(scatter.coordinates(both), shrinkage).stretched(0.0)
        result[f"whitened, {shrinkage}"] = (mapped[: len(y)], y, mapped[len(y) :])
    rest = np.setdiff1d(np.arange(len(of.y)), rows)
    result["unlabeled"] = (plain, y, tested, of.vector(of.views[rest, 0]))
    result["layers, unlabeled"] = (of.layers[rows], y, of.tested_layers, of.layers[rest])
    return result


def judged(
    wanted: np.ndarray, X: np.ndarray, y: np.ndarray, tested: np.ndarray, unlabeled: np.ndarray | None = None
) -> list[float]:
    model = FewShotClassifier().fit(X, y, unlabeled)
    p = model.predict_proba(tested)
    hits = model.classes_[p.argmax(axis=1)] == wanted
    of_wanted = p[np.arange(len(wanted)), np.searchsorted(model.classes_, wanted)]
    loss = -np.log(np.maximum(of_wanted, 1e-12)).mean()
    return [float(hits.mean()), calibration_error(p.max(axis=1), hits), float(loss)]


def measured(of: LabeledSet, k: int, n_episodes: int) -> dict[str, dict[str, object]]:
    figures: dict[str, list[list[float]]] = {}
    for episode in range(n_episodes):
        rng = np.random.default_rng(episode)
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(of.y == c), k, replace=False) for c in np.unique(of.y)]
        )
        found = ways(of, rows)
        for name, vectors in found.items():
            figures.setdefault(name, []).append(judged(of.wanted, *vectors))
        classes = np.unique(of.y)[::2]
        known, asked = np.isin(of.y[rows], classes), np.isin(of.wanted, classes)
        for name in (BASE, "unlabeled"):
            X, y, tested, *others = found[name]
            row = judged(of.wanted[asked], X[known], y[known], tested[asked], *others)
            figures.setdefault(f"{name}{HALF}", []).append(row)
    result: dict[str, dict[str, object]] = {}
    for name, values in figures.items():
        base = np.array(figures[BASE + HALF if name.endswith(HALF) else BASE])
        means, differences = np.mean(values, axis=0), np.array(values) - base
        half = stats.t.ppf(0.975, n_episodes - 1) * differences.std(axis=0, ddof=1) / np.sqrt(n_episodes)
        result[name] = {}
        for at, metric in enumerate(("accuracy", "ECE", "log loss")):
            result[name][metric] = round(float(means[at]), 3)
            if name != BASE:
                difference = float(differences[:, at].mean())
                result[name][f"{metric}, difference"] = [round(difference, 4), round(float(half[at]), 4)]
    return result


def is_kept(by_set: dict[str, dict[str, dict[str, dict[str, object]]]], way: str) -> bool:
    """Return whether the rule above keeps a way."""
    n_helped = 0
    for by_shots in by_set.values():
        accuracy = [by_shots[shots][way]["accuracy, difference"] for shots in by_shots]
        loss = [by_shots[shots][way]["log loss, difference"] for shots in by_shots]
        if any(d + half < 0 for d, half in accuracy) or any(d - half > 0 for d, half in loss):
            return False
        n_helped += any(d - half > 0 for d, half in accuracy)
    return n_helped >= 2


def images_of(folder: Path) -> tuple[list, np.ndarray, np.ndarray]:
    found = read_labeled_folder(folder)
    y = np.array(found.labels)
    if found.has_split:
        return found.paths, y, np.array([split != "test" for split in found.splits])
    return found.paths, y, halves(y)


def halves(y: np.ndarray) -> np.ndarray:
    is_train, rng = np.zeros(len(y), bool), np.random.default_rng(0)
    for c in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == c))
        is_train[rows[: len(rows) // 2]] = True
    return is_train


def fashion(folder: Path) -> tuple[list, np.ndarray, np.ndarray]:
    """Return the first 80 of each class of the test part; 40 are there to learn from."""
    pixels, y = fashion_images(folder)
    rows = np.concatenate([np.flatnonzero(y == c)[:80] for c in np.unique(y)])
    images = [Image.fromarray(pixels[row]).convert("RGB") for row in rows]
    return images, y[rows], np.tile(np.arange(80) < 40, 10)


def text(row: dict[str, object], metric: str) -> str:
    difference = row.get(f"{metric}, difference")
    return f"{metric} {row[metric]:.3f}" + (
        "" if difference is None else " {:+.3f} ± {:.3f}".format(*difference)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--fashion", type=Path, help="the folder with t10k-images-idx3-ubyte.gz")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--augment", default="products")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sources = {folder.name: images_of(folder) for folder in options.folders}
    if options.fashion:
        sources["Fashion-MNIST"] = fashion(options.fashion)
    by_set: dict[str, dict[str, dict[str, dict[str, object]]]] = {}
    for name, (images, y, is_train) in sources.items():
        of = LabeledSet(images, y, is_train, options.model, options.augment)
        fewest = int(np.unique(of.y, return_counts=True)[1].min())
        by_set[name] = {}
        for k in (k for k in options.shots if k < fewest):
            by_set[name][f"{k} a class"] = found = measured(of, k, options.episodes)
            if not options.json:
                print(f"\n{name}, {k} a class, {len(of.wanted)} images judged")
                for way, row in found.items():
                    cells = [text(row, metric) for metric in ("accuracy", "ECE", "log loss")]
                    print(f"  {way:20} " + "   ".join(cells), flush=True)
    names = list(next(iter(next(iter(by_set.values())).values()))) if by_set else []
    kept = [way for way in names if way != BASE and is_kept(by_set, way)]
    print(json.dumps({**by_set, "kept": kept}) if options.json else f"\nkept: {', '.join(kept) or 'none'}")


if __name__ == "__main__":
    main()
