"""Who finds the item that was left out of a basket? Real baskets, made by `benchmarks.baskets`.

Baskets are split into ten parts; nine teach, and from each basket of the tenth up to ten items are held out,
one at a time. Two splits: "new baskets" (at random) and "new groups" (whole homes or campaigns; what is left
has no sister of the basket). Two questions: the rest of the basket is the history, or one item of it. Then a
fifth of the items are hidden from all baskets that teach, and only those are held out: "never bought", ranked
among all items and among each other.

recall@10: share of held-out items among the first ten. nDCG@10: 1 / log2(rank + 1) of those. coverage@10:
share of all items that are in any first ten. Brackets: 95 % of 1000 bootstrap samples of the groups (homes,
or campaigns). Ties are broken at random. The library `implicit` is compared with where it is installed.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.model_selection import GroupKFold, KFold

from benchmarks.baskets import group, make, read
from nearsight import Embedder
from nearsight.estimators.neighbors import unit_length
from nearsight.estimators.recommendation import Recommender
from nearsight.estimators.recommendation.cooccurrence import as_baskets, association

K = 10
EACH = 10
Scores = Callable[[np.ndarray], np.ndarray]


def popularity(X: np.ndarray, baskets: np.ndarray) -> Scores:
    return lambda history: baskets.sum(axis=0)


def images(X: np.ndarray, baskets: np.ndarray) -> Scores:
    return lambda history: (X @ X[history].T).max(axis=1)


def together(X: np.ndarray, baskets: np.ndarray) -> Scores:
    related = association(as_baskets(baskets, len(X)), "bm25", len(X)).toarray()
    return lambda history: related[history].sum(axis=0)


def blend(X: np.ndarray, baskets: np.ndarray) -> Scores:
    return Recommender().fit(X, baskets=baskets).scores


def fresh(X: np.ndarray, baskets: np.ndarray) -> Scores:
    fitted = Recommender().fit(X, baskets=baskets)
    return lambda history: fitted.scores(history, include_new_items=True)


def implicit_bm25(X: np.ndarray, baskets: np.ndarray) -> Scores:
    from implicit.nearest_neighbours import BM25Recommender

    model = BM25Recommender(K=len(X), num_threads=1)
    model.fit(sparse.csr_matrix(baskets, dtype=np.float32), show_progress=False)
    related = model.similarity.toarray()
    return lambda history: related[history].sum(axis=0)


def implicit_als(factors: int) -> Callable[[np.ndarray, np.ndarray], Scores]:
    def fit(X: np.ndarray, baskets: np.ndarray) -> Scores:
        from implicit.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            factors=factors, regularization=0.1, alpha=5, random_state=0, num_threads=1
        )
        model.fit(sparse.csr_matrix(baskets, dtype=np.float32), show_progress=False)

        def scores(history: np.ndarray) -> np.ndarray:
            ones, first = np.ones(len(history), np.float32), np.zeros(len(history), int)
            user = model.recalculate_user(0, sparse.csr_matrix((ones, (first, history)), (1, len(X))))
            return model.item_factors @ user

        return scores

    return fit


METHODS = {"popularity": popularity, "images": images, "co-occurrence": together, "blend": blend}
PEERS = {"implicit BM25": implicit_bm25} | {f"implicit ALS {f}": implicit_als(f) for f in (16, 64)}


def held_out(
    baskets: np.ndarray, tested: np.ndarray, shown: np.ndarray, one: bool, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield basket, history and held-out item; where something is hidden, only what is hidden is held out."""
    for basket in tested:
        items = np.flatnonzero(baskets[basket])
        targets = items if shown.all() else items[~shown[items]]
        for target in rng.permutation(targets)[:EACH]:
            rest = items[(items != target) & shown[items]]
            if len(rest):
                yield int(basket), rng.choice(rest, 1) if one else rest, int(target)


def ranks(
    X: np.ndarray,
    baskets: np.ndarray,
    folds: list[tuple[np.ndarray, np.ndarray]],
    methods: dict[str, Callable[[np.ndarray, np.ndarray], Scores]],
    *,
    one: bool = False,
    shown: np.ndarray | None = None,
    among: np.ndarray | None = None,
) -> tuple[dict[str, list[tuple[int, int]]], dict[str, float]]:
    """Return (basket, rank from 0) of each item held out, and the coverage, by method."""
    seen = np.ones(len(X), bool) if shown is None else shown
    open_to = np.ones(len(X), bool) if among is None else among
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in methods}
    told: dict[str, set[int]] = {name: set() for name in methods}
    for taught, tested in folds:
        fitted = {name: fit(X, baskets[taught] * seen) for name, fit in methods.items()}
        cases = list(held_out(baskets, tested, seen, one, np.random.default_rng(len(tested))))
        for name, scores_of in fitted.items():
            jitter = np.random.default_rng(0)
            for basket, history, target in cases:
                scores = np.asarray(scores_of(history), np.float64).copy()
                scores[history] = -np.inf
                scores[~open_to] = -np.inf
                order = np.lexsort((jitter.random(len(scores)), -scores))
                found[name].append((basket, int(np.flatnonzero(order == target)[0])))
                told[name].update(order[:K].tolist())
    return found, {name: len(items) / open_to.sum() for name, items in told.items()}


def figures(found: list[tuple[int, int]], groups: np.ndarray) -> dict[str, list[float]]:
    """Return recall and nDCG, each with the ends of its interval."""
    rank = np.array([r for _, r in found])
    of = np.array([groups[basket] for basket, _ in found])
    gains = {"recall": (rank < K).astype(float), "ndcg": np.where(rank < K, 1 / np.log2(rank + 2), 0)}
    names = np.unique(of)
    n = np.array([(of == name).sum() for name in names])
    drawn = np.random.default_rng(0).integers(len(names), size=(1000, len(names)))
    result = {}
    for metric, gain in gains.items():
        total = np.array([gain[of == name].sum() for name in names])
        means = total[drawn].sum(axis=1) / n[drawn].sum(axis=1)
        result[metric] = [float(gain.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975]))]
    return result


def measure(name: str, X: np.ndarray, baskets: np.ndarray, groups: np.ndarray) -> list[dict]:
    """Return a row for each protocol and method."""
    peers = PEERS if find_spec("implicit") else {}
    n_groups = len(np.unique(groups))
    splits = {"new groups": list(GroupKFold(min(10, n_groups)).split(baskets, groups=groups))}
    if n_groups < len(baskets):
        splits["new baskets"] = list(KFold(10, shuffle=True, random_state=0).split(baskets))
    hidden = np.random.default_rng(0).random(len(X)) < 0.2
    protocols = [
        (f"{split}, {'one item' if one else 'history'}", folds, {"one": one}, METHODS | peers)
        for split, folds in splits.items()
        for one in (False, True)
    ]
    cold = METHODS | {"blend, fresh": fresh}
    sold = baskets.sum(axis=0) > 0
    protocols += [
        ("never bought, among all", splits["new groups"], {"shown": ~hidden, "among": sold}, cold),
        ("never bought, among those", splits["new groups"], {"shown": ~hidden, "among": hidden & sold}, cold),
    ]
    rows = []
    for protocol, folds, options, methods in protocols:
        found, coverage = ranks(X, baskets, folds, methods, **options)
        for method, ranked in found.items():
            rows.append(
                {
                    "baskets": name,
                    "protocol": protocol,
                    "method": method,
                    "n": len(ranked),
                    **figures(ranked, groups),
                    "coverage": coverage[method],
                }
            )
    return rows


def load(made: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the images' unit vectors, which basket holds which, and the baskets' names."""
    found = Embedder().embed(sorted(made.glob("*.png")))
    row = {Path(path).name: i for i, path in enumerate(found.paths)}
    contents = read(made)
    baskets = np.zeros((len(contents), len(row)))
    for basket, items in zip(baskets, contents.values(), strict=True):
        basket[[row[item] for item in items]] = 1
    return unit_length(found.vectors), baskets, list(contents)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("benchmarks/data"), help="where baskets are made")
    parser.add_argument("--only", choices=["rooms", "homes", "scenarios"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict] = []
    for name, package in (("rooms", "sweethome"), ("homes", "sweethome"), ("scenarios", "wesnoth")):
        if options.only not in (None, name):
            continue
        X, baskets, names = load(make(package, options.data))
        groups = np.array([group(basket) for basket in names])
        if name == "homes":
            homes = np.unique(groups)
            baskets = np.array([baskets[groups == home].max(axis=0) for home in homes])
            groups = homes
        found = measure(name, X, baskets, groups)
        rows += found
        if not options.json:
            sizes = baskets.sum(axis=1)
            print(
                f"\n{name}: {len(baskets)} baskets in {len(np.unique(groups))} groups, {len(X)} items,"
                f" {sizes.mean():.1f} a basket"
            )
            show(found)
    if options.json:
        print(json.dumps(rows))


def show(rows: list[dict]) -> None:
    by_protocol: dict[str, list[dict]] = defaultdict(list)
    for row in rows:
        by_protocol[row["protocol"]].append(row)
    for protocol, found in by_protocol.items():
        print(f"  {protocol} ({found[0]['n']} held out)")
        for row in found:
            recall, ndcg = ("{:.3f} [{:.3f}, {:.3f}]".format(*row[m]) for m in ("recall", "ndcg"))
            print(
                f"    {row['method']:16} recall@10 {recall}  nDCG@10 {ndcg}  coverage {row['coverage']:.2f}"
            )


if __name__ == "__main__":
    main()
