"""How near searches by the bridge of an upgrade come to those after every image was embedded again.

    python -m benchmarks.upgrade FOLDER [--models OLD NEW] [--sample N] [--draws N] [--json]

FOLDER has `test` and others (`train`, `validation`), each with a folder of images for each class. The
others are the collection, and the images of `test` are searched for. A random sample of the collection has
vectors of both models, and so has each query; nothing is kept between queries. In both directions:

*agreement*: the share of the new model's ten nearest images that the old model has among its ten. A map that
reproduced the old answers perfectly would stop there. *bridge*: the same share for the ten that the
estimated vectors alone put first. *re-ranked*: for the ten that `search --model NEW` answers, where the
bridge proposes 100 and the new model orders them and the sample. *expected*: what the bridge says of itself.
*label R@1*: the share of queries whose first match has their label, divided by that share after a full
upgrade.

Intervals are bootstrapped over queries, each query's mean over the draws of the sample. ± is the standard
deviation over the draws.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from nearsight import Collection, Embedder
from nearsight.collection.bridge import Bridge, fit_bridge
from nearsight.estimators.neighbors import highest, unit_length
from nearsight.models import load_model
from nearsight.services.upgrade import n_sampled
from nearsight.store import VectorStore, open_store

N_NEIGHBORS = 10
N_BOOTSTRAP = 2000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs=2, default=["efficientnet-lite0", "efficientnet-lite2"])
    parser.add_argument(
        "--sample", type=int, help="images with vectors of both; by default as `upgrade` does"
    )
    parser.add_argument(
        "--vectors", nargs=2, type=Path, help="of both models, from `nearsight embed FOLDER --out`"
    )
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    vectors, paths = zip(
        *(
            embedded(options.folder, model, file)
            for model, file in zip(options.models, options.vectors or (None, None), strict=True)
        ),
        strict=True,
    )
    if paths[0] != paths[1]:
        raise SystemExit("one of the models could not use some of the images")
    is_query = np.array(["test" in Path(path).parts for path in paths[0]])
    labels = np.array([Path(path).parent.name for path in paths[0]])
    X = [unit_length(of_model) for of_model in vectors]
    n = options.sample or n_sampled(int((~is_query).sum()))
    results = {}
    for old, new in ((0, 1), (1, 0)):
        names = (options.models[old], options.models[new])
        results[" to ".join(names)] = measure(names, X[old], X[new], labels, is_query, n, options.draws)
    print(
        json.dumps(
            {"images": int((~is_query).sum()), "queries": int(is_query.sum()), "sample": n, **results},
            indent=2,
        )
    )


def embedded(folder: Path, model: str, file: Path | None) -> tuple[np.ndarray, list[str]]:
    if file is None:
        found = Embedder(model, progress=False).embed(folder)
        return found.vectors, found.paths
    with np.load(file) as arrays:
        return arrays["vectors"], arrays["paths"].tolist()


def measure(
    models: tuple[str, str],
    X: np.ndarray,
    new: np.ndarray,
    labels: np.ndarray,
    is_query: np.ndarray,
    n_sample: int,
    n_draws: int,
) -> dict[str, object]:
    gallery, queries = np.flatnonzero(~is_query), np.flatnonzero(is_query)
    ids = [f"{row:032x}" for row in range(len(gallery))]
    full = nearest(new[queries], new[gallery])
    old = nearest(X[queries], X[gallery])
    shares: dict[str, list[np.ndarray]] = {name: [] for name in ("bridge", "re-ranked")}
    right: dict[str, list[np.ndarray]] = {name: [] for name in ("bridge", "re-ranked")}
    expected = []
    with tempfile.TemporaryDirectory() as folder:
        whole = store(Path(folder) / "old", models[0], X[gallery], ids)
        for draw in range(n_draws):
            rows = np.sort(np.random.default_rng(draw).permutation(len(gallery))[:n_sample])
            sample = store(
                Path(folder) / str(draw), models[1], new[gallery[rows]], [ids[row] for row in rows]
            )
            bridge = fit_bridge(whole, sample)
            expected.append((n_sample + (len(gallery) - n_sample) * bridge.recall) / len(gallery))
            alone = nearest(new[queries], bridge.map.transform(X[gallery]))
            ranked = reranked(bridge, whole, new[queries], X[queries], new[gallery], rows)
            for name, found in (("bridge", alone), ("re-ranked", ranked)):
                shares[name].append(shared(found, full))
                right[name].append(labels[gallery[found[:, 0]]] == labels[queries])
    first = labels[gallery[full[:, 0]]] == labels[queries]
    return {
        "agreement": interval(shared(old, full)),
        "label R@1, full": interval(first.astype(float)),
        **{f"{name}: recall@10": over_draws(values) for name, values in shares.items()},
        "re-ranked: expected recall@10": {
            "mean": round(float(np.mean(expected)), 4), "+-": round(float(np.std(expected)), 4)
        },
        **{f"{name}: label R@1 / full": ratio(values, first) for name, values in right.items()},
        "old model: label R@1 / full": ratio([labels[gallery[old[:, 0]]] == labels[queries]], first),
    }  # fmt: skip


def store(directory: Path, model: str, X: np.ndarray, ids: list[str]) -> VectorStore:
    collection = Collection.create(directory, model=model)
    collection.add_vectors(X, ids=ids, fingerprint=load_model(model).spec.fingerprint)
    return open_store(directory / "store")


def nearest(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return highest(queries @ gallery.T, N_NEIGHBORS)[0]


def reranked(
    bridge: Bridge,
    old: VectorStore,
    queries: np.ndarray,
    old_queries: np.ndarray,
    gallery: np.ndarray,
    sample: np.ndarray,
) -> np.ndarray:
    """Return what the new model puts first of the proposals and the sample, as `BridgedSearch` does."""
    found = []
    for query, old_query in zip(queries, old_queries, strict=True):
        proposed = [int(id, 16) for id in bridge.propose(old, query, old_query)]
        rows = np.union1d(proposed, sample)
        found.append(rows[highest(query[None] @ gallery[rows].T, N_NEIGHBORS)[0][0]])
    return np.stack(found)


def shared(found: np.ndarray, full: np.ndarray) -> np.ndarray:
    return (found[:, :, None] == full[:, None, :]).any(axis=2).mean(axis=1)


def draws(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, n, (N_BOOTSTRAP, n))


def interval(values: np.ndarray) -> dict[str, object]:
    means = values[draws(len(values))].mean(axis=1)
    return {
        "mean": round(float(values.mean()), 4),
        "95%": [round(float(q), 4) for q in np.quantile(means, [0.025, 0.975])],
    }


def over_draws(values: list[np.ndarray]) -> dict[str, object]:
    return {**interval(np.mean(values, axis=0)), "+-": round(float(np.std([v.mean() for v in values])), 4)}


def ratio(values: list[np.ndarray], full: np.ndarray) -> dict[str, object]:
    mean = np.mean(values, axis=0)
    rows = draws(len(mean))
    ratios = mean[rows].mean(axis=1) / full[rows].mean(axis=1)
    return {
        "mean": round(float(mean.mean() / full.mean()), 4),
        "95%": [round(float(q), 4) for q in np.quantile(ratios, [0.025, 0.975])],
    }


if __name__ == "__main__":
    main()
