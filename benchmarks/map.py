"""Maps: how far neighbors stay neighbors, and what placing new images costs, beside UMAP's own transform.

FOLDER's images are split in two at random: one part is laid out, the other placed. Told are the
trustworthiness of the whole (10 neighbors, among 2,000 at most), the seconds, and how far images that were
there moved, in shares of the map's width. "UMAP, its own neighbors" is umap-learn alone, which finds them
pair by pair among fewer than 4,096 and by descent among more; all is compiled beforehand. Without FOLDER,
`--rows` made vectors in 100 groups.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np

from nearsight import Embedder
from nearsight.estimators.layout2d import Layout2D, trustworthiness


def made(n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, d)).astype(np.float32)[rng.integers(100, size=n)]
    X += 0.7 * rng.normal(size=X.shape).astype(np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def told(name: str, X: np.ndarray, places: np.ndarray, seconds: float, moved: float | None) -> dict:
    share = trustworthiness(X, places)
    return {
        "map": name,
        "trustworthiness": round(share or 0, 3),
        "seconds": round(seconds, 2),
        "moved": moved,
    }


def width(places: np.ndarray) -> float:
    return float(np.ptp(places, axis=0).max())


def run(old: np.ndarray, new: np.ndarray, *, peers: bool) -> list[dict]:
    whole, rows = np.concatenate([old, new]), []
    Layout2D(method="umap").fit(old[:200])  # compiles
    for method in ("umap", "pca"):
        started = time.perf_counter()
        map_ = Layout2D(method=method).fit(old)
        rows.append(told(f"{method}, laid out", old, map_.embedding_, time.perf_counter() - started, None))
        before = map_.embedding_.copy()
        started = time.perf_counter()
        places = np.concatenate([before, map_.transform(new)])
        moved = float(np.abs(map_.embedding_ - before).max())
        rows.append(told(f"{method}, placed", whole, places, time.perf_counter() - started, moved))
    if not peers:
        return rows
    from umap import UMAP

    started = time.perf_counter()
    again = Layout2D(method="umap").fit(whole).embedding_
    seconds = time.perf_counter() - started
    reference = Layout2D(method="umap").fit(old).embedding_
    moved = float(np.linalg.norm(again[: len(old)] - reference, axis=1).mean() / width(reference))
    rows.append(told("umap, laid out anew", whole, again, seconds, round(moved, 3)))
    UMAP(metric="cosine", random_state=0, n_jobs=1, force_approximation_algorithm=True).fit(old[:200])
    UMAP(metric="cosine", random_state=0, n_jobs=1).fit(old[:200])
    started = time.perf_counter()
    theirs = UMAP(metric="cosine", random_state=0, n_jobs=1).fit(old)
    before = theirs.embedding_.copy()
    rows.append(told("UMAP, its own neighbors", old, before, time.perf_counter() - started, None))
    started = time.perf_counter()
    placed = theirs.transform(new)
    moved = float(np.abs(theirs.embedding_ - before).max() / width(before))
    places = np.concatenate([before, placed])
    rows.append(told("UMAP.transform", whole, places, time.perf_counter() - started, round(moved, 3)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--new", type=float, default=0.3, help="share that is placed")
    parser.add_argument("--alone", action="store_true", help="without UMAP's own transform and a new layout")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    X = Embedder(options.model).embed(options.folder).vectors if options.folder else None
    X = made(options.rows, options.dim) if X is None else X
    X = X[np.random.default_rng(0).permutation(len(X))]
    n_new = round(len(X) * options.new)
    rows = run(X[n_new:], X[:n_new], peers=not options.alone)
    if options.json:
        print(json.dumps({"laid out": len(X) - n_new, "placed": n_new, "maps": rows}))
        return
    print(f"{len(X) - n_new:,} laid out, {n_new:,} placed")
    for row in rows:
        moved = "" if row["moved"] is None else f"moved {row['moved']:.3f}"
        print(
            f"{row['map']:24} trustworthiness {row['trustworthiness']:.3f} {row['seconds']:8.2f} s  {moved}"
        )


if __name__ == "__main__":
    main()
