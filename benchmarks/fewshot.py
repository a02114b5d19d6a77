"""Few-shot labels: accuracy, calibration and "unknown" over episodes, beside scikit-learn's classifiers.

FOLDER has `train` and `test`, each with a folder of images for each class. An episode draws k training
images of each class and labels all the test images. Told are means over the episodes with the half
width of their 95 % confidence interval (Student's t):

*accuracy* of each method, of scikit-learn's LogisticRegression and 1-nearest-neighbor on the same
vectors, and once of zero-shot where words are installed;
*calibration error* (ECE, ten bins) of the probabilities;
*false alarms*: the share of test images called unknown when all classes but three are known, and that are
of a known class; *found*: the share of those of the three, and of the images in ``--foreign``;
*suggested*: accuracy with as many labels as that in all, half of them drawn at random and half suggested,
beside all drawn at random.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from nearsight import Embedder
from nearsight.estimators.classification import FewShotClassifier, suggest
from nearsight.estimators.classification.temperature_scaling import calibration_error

OURS = ("auto", "prototype", "neighbors", "probe")


class Images:
    """Vectors and classes of one folder."""

    def __init__(self, folder: Path, model: str) -> None:
        found = Embedder(model).embed(folder)
        self.X = found.vectors
        self.y = np.array([Path(path).parent.name for path in found.paths])


def mean(values: list[float]) -> dict[str, float]:
    """Return the mean and the half width of its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return {"mean": round(float(np.mean(values)), 4), "+-": round(float(half), 4)}


def draw(y: np.ndarray, k: int, rng: np.random.Generator, classes: np.ndarray) -> np.ndarray:
    return np.concatenate([rng.choice(np.flatnonzero(y == c), k, replace=False) for c in classes])


def accuracy(train: Images, test: Images, k: int, n: int) -> dict[str, dict[str, float]]:
    methods: dict[str, Callable[[], object]] = {
        **{name: lambda name=name: FewShotClassifier(method=name) for name in OURS},
        "LogisticRegression": lambda: LogisticRegression(max_iter=1000),
        "1-nearest-neighbor": lambda: KNeighborsClassifier(1),
    }
    right: dict[str, list[float]] = {name: [] for name in methods}
    errors: dict[str, list[float]] = {name: [] for name in methods}
    chosen: dict[str, int] = {}
    seconds: dict[str, float] = dict.fromkeys(methods, 0.0)
    for episode in range(n):
        rows = draw(train.y, k, np.random.default_rng(episode), np.unique(train.y))
        for name, make in methods.items():
            started = time.perf_counter()
            model = make().fit(train.X[rows], train.y[rows])
            p = model.predict_proba(test.X)
            seconds[name] += (time.perf_counter() - started) / n
            hits = model.classes_[p.argmax(1)] == test.y
            right[name].append(hits.mean())
            errors[name].append(calibration_error(p.max(1), hits))
            if name == "auto":
                chosen[model.method_] = chosen.get(model.method_, 0) + 1
    told = {
        name: {
            "accuracy": mean(right[name]),
            "calibration error": mean(errors[name]),
            "seconds": round(seconds[name], 3),
        }
        for name in methods
    }
    told["auto"]["chose"] = chosen
    return told


def unknown(train: Images, test: Images, foreign: np.ndarray, k: int, n: int, rate: float) -> dict:
    alarms, found, strangers, promised = [], [], [], 0
    for episode in range(n):
        rng = np.random.default_rng(1000 + episode)
        known = rng.permutation(np.unique(train.y))[3:]
        rows = draw(train.y, k, rng, known)
        model = FewShotClassifier(false_alarm_rate=rate).fit(train.X[rows], train.y[rows])
        if model.threshold_ is None:
            continue
        promised += 1
        called, of_known = model.unknown(test.X), np.isin(test.y, known)
        # Examples come as many of each class; so must what they are judged by.
        alarms.append(np.mean([called[test.y == c].mean() for c in known]))
        found.append(called[~of_known].mean())
        if len(foreign):
            strangers.append(model.unknown(foreign).mean())
    told: dict = {"episodes with a promise": promised}
    if promised > 1:
        told |= {"false alarms": mean(alarms), "found, other classes": mean(found)}
        if strangers:
            told["found, foreign"] = mean(strangers)
    return told


def active(train: Images, test: Images, k: int, n: int) -> dict[str, dict[str, float]]:
    n_labels, results = k * len(np.unique(train.y)), {"suggested": [], "random": []}
    for episode in range(n):
        order = np.random.default_rng(2000 + episode).permutation(len(train.y))
        for how, scores in results.items():
            rows = order[:n_labels] if how == "random" else order[: n_labels // 2]
            while len(rows) < n_labels:
                model = FewShotClassifier().fit(train.X[rows], train.y[rows])
                rest = np.setdiff1d(order, rows)
                new = suggest(
                    train.X[rest],
                    min(10, n_labels - len(rows)),
                    probabilities=model.predict_proba(train.X[rest]),
                    labeled=train.X[rows],
                )
                rows = np.concatenate([rows, rest[new]])
            scores.append(FewShotClassifier().fit(train.X[rows], train.y[rows]).score(test.X, test.y))
    return {how: mean(scores) for how, scores in results.items()}


def zero_shot(test: Images, model: str) -> float | None:
    from nearsight import load_text_encoder
    from nearsight.errors import NearsightError
    from nearsight.models.text.zero_shot import ZeroShotClassifier

    try:
        names = sorted(set(test.y))
        found = ZeroShotClassifier(load_text_encoder(model), names).predict(test.X)
    except NearsightError:
        return None
    return float((np.array(found.labels) == test.y).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with train/ and test/")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 5, 10, 20])
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--false-alarm-rate", type=float, default=0.05)
    parser.add_argument("--foreign", type=Path, help="images that are none of the classes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    train, test = (Images(options.folder / part, options.model) for part in ("train", "test"))
    foreign = Images(options.foreign, options.model).X if options.foreign else test.X[:0]
    told: dict = {"test images": len(test.y), "zero-shot": zero_shot(test, options.model)}
    for k in options.shots:
        told[f"{k} a class"] = {
            "methods": accuracy(train, test, k, options.episodes),
            "unknown": unknown(train, test, foreign, k, options.episodes, options.false_alarm_rate),
            "labels": active(train, test, k, options.episodes) if k > 1 else {},
        }
        if not options.json:
            say(k, told[f"{k} a class"])
    if options.json:
        print(json.dumps(told))
    elif told["zero-shot"] is not None:
        print(f"zero-shot, from the classes' names: {told['zero-shot']:.3f}")


def say(k: int, found: dict) -> None:
    print(f"\n{k} a class", flush=True)
    for name, row in found["methods"].items():
        figures, errors = row["accuracy"], row["calibration error"]
        print(
            f"  {name:20} accuracy {figures['mean']:.3f} ± {figures['+-']:.3f}   ECE {errors['mean']:.3f}"
            f"   {row['seconds']:.2f} s {row.get('chose', '')}"
        )
    for part in ("unknown", "labels"):
        for key, value in found[part].items():
            text = f"{value['mean']:.3f} ± {value['+-']:.3f}" if isinstance(value, dict) else value
            print(f"  {key:24} {text}", flush=True)


if __name__ == "__main__":
    main()
