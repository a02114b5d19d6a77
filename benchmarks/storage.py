"""What vectors are kept as: room, and what a search finds of it.

FOLDER holds images; half of them, every second, ask for their ten nearest among all. float32 and float16
are kept and searched by the store itself; int8 (one scale for all) and binary (above or below each number's
mean) are arithmetic only, since the store does not search them. With ``--rows``, made vectors are added until
there are so many, and from 50,000 on the store's own index is used.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from nearsight import Collection, Embedder


def nearest(similarities: np.ndarray, k: int = 10) -> np.ndarray:
    return np.argsort(-similarities, axis=1, kind="stable")[:, :k]


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth, strict=True)]))


def grown(X: np.ndarray, n: int) -> np.ndarray:
    """Return n vectors: those given, then neighbors of them."""
    rng = np.random.default_rng(0)
    made = X[rng.integers(0, len(X), max(0, n - len(X)))]
    made = np.abs(made + 0.01 * rng.standard_normal(made.shape).astype(np.float32))
    both = np.vstack([X, made / np.linalg.norm(made, axis=1, keepdims=True)])
    return both.astype(np.float32)


def kept_as(
    storage: str, X: np.ndarray, queries: np.ndarray, truth: np.ndarray, model: str
) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        collection = Collection.create(f"{folder}/c", model=model, storage=storage)
        ids = [f"{i:032x}" for i in range(len(X))]
        collection.add_vectors(X, ids=ids, fingerprint=collection.fingerprint)
        collection.compact()
        found, seconds = [], []
        for query in queries:
            started = time.perf_counter()
            matches = collection.search(vector=query, k=10)
            seconds.append(time.perf_counter() - started)
            found.append([int(match.id, 16) for match in matches])
        read = np.vstack([collection.vectors(ids[at : at + 500]) for at in range(0, min(2000, len(X)), 500)])
        cosines = (read * X[: len(read)]).sum(1) / np.linalg.norm(read, axis=1)
        return {
            "storage": storage,
            "bytes_per_vector": collection.info()["bytes_per_vector"],
            "bytes_per_image": collection.info()["bytes_per_image"],
            "smallest_cosine": float(cosines.min()),
            "recall@10": recall(np.array(found), truth),
            "search_ms": 1000 * float(np.median(seconds)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    real = Embedder(options.model).embed(options.folder).vectors
    X, queries = grown(real, options.rows), real[::2][: options.queries]
    truth = nearest(queries @ X.T)
    rows = [kept_as(storage, X, queries, truth, options.model) for storage in ("float32", "float16")]
    dim = X.shape[1]
    scale = 127 / np.abs(X).max()
    bits = np.where(X.mean(0) < X, 1, -1).astype(np.float32)
    asked = np.where(queries > X.mean(0), 1, -1).astype(np.float32)
    for storage, n_bytes, similarities in (
        ("int8 (not searched by the store)", dim, queries @ np.rint(X * scale).T),
        ("binary (not searched by the store)", dim // 8, asked @ bits.T),
    ):
        found = recall(nearest(similarities), truth)
        rows.append({"storage": storage, "bytes_per_vector": n_bytes, "recall@10": found})
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{len(X)} vectors of {dim}, {len(queries)} queries")
    for row in rows:
        print(", ".join(f"{k} {v:.7g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


if __name__ == "__main__":
    main()
