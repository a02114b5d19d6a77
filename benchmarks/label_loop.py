"""How many labels a person gives until a classifier is good, and whether it knows how good it is.

FOLDER has `train` and `test`, each with a folder of images for each class. A run labels images of `train` as
the page does: `next_images` for five, then a fit, from no label on; check images are among them. Beside it,
as many images in random order. The classifiers of both are judged on `test`. Runs differ in the ids of the
images, on which check images depend, and in the random order. Told are:

*accuracy* on `test` by number of labels, mean with the half width of its 95 % interval over runs;
*labels needed* until the accuracy is reached for the first time, median over runs;
*coverage*: how often the interval that `held_out_accuracy` tells holds the accuracy on the images of `train`
that have no label, of all times that it tells one.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.fewshot import Images, mean
from benchmarks.labeled_vectors import fashion_vectors
from nearsight import Collection, load_model
from nearsight.analyses.label_queue import held_out_accuracy, next_images
from nearsight.estimators.classification import FewShotClassifier

PER_FIT = 5
JUDGED_EVERY = 10


def loop(train: Images, test: Images, n_labels: int, seed: int, model: str) -> tuple[list[float], list[dict]]:
    """Return the accuracy on `test` at every tenth label, and what was told of it."""
    rng = np.random.default_rng(seed)
    ids = [rng.bytes(16).hex() for _ in train.y]
    truth = dict(zip(ids, train.y.tolist(), strict=True))
    row = {id: n for n, id in enumerate(ids)}
    accuracies: list[float] = []
    told: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        collection = Collection.create(Path(folder) / "c", model=load_model(model))
        collection.add_vectors(train.X, ids=ids, fingerprint=collection.fingerprint)
        given: dict[str, str] = {}
        while len(given) < n_labels:
            new = [image.prediction.id for image in next_images(collection, n=PER_FIT)]
            collection.update_metadata(new, [{"label": truth[id]} for id in new])
            given |= {id: truth[id] for id in new}
            if len(set(given.values())) > 1:
                classifier = collection.fit_classifier(given, progress=False).estimator
            if len(given) % JUDGED_EVERY == 0:
                accuracies.append(float(classifier.score(test.X, test.y)))
                rest = np.setdiff1d(np.arange(len(ids)), [row[id] for id in given])
                hits = classifier.predict(train.X[rest]) == train.y[rest]
                sure = classifier.predict_proba(train.X[rest]).max(axis=1).mean()
                held_out = held_out_accuracy(collection)
                told.append({"held_out": held_out, "accuracy": float(hits.mean()), "sure": float(sure)})
    return accuracies, told


def in_random_order(train: Images, test: Images, n_labels: int, seed: int) -> list[float]:
    order = np.random.default_rng(1000 + seed).permutation(len(train.y))
    accuracies = []
    for n in range(JUDGED_EVERY, n_labels + 1, JUDGED_EVERY):
        rows = order[:n]
        model = FewShotClassifier().fit(train.X[rows], train.y[rows])
        accuracies.append(float(model.score(test.X, test.y)))
    return accuracies


def labels_needed(runs: list[list[float]], goal: float) -> int | None:
    """Return the median over runs of the first number of labels at which the goal is reached."""
    needed = [next((JUDGED_EVERY * (n + 1) for n, a in enumerate(run) if a >= goal), np.inf) for run in runs]
    median = float(np.median(needed))
    return int(median) if np.isfinite(median) else None


def fashion(folder: Path, model: str) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Return 560 images of Fashion-MNIST to label, and 240 others to judge by."""
    X, y = fashion_vectors(folder, model, per_class=80)
    rows = np.random.default_rng(0).permutation(len(y))
    parts = (rows[:560], rows[560:])
    train, test = (SimpleNamespace(X=X[part], y=y[part].astype(str)) for part in parts)
    return train, test


def coverage(told: list[dict]) -> dict[str, object]:
    stated = [each for each in told if each["held_out"].interval is not None]
    held, errors = _held(stated)
    plain = [{**each, "held_out": replace(each["held_out"], selection=None)} for each in stated]
    plain_held, plain_errors = _held(plain)
    judged = [each for each in stated if each["held_out"].calibration != "too_few"]
    verdicts: dict[str, int] = {}
    for each in judged:
        verdicts[each["held_out"].calibration] = verdicts.get(each["held_out"].calibration, 0) + 1
    return {
        "times": len(stated),
        "interval holds the accuracy": round(float(np.mean(held)), 3),
        "mean error": round(float(np.mean(errors)), 3),
        "not corrected for chosen images": {
            "interval holds the accuracy": round(float(np.mean(plain_held)), 3),
            "mean error": round(float(np.mean(plain_errors)), 3),
        },
        "verdicts": verdicts,
        "true mean probability minus accuracy": round(
            float(np.mean([each["sure"] - each["accuracy"] for each in judged])), 3
        )
        if judged
        else None,
    }


def _held(stated: list[dict]) -> tuple[list[bool], list[float]]:
    held = [
        each["held_out"].interval[0] <= each["accuracy"] <= each["held_out"].interval[1] for each in stated
    ]
    return held, [each["held_out"].accuracy - each["accuracy"] for each in stated]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="with train/ and test/")
    parser.add_argument(
        "--fashion", type=Path, help="instead, Fashion-MNIST: the folder with t10k-images-idx3-ubyte.gz"
    )
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--labels", type=int, default=200)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--goals", type=float, nargs="+", default=[0.6, 0.7, 0.75, 0.8])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.fashion:
        train, test = fashion(options.fashion, options.model)
    elif options.folder:
        train, test = (Images(options.folder / part, options.model) for part in ("train", "test"))
    else:
        parser.error("give FOLDER or --fashion FOLDER")
    suggested, random, told = [], [], []
    for seed in range(options.runs):
        accuracies, statements = loop(train, test, options.labels, seed, options.model)
        suggested.append(accuracies)
        told += statements
        random.append(in_random_order(train, test, options.labels, seed))
    counts = range(JUDGED_EVERY, options.labels + 1, JUDGED_EVERY)
    result = {
        "accuracy": {
            n: {
                "page": mean([run[at] for run in suggested]),
                "random": mean([run[at] for run in random]),
            }
            for at, n in enumerate(counts)
        },
        "labels needed": {
            goal: {"page": labels_needed(suggested, goal), "random": labels_needed(random, goal)}
            for goal in options.goals
        },
        "told": coverage(told),
    }
    if options.json:
        print(json.dumps(result))
        return
    for n, row in result["accuracy"].items():
        figures = [f"{row[how]['mean']:.3f} ± {row[how]['+-']:.3f}" for how in ("page", "random")]
        print(f"{n:4} labels   page {figures[0]}   random order {figures[1]}")
    for goal, row in result["labels needed"].items():
        print(f"{goal} needs {row['page']} labels, in random order {row['random']}")
    print(result["told"])


if __name__ == "__main__":
    main()
