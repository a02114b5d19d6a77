"""Clusters beside their peers, on the same vectors in one run.

    python -m benchmarks.cluster FOLDER [--peers] [--json]
    python -m benchmarks.cluster --fashion /usr/share/datasets/fashion-mnist [--peers]
    python -m benchmarks.cluster FOLDER --coordinates
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

--coordinates: UMAP beside diffusion, for clusters that are found and for a stated number. Each draw takes
80 % of the images; "gain" is the paired difference to diffusion, by the information with noise as clusters
of its own. UMAP gets the same graph of neighbors, and for found clusters the same levels, rules and choice;
"HDBSCAN(25, 5)" is the plain recipe instead. ± is half of the 95 % interval over draws (`--seeds`).
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from benchmarks import labeled_vectors
from nearsight.estimators.clustering import DensityClustering, GraphKMeans, merge_tree
from nearsight.estimators.clustering.spectral import principal_coordinates
from nearsight.estimators.neighbors import euclidean_neighbors
from nearsight.estimators.umap_coordinates import umap_coordinates

N_SEEDS = 10
SHARE_DRAWN = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    labeled_vectors.add_arguments(parser)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--coordinates", action="store_true", help="UMAP beside diffusion")
    parser.add_argument("--rows", type=int, help="measure time and memory on so many made vectors")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument(
        "--child", choices=["density", "kmeans", "nothing", "fast_hdbscan"], help=argparse.SUPPRESS
    )
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="random states that are averaged over")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.rows, options.dim)))
        return
    if options.rows:
        kinds = ["nothing", "density", "kmeans"]
        kinds += ["fast_hdbscan"] if options.peers and find_spec("fast_hdbscan") else []
        rows = [scale(kind, options.rows, options.dim) for kind in kinds]
    elif labeled_vectors.is_given(options):
        X, y = labeled_vectors.load(options)
        if options.coordinates:
            rows = coordinates(X, y, n_draws=options.seeds)
        else:
            rows = compare(X, y, peers=options.peers, n_seeds=options.seeds)
    else:
        parser.error("name a FOLDER, --fashion, --digits, --vectors or --rows")
    labeled_vectors.show(rows, as_json=options.json)


def coordinates(X: np.ndarray, y: np.ndarray, *, n_draws: int) -> list[dict[str, Any]]:
    drawn: dict[str, list[dict[str, Any]]] = {}
    for draw in range(n_draws):
        rng = np.random.default_rng(draw)
        rows = np.sort(rng.choice(len(X), int(SHARE_DRAWN * len(X)), replace=False))
        part, k = X[rows], len(np.unique(y[rows]))
        for name, method in methods_by_coordinates(part, k, draw).items():
            drawn.setdefault(name, []).append(score(name, y[rows], *timed(method)))
    table = []
    for name, scores in drawn.items():
        single = np.array([row["nmi_single"] for row in scores])
        reference = np.array([row["nmi_single"] for row in drawn[f"{name.split(',')[0]}, diffusion"]])
        table.append(
            {
                "method": name,
                **{key: float(np.mean([row[key] for row in scores])) for key in ("clusters", "noise")},
                "single": float(single.mean()),
                "±": labeled_vectors.half_interval(single),
                "gain": float((single - reference).mean()),
                "gain ±": labeled_vectors.half_interval(single - reference),
            }
        )
    return table


def methods_by_coordinates(X: np.ndarray, k: int, seed: int) -> dict[str, Callable[[], np.ndarray]]:
    by_umap = umap(X, seed)

    def kmeans(coordinates: str) -> np.ndarray:
        return GraphKMeans(n_clusters=k, coordinates=coordinates, random_state=seed).fit_predict(X)

    return {
        "found, diffusion": lambda: density(X, seed),
        "found, UMAP": lambda: levels_of(UmapDensity(by_umap), X),
        "found, UMAP and HDBSCAN(25, 5)": lambda: HDBSCAN(
            min_cluster_size=25, min_samples=5, copy=True
        ).fit_predict(by_umap),
        "given, diffusion": lambda: kmeans("diffusion"),
        "given, UMAP": lambda: kmeans("umap"),
        "given, the vectors": lambda: KMeans(k, n_init=5, random_state=seed).fit_predict(X),
    }


class UmapDensity(DensityClustering):
    """The same levels, rules and choice on coordinates by UMAP."""

    def __init__(self, by_umap: np.ndarray) -> None:
        super().__init__()
        self.by_umap = by_umap

    def _coordinates(self, neighbors: Any, *, progress: bool | None) -> np.ndarray:
        return self.by_umap


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


def mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "method"}
    return {
        "method": rows[0]["method"],
        **found,
        "sd": float(np.std([row["nmi"] for row in rows], ddof=min(1, len(rows) - 1))),
    }


def density(X: np.ndarray, seed: int) -> np.ndarray:
    return levels_of(DensityClustering(random_state=seed), X)


def levels_of(estimator: DensityClustering, X: np.ndarray) -> np.ndarray:
    """Return the labels of `fit`, without the limits of later rows, which take ten times as long."""
    levels, _ = estimator._levels(X)
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
    reduced = principal_coordinates(X)
    return umap_coordinates(
        reduced, *euclidean_neighbors(reduced, 15), n_components=10, min_dist=0.0, random_state=seed
    ).astype(np.float32)


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


if __name__ == "__main__":
    main()
