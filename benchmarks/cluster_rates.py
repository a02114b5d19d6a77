"""Stated and realized rates of clusters that later images are assigned to, and segments of customers.

    python -m benchmarks.cluster_rates FOLDER [--json]
    python -m benchmarks.cluster_rates FOLDER --customers

70 % of the images are grouped and the others assigned, twenty times: by their classes, by k-means
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

± is half of the 95 % interval over worlds.
"""

import argparse
from typing import Any

import numpy as np
from scipy.stats import binom
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from benchmarks import labeled_vectors
from nearsight.estimators.clustering import ClusterAssigner, DensityClustering, GraphKMeans
from nearsight.estimators.customer_segments import CustomerSegments, CustomerVectors

N_SPLITS = N_WORLDS = 20
RATES = (0.01, 0.05, 0.2)
N_CUSTOMERS, N_TASTES = 200, 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    labeled_vectors.add_arguments(parser)
    parser.add_argument("--customers", action="store_true", help="segments of customers of known tastes")
    options = parser.parse_args()
    if not labeled_vectors.is_given(options):
        parser.error("name a FOLDER, --fashion, --digits or --vectors")
    X, y = labeled_vectors.load(options)
    labeled_vectors.show(customers(X, y) if options.customers else rates(X, y), as_json=options.json)


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
            "ari_±": labeled_vectors.half_interval(np.array([ari for ari, _ in worlds])),
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


if __name__ == "__main__":
    main()
