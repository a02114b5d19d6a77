"""The nearest neighbors of all rows among themselves, beside peers, on the same rows in one run.

Rows are grown from the default model's vectors of FOLDER's images: an image, moved at random along the
directions to its 15 nearest others, with a little noise. So the rows crowd where images do. Recall is
measured on 500 random rows, other ones than those by which the search itself decides when to stop; equally
similar rows are equally right.

    python -m benchmarks.neighbors FOLDER --rows 100000 --dim 512
    python -m benchmarks.neighbors FOLDER --rows 20000 --peers     pip install faiss-cpu usearch pynndescent

Peers, with as many threads: faiss-cpu (all with all; and 8 and 32 of 2 sqrt(n) lists), usearch (int8, the
best 4 k compared again), pynndescent (without its first run, which compiles); and imagededup's way for
hashes, which is to compare 64 bits of all with all (only its time counts: the bits are signs of the vectors).

    python -m benchmarks.neighbors FOLDER --rows 50000 --dim 128 --noise 1.5 --graph

With more noise, rows crowd less, and the search must look into more of its parts. With --graph, usearch is
measured with the least expansion of 64, 128, ... that finds as much, 0.99: would a graph be quicker there?
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from nearsight import Embedder
from nearsight.estimators.neighbors import nearest_neighbors, unit_length

N_MEASURED = 500
ENOUGH_RECALL = 0.99
DIRECTIONS, SPREAD, NOISE = 15, 0.7, 0.1

Found = tuple[np.ndarray, np.ndarray]


def grown(X: np.ndarray, n: int, seed: int, noise_length: float = NOISE) -> np.ndarray:
    """Return n unit rows around those of X, with noise of a length relative to theirs."""
    near = nearest_neighbors(X, X, DIRECTIONS, own=np.arange(len(X)))[0]
    rng = np.random.default_rng(seed)
    rows = np.empty((n, X.shape[1]), np.float32)
    for start in range(0, n, 4096):
        m = min(4096, n - start)
        of = rng.integers(len(X), size=m)
        steps = rng.standard_normal((m, DIRECTIONS), np.float32) * np.float32(SPREAD / DIRECTIONS**0.5)
        weights = np.concatenate([1 - steps.sum(axis=1, keepdims=True), steps], axis=1)
        columns = np.concatenate([of[:, None], near[of]], axis=1)
        bounds = np.arange(0, weights.size + 1, weights.shape[1])
        moved = csr_array((weights.ravel(), columns.ravel(), bounds), shape=(m, len(X))) @ X
        noise = rng.standard_normal(moved.shape, np.float32) * np.float32(noise_length / X.shape[1] ** 0.5)
        rows[start : start + m] = unit_length(moved + noise)
    return rows


def shortened(X: np.ndarray, dim: int) -> np.ndarray:
    if dim >= X.shape[1]:
        return X
    centered = X - X.mean(axis=0)
    return unit_length(centered @ np.linalg.svd(centered, full_matrices=False)[2][:dim].T)


def measured(
    search: Callable[[], Found], X: np.ndarray, truth: tuple[np.ndarray, np.ndarray]
) -> dict[str, float]:
    started, busy = time.perf_counter(), time.process_time()
    rows, _ = search()
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    asked, similarities = truth
    k = similarities.shape[1]
    found = np.einsum("nd,nkd->nk", X[asked], X[rows[asked, :k]])
    found = -np.sort(-found, axis=1)
    copies = similarities >= 0.95
    return {
        "seconds": seconds,
        "processor_seconds": busy,
        "recall": float((found >= similarities[:, -1:] - 1e-5).mean()),
        "recall_of_the_nearest": float((found[:, 0] >= similarities[:, 0] - 1e-5).mean()),
        "share_above_0.95": float(copies.mean()),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def peers(X: np.ndarray, k: int, n_threads: int) -> dict[str, Callable[[], Found]]:
    found: dict[str, Callable[[], Found]] = {"hashes of 64 bits, all with all": lambda: all_hashes(X, k)}
    if find_spec("faiss"):
        found[f"faiss-cpu {version('faiss-cpu')}, all with all"] = lambda: faiss_neighbors(
            X, k, n_threads, None
        )
        for probes in (8, 32):
            name = f"faiss-cpu {version('faiss-cpu')}, {probes} lists"
            found[name] = lambda probes=probes: faiss_neighbors(X, k, n_threads, probes)  # type: ignore[misc]  # a default holds it
    if find_spec("usearch"):
        found[f"usearch {version('usearch')}"] = lambda: usearch_neighbors(X, k, n_threads)
    if find_spec("pynndescent"):
        descended(X[:1000], k, n_threads)
        found[f"pynndescent {version('pynndescent')}"] = lambda: descended(X, k, n_threads)
    return found


def without_own(rows: np.ndarray, k: int) -> Found:
    """Drop each row itself, or the last of k + 1."""
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(1), -1] = True
    return rows[~own].reshape(len(rows), -1)[:, :k], rows


def all_hashes(X: np.ndarray, k: int) -> Found:
    bits = np.packbits(X[:, :64] > 0, axis=1).view(np.uint64).ravel()
    rows = np.zeros((len(X), k), np.int64)
    for start in range(0, len(X), 64):
        differing = np.bitwise_count(bits[start : start + 64, None] ^ bits)
        at, column = np.nonzero(differing <= 10)
        rows[start + at, 0] = column
    return rows, rows


def faiss_neighbors(X: np.ndarray, k: int, n_threads: int, probes: int | None) -> Found:
    import faiss

    faiss.omp_set_num_threads(n_threads)
    index = faiss.IndexFlatIP(X.shape[1])
    if probes:
        n_lists = round(2 * len(X) ** 0.5)
        index = faiss.IndexIVFFlat(index, X.shape[1], n_lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = 10
        index.train(X[np.random.default_rng(0).permutation(len(X))[: 40 * n_lists]])
        index.nprobe = probes
    index.add(X)
    return without_own(index.search(X, k + 1)[1], k)


def usearch_neighbors(X: np.ndarray, k: int, n_threads: int) -> Found:
    return walked(usearch_graph(X, n_threads), X, k, n_threads, 64)


def usearch_graph(X: np.ndarray, n_threads: int) -> Any:
    from usearch.index import Index

    index = Index(ndim=X.shape[1], metric="cos", dtype="i8", connectivity=16, expansion_add=128)
    index.add(np.arange(len(X)), X, threads=n_threads)
    return index


def graph_of_enough_recall(
    X: np.ndarray, k: int, n_threads: int, truth: tuple[np.ndarray, np.ndarray]
) -> list[dict[str, object]]:
    """Return what a graph, and walks through it of more and more steps, cost and find."""
    index, searches = None, []

    def build() -> Found:
        nonlocal index
        index = usearch_graph(X, n_threads)
        return np.zeros((len(X), k), np.int64), X

    built = measured(build, X, truth)
    searches.append({"search": "usearch, graph", "processor_seconds": built["processor_seconds"]})
    for expansion in (64, 128, 256, 512, 1024):
        walk = measured(lambda at=expansion: walked(index, X, k, n_threads, at), X, truth)  # type: ignore[misc]  # a default holds it
        searches.append({"search": f"usearch, walks with an expansion of {expansion}", **walk})
        if walk["recall"] >= ENOUGH_RECALL:
            break
    return searches


def walked(index: Any, X: np.ndarray, k: int, n_threads: int, expansion: int) -> Found:
    index.expansion_search = expansion
    rows = np.empty((len(X), k + 1), np.int64)
    for start in range(0, len(X), 4096):
        near = index.search(X[start : start + 4096], 4 * k, threads=n_threads).keys.astype(np.int64)
        similarities = np.einsum("nd,nkd->nk", X[start : start + 4096], X[near])
        best = np.argsort(-similarities, axis=1)[:, : k + 1]
        rows[start : start + 4096] = np.take_along_axis(near, best, axis=1)
    return without_own(rows, k)


def descended(X: np.ndarray, k: int, n_threads: int) -> Found:
    from pynndescent import NNDescent

    index = NNDescent(X, metric="cosine", n_neighbors=k + 1, n_jobs=n_threads, random_state=0)
    return without_own(index.neighbor_graph[0].astype(np.int64), k)


def run(options: argparse.Namespace) -> dict[str, object]:
    X = Embedder(n_threads=options.threads).embed(sorted(options.folder.rglob("*.jpg"))).vectors
    X = grown(shortened(unit_length(X), options.dim), options.rows, options.seed, options.noise)
    own = np.arange(len(X))
    asked = np.sort(np.random.default_rng(options.seed + 1).choice(len(X), N_MEASURED, replace=False))
    truth = asked, nearest_neighbors(X[asked], X, options.k, own=asked)[1]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compared = [0]

    def count(n: int) -> None:
        compared[0] += n

    def ours(exact_rows: int = 20_000) -> Found:
        return nearest_neighbors(
            X, X, options.k, own=own, n_threads=options.threads, exact_rows=exact_rows, progress=count,
            min_similarity=options.least,
        )  # fmt: skip

    result: dict[str, object] = {
        "rows": len(X), "dim": X.shape[1], "k": options.k, "threads": options.threads,
        "peak_before_mb": before / 1e3,
    }  # fmt: skip
    searches = [{"search": "nearsight", **measured(ours, X, truth)}]
    result["parts_of_each_row"] = compared[0] / len(X)
    if options.exact:
        searches.append({"search": "nearsight, exact", **measured(lambda: ours(len(X)), X, truth)})
    if options.peers:
        for name, search in peers(X, options.k, options.threads).items():
            with threadpool_limits(options.threads):
                searches.append({"search": name, **measured(search, X, truth)})
    if options.graph:
        searches += graph_of_enough_recall(X, options.k, options.threads, truth)
    return {**result, "searches": searches}


def show(result: dict[str, object]) -> None:
    for name, value in result.items():
        if isinstance(value, list):
            for own, *numbers in (row.items() for row in value):
                print(f"{own[1]:40}", "  ".join(f"{key} {number:.4g}" for key, number in numbers))
        else:
            print(f"{name:40} {value:,.6g}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--least", type=float, default=-1, help="lowest similarity of a neighbor")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact", action="store_true", help="also compare all with all")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--noise", type=float, default=NOISE, help="length of what rows are moved at random")
    parser.add_argument("--graph", action="store_true", help="usearch's graph at a recall of 0.99")
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    result = run(options)
    print(json.dumps(result, indent=2)) if options.json else show(result)


if __name__ == "__main__":
    main()
