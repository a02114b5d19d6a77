"""Defects found by detectors that saw good images only, over random splits, all methods in one run.

    python -m benchmarks.anomaly [--solar FOLDER] [--splits N] [--fit N] [--masks | --oracle] [--json]

Textiles: the simulated fabrics of ``conformal-clip-data`` (MIT), 1,000 good, 500 with a local defect of a few
pixels, 500 of another weave everywhere. Solar cells: the folder ``elpv_dataset/data`` of ``elpv-dataset``
(CC BY-NC-SA, so it is nobody's dependency: ``pip install elpv-dataset==1.0.0.post1``, or unzip its wheel);
good are cells of defect probability 0, defective those of 1.

Told for each method: AUROC of images, mean and standard deviation over splits. Also
the realized rate of false alarms beside the stated one, over all splits, and in how many of them it lies in
the binomial 95 % band. That band is for a threshold that is exactly right; one learned from so many
held-out images has luck of its own, so fewer than 95 % of the splits lie in it: how many should, is told.

``--masks`` puts defects of known shape into good fabric (a spot of noise, a scratch, an ellipse of the other
weave) and tells AUPRO up to 30 % false positives (Bergmann et al. 2021) and the AUROC of pixels.
The defects are made, and say so; the set has no masks of its own.

``--oracle`` compares the bounded memory with one of every patch, on one split with fewer images.

References: PatchCore as published, on the same network (layers of strides 8 and 16 joined, no whitening, the
highest place, reweighted), in its published view (resize 256, crop 224) and on our tiles; and the nearest
neighbors of plain embeddings. anomalib's own backbone cannot be installed from the package index alone.
"""

import argparse
import csv
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score

from nearsight import Embedder
from nearsight.anomaly.tiling import TileGrid, cut_tiles, plan_tiles, resize_map, stitch_maps
from nearsight.estimators.anomaly import (
    LevelScores,
    MultiLevelAnomaly,
    PatchMemory,
    VectorAnomaly,
    combine_scores,
)
from nearsight.images import decode
from nearsight.models import find_model
from nearsight.models.dense_features import FeatureMaps, load_features
from nearsight.models.preprocess import resize_and_crop as preprocessed

LAYERS = ("block2.add", "block4.add", "block10.add", "block15.project")
OURS = (0, 2, 3)
PAPER = (1, 2)
RATE = 0.05

Layers = list[np.ndarray]


def textiles() -> dict[str, list[Path]]:
    spec = importlib.util.find_spec("conformal_clip_data")
    if spec is None or spec.origin is None:
        raise SystemExit("conformal-clip-data is needed: pip install 'nearsight[demo]'")
    folder = Path(spec.origin).parent / "data/textile_images/simulated"
    return {
        name: sorted((folder / there).glob("*.jpg"))
        for name, there in (("good", "nominal"), ("local", "local"), ("global", "global"))
    }


def solar(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {"good": [], "defective": []}
    with open(folder / "labels.csv") as file:
        for name, probability, _ in csv.reader(file, delimiter=" ", skipinitialspace=True):
            if float(probability) in (0.0, 1.0):
                found["defective" if float(probability) else "good"].append(folder / name)
    return found


class Views:
    """Features of images: our tiles, and the published center crop."""

    def __init__(self, features: FeatureMaps) -> None:
        self.features = features
        self.crop = find_model("efficientnet-lite0").spec

    def tiles(self, image: Image.Image) -> tuple[Layers, TileGrid]:
        grid = plan_tiles((image.height, image.width), self.features.spec.input_px, 16)
        maps = [self.features.maps(tile) for tile in cut_tiles(image, self.features.spec, grid)]
        return [np.stack(layer) for layer in zip(*maps, strict=True)], grid

    def cropped(self, image: Image.Image) -> Layers:
        return [layer[None] for layer in self.features.maps(preprocessed(image, self.crop))]

    def both(self, path: Path) -> tuple[Layers, Layers]:
        image = decode(path.read_bytes()).image
        return self.tiles(image)[0], self.cropped(image)


def joined(layers: Layers) -> np.ndarray:
    """The published features: neighborhoods averaged, brought to the finest layer's places, end to end."""
    chosen = [ndimage.uniform_filter(layers[i], (0, 3, 3, 0), mode="nearest") for i in PAPER]
    height, width = chosen[0].shape[1:3]
    parts = [chosen[0]]
    for coarse in chosen[1:]:
        planes = [
            [resize_map(tile[..., c], (height, width)) for c in range(tile.shape[-1])] for tile in coarse
        ]
        parts.append(np.moveaxis(np.array(planes, np.float32), 1, -1))
    return np.concatenate(parts, -1)


def patchcore(n_rows: int) -> PatchMemory:
    return PatchMemory(n_rows=n_rows, neighborhood=1, shrinkage=None, top_share=0.0)


def ours(layers: Layers) -> Layers:
    return [layers[i] for i in OURS]


def auroc(good: np.ndarray, bad: np.ndarray) -> float:
    return float(roc_auc_score(np.r_[np.zeros(len(good)), np.ones(len(bad))], np.r_[good, bad]))


class Split:
    """One random choice of good images to learn from and to be tested with."""

    def __init__(self, n_good: int, n_fit: int, n_test: int, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(n_good)
        self.fit, self.test = order[:n_fit], order[n_fit : n_fit + n_test]
        self.seed = seed


Scorer = Callable[[str, int], float]


def run(kinds: dict[str, list[Path]], options: argparse.Namespace) -> dict[str, Any]:
    views = Views(load_features("efficientnet-lite0", LAYERS))
    rng = np.random.default_rng(0)
    n_good = min(len(kinds["good"]), options.pool)
    chosen = {
        kind: [paths[i] for i in rng.permutation(len(paths))[: n_good if kind == "good" else options.test]]
        for kind, paths in kinds.items()
    }
    with ThreadPoolExecutor(2) as pool:
        seen = {kind: list(pool.map(views.both, paths)) for kind, paths in chosen.items()}
    plain, flat = {}, {}
    if options.references:
        plain = {kind: Embedder(progress=False).embed(paths).vectors for kind, paths in chosen.items()}
        flat = {kind: [(joined(tiles), joined(crop)) for tiles, crop in some] for kind, some in seen.items()}
    rows: dict[str, dict[str, list[float]]] = {}
    rates: list[tuple[float, bool, float]] = []
    defects = [kind for kind in chosen if kind != "good"]
    detected: dict[str, list[float]] = {kind: [] for kind in defects}
    for seed in range(options.splits):
        split = Split(n_good, options.fit, options.test, seed)

        def add(name: str, score: Scorer, split: Split = split) -> np.ndarray:
            good = np.array([score("good", i) for i in split.test])
            for kind in defects:
                bad = np.array([score(kind, i) for i in range(len(chosen[kind]))])
                rows.setdefault(name, {}).setdefault(kind, []).append(auroc(good, bad))
            return good

        detector = MultiLevelAnomaly(false_alarm_rate=RATE, random_state=seed)
        detector.fit([ours(seen["good"][i][0]) for i in split.fit])
        judged = {
            kind: [detector.score_levels(ours(seen[kind][i][0])) for i in which]
            for kind, which in {**{k: range(len(chosen[k])) for k in defects}, "good": split.test}.items()
        }
        by_level = {
            level: {k: by(v, level) for k, v in judged.items()} for level in ("combined", "image", "patch")
        }
        for level, scores in by_level.items():
            for kind in defects:
                found = auroc(scores["good"], scores[kind])
                rows.setdefault(f"nearsight, {level}", {}).setdefault(kind, []).append(found)
        threshold, good = detector.threshold_, by_level["combined"]["good"]
        rate = float(threshold.exceeded(good).mean())
        low, high = threshold.observed_rate_interval(len(good))
        rates.append((rate, low <= rate <= high, expected_in_band(threshold.n_examples, len(good))))
        for kind in defects:
            detected[kind].append(float(threshold.exceeded(by_level["combined"][kind]).mean()))
        if options.references:
            for view, name in (
                (0, "PatchCore as published, our tiles"),
                (1, "PatchCore as published, its crop"),
            ):
                memory = patchcore(2000).fit(flat["good"][i][view] for i in split.fit)
                add(name, lambda kind, i, m=memory, v=view: m.score_image(flat[kind][i][v])[1])
            for method in ("knn", "mahalanobis"):
                whole = VectorAnomaly(method=method, false_alarm_rate=None).fit(plain["good"][split.fit])
                name = f"plain embedding, {method}"
                add(name, lambda kind, i, w=whole: -float(w.score_samples(plain[kind][i : i + 1])[0]))
        print(f"split {seed + 1} of {options.splits}", flush=True) if not options.json else None
    told: dict[str, Any] = {
        name: {kind: {"auroc": mean(v), "sd": sd(v)} for kind, v in by_kind.items()}
        for name, by_kind in rows.items()
    }
    realized = [rate for rate, _, _ in rates]
    told["at the threshold"] = {
        "false alarms, stated": RATE,
        "false alarms, by theory": detector.threshold_.expected_rate,
        "false alarms, realized": mean(realized),
        "false alarms, standard error": round(
            float(np.std(realized) / np.sqrt(max(1, len(realized) - 1))), 4
        ),
        "splits in the band": mean([float(inside) for _, inside, _ in rates]),
        "splits in the band, expected": mean([share for _, _, share in rates]),
        **{f"{kind}, detected": mean(shares) for kind, shares in detected.items()},
    }
    return told


def by(some: list[LevelScores], level: str) -> np.ndarray:
    """Scores of one level, out of what the combined detector says of each."""
    if level == "combined":
        return np.array([one.score for one in some])
    if level == "image":
        return np.array([one.levels["image"] for one in some])
    return np.array(
        [combine_scores([np.array(z) for name, z in one.levels.items() if name != "image"]) for one in some]
    )


def expected_in_band(held: int, n: int) -> float:
    """How often a threshold from so many held-out images gives a rate inside the band, by theory."""
    k = max(1, int(RATE * (held + 1) * (1 + 1e-9)))
    low, high = stats.binom.interval(0.95, n, RATE)
    law = stats.betabinom(n, k, held + 1 - k)
    return float(law.cdf(high) - law.cdf(low - 1))


def mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def sd(values: Sequence[float]) -> float:
    return round(float(np.std(values)), 4)


def spoiled(good: np.ndarray, weave: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Put one defect of known shape into good fabric; returns pixels and mask."""
    rng = np.random.default_rng(seed)
    height, width = good.shape[:2]
    y, x = np.mgrid[:height, :width]
    cy, cx = rng.integers(20, height - 20), rng.integers(20, width - 20)
    kind = seed % 3
    if kind == 0:
        mask = (y - cy) ** 2 + (x - cx) ** 2 <= rng.integers(4, 9) ** 2
        other = rng.integers(0, 256, good.shape[:2])[..., None].repeat(3, -1)
    elif kind == 1:
        angle, length = rng.uniform(0, np.pi), rng.integers(30, 80)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        mask = (np.abs(across) < 1.5) & (np.abs(along) < length / 2)
        other = np.full(good.shape, rng.choice([40, 215]))
    else:
        a, b = rng.integers(15, 40, 2)
        mask = ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 <= 1
        other = weave
    return np.where(mask[..., None], other, good).astype(np.uint8), mask


def aupro(maps: list[np.ndarray], masks: list[np.ndarray], limit: float = 0.3) -> float:
    """Mean share of each region that is above a threshold, over rates of false positives up to `limit`."""
    clean = np.sort(np.concatenate([m[~mask] for m, mask in zip(maps, masks, strict=True)]))
    regions = []
    for one, mask in zip(maps, masks, strict=True):
        labels, n = ndimage.label(mask)
        regions += [np.sort(one[labels == i]) for i in range(1, n + 1)]
    rates = np.linspace(0, limit, 301)[1:]
    cuts = clean[np.clip(np.floor((1 - rates) * len(clean)).astype(int), 0, len(clean) - 1)]
    overlap = np.mean([1 - np.searchsorted(r, cuts, side="right") / len(r) for r in regions], axis=0)
    return float(np.trapezoid(np.r_[0, overlap], np.r_[0, rates]) / limit)


def localization(kinds: dict[str, list[Path]], options: argparse.Namespace) -> dict[str, Any]:
    views = Views(load_features("efficientnet-lite0", LAYERS))
    rng = np.random.default_rng(1)
    order = rng.permutation(len(kinds["good"]))
    detector = MultiLevelAnomaly(false_alarm_rate=RATE)
    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(views.both, [kinds["good"][i] for i in order[: options.fit]]))
    detector.fit([ours(tiles) for tiles, _ in seen])
    published = patchcore(2000).fit(joined(tiles) for tiles, _ in seen)
    maps: dict[str, list[np.ndarray]] = {"nearsight": [], "PatchCore as published, our tiles": []}
    masks = []
    for n, i in enumerate(order[options.fit : options.fit + 90]):
        good, weave = (
            np.asarray(decode(p.read_bytes()).image) for p in (kinds["good"][i], kinds["global"][n])
        )
        pixels, mask = spoiled(good, weave, n)
        layers, grid = views.tiles(Image.fromarray(pixels))
        masks.append(mask)
        heat = detector.score_levels(ours(layers)).heat
        sheet = combine_scores([stitch_maps(h, grid) for h in heat])
        maps["nearsight"].append(resize_map(sheet, grid.image_px))
        maps["PatchCore as published, our tiles"].append(
            resize_map(stitch_maps(published.distances(joined(layers)), grid), grid.image_px)
        )
    told: dict[str, Any] = {}
    truth = np.concatenate([m.ravel() for m in masks])
    for name, some in maps.items():
        told[name] = {
            "AUPRO@0.3": round(aupro(some, masks), 4),
            "pixel AUROC": round(float(roc_auc_score(truth, np.concatenate([m.ravel() for m in some]))), 4),
        }
        for k, kind in enumerate(("spot of noise", "scratch", "ellipse of another weave")):
            told[name][f"AUPRO@0.3, {kind}"] = round(aupro(some[k::3], masks[k::3]), 4)
    return told


def oracle(kinds: dict[str, list[Path]]) -> dict[str, Any]:
    """The patch level with a bounded memory, and with every patch."""
    views = Views(load_features("efficientnet-lite0", LAYERS))
    rng = np.random.default_rng(2)
    order = rng.permutation(len(kinds["good"]))[:100]
    last = next(reversed(kinds))
    defects = {k: kinds[k][:50] for k in kinds if k != "good"} or {last: kinds[last][:50]}
    with ThreadPoolExecutor(2) as pool:
        good = list(pool.map(views.both, [kinds["good"][i] for i in order]))
        bad = {k: list(pool.map(views.both, paths)) for k, paths in defects.items()}
    told: dict[str, Any] = {}
    for n_rows in (250, 500, 1000, 2000, 4000, 10**9):
        detector = MultiLevelAnomaly(level="patch", n_patches=n_rows, false_alarm_rate=RATE)
        detector.fit([ours(t) for t, _ in good[:50]])
        started = time.perf_counter()
        scores = np.array([detector.score_levels(ours(t)).score for t, _ in good[50:]])
        spent = (time.perf_counter() - started) / 50
        told["every patch" if n_rows == 10**9 else f"{n_rows} patches a layer"] = {
            **{
                k: round(auroc(scores, np.array([detector.score_levels(ours(t)).score for t, _ in v])), 4)
                for k, v in bad.items()
            },
            "ms an image": round(1000 * spent, 1),
            "memory MB": round(sum(a.nbytes for a in detector.state()[1].values()) / 1e6, 1),
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--solar", type=Path, metavar="FOLDER")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--fit", type=int, default=200, help="good images a detector is given")
    parser.add_argument("--test", type=int, default=200, help="good images, and of each defect, to judge")
    parser.add_argument("--pool", type=int, default=1000, help="good images that splits are drawn from")
    parser.add_argument("--no-references", dest="references", action="store_false")
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds = solar(options.solar) if options.solar else textiles()
    if options.masks and options.solar:
        raise SystemExit("--masks goes with textiles")
    if options.masks:
        told = localization(kinds, options)
    else:
        told = oracle(kinds) if options.oracle else run(kinds, options)
    if options.json:
        print(json.dumps(told))
        return
    for name, values in told.items():
        print(name)
        for key, value in values.items():
            print(f"    {key:32} {value}")


if __name__ == "__main__":
    main()
