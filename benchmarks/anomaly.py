"""Defects found by detectors that saw good images only. Parts that are tested were not learned.

    python -m benchmarks.anomaly [--splits N] [--fit N] [--test N] [--skip N]          textiles
    python -m benchmarks.anomaly --pcb FOLDER [--good photographs] [--templates]       circuit boards
    python -m benchmarks.anomaly --solar FOLDER                                        solar cells
    python -m benchmarks.anomaly --speed 600 | --masks | --oracle                      textiles
    [--anomalib PYTHON] [--json]

Textiles: the simulated fabrics of ``conformal-clip-data`` (MIT), 1,000 good, 500 with a local defect of a
few pixels, 500 of another weave everywhere. ``--skip 300`` leaves out the images that settings were chosen
on: the first 300 good, 150 local and 50 global ones of a fixed order.

Circuit boards: a folder with ``good``, ``defect`` and ``boxes`` (DeepPCB, MIT): of each region of a board a
defect-free template, and a photograph with 3 to 12 defects. Splits are by region. The templates were stored
with another JPEG quality than the photographs, which alone would tell them apart; so they are encoded again
with the tables of the photograph. They are also cleaner than photographs. ``--good photographs`` makes good
images out of the photographs instead: what lies in the boxes is replaced by the template. ``--templates``
compares each image with its template, too, and needs ``--good photographs``: a template does not differ
from itself. Settings were chosen on boards 44000; figures are of 77000.

Solar cells: the folder ``elpv_dataset/data`` of ``elpv-dataset`` (CC BY-NC-SA, so it is nobody's
dependency: ``pip install elpv-dataset==1.0.0.post1``); good are cells of defect probability 0, defective
those of 1. Which cells are of one module is not said.

Of each method: AUROC by image, with the 95 % interval over splits (Student's t). The realized rate of false
alarms beside the stated one; how often the hottest place of a good image lies in the outermost 5 % of a
side, which are 19 % of its area; and with boxes, how many contain one of the heat's peaks (as many peaks as
the image has boxes, at least 24 pixels apart, within 16 pixels of the box).

References, on the same network: PatchCore as published (layers of strides 8 and 16 joined, no whitening,
the highest place, reweighted), of the whole image stretched to 224 pixels; and with ``--anomalib PYTHON``,
an interpreter that has anomalib, its ``PatchcoreModel`` on the same feature maps (a tenth of the patches,
nine neighbors, as it is by default). Its own backbone needs weights from a hub.
"""

import argparse
import csv
import importlib.util
import io
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage, stats
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from nearsight import AnomalyDetector
from nearsight.anomaly.templates import template_difference
from nearsight.anomaly.tiling import resize_map
from nearsight.anomaly.views import ViewExtractor, combined_heat, default_views
from nearsight.estimators.anomaly import LevelScores, MultiLevelAnomaly, PatchMemory
from nearsight.models.dense_features import load_features
from nearsight.models.preprocess import resize_and_crop

RATE = 0.05
# The published layers: strides 8 and 16.
PAPER = ("block4.add", "block10.add")
BORDER, PEAK_APART_PX, BOX_MARGIN_PX = 0.05, 24, 16
Maps = list[np.ndarray]

ANOMALIB = """
import sys, numpy as np, torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
torch.set_num_threads(1)
data = np.load(sys.argv[1])
# The backbone is not used: the features come from the file.
model = PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False).eval()
model.layers = ["fine", "coarse"]
def embedding(i):
    planes = {k: torch.tensor(data[k][i : i + 1]).permute(0, 3, 1, 2) for k in model.layers}
    maps = {k: model.feature_pooler(values) for k, values in planes.items()}
    return model.reshape_embedding(model.generate_embedding(maps))
model.embedding_store = [embedding(i) for i in data["fit"]]
model.subsample_embedding(0.1)
scores = []
for i in data["test"]:
    rows = embedding(i)
    distances, places = model.nearest_neighbors(rows, 1)
    scores.append(float(model.compute_anomaly_score(distances.reshape(1, -1), places.reshape(1, -1), rows)))
np.save(sys.argv[2], scores)
"""


@dataclass(frozen=True)
class Sample:
    """One image: its kind, the physical part that it shows, its defects' boxes and its template."""

    kind: str
    part: str
    open: Callable[[], Image.Image]
    boxes: tuple[tuple[int, ...], ...] = ()
    template: Path | None = None


def textiles(skip: tuple[int, int, int] = (0, 0, 0)) -> list[Sample]:
    spec = importlib.util.find_spec("conformal_clip_data")
    if spec is None or spec.origin is None:
        raise SystemExit("conformal-clip-data is needed: pip install 'nearsight[demo]'")
    folder = Path(spec.origin).parent / "data/textile_images/simulated"
    samples = []
    for (kind, name), n in zip(
        (("good", "nominal"), ("local", "local"), ("global", "global")), skip, strict=True
    ):
        paths = sorted((folder / name).glob("*.jpg"))
        order = np.random.default_rng(0).permutation(len(paths))[n:]
        samples += [Sample(kind, str(paths[i]), lambda path=paths[i]: Image.open(path)) for i in order]
    return samples


def boards(folder: Path, photographs: bool) -> list[Sample]:
    samples = []
    for path in sorted((folder / "defect").glob("*.jpg")):
        template = folder / "good" / path.name
        lines = (folder / "boxes" / f"{path.stem}.txt").read_text().splitlines()
        boxes = tuple(tuple(map(int, line.split()[:4])) for line in lines if line.strip())
        again = [str(template), str(path), boxes if photographs else ((0, 0, 640, 640),)]
        samples.append(Sample("good", path.stem, lambda again=again: healed(*again), template=template))
        samples.append(
            Sample("defect", path.stem, lambda again=again: healed(*again[:2], ()), boxes, template)
        )
    return samples


def healed(template: str, photograph: str, boxes: Sequence[Sequence[int]]) -> Image.Image:
    """The photograph with the template's pixels in boxes, in the compression of the photograph."""
    with Image.open(photograph) as image, Image.open(template) as good:
        tables, pixels = image.quantization, image.convert("L")  # type: ignore[attr-defined] # a JPEG
        for x0, y0, x1, y1 in boxes:
            box = (max(x0 - 4, 0), max(y0 - 4, 0), min(x1 + 4, image.width), min(y1 + 4, image.height))
            pixels.paste(good.convert("L").crop(box), box[:2])
    file = io.BytesIO()
    pixels.save(file, "JPEG", qtables=tables)
    return Image.open(file)


def solar(folder: Path) -> list[Sample]:
    samples = []
    with open(folder / "labels.csv") as file:
        for name, probability, _ in csv.reader(file, delimiter=" ", skipinitialspace=True):
            if float(probability) in (0.0, 1.0):
                kind = "defective" if float(probability) else "good"
                samples.append(Sample(kind, name, lambda path=folder / name: Image.open(path)))
    return samples


class Features:
    """Feature maps of samples, computed once."""

    def __init__(self, options: argparse.Namespace) -> None:
        network = load_features(options.model)
        views = default_views(network.layers, options.scale)
        self.extractor = ViewExtractor(network, views, options.max_tiles)
        self.paper = network.up_to(PAPER) if options.references else None
        self.templates = options.templates

    def of(self, sample: Sample) -> tuple[Maps, Maps]:
        image = sample.open().convert("RGB")
        maps = self.extractor.extract(image).maps
        if self.templates and sample.template is not None:
            maps.append(template_difference(image, Image.open(sample.template).convert("RGB")))
        if self.paper is None:
            return maps, []
        return maps, self.paper.maps(resize_and_crop(image, self.paper.spec))


def joined(layers: Maps) -> np.ndarray:
    """The published features: neighborhoods averaged, brought to the finer layer's places, end to end."""
    fine, coarse = (ndimage.uniform_filter(layer, (3, 3, 0), mode="nearest") for layer in layers)
    planes = [resize_map(coarse[..., c], (fine.shape[0], fine.shape[1])) for c in range(coarse.shape[-1])]
    return np.concatenate([fine, np.stack(planes, -1)], -1)[None]


def patchcore() -> PatchMemory:
    return PatchMemory(n_rows=2000, neighborhood=1, shrinkage=None, top_share=0.0)


def auroc(good: np.ndarray, bad: np.ndarray) -> float:
    return float(roc_auc_score(np.r_[np.zeros(len(good)), np.ones(len(bad))], np.r_[good, bad]))


def by_level(results: list[LevelScores], level: str) -> np.ndarray:
    if level == "combined":
        return np.array([result.score for result in results])
    if level == "image":
        return np.array([result.levels["image"] for result in results])
    return np.array([result.levels["places"] for result in results])


def on_border(heat: np.ndarray) -> bool:
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    return not all(BORDER * n <= at < (1 - BORDER) * n for at, n in zip((y, x), heat.shape, strict=True))


def boxes_hit(heat: np.ndarray, boxes: Sequence[Sequence[int]]) -> int:
    """How many boxes hold one of the heat's peaks; of those, there are as many as boxes."""
    left, peaks = heat.copy(), []
    for _ in boxes:
        y, x = np.unravel_index(left.argmax(), left.shape)
        peaks.append((y, x))
        near = [slice(max(0, at - PEAK_APART_PX), at + PEAK_APART_PX + 1) for at in (y, x)]
        left[near[0], near[1]] = -np.inf
    m = BOX_MARGIN_PX
    return sum(
        any(x0 - m <= x <= x1 + m and y0 - m <= y <= y1 + m for y, x in peaks) for x0, y0, x1, y1 in boxes
    )


def split_by_part(
    samples: list[Sample], options: argparse.Namespace, seed: int
) -> tuple[list[int], list[int]]:
    """Return the good samples that are learned, and all samples of other parts that are tested."""
    rng = np.random.default_rng(seed)
    parts = rng.permutation(sorted({sample.part for sample in samples if sample.kind == "good"}))
    n_test = min(options.test, len(parts) // 5)
    tested, learned = set(parts[:n_test]), set(parts[n_test : n_test + options.fit])
    fit = [i for i, s in enumerate(samples) if s.kind == "good" and s.part in learned]
    test = [i for i, s in enumerate(samples) if s.part in tested]
    # Defects on parts that have no good image.
    others = [i for i, s in enumerate(samples) if s.kind != "good" and s.part not in set(parts)]
    return [int(i) for i in rng.permutation(fit)], test + others


def chosen(samples: list[Sample], options: argparse.Namespace) -> list[Sample]:
    """At most --pool good images, and --test of each other kind."""
    rng = np.random.default_rng(1)
    kept = []
    for kind in dict.fromkeys(sample.kind for sample in samples):
        mine = [sample for sample in samples if sample.kind == kind]
        most = len(mine) if options.pcb else options.pool if kind == "good" else options.test
        kept += [mine[i] for i in sorted(rng.permutation(len(mine))[:most])]
    return kept


def run(samples: list[Sample], options: argparse.Namespace) -> dict[str, Any]:
    samples = chosen(samples, options)
    features = Features(options)
    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(features.of, samples))
    figures: dict[str, dict[str, list[float]]] = {}

    def add(method: str, measure: str, value: float) -> None:
        figures.setdefault(method, {}).setdefault(measure, []).append(value)

    for seed in range(options.splits):
        fit, test = split_by_part(samples, options, seed)
        kinds = {kind: [i for i in test if samples[i].kind == kind] for kind in {s.kind for s in samples}}
        defects = sorted(set(kinds) - {"good"})
        n_given = int(options.templates)
        detector = MultiLevelAnomaly(false_alarm_rate=RATE, n_given=n_given, random_state=seed)
        detector.fit([seen[i][0] for i in fit])
        results = {kind: [detector.score_levels(seen[i][0]) for i in rows] for kind, rows in kinds.items()}
        for level in ("combined", "image", "patch"):
            good = by_level(results["good"], level)
            for kind in defects:
                add(f"nearsight, {level}", f"AUROC, {kind}", auroc(good, by_level(results[kind], level)))
        threshold, good = detector.threshold_, by_level(results["good"], "combined")
        rate = float(threshold.exceeded(good).mean())
        low, high = threshold.observed_rate_interval(len(good))
        add("at a stated rate of 5 %", "false alarms", rate)
        add("at a stated rate of 5 %", "splits in the band", float(low <= rate <= high))
        expected = expected_in_band(threshold.n_examples, len(good))
        add("at a stated rate of 5 %", "splits in the band, expected", expected)
        for kind in defects:
            found = threshold.exceeded(by_level(results[kind], "combined"))
            add("at a stated rate of 5 %", f"detected, {kind}", float(found.mean()))
        size = samples[fit[0]].open().size[::-1]
        heat = [combined_heat(result.heat, result.places, size) for result in results["good"]]
        add("heat", "hottest place on the border, good images", float(np.mean([on_border(h) for h in heat])))
        boxed = [(i, r) for kind in defects for i, r in zip(kinds[kind], results[kind], strict=True)]
        n_boxes = sum(len(samples[i].boxes) for i, _ in boxed)
        if n_boxes:
            hits = sum(boxes_hit(combined_heat(r.heat, r.places, size), samples[i].boxes) for i, r in boxed)
            add("heat", "boxes that hold a peak", hits / n_boxes)
        if options.references:
            memory = patchcore().fit(joined(seen[i][1]) for i in fit)
            scores = {i: memory.score_image(joined(seen[i][1]))[1] for i in test}
            peers = {"PatchCore as published, whole image": scores}
            if options.anomalib:
                peers["anomalib's PatchCore, the same features"] = anomalib(options.anomalib, seen, fit, test)
            for name, scores in peers.items():
                for kind in defects:
                    values = [np.array([scores[i] for i in kinds[k]]) for k in ("good", kind)]
                    add(name, f"AUROC, {kind}", auroc(*values))
        if not options.json:
            print(f"split {seed + 1} of {options.splits}", flush=True)
    return {name: {key: summary(v) for key, v in rows.items()} for name, rows in figures.items()}


def anomalib(python: str, seen: list[tuple[Maps, Maps]], fit: list[int], test: list[int]) -> dict[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "maps.npz", Path(folder) / "scores.npy"
        layers = {name: np.stack([maps[1][k] for maps in seen]) for k, name in enumerate(("fine", "coarse"))}
        np.savez(given, fit=fit, test=test, **layers)
        subprocess.run([python, "-c", ANOMALIB, str(given), str(answer)], check=True, capture_output=True)
        return dict(zip(test, np.load(answer).tolist(), strict=True))


def expected_in_band(held: int, n: int) -> float:
    """How often a threshold from so many held-out images gives a rate inside the band, by theory."""
    k = max(1, int(RATE * (held + 1) * (1 + 1e-9)))
    low, high = stats.binom.interval(0.95, n, RATE)
    law = stats.betabinom(n, k, held + 1 - k)
    return float(law.cdf(high) - law.cdf(low - 1))


def summary(values: Sequence[float]) -> dict[str, Any]:
    """The mean over splits and its 95 % interval."""
    average = float(np.mean(values))
    told: dict[str, Any] = {"mean": round(average, 4)}
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
        told["95 %"] = [round(average - half, 4), round(average + half, 4)]
    return told


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and memory, from files on: a detector is fitted on so many good images, then 60 are scored."""
    paths = [Path(sample.part) for sample in textiles() if sample.kind == "good"]
    detector = AnomalyDetector(scale=options.scale, progress=False, n_threads=2)
    figures: dict[str, Any] = {}
    for name, work in (
        ("fit", lambda: detector.fit(paths[: options.speed])),
        ("score", lambda: detector.score(paths[-60:], heatmaps=True)),
    ):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        figures[name] = {
            "processor s": round(time.process_time() - processor, 2),
            "wall s": round(time.perf_counter() - wall, 2),
        }
    figures["peak memory MB"] = {"all": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    return figures


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


def localization(options: argparse.Namespace) -> dict[str, Any]:
    samples = textiles()
    good = [sample for sample in samples if sample.kind == "good"]
    weaves = [sample for sample in samples if sample.kind == "global"]
    features = Features(options)
    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(features.of, good[: options.fit]))
    detector = MultiLevelAnomaly(false_alarm_rate=RATE).fit([maps for maps, _ in seen])
    published = patchcore().fit(joined(maps) for _, maps in seen)
    heats: dict[str, list[np.ndarray]] = {"nearsight": [], "PatchCore as published": []}
    masks = []
    for n, sample in enumerate(good[options.fit : options.fit + 90]):
        pixels = [np.asarray(one.open().convert("RGB")) for one in (sample, weaves[n])]
        image, mask = spoiled(*pixels, n)
        maps, paper = features.of(Sample("", "", lambda image=image: Image.fromarray(image)))
        masks.append(mask)
        size = mask.shape
        result = detector.score_levels(maps)
        heats["nearsight"].append(combined_heat(result.heat, result.places, size))
        heats["PatchCore as published"].append(resize_map(published.distances(joined(paper))[0], size))
    figures: dict[str, Any] = {}
    truth = np.concatenate([mask.ravel() for mask in masks])
    for name, heat in heats.items():
        figures[name] = {
            "AUPRO@0.3": round(aupro(heat, masks), 4),
            "pixel AUROC": round(float(roc_auc_score(truth, np.concatenate([m.ravel() for m in heat]))), 4),
        }
        for k, kind in enumerate(("spot of noise", "scratch", "ellipse of another weave")):
            figures[name][f"AUPRO@0.3, {kind}"] = round(aupro(heat[k::3], masks[k::3]), 4)
    return figures


def oracle(options: argparse.Namespace) -> dict[str, Any]:
    """The places with a bounded memory, and with every patch."""
    samples = chosen(textiles(), argparse.Namespace(pcb=None, pool=100, test=50))
    features = Features(options)
    with ThreadPoolExecutor(2) as pool:
        seen = [maps for maps, _ in pool.map(features.of, samples)]
    good = [maps for maps, sample in zip(seen, samples, strict=True) if sample.kind == "good"]
    local = [maps for maps, sample in zip(seen, samples, strict=True) if sample.kind == "local"]
    figures: dict[str, Any] = {}
    for n_rows in (250, 500, 1000, 2000, 4000, 10**9):
        detector = MultiLevelAnomaly(level="patch", n_patches=n_rows, false_alarm_rate=RATE).fit(good[:50])
        started = time.process_time()
        scores = np.array([detector.score_levels(maps).score for maps in good[50:]])
        spent = (time.process_time() - started) / 50
        figures["every patch" if n_rows == 10**9 else f"{n_rows} patches a level"] = {
            "AUROC, local": round(auroc(scores, -detector.score_samples(local)), 4),
            "processor ms an image": round(1000 * spent, 1),
            "memory MB": round(sum(a.nbytes for a in detector.state()[1].values()) / 1e6, 1),
        }
    return figures


def main() -> None:
    # Small products: threads of BLAS would only wait for each other.
    with threadpool_limits(1, "blas"):
        print_figures()


def print_figures() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pcb", type=Path, metavar="FOLDER")
    parser.add_argument("--good", choices=["templates", "photographs"], default="templates")
    parser.add_argument("--templates", action="store_true", help="compare each image with its template, too")
    parser.add_argument("--solar", type=Path, metavar="FOLDER")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--fit", type=int, default=150, help="good images a detector is given")
    parser.add_argument("--test", type=int, default=100, help="good images, and of each defect, to judge")
    parser.add_argument("--pool", type=int, default=300, help="good images that splits are drawn from")
    parser.add_argument(
        "--skip", type=int, default=0, metavar="300", help="leave out what settings were chosen on"
    )
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--scale", type=float, default=2.0)
    parser.add_argument("--max-tiles", type=int, default=16)
    parser.add_argument("--no-references", dest="references", action="store_false")
    parser.add_argument("--anomalib", metavar="PYTHON", help="an interpreter that has anomalib")
    parser.add_argument("--speed", type=int, metavar="N", help="time a fit on N good textiles")
    parser.add_argument("--masks", action="store_true")
    parser.add_argument("--oracle", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.templates and options.good != "photographs":
        parser.error("--templates needs --good photographs: a template does not differ from itself")
    if options.speed:
        figures = speed(options)
    elif options.masks:
        figures = localization(options)
    elif options.oracle:
        figures = oracle(options)
    elif options.pcb:
        figures = run(boards(options.pcb, options.good == "photographs"), options)
    elif options.solar:
        figures = run(solar(options.solar), options)
    else:
        figures = run(textiles((300, 150, 50) if options.skip else (0, 0, 0)), options)
    if options.json:
        print(json.dumps(figures))
        return
    for name, values in figures.items():
        print(name)
        for key, value in values.items():
            print(f"    {key:45} {value}")


if __name__ == "__main__":
    main()
