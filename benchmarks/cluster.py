"""Clusters beside their peers, on the same vectors in one run.

    python -m benchmarks.cluster FOLDER [--peers] [--json]
    python -m benchmarks.cluster --fashion /usr/share/datasets/fashion-mnist [--peers]
    python -m benchmarks.cluster FOLDER --rates | --customers | --names
    python -m benchmarks.cluster --rows 100000 --dim 512 [--peers]

FOLDER has images, each in a folder of its class's name. Told are: the number of clusters; the share of
images that are noise; normalized mutual information and adjusted Rand index with the classes, noise
being one cluster more; the information with each image of noise as a cluster of its own ("single"); both
again among what is no noise, with the purity there; and seconds. All are means over ten random states
(`--seeds`), without the limits of later images, `sd` the standard deviation of the information. "Later"
clusters 70 % of the images, others each time, and assigns the rest. With --peers also fast_hdbscan and
EVoC, where they are installed; "compile" is what their first call takes beyond the others. With --rows,
made vectors of 200 unequal clusters and 10 % noise are clustered in a process of its own: seconds and
its peak memory.

--rates: 70 % of the images are grouped and the others assigned, twenty times: by their classes, by k-means
for as many, and by density. "realized" is the share that is turned away, beside the stated rate and its
binomial 95 % band for so many images. By density, it is the share of those that are in a cluster when they
are clustered together with the 70 %: those of one tenth of these at a time, which is what is promised, or
where all are clustered at once, which is harsher, since other clusters may be found among so many more.
"noise" is the share turned away of those that are then in none. "jackknife" is by limits that have not been
widened (see `ClusterAssigner.with_wider_limits`).

--customers: customers with six to twenty images, drawn from the classes. There are four tastes, each a
mixture of classes drawn from a Dirichlet distribution, anew for each of twenty worlds; segments are compared
with the tastes. Beside ours: k-means of the plain mean vectors, for four groups and for as many as the
silhouette says. Of sixty worlds in which nobody buys of three of the classes, 70 % of the customers are
segmented and the others asked for: "realized" is the share of these that is in no segment, "noise" that of
as many customers who buy of those three classes only.

--names: forty images of each class, or all if there are fewer, are named beside those of the other classes. A
name is right if it is one of those that NAMES accepts for the class. "share" is the share of names without
"perhaps". "Mixed" puts two classes in one cluster: the share that is named by shares or with "perhaps".

± is half of the 95 % interval over worlds or draws.
"""

import argparse
import gzip
import json
import re
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import binom
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

from nearsight import Embedder, load_text_encoder
from nearsight.analyses.cluster_names import names_from_words
from nearsight.estimators.clustering import (
    ClusterAssigner,
    DensityClustering,
    GraphKMeans,
    merge_tree,
)
from nearsight.estimators.customer_segments import CustomerSegments, CustomerVectors
from nearsight.estimators.neighbors import unit_length
from nearsight.models.text.vocabulary import default_vocabulary

IMAGES = 6000
N_SEEDS = 10
N_SPLITS = N_WORLDS = 20
RATES = (0.01, 0.05, 0.2)
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
N_CUSTOMERS, N_TASTES = 200, 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument(
        "--fashion", type=Path, help="Fashion-MNIST: the folder with t10k-images-idx3-ubyte.gz"
    )
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--rates", action="store_true", help="stated and realized rates of assigning")
    parser.add_argument("--names", action="store_true", help="words for groups of clothes")
    parser.add_argument("--customers", action="store_true", help="segments of customers of known tastes")
    parser.add_argument("--rows", type=int, help="measure time and memory on so many made vectors")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument(
        "--child", choices=["density", "kmeans", "nothing", "fast_hdbscan"], help=argparse.SUPPRESS
    )
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="random states that are averaged over")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.rows, options.dim)))
        return
    if options.rows:
        kinds = ["nothing", "density", "kmeans"]
        kinds += ["fast_hdbscan"] if options.peers and find_spec("fast_hdbscan") else []
        rows = [scale(kind, options.rows, options.dim) for kind in kinds]
    elif options.folder or options.fashion:
        X, y = fashion(options) if options.fashion else images(options)
        if options.rates:
            rows = rates(unit_length(X), y)
        elif options.names:
            rows = names(X, y, options)
        elif options.customers:
            rows = customers(X, y)
        else:
            rows = compare(X, y, peers=options.peers, n_seeds=options.seeds)
    else:
        parser.error("name a FOLDER, --fashion or --rows")
    show(rows, as_json=options.json)


def names(X: np.ndarray, y: np.ndarray, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Name forty images of each class, by its folder or the one above; mixed clusters are half and half."""
    known = [c for c, name in enumerate(options.classes) if name in NAMES and (y == c).sum() >= LEAST_NAMED]
    classes = [options.classes[c] for c in known]
    tower, right = load_text_encoder(options.model), np.zeros((N_DRAWS, len(known)))
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
        {"method": "all", "right": float(each.mean()), "±": float(1.96 * each.std(ddof=1) / N_DRAWS**0.5)},
        {"method": "without perhaps", "right": float(right[sure > 0].mean()), "share": float(sure.mean())},
        {"method": "mixed: shares or perhaps", "share": float(np.mean(mixed))},
        *(
            {"method": name, "right": float(right[:, i].mean()), "share": float(sure[:, i].mean())}
            for i, name in enumerate(classes)
        ),
    ]


def images(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    found = Embedder(options.model).embed(options.folder)
    folders = [Path(p).parent for p in found.paths]
    if options.names:
        # Folders of kinds, such as birds/owls, count as the folder above.
        named = [next((part for part in reversed(f.parts) if part in NAMES), f.name) for f in folders]
    else:
        named = [folder.name for folder in folders]
    options.classes, y = np.unique(named, return_inverse=True)
    return found.vectors, y


def fashion(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    def read(name: str, offset: int) -> np.ndarray:
        with gzip.open(options.fashion / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=offset)

    pixels = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:IMAGES]
    found = Embedder(options.model).embed([Image.fromarray(p).convert("RGB") for p in pixels])
    return found.vectors, read("t10k-labels-idx1-ubyte.gz", 8)[:IMAGES].astype(int)


def compare(X: np.ndarray, y: np.ndarray, *, peers: bool, n_seeds: int) -> list[dict[str, Any]]:
    k = len(np.unique(y))
    methods: dict[str, Callable[[int], np.ndarray]] = {
        "nearsight, density": lambda seed: density(X, seed),
        f"nearsight, density joined to {k}": lambda seed: joined(X, k, seed),
        f"nearsight, kmeans {k}": lambda seed: GraphKMeans(n_clusters=k, random_state=seed).fit_predict(X),
        f"scikit-learn KMeans {k}": lambda seed: KMeans(k, n_init=5, random_state=seed).fit_predict(X),
        "scikit-learn HDBSCAN, PCA 10": lambda seed: hdbscan(X, 10, seed),
        "scikit-learn HDBSCAN, PCA 50": lambda seed: hdbscan(X, 50, seed),
    }
    if peers and find_spec("fast_hdbscan"):
        methods["fast_hdbscan, PCA 10"] = lambda seed: fast_hdbscan(X, 10, seed)
        methods["fast_hdbscan, PCA 50"] = lambda seed: fast_hdbscan(X, 50, seed)
        if find_spec("umap"):
            methods["fast_hdbscan, UMAP 10"] = lambda seed: fast_hdbscan(umap(X, seed), None, seed)
    if peers and find_spec("umap"):
        methods["scikit-learn HDBSCAN, UMAP 10"] = lambda seed: HDBSCAN(
            min_cluster_size=25, min_samples=5, copy=True
        ).fit_predict(umap(X, seed))
        methods[f"scikit-learn KMeans {k}, UMAP 10"] = lambda seed: KMeans(
            k, n_init=5, random_state=seed
        ).fit_predict(umap(X, seed))
    if peers and find_spec("evoc"):
        methods["EVoC"] = lambda seed: evoc(X, seed)
    rows = []
    for name, method in methods.items():
        first = timed(partial(method, 0))[1] if peers else 0.0
        row = mean([score(name, y, *timed(partial(method, seed))) for seed in range(n_seeds)])
        rows.append({**row, "compile": max(0.0, first - row["seconds"])})
    later = []
    for seed in range(n_seeds):
        old, new = np.split(np.random.default_rng(seed).permutation(len(X)), [len(X) * 7 // 10])
        fitted = DensityClustering(random_state=seed).fit(X[old])
        later.append(score("nearsight, density, later", y[new], *timed(partial(fitted.predict, X[new]))))
    return [*rows, mean(later)]


def rates(X: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    k, at_once = len(np.unique(y)), DensityClustering().fit_predict(X) >= 0
    found: dict[tuple[str, float], list[tuple[float, float, int]]] = {}
    for seed in range(N_SPLITS):
        old, new = np.split(np.random.default_rng(seed).permutation(len(X)), [len(X) * 7 // 10])
        fitted_old = DensityClustering(random_state=seed).fit(X[old])
        by_density, fixed = (
            fitted_old.labels_,
            DensityClustering(min_cluster_size=fitted_old.min_cluster_size_),
        )
        tenths = np.zeros(len(X), bool)
        for part in np.array_split(new, -(-len(new) * 10 // len(old))):
            rows = np.concatenate([old, part])
            tenths[part] = fixed._levels(X[rows])[0][0].labels[len(old) :] >= 0
        for rate in RATES:
            options = {"max_rows": 8192, "false_alarm_rate": rate, "random_state": seed}
            means = GraphKMeans(n_clusters=k, false_alarm_rate=rate, random_state=seed).fit(X[old])
            fitted = DensityClustering(false_alarm_rate=rate, random_state=seed).fit(X[old])
            jackknife = ClusterAssigner.fit(X[old], by_density, **options)
            everyone = np.ones(len(X), bool)
            for name, away, own in (
                ("classes", ClusterAssigner.fit(X[old], y[old], **options).assign(X[new]) < 0, everyone),
                (f"kmeans {k}", means.predict(X[new]) < 0, everyone),
                ("density, a tenth more", fitted.predict(X[new]) < 0, tenths),
                ("density, all at once", fitted.predict(X[new]) < 0, at_once),
                ("jackknife, a tenth more", jackknife.assign(X[new]) < 0, tenths),
                ("jackknife, all at once", jackknife.assign(X[new]) < 0, at_once),
            ):
                inside = own[new]
                noise = float(away[~inside].mean()) if not inside.all() else float("nan")
                found.setdefault((name, rate), []).append((away[inside].mean(), noise, int(inside.sum())))
    return [row_of_rates(name, rate, np.array(splits)) for (name, rate), splits in found.items()]


def row_of_rates(name: str, rate: float, splits: np.ndarray) -> dict[str, Any]:
    realized, n = splits[:, 0], splits[:, 2].mean()
    low, high = binom.ppf([0.025, 0.975], int(n), rate) / n
    inside = np.mean((realized >= low) & (realized <= high))
    return {
        "method": f"{name}, stated {rate}",
        "realized": float(realized.mean()),
        "sd": float(realized.std(ddof=1)),
        "low": float(low),
        "high": float(high),
        "in_band": float(inside),
        "noise": float(splits[:, 1].mean()),
    }


def customers(X: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    found: dict[str, list[tuple[float, int]]] = {}
    for world in range(N_WORLDS):
        taste, owners, rows = taken(y, np.random.default_rng(world))
        made = CustomerVectors.from_images(X[rows], [f"{owner:04}" for owner in owners])
        plain = np.array([X[rows[owners == owner]].mean(0) for owner in range(N_CUSTOMERS)])
        best = max(range(2, 11), key=lambda k: silhouette_score(plain, grouped(plain, k)))
        for name, labels in {
            f"nearsight, told {N_TASTES}": CustomerSegments(n_segments=N_TASTES).fit_predict(made.features),
            f"k-means of means, told {N_TASTES}": grouped(plain, N_TASTES),
            "nearsight, finds how many": CustomerSegments().fit_predict(made.features),
            "k-means of means, silhouette": grouped(plain, best),
        }.items():
            found.setdefault(name, []).append((adjusted_rand_score(taste, labels), len(np.unique(labels))))
    segments = [
        {
            "method": name,
            "ari": float(np.mean([ari for ari, _ in worlds])),
            "ari_±": float(1.96 * np.std([ari for ari, _ in worlds], ddof=1) / N_WORLDS**0.5),
            "segments": float(np.mean([k for _, k in worlds])),
            f"found_{N_TASTES}": float(np.mean([k == N_TASTES for _, k in worlds])),
        }
        for name, worlds in found.items()
    ]
    return [*segments, *strangers(X, y)]


def strangers(X: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    n_old, rows_of_rates = N_CUSTOMERS * 7 // 10, []
    for rate in RATES[1:]:
        worlds = []
        for world in range(3 * N_WORLDS):
            rng = np.random.default_rng(world)
            foreign = np.isin(y, rng.choice(np.unique(y), 3, replace=False))
            here, away = np.flatnonzero(~foreign), np.flatnonzero(foreign)
            _, owners, rows = taken(y[here], rng)
            old = owners < n_old
            known = CustomerVectors.from_images(X[here[rows[old]]], owners[old])
            found = CustomerSegments(false_alarm_rate=rate).fit(known.features, n_images=known.n_effective)
            others = taken(y[away], rng)
            asked = others[1] < N_CUSTOMERS - n_old
            shares = []
            for images, whose in (
                (here[rows[~old]], owners[~old]),
                (away[others[2][asked]], others[1][asked]),
            ):
                new = CustomerVectors.from_images(X[images], whose, spread_scale=known.spread_scale)
                shares.append((found.predict(new.features, n_images=new.n_effective) < 0).mean())
            worlds.append((*shares, N_CUSTOMERS - n_old))
        rows_of_rates.append(row_of_rates("customers", rate, np.array(worlds)))
    return rows_of_rates


def taken(y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each customer's taste, and the owner and the image of each line."""
    y = np.unique(y, return_inverse=True)[1]
    tastes = rng.dirichlet(np.full(len(np.unique(y)), 0.3), N_TASTES)
    taste = rng.integers(N_TASTES, size=N_CUSTOMERS)
    owners, rows = [], []
    for owner in range(N_CUSTOMERS):
        classes = rng.choice(len(tastes[0]), rng.integers(6, 21), p=tastes[taste[owner]])
        owners += [owner] * len(classes)
        rows += [int(rng.choice(np.flatnonzero(y == c))) for c in classes]
    return taste, np.array(owners), np.array(rows)


def grouped(X: np.ndarray, k: int) -> np.ndarray:
    return KMeans(k, n_init=10, random_state=0).fit_predict(X)


def mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "method"}
    return {
        "method": rows[0]["method"],
        **found,
        "sd": float(np.std([row["nmi"] for row in rows], ddof=min(1, len(rows) - 1))),
    }


def density(X: np.ndarray, seed: int) -> np.ndarray:
    """Return the labels of `fit`, without the limits of later rows, which take ten times as long."""
    estimator = DensityClustering(random_state=seed)
    levels, _ = estimator._levels(unit_length(X))
    return levels[estimator._chosen(levels)].labels


def joined(X: np.ndarray, k: int, seed: int) -> np.ndarray:
    labels = density(X, seed)
    n = int(labels.max()) + 1
    tree = merge_tree(
        [X[labels == c].mean(0) for c in range(n)], np.bincount(labels[labels >= 0], minlength=n)
    )
    for new, (a, b) in enumerate(tree[: max(n - k, 0), :2].astype(int), n):
        labels = np.where((labels == a) | (labels == b), new, labels)
    return labels


def hdbscan(X: np.ndarray, dim: int, seed: int) -> np.ndarray:
    least = max(5, int(0.75 * len(X) ** 0.5))
    coordinates = PCA(dim, random_state=seed).fit_transform(X)
    return HDBSCAN(min_cluster_size=least, min_samples=5, copy=True).fit_predict(coordinates)


def umap(X: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP

        return UMAP(n_components=10, min_dist=0.0, metric="cosine", random_state=seed).fit_transform(X)


def fast_hdbscan(X: np.ndarray, dim: int | None, seed: int) -> np.ndarray:
    import fast_hdbscan

    least = min(max(5, int(0.75 * len(X) ** 0.5)), 100)
    coordinates = X if dim is None else PCA(dim, random_state=seed).fit_transform(X)
    return fast_hdbscan.HDBSCAN(min_cluster_size=least, min_samples=5).fit_predict(coordinates)


def evoc(X: np.ndarray, seed: int) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import evoc

        return evoc.EVoC(random_state=seed).fit_predict(X)


def timed(method: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    labels = method()
    return labels, time.perf_counter() - started


def score(name: str, y: np.ndarray, labels: np.ndarray, seconds: float) -> dict[str, Any]:
    inside = labels >= 0
    found, truth = labels[inside], y[inside]
    right = sum(np.bincount(truth[found == c]).max() for c in np.unique(found))
    return {
        "method": name,
        "clusters": len(np.unique(found)),
        "noise": 1 - float(inside.mean()),
        "nmi": normalized_mutual_info_score(y, labels),
        "nmi_single": normalized_mutual_info_score(y, np.where(inside, labels, -1 - np.arange(len(y)))),
        "ari": adjusted_rand_score(y, labels),
        "nmi_inside": normalized_mutual_info_score(truth, found),
        "ari_inside": adjusted_rand_score(truth, found),
        "purity": float(right / max(len(found), 1)),
        "seconds": seconds,
    }


def made(n: int, dim: int, k: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Unequal clusters around centers of few common directions, and noise between them."""
    rng = np.random.default_rng(0)
    y = rng.choice(k, n, p=rng.dirichlet(np.full(k, 2.0)))
    common = rng.normal(size=(16, dim)) / 4
    centers = (rng.normal(size=(k, 16)) @ common).astype(np.float32)
    y[rng.random(n) < 0.1] = -1
    X = np.empty((n, dim), np.float32)
    for at in range(0, n, 10_000):
        part = y[at : at + 10_000]
        lost = (rng.normal(size=(len(part), 16)) @ common).astype(np.float32)
        X[at : at + 10_000] = np.where(part[:, None] < 0, lost, centers[part])
        X[at : at + 10_000] += 0.5 * rng.normal(size=(len(part), dim)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, y


def child(kind: str, n: int, dim: int) -> dict[str, Any]:
    X, y = made(n, dim)
    methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "density": DensityClustering().fit_predict,
        "kmeans": GraphKMeans(n_clusters=200).fit_predict,
        "fast_hdbscan": lambda X: fast_hdbscan(X, 10, 0),
    }
    row: dict[str, Any] = {"method": f"{kind}, {n:,} x {dim}"}
    if kind in methods:
        if kind == "fast_hdbscan":
            methods[kind](X[:2000])  # compiles
        before = time.process_time()
        labels, seconds = timed(lambda: methods[kind](X))
        row["processor_seconds"] = time.process_time() - before
        row |= score(row["method"], y[y >= 0], labels[y >= 0], seconds)
        row["noise_found"] = float((labels[y < 0] < 0).mean())
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return row


def scale(kind: str, n: int, dim: int) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.cluster",
        "--child",
        kind,
        "--rows",
        str(n),
        "--dim",
        str(dim),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def show(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    names = list(dict.fromkeys(name for row in rows for name in row if name != "method"))
    width = max(len(row["method"]) for row in rows)
    print(" " * width + "  " + "  ".join(f"{name:>11}" for name in names))
    for row in rows:
        cells = [row.get(name, "") for name in names]
        text = [f"{c:>11.3f}" if isinstance(c, float) else f"{c:>11}" for c in cells]
        print(f"{row['method']:<{width}}  " + "  ".join(text))


if __name__ == "__main__":
    main()
