"""`audit` and `classify check` on photographs that were spoiled, and on labels that were made wrong.

    python -m benchmarks.audit FOLDER [--foreign FOLDER] [--vectors FILE.npz]

FOLDER has `train` and `test` (and perhaps `validation`), each with a folder of images for each class.

*faults*: limits are learned on `train`, at a false-alarm rate of 1 % over all kinds, and images of `test` and
`validation` are spoiled: blur (Gaussian, as a share of the longer side, and motion), darkness and brightness
(all values times a factor, toward black or white), contrast (toward middle gray), size and shape. Told are
the share of unspoiled images with any fault; the share of spoiled ones that have the right fault (recall);
and of the alarms of a kind, where one image in twenty is spoiled in any of these ways, the share that is
right (precision). With 95 % intervals: Wilson for shares, bootstrap over images for the precision.
*laplacian*: recall of blur by the variance of the Laplacian, with a limit of the same rate.

*blur*: the width of the sharpest edges, as `audit` judges it, beside the same divided by the median of the
image's class and then by that of its size (the longer side, by powers of two; groups of 20 at least). Both
limits are learned on `train` at the same rate. Told is the share of spoiled images found by either, with the
paired difference (bootstrap over images).

*others*: the shipped limits, learned on photographs of clothes, on other sets of good images: the share with
any fault, by kind.

*outliers*: foreign images among those of `train`, all at once and each alone, and how many of the
reported are foreign.

*labels*: 5 % of all labels are changed, to any class or to one of the three nearest, in ten draws. Told are
the area under the ROC curve of the margin, precision among the first 5 %, precision and recall of the images
that `classify check` calls likely and of its three cuts, with what it expects of each, and the same of
cleanlab on the same probabilities where it is installed; and of labels that nobody changed, the cuts.
Labels that were wrong before count as false alarms, so that precision is a lower bound.

*coverage*: holes in `train`, told by what `audit` calls uncovered in the other splits: all images of one
class are taken away; all but three of them; or all of one of ten clusters of one class. *found* is the share
of the images of the hole (of a cluster: those nearer to its mean than to that of the other nine) that are
uncovered, *false alarms* the share of all others; 5 % are stated. *lift* is *found* minus that share of the
same images without the hole. Intervals: over the holes (Student's t).

*few*: 10 labels a class, of the folder and of scikit-learn's digits: how many are called likely.
"""

import argparse
import io
import json
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from nearsight import Embedder, images
from nearsight.analyses.coverage import coverage
from nearsight.analyses.image_quality import QualityLimits
from nearsight.estimators.anomaly import knn_distances
from nearsight.estimators.classification import LabelCut, find_label_errors
from nearsight.estimators.conformal import from_good, tail_alarms
from nearsight.images.statistics import ImageStatistics, statistics
from nearsight.parallel import ordered_map
from nearsight.processor import n_cores

RATE = 0.01
PREVALENCE = 0.05
# Logarithm of an edge width below all that occur.
SHARPEST = -10.0
Measured = tuple[ImageStatistics, float, int, int]


def wilson(n_hits: int, n: int) -> list[float]:
    interval = stats.binomtest(int(n_hits), int(n)).proportion_ci(method="wilson")
    return [round(float(interval.low), 3), round(float(interval.high), 3)]


def share(hits: list[bool]) -> dict[str, object]:
    return {"share": round(float(np.mean(hits)), 3), "95%": wilson(sum(hits), len(hits)), "n": len(hits)}


def toward(level: int, factor: float, image: Image.Image) -> Image.Image:
    return image.point(lambda value: round(level + (value - level) * factor))


def motion(share: float, image: Image.Image, *, upright: bool = False) -> Image.Image:
    pixels = np.asarray(image.transpose(Image.Transpose.TRANSPOSE) if upright else image, np.float32)
    n = max(2, round(max(image.size) * share))
    sums = np.cumsum(np.pad(pixels, ((0, 0), (n, 0), (0, 0)), "edge"), axis=1)
    moved = Image.fromarray(((sums[:, n:] - sums[:, :-n]) / n).astype(np.uint8))
    return moved.transpose(Image.Transpose.TRANSPOSE) if upright else moved


def blur(share: float, image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(share * max(image.size)))


def tiny(side: int, image: Image.Image) -> Image.Image:
    scale = side / min(image.size)
    return image.resize([max(1, round(s * scale)) for s in image.size], Image.Resampling.LANCZOS)


def strip(aspect: float, image: Image.Image) -> Image.Image:
    height = round(image.width / aspect)
    top = (image.height - height) // 2
    return image.crop((0, top, image.width, top + height))


SPOILED = {
    "blurred": {
        **{f"gaussian {s:.2%}": partial(blur, s) for s in (0.0025, 0.005, 0.01, 0.02)},
        **{f"motion {s:.0%}": partial(motion, s) for s in (0.01, 0.02, 0.04)},
        "motion 4% upright": partial(motion, 0.04, upright=True),
    },
    "dark": {f"times {f}": partial(toward, 0, f) for f in (0.5, 0.35, 0.2)},
    "bright": {f"times {f}": partial(toward, 255, f) for f in (0.5, 0.35, 0.2)},
    "low_contrast": {f"times {f}": partial(toward, 128, f) for f in (0.5, 0.35, 0.2)},
    "near_constant": {"times 0.03": partial(toward, 128, 0.03)},
    "tiny": {f"{s} px": partial(tiny, s) for s in (60, 32)},
    "odd_aspect": {f"{a} : 1": partial(strip, a) for a in (3.2, 6)},
}


def measured(image: Image.Image) -> Measured:
    """Return what `audit` measures of an image: its stored thumbnail."""
    thumbnail = Image.open(io.BytesIO(images.thumbnail(image)))
    pixels = np.asarray(thumbnail.convert("L"), np.float32)
    edges = (
        pixels[1:-1, 2:] + pixels[1:-1, :-2] + pixels[2:, 1:-1] + pixels[:-2, 1:-1] - 4 * pixels[1:-1, 1:-1]
    )
    return statistics(thumbnail), float(edges.var()), image.width, image.height


def versions(file: Path) -> dict[tuple[str, str], Measured]:
    image = Image.open(file).convert("RGB")
    result = {("", ""): measured(image)}
    for kind, ways in SPOILED.items():
        result |= {(kind, name): measured(spoil(image)) for name, spoil in ways.items()}
    return result


def files(folder: Path, splits: tuple[str, ...]) -> list[Path]:
    return sorted(file for split in splits for file in (folder / split).rglob("*.jp*g"))


def faults(folder: Path, n_tested: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    train, tested = files(folder, ("train",)), files(folder, ("validation", "test"))
    tested = [tested[i] for i in rng.permutation(len(tested))[:n_tested]]
    examples = list(ordered_map(lambda f: measured(Image.open(f).convert("RGB")), train, n_threads=n_cores()))
    limits = QualityLimits.of_good((m[0] for m in examples), RATE, "train")
    rows = list(ordered_map(versions, tested, n_threads=n_cores()))
    kinds = {
        key: [{f.kind for f in limits.faults(m[0], m[2], m[3])} for m in (row[key] for row in rows)]
        for key in rows[0]
    }
    good = kinds["", ""]
    laplacian_limit = np.sort([m[1] for m in examples])[int(RATE / 4 * (len(examples) + 1)) - 1]
    return {
        "limits": {kind: round(value, 3) for kind, value in limits.limits.items()},
        "learned on": len(train),
        "false alarms": share([bool(found) for found in good]),
        "false alarms by kind": {
            kind: wilson(sum(kind in f for f in good), len(good))
            for kind in SPOILED
            if any(kind in f for f in good)
        },
        "recall": {
            kind: {name: share([kind in found for found in kinds[kind, name]]) for name in ways}
            for kind, ways in SPOILED.items()
        },
        "recall of blur by the laplacian": {
            name: share([row["blurred", name][1] < laplacian_limit for row in rows])
            for name in SPOILED["blurred"]
        },
        "precision": {kind: precision(kinds, kind, rng) for kind in SPOILED},
    }


def relative_blur(folder: Path, n_tested: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    train, tested = files(folder, ("train",)), files(folder, ("validation", "test"))
    tested = [tested[i] for i in rng.permutation(len(tested))[:n_tested]]
    ways = {"unspoiled": lambda image: image, **SPOILED["blurred"]}

    def widths(file: Path, names: list[str]) -> list[float]:
        image = Image.open(file).convert("RGB")
        return [measured(ways[name](image))[0].edge_width for name in names]

    def sizes(paths: list[Path]) -> list[int]:
        return [int(np.log2(max(Image.open(file).size))) for file in paths]

    learned = np.array(
        list(ordered_map(lambda f: widths(f, ["unspoiled"]), train, n_threads=n_cores())), float
    )[:, 0]
    rows = np.array(list(ordered_map(lambda f: widths(f, list(ways)), tested, n_threads=n_cores())), float)
    usual = medians(np.log(positive(learned)), [file.parent.name for file in train])
    of_class = np.array([usual.get(file.parent.name, usual[""]) for file in train])
    by_size = medians(np.log(positive(learned)) - of_class, sizes(train))
    by_size[""] = 0.0

    def scores(values: np.ndarray, paths: list[Path]) -> np.ndarray:
        shifts = [
            usual.get(file.parent.name, usual[""]) + by_size.get(size, 0.0)
            for file, size in zip(paths, sizes(paths), strict=True)
        ]
        return np.log(positive(values)) - np.array(shifts)

    def limit(values: np.ndarray) -> float:
        return from_good(np.nan_to_num(values, nan=SHARPEST), false_alarm_rate=RATE / 4).value

    absolute, relative = limit(np.log(positive(learned))), limit(scores(learned, train))
    result: dict[str, object] = {}
    for at, name in enumerate(ways):
        by_width = np.log(positive(rows[:, at])) > absolute
        by_ratio = scores(rows[:, at], tested) > relative
        difference = by_ratio.astype(float) - by_width
        means = difference[rng.integers(0, len(tested), (2000, len(tested)))].mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        result[name] = {
            "by width": share(by_width.tolist()),
            "by class and size": share(by_ratio.tolist()),
            "difference": [round(float(value), 3) for value in (difference.mean(), low, high)],
        }
    return result


def positive(widths: np.ndarray) -> np.ndarray:
    """Return edge widths; NaN where nothing is blurred at all, or there is no edge."""
    return np.where(widths > 0, widths, np.nan)


def medians(values: np.ndarray, groups: list) -> dict:
    """Return the median of each group of 20 values at least, and of all under the empty text."""
    result = {"": float(np.nanmedian(values))}
    for group in set(groups):
        members = values[[name == group for name in groups]]
        if np.isfinite(members).sum() >= 20:
            result[group] = float(np.nanmedian(members))
    return result


def alarms_on(folder: Path, n: int = 200) -> dict[str, object]:
    limits = QualityLimits.shipped(RATE)
    found = [source.path for source in images.find([folder]) if isinstance(source, images.FileSource)]
    chosen = sorted(np.random.default_rng(0).permutation(found)[:n])
    rows = list(ordered_map(lambda f: measured(Image.open(f).convert("RGB")), chosen, n_threads=n_cores()))
    kinds = [{fault.kind for fault in limits.faults(m[0], m[2], m[3])} for m in rows]
    counts = {kind: sum(kind in k for k in kinds) for kind in SPOILED}
    return {"any": share([bool(k) for k in kinds]), **{kind: c for kind, c in counts.items() if c}}


def precision(kinds: dict[tuple[str, str], list[set[str]]], kind: str, rng: np.random.Generator) -> object:
    """Return the precision where one image in twenty is spoiled, in any way with equal probability."""
    ways = [key for key in kinds if key[0]]
    alarms = {key: np.array([kind in found for found in kinds[key]]) for key in kinds}
    n = len(alarms["", ""])

    def of(rows: np.ndarray) -> float:
        right = sum(alarms[key][rows].mean() for key in ways if key[0] == kind) / len(ways) * PREVALENCE
        wrong = sum(alarms[key][rows].mean() for key in ways if key[0] != kind) / len(ways) * PREVALENCE
        wrong += (1 - PREVALENCE) * alarms["", ""][rows].mean()
        return right / (right + wrong) if right else 0.0

    draws = [of(rng.integers(0, n, n)) for _ in range(1000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"share": round(of(np.arange(n)), 3), "95%": [round(float(low), 3), round(float(high), 3)]}


def vectors(folder: Path, file: Path | None) -> tuple[np.ndarray, list[str]]:
    if file is None:
        embedded = Embedder().embed(folder)
        return embedded.vectors, embedded.paths
    with np.load(file) as stored:
        return stored["vectors"], stored["paths"].tolist()


def outliers(X: np.ndarray, foreign: np.ndarray) -> dict[str, object]:
    def reported(extra: np.ndarray) -> dict[str, int]:
        rows = np.r_[X, extra]
        distances = knn_distances(rows, rows, np.arange(len(rows)), n_neighbors=5)
        alarms = tail_alarms(distances)
        return {"foreign": int(alarms[len(X) :].sum()), "others": int(alarms[: len(X)].sum())}

    alone = [reported(foreign[i : i + 1]) for i in range(len(foreign))]
    return {
        "among": len(X),
        "none foreign": reported(foreign[:0]),
        f"all {len(foreign)} at once": reported(foreign),
        "each alone": {key: sum(found[key] for found in alone) for key in alone[0]},
    }


def uncovered(X: np.ndarray, is_train: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return which images beside `train` are uncovered by the images of it that are kept."""
    rows = np.flatnonzero(~is_train | kept)
    splits = {str(row): {"train" if is_train[row] else "test"} for row in rows}
    (told,) = coverage(list(splits), X[rows], splits, {})
    alarms = np.zeros(len(X), bool)
    alarms[[int(id) for id, _ in told.uncovered]] = True
    return alarms


def holes(X: np.ndarray, y: np.ndarray, is_train: np.ndarray) -> dict[str, object]:
    """Return the share of the images of planted holes that are uncovered, and of the others."""
    rng, everything = np.random.default_rng(0), is_train.copy()
    before = uncovered(X, is_train, everything)
    planted: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {
        "a class is missing": [],
        "three images of a class are left": [],
        "a tenth of a class is missing": [],
    }
    for c in np.unique(y):
        of_class = np.flatnonzero(is_train & (y == c))
        planted["a class is missing"].append((of_class, ~is_train & (y == c)))
        few = rng.permutation(of_class)[3:]
        planted["three images of a class are left"].append((few, ~is_train & (y == c)))
        clusters = KMeans(10, n_init=3, random_state=0).fit(X[of_class])
        number = int(np.argsort(np.bincount(clusters.labels_))[5])
        is_there = np.zeros(len(X), bool)
        others = np.flatnonzero(~is_train & (y == c))
        is_there[others] = clusters.predict(X[others]) == number
        planted["a tenth of a class is missing"].append((of_class[clusters.labels_ == number], is_there))
    result: dict[str, object] = {"without a hole": share(before[~is_train].tolist())}
    for name, ways in planted.items():
        figures: dict[str, list[float]] = {"found": [], "lift": [], "false alarms": []}
        for taken, is_there in ways:
            if not is_there.any():
                continue
            kept = everything.copy()
            kept[taken] = False
            alarms = uncovered(X, is_train, kept)
            figures["found"].append(float(alarms[is_there].mean()))
            figures["lift"].append(float(alarms[is_there].mean() - before[is_there].mean()))
            figures["false alarms"].append(float(alarms[~is_train & ~is_there].mean()))
        half = stats.t.ppf(0.975, len(figures["found"]) - 1) / np.sqrt(len(figures["found"]))
        result[name] = {
            "holes": len(figures["found"]),
            **{
                key: {"mean": round(float(np.mean(v)), 3), "+-": round(float(half * np.std(v, ddof=1)), 3)}
                for key, v in figures.items()
            },
        }
    return result


def changed(
    y: np.ndarray, nearest: np.ndarray | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which 5 % are wrong, and which."""
    rows = rng.choice(len(y), round(0.05 * len(y)), replace=False)
    wrong = y.copy()
    for row in rows:
        others = np.setdiff1d(np.arange(y.max() + 1), y[row]) if nearest is None else nearest[y[row]]
        wrong[row] = rng.choice(others)
    return wrong, rows


def labels(X: np.ndarray, y: np.ndarray, n_draws: int) -> dict[str, object]:
    means = np.array([X[y == c].mean(axis=0) for c in range(y.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    nearest = np.argsort(-(means @ means.T), axis=1)[:, 1:4]
    result: dict[str, object] = {
        "as they are": [expected(cut) for cut in find_label_errors(X, y).cuts],
    }
    for name, candidates in (("any class", None), ("one of the three nearest", nearest)):
        figures: dict[str, list[float]] = {}
        for seed in range(n_draws):
            wrong, rows = changed(y, candidates, np.random.default_rng(seed))
            for key, value in judged(X, wrong, rows).items():
                figures.setdefault(key, []).append(value)
        half = stats.t.ppf(0.975, n_draws - 1) / np.sqrt(n_draws)
        result[name] = {
            key: {"mean": round(float(np.mean(v)), 3), "+-": round(float(half * np.std(v, ddof=1)), 3)}
            for key, v in figures.items()
        }
    return result


def expected(cut: LabelCut) -> dict[str, object]:
    return {"cut": cut.name, "images": cut.n, "expected precision": cut.precision}


def few_labels(X: np.ndarray, y: np.ndarray, n_each: int = 10, n_draws: int = 6) -> dict[str, object]:
    """Return how many of few labels are called likely, and how many of those are wrong."""
    result: dict[str, object] = {}
    for share_wrong in (0.0, 0.05):
        counts = []
        for draw in range(n_draws):
            rng = np.random.default_rng(100 + draw)
            rows = np.concatenate([rng.permutation(np.flatnonzero(y == c))[:n_each] for c in np.unique(y)])
            wrong = y[rows].copy()
            bad = rng.choice(len(rows), int(len(rows) * share_wrong), replace=False)
            wrong[bad] = (wrong[bad] + rng.integers(1, y.max() + 1, len(bad))) % (y.max() + 1)
            errors = find_label_errors(X[rows], wrong)
            counts.append([errors.n_expected, np.isin(errors.ranked[: errors.n_expected], bad).sum()])
        means = np.mean(counts, axis=0)
        result[f"{share_wrong:.0%} wrong"] = {
            "labels": len(rows),
            "likely": round(float(means[0]), 1),
            "of these wrong": round(float(means[1]), 1),
        }
    return result


def judged(X: np.ndarray, y: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    errors = find_label_errors(X, y)
    is_wrong = np.zeros(len(y), bool)
    is_wrong[rows] = True
    first = np.argsort(errors.margins, kind="stable")[: len(rows)]
    ranks = stats.rankdata(-errors.margins)
    auc = (ranks[is_wrong].sum() - len(rows) * (len(rows) + 1) / 2) / (len(rows) * (~is_wrong).sum())
    likely = errors.ranked[: errors.n_expected]
    figures = {
        "AUROC": float(auc),
        "precision of the first 5 %": float(is_wrong[first].mean()),
        "likely": float(len(likely)),
        "precision of the likely": float(is_wrong[likely].mean()) if len(likely) else 0.0,
        "recall of the likely": float(is_wrong[likely].sum() / len(rows)),
    }
    for cut in errors.cuts:
        first = errors.ranked[: cut.n]
        figures |= {
            f"{cut.name}: images": float(cut.n),
            f"{cut.name}: precision": float(is_wrong[first].mean()) if cut.n else 0.0,
            f"{cut.name}: expected precision": cut.precision or 0.0,
            f"{cut.name}: recall": float(is_wrong[first].sum() / len(rows)),
            f"{cut.name}: expected recall": cut.recall,
        }
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return figures
    theirs = find_label_issues(
        y, errors.probabilities, return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    return figures | {
        "cleanlab: likely": float(len(theirs)),
        "cleanlab: precision of the first 5 %": float(is_wrong[theirs[: len(rows)]].sum() / len(rows)),
        "cleanlab: precision of the likely": float(is_wrong[theirs].mean()),
        "cleanlab: recall of the likely": float(is_wrong[theirs].sum() / len(rows)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--foreign", type=Path, help="images of other things")
    parser.add_argument("--vectors", type=Path, help="of FOLDER, from `nearsight embed FOLDER --out`")
    parser.add_argument("--tested", type=int, default=400, help="images that are spoiled")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--part", choices=["faults", "blur", "labels", "coverage", "few", "others"])
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="folders of good images")
    given = parser.parse_args()
    document: dict = {}
    parts = [given.part] if given.part else ["faults", "blur", "others", "labels", "coverage", "few"]
    if "faults" in parts:
        document["faults"] = faults(given.folder, given.tested)
    if "blur" in parts:
        document["blur"] = relative_blur(given.folder, given.tested)
    if "others" in parts:
        document["others"] = {str(folder): alarms_on(folder) for folder in given.others}
    if "labels" in parts:
        X, paths = vectors(given.folder, given.vectors)
        names = np.array([Path(path).parent.name for path in paths])
        document["labels"] = labels(X, np.unique(names, return_inverse=True)[1], given.draws)
        if given.foreign:
            is_train = np.array(["/train/" in path for path in paths])
            document["outliers"] = outliers(X[is_train], Embedder().embed(given.foreign).vectors)
    if "coverage" in parts:
        X, paths = vectors(given.folder, given.vectors)
        names = np.array([Path(path).parent.name for path in paths])
        is_train = np.array(["train" in Path(path).parts for path in paths])
        document["coverage"] = holes(X, np.unique(names, return_inverse=True)[1], is_train)
        if given.foreign:
            extra = Embedder().embed(given.foreign).vectors
            both, is_known = np.concatenate([X, extra]), np.r_[is_train, np.zeros(len(extra), bool)]
            alarms = uncovered(both, is_known, is_known)
            document["coverage"]["foreign"] = share(alarms[len(X) :].tolist())
    if "few" in parts:
        X, paths = vectors(given.folder, given.vectors)
        names = np.array([Path(path).parent.name for path in paths])
        digits, classes = load_digits(return_X_y=True)
        document["few labels"] = {
            "the folder": few_labels(X, np.unique(names, return_inverse=True)[1]),
            "digits": few_labels(digits - digits.mean(axis=0), classes),
        }
    print(json.dumps(document, indent=1))
