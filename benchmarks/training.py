"""A model trained on labeled images beside the pretrained one, on images and classes that it never saw.

    python -m benchmarks.training FOLDER [--depth head|last|all] [--augment products] [--views N]
    python -m benchmarks.training FOLDER --unseen 10 [--learned N] [--images 40] [--depth last] [--known-only]
    python -m benchmarks.training --fashion /usr/share/datasets/fashion-mnist --unseen 10

FOLDER has one folder of images a class, with folders train and test above or below. The figures are those of
`nearsight train`: of the test images, with 95 % intervals (bootstrap over groups of near-duplicates), and the
seconds of each part.

--unseen N: N times, half of the classes (or as many as --learned says) are drawn at random. All settings are
chosen and the map is fitted on their images; then each image of the other classes is searched among all of
these, with both models. The difference in recall@1 is paired by image; an image's values over the N draws are
averaged first, so that its interval is over images.
"""

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nearsight import Embedder, evaluation
from nearsight.estimators.neighbors import unit_length
from nearsight.evaluation import LabeledFolder
from nearsight.evaluation.metrics import Task, retrieval
from nearsight.images import Exclusions
from nearsight.models import DEFAULT_MODEL
from nearsight.services.training import labeled_images
from nearsight.training import FeatureEmbedder, feature_embedder, train
from nearsight.training.augmentation import ViewsBackend, augmentation
from nearsight.training.selection import Setting, TrainingData, choose_map
from nearsight.training.split import draws

# Images of Fashion-MNIST: there are ten classes of as many.
_N_FASHION = 3000


def trained(options: argparse.Namespace) -> dict[str, Any]:
    started, processor = time.perf_counter(), time.process_time()
    n_views = options.views if options.depth == "head" else None
    embedder = feature_embedder(options.model, options.augment, n_views)
    labeled, groups = labeled_images(options.folder, None, Exclusions(), embedder=embedder)
    found = time.perf_counter()
    result = train(
        labeled,
        groups,
        model=options.model,
        depth=options.depth,
        augment=options.augment,
        n_views=n_views,
        known_only=options.known_only,
        embedder=embedder,
    )
    seconds = {
        "seconds to embed and for near-duplicates": found - started,
        "seconds to fit": result.seconds,
        "seconds in all": time.perf_counter() - started,
        "processor seconds in all": time.process_time() - processor,
    }
    return {**result.to_dict(), **{name: round(value, 1) for name, value in seconds.items()}}


def few_of_each(y: np.ndarray, learned: np.ndarray, n_images: int, seed: int) -> np.ndarray:
    """Return which images are learned from: a few of each learned class."""
    rng, is_learned = np.random.default_rng([seed, n_images]), np.zeros(len(y), bool)
    for number in learned:
        is_learned[rng.permutation(np.flatnonzero(y == number))[:n_images]] = True
    return is_learned


def by_depth(
    options: argparse.Namespace,
    embedder: FeatureEmbedder,
    labeled: LabeledFolder,
    data: TrainingData,
    is_learned: np.ndarray,
    seed: int,
) -> tuple[np.ndarray, tuple[Setting, int]]:
    """Train layers on the learned classes alone, and return the vectors of all images."""
    others = {path for path, learned in zip(labeled.paths, is_learned, strict=True) if not learned}
    result = train(
        labeled.without(others),
        data.groups[is_learned],
        model=options.model,
        depth=options.depth,
        augment=options.augment,
        known_only=options.known_only,
        embedder=embedder,
        random_state=seed,
    )
    if result.network is not embedder.network:
        embedder = FeatureEmbedder(result.network, options.augment, 1)
    views, _, _ = embedder.views(labeled.paths, [True] * len(labeled.paths))
    return result.map.apply(views[0]), (result.setting.setting, result.dim)


def features(
    options: argparse.Namespace, embedder: FeatureEmbedder
) -> tuple[TrainingData, list[str], LabeledFolder]:
    network = embedder.network
    if options.fashion:
        images, names = fashion(options.fashion)
        backend = ViewsBackend(network.backend(), augmentation(options.augment), options.views)
        found, groups = Embedder(backend).embed(images), np.arange(len(images))
        views = [found.vectors[:, n * network.dim :][:, : network.dim] for n in range(options.views)]
        labeled, kept = LabeledFolder([""] * len(images), names, [""] * len(images)), found.positions
    else:
        labeled, groups = labeled_images(options.folder, None, Exclusions())
        names = labeled.labels
        views, kept, failed = embedder.views(labeled.paths, [False] * len(labeled.paths))
        labeled = labeled.without({failure.path for failure in failed})
    classes, y = np.unique([names[row] for row in kept], return_inverse=True)
    return TrainingData(views, network.base.dim, y, groups[kept]), classes.tolist(), labeled


def fashion(folder: Path) -> tuple[list[Image.Image], list[str]]:
    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(folder / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    pixels = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:_N_FASHION]
    labels = read("t10k-labels-idx1-ubyte.gz", 8)[:_N_FASHION]
    return [Image.fromarray(p).convert("RGB") for p in pixels], [str(label) for label in labels]


def unseen(options: argparse.Namespace) -> dict[str, Any]:
    embedder = feature_embedder(options.model, options.augment, options.views)
    data, classes, labeled = features(options, embedder)
    sums, times = np.zeros((2, len(data.y))), np.zeros(len(data.y))
    wins, settings, precisions = 0, [], []
    for seed in range(options.unseen):
        learned = np.random.default_rng(seed).permutation(len(classes))[
            : options.learned or len(classes) // 2
        ]
        is_learned = np.isin(data.y, learned)
        if options.images:
            is_learned = few_of_each(data.y, learned, options.images, seed)
        part = data.rows(np.flatnonzero(is_learned))
        if options.depth == "head":
            divisions = list(draws(part.y, part.groups, known_only=options.known_only, random_state=seed))
            fit = choose_map(part, divisions, known_only=options.known_only, progress=False)
            mapped = fit.map(part).apply(data.views[0])
            chosen = (fit.setting.setting, fit.dim)
        else:
            mapped, chosen = by_depth(options, embedder, labeled, data, is_learned, seed)
        rows = np.flatnonzero(~np.isin(data.y, learned))
        task = Task(rows, rows, data.y, data.groups)
        values = [retrieval(unit_length(X), task).values for X in (data.frozen, mapped)]
        recalls = [of_model["recall@1"] for of_model in values]
        precisions.append(float(np.nanmean(values[1]["map@10"] - values[0]["map@10"])))
        wins += int(np.nanmean(recalls[1]) >= np.nanmean(recalls[0]))
        sums[:, rows] += np.nan_to_num(recalls)
        times[rows] += 1
        settings.append(f"{chosen[0].stretch:g}, {chosen[0].shrinkage:g}, {chosen[1]}")
    judged = times > 0
    pretrained, trained = sums[:, judged] / times[judged]
    gap = evaluation.paired_difference(trained, pretrained, data.groups[judged])
    return {
        "draws": options.unseen,
        "classes": classes,
        "pretrained": round(float(pretrained.mean()), 4),
        "trained": round(float(trained.mean()), 4),
        "difference": [round(gap.value, 4), round(gap.low, 4), round(gap.high, 4)],
        "p": round(gap.p, 4),
        "draws not worse": wins,
        "difference in mAP@10 by draw": [round(value, 4) for value in precisions],
        "stretch, shrinkage, dim": settings,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--fashion", type=Path, help="the folder with t10k-images-idx3-ubyte.gz")
    parser.add_argument("--unseen", type=int, metavar="N", help="draws of classes to judge")
    parser.add_argument("--learned", type=int, metavar="N", help="with --unseen: classes that are learned")
    parser.add_argument("--images", type=int, metavar="N", help="with --unseen: images of each learned class")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--augment", default="products")
    parser.add_argument(
        "--depth", default="head", choices=("head", "last", "all"), help="last and all need torch"
    )
    parser.add_argument("--known-only", action="store_true", help="as of `nearsight train`")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    if not (options.folder or (options.fashion and options.unseen)):
        parser.error("name a folder of labeled images, or --fashion with --unseen")
    if options.fashion and options.depth != "head":
        parser.error("--depth last and all read files; name a folder instead of --fashion")
    result = unseen(options) if options.unseen else trained(options)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
