"""The bridge of an upgrade: estimates of the new model's vectors, for images that have only old ones."""

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.artifacts import read_artifact, write_artifact
from nearsight.collection.arrays import batch_vectors
from nearsight.collection.shadow_rows import ShadowRows, ids_of, vectors_of
from nearsight.collection.upgrade_state import BRIDGE
from nearsight.errors import FingerprintMismatchError, StorageError
from nearsight.estimators.linear_map import MIN_PAIRS, LinearMap, cross_estimates, fit_linear_map
from nearsight.estimators.neighbors import highest, unit_length
from nearsight.store import VectorStore

FILENAME = BRIDGE
#: Images that the bridge proposes, and that the new model orders.
N_PROPOSED = 100
# The store compares without the estimates' lengths; so many are compared with them.
_N_CANDIDATES = 1000
_KIND, _FORMAT = "upgrade bridge", 2
# How much the old model's own similarity counts beside the estimated one, each in its standard deviations.
_OLD_SHARE = 0.25
_MAX_PAIRS = 5000
_N_QUERIES = 500
_MAX_OTHERS = 20_000
_N_NEIGHBORS = 10
_N_DRAWS = 1000

_FACTS = ("n_pairs", "recall", "low", "high", "slope", "intercept", "old_weight")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Bridge:
    """A map from old to new vectors, and how good a search is that it serves.

    Attributes
    ----------
    map : LinearMap
    n_pairs : int
        Images that it was learned from.
    recall, low, high : float
        Expected share, with its 95 % interval, of the new model's ten nearest images that are among the 100
        proposals, for images that have no new vector yet.
    slope, intercept : float
        Of the new model's similarity by the estimated one, among near images.
    old_weight : float
        Weight of the old model's own similarity beside the estimated one.
    """

    map: LinearMap
    n_pairs: int
    recall: float
    low: float
    high: float
    slope: float
    intercept: float
    old_weight: float

    def propose(
        self,
        old: VectorStore,
        query: Floats,
        old_query: Floats | None = None,
        *,
        n: int = N_PROPOSED,
        where: object = None,
        exact: bool = False,
    ) -> dict[str, float]:
        """Return the images that are probably nearest to a new vector, with the similarity to be expected.

        Parameters
        ----------
        old : VectorStore
            Rows with old vectors.
        query : ndarray of shape (d_to,)
            By the new model.
        old_query : ndarray of shape (d,), optional
            The same image by the old model. What both models think is near is proposed first.
        n : int
        where, exact
            See `VectorStore.search`.
        """
        query = unit_length(query[None])
        n_candidates = max(_N_CANDIDATES, 2 * n)
        directions = self.map.transpose(query)
        if old_query is not None:
            directions = np.concatenate([directions, unit_length(old_query[None])])
        found = old.search(directions, n_candidates, where=where, exact=exact)  # type: ignore[arg-type]  # a filter
        ids = list(dict.fromkeys(hit.id for hits in found for hit in hits))
        if not ids:
            return {}
        vectors = vectors_of(old, ids)
        similarities = self.map.transform(vectors) @ query[0]
        scores = similarities
        if old_query is not None:
            scores = similarities + self.old_weight * (unit_length(vectors) @ directions[1])
        order = np.argsort(-scores, kind="stable")[:n]
        return {ids[row]: float(self.intercept + self.slope * similarities[row]) for row in order}

    def write(self, directory: Path, fingerprints: tuple[str, str]) -> None:
        """Write it into a collection's directory, with the digests of the old and the new model."""
        facts = {
            "models": list(fingerprints),
            "penalty": self.map.penalty,
            **{name: getattr(self, name) for name in _FACTS},
        }
        arrays = {"matrix": self.map.matrix, "mean": self.map.mean, "mean_to": self.map.mean_to}
        write_artifact(directory / FILENAME, _KIND, _FORMAT, facts, arrays)

    @classmethod
    def read(cls, directory: Path, fingerprints: tuple[str, str]) -> "Bridge | None":
        """Read it; None if there is none between these models."""
        try:
            with read_artifact(
                directory / FILENAME, _KIND, _FORMAT, error=StorageError, remedy="it is made anew"
            ) as (facts, arrays):
                if tuple(facts["models"]) != fingerprints:
                    return None
                found = LinearMap(arrays["matrix"], arrays["mean"], arrays["mean_to"], facts["penalty"])
                return cls(found, *(facts[name] for name in _FACTS))
        except StorageError:
            # It is learned in seconds from what the stores hold.
            return None


def fit_bridge(old: VectorStore, new: VectorStore, *, random_state: int = 0) -> Bridge:
    """Learn a bridge from the images that have rows in both stores, at most 5,000.

    *Method*: `estimators.linear_map.fit_linear_map`, and a quarter of the old model's own similarity beside
    the estimated one, both scaled by their standard deviation. The expected recall is that of estimates by
    maps that have not seen the image (five folds): of the images nearest to each of 500 queries, the share
    whose estimate ranks among the first 100 of the whole collection. As many nearest images are taken as the
    sample is expected to hold of the ten nearest, at least one; so the estimate is low for small samples.

    Parameters
    ----------
    old, new : VectorStore
    random_state : int

    Raises
    ------
    InvalidParameterError
        Fewer than 50 images have rows in both.

    Notes
    -----
    Reads at most 20,000 other rows, whose estimates the sample's are ranked among.
    """
    rng = np.random.default_rng(random_state)
    all_ids = sorted(ids_of(old))
    pairs = sorted(set(all_ids) & ids_of(new))
    ids = sorted(rng.permutation(pairs)[:_MAX_PAIRS].tolist())
    X, target = unit_length(vectors_of(old, ids)), unit_length(vectors_of(new, ids))
    found = fit_linear_map(X, target, random_state=random_state)
    estimates = cross_estimates(X, target, found.penalty, random_state=random_state)
    queries = np.sort(rng.permutation(len(ids))[:_N_QUERIES])
    true, estimated = target[queries] @ target.T, target[queries] @ estimates.T
    own = X[queries] @ X.T
    old_weight = _OLD_SHARE * float(estimated.std() / max(own.std(), 1e-12))
    scores = estimated + old_weight * own
    rows = np.arange(len(queries))
    true[rows, queries] = scores[rows, queries] = -np.inf
    n_near = max(1, round(_N_NEIGHBORS * len(ids) / len(all_ids)))
    near = highest(true, n_near)[0]
    limits = np.take_along_axis(scores, near, axis=1)
    ranks = 1.0 + (scores[:, None, :] > limits[:, :, None]).sum(axis=2)
    others = sorted(set(all_ids) - set(ids))
    drawn = sorted(rng.permutation(others)[:_MAX_OTHERS].tolist())
    for vectors in _vector_batches(old, drawn):
        others_scores = target[queries] @ found.transform(vectors).T
        others_scores += old_weight * (X[queries] @ unit_length(vectors).T)
        above = others_scores[:, None, :] > limits[:, :, None]
        ranks += above.sum(axis=2) * (len(others) / len(drawn))
    shares = (ranks <= N_PROPOSED).mean(axis=1)
    means = shares[rng.integers(0, len(shares), (_N_DRAWS, len(shares)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    near_estimates = np.take_along_axis(estimated, near, axis=1)
    slope, intercept = _line(near_estimates.ravel(), np.take_along_axis(true, near, axis=1).ravel())
    return Bridge(
        found, len(ids), float(shares.mean()), float(low), float(high), slope, intercept, old_weight
    )


def current_bridge(rows: ShadowRows, fingerprints: tuple[str, str], *, has_lock: bool = False) -> Bridge:
    """Return the bridge of an upgrade, learned anew where there are twice as many pairs now.

    It is kept under the lock of writers, and only while the upgrade goes on: a bridge that comes late would
    stay behind for good. Where it cannot be kept, it serves all the same. Of a collection that is not in a
    directory, each machine has a file of its own.

    Parameters
    ----------
    rows : ShadowRows
    fingerprints : (str, str)
        Digests of the old and the new model.
    has_lock : bool
        Whether the caller holds the lock.

    Raises
    ------
    InvalidParameterError
        See `fit_bridge`.
    """
    directory = rows.location.files
    bridge = Bridge.read(directory, fingerprints)
    n = min(rows.new.count(), _MAX_PAIRS)
    if bridge is None or n >= 2 * bridge.n_pairs or (n == _MAX_PAIRS > bridge.n_pairs * 1.25):
        bridge = fit_bridge(rows.old, rows.new)
        with suppress(StorageError, FingerprintMismatchError), nullcontext() if has_lock else rows.locked():
            bridge.write(directory, fingerprints)
    return bridge


def has_pairs(new: VectorStore) -> bool:
    """Whether there are enough new rows to learn a bridge from."""
    return new.count() >= MIN_PAIRS


def _vector_batches(store: VectorStore, ids: list[str]) -> Iterator[Floats]:
    for start in range(0, len(ids), 1000):
        for batch in store.scan(["vector"], ids=ids[start : start + 1000]):
            yield batch_vectors(batch)


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Return slope and intercept of y by x."""
    centered = x - x.mean()
    spread = float(centered @ centered)
    slope = float(centered @ (y - y.mean())) / spread if spread else 0.0
    return slope, float(y.mean() - slope * x.mean())
