"""What a clustering remembers of its rows, to say later where others belong, if anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nearsight.tasks.calibrate import from_good, required_examples
from nearsight.tasks.cluster.graph import Floats, unit

# Remembered rows that have a say about one that is new.
_VOTERS = 10
# So many of the nearest of a cluster say how far away it is.
_NEAREST = 3
_ROWS = 1024
# Rows that a threshold is learnt from; more would not move it.
_MOST_EXAMPLES = 20_000


@dataclass(frozen=True, slots=True)
class Members:
    """Some rows of each cluster, and how far its own rows are from them.

    Attributes
    ----------
    X : ndarray of shape (m, d), float32, unit length
    labels : ndarray of shape (m,), int
        The cluster of each; -1 is noise, which is remembered too.
    limits : ndarray of shape (k,), float
        Of each cluster: what is farther away belongs nowhere. Infinite where the cluster is too small to
        tell and all clusters together are, too.
    false_alarm_rate : float
        The share of a cluster's own pictures that its limit may turn away.
    """

    X: Floats
    labels: NDArray[np.int64]
    limits: NDArray[np.float64]
    false_alarm_rate: float

    @classmethod
    def of(
        cls,
        X: Floats,
        labels: NDArray[np.int64],
        *,
        most: int,
        false_alarm_rate: float,
        random_state: int,
        progress: bool = False,
    ) -> "Members":
        """Choose what to remember of (n, d) unit vectors and their labels.

        *Method*: a random share of every cluster, at least 20 of each. The distance of a row to its cluster
        is the mean over the 3 nearest remembered rows, itself left out (the jackknife). Limits are learnt
        for each cluster by itself (Mondrian conformal prediction, Vovk et al. 2003) where it has rows
        enough for the rate, and from those of all clusters elsewhere.
        """
        rng = np.random.default_rng(random_state)
        kept = _sample(labels, most, rng)
        k = int(labels.max(initial=-1)) + 1
        remembered = cls(X[kept], labels[kept], np.full(k, np.inf), false_alarm_rate)
        inside = np.flatnonzero(labels >= 0)
        if len(inside) > _MOST_EXAMPLES:
            inside = np.sort(rng.choice(inside, _MOST_EXAMPLES, replace=False))
        place = np.full(len(X), -1)
        place[kept] = np.arange(len(kept))
        blocks = np.split(inside, range(_ROWS, len(inside), _ROWS))
        distances = np.concatenate(
            [
                remembered._distances(X[rows] @ remembered.X.T, labels[rows], without=place[rows])
                for rows in tqdm(blocks, desc="limits", unit="block", disable=not progress, leave=False)
            ]
        )
        known = np.isfinite(distances)
        remembered.limits[:] = _limits(distances[known], labels[inside][known], k, false_alarm_rate)
        return remembered

    def assign(self, X: NDArray[np.floating], *, progress: bool = False) -> NDArray[np.int64]:
        """Return the cluster of each of (n, d) rows, -1 where none is near enough; n * m * d operations.

        *Method*: the vote of the 10 most similar remembered rows, noise among them; a tie goes to the
        cluster that is nearer.
        """
        X = unit(X)
        labels = np.full(len(X), -1, np.int64)
        if not len(self.labels) or not len(self.limits):
            return labels
        starts = range(0, len(X), _ROWS)
        for at in tqdm(starts, desc="assigning", unit="block", disable=not progress, leave=False):
            similarities = X[at : at + _ROWS] @ self.X.T
            voted = self._vote(similarities)
            far = self._distances(similarities, voted) > np.append(self.limits, np.inf)[voted]
            labels[at : at + _ROWS] = np.where(far, -1, voted)
        return labels

    def _vote(self, similarities: Floats) -> NDArray[np.int64]:
        n, m = similarities.shape
        k = min(_VOTERS, m)
        voters = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
        votes = np.zeros((n, len(self.limits) + 1))
        weights = 1 + 0.01 * np.take_along_axis(similarities, voters, 1)
        # Noise is the last column, which is what an index of -1 means.
        np.add.at(votes, (np.arange(n)[:, None], self.labels[voters]), weights)
        winner = votes.argmax(1)
        return np.where(winner == len(self.limits), -1, winner)

    def _distances(
        self, similarities: Floats, labels: NDArray[np.int64], without: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Return how far rows are from the clusters named; 1 - cosine, infinite where nothing is left."""
        masked = np.where(self.labels[None] == labels[:, None], similarities, -np.inf)
        if without is not None:
            rows = np.flatnonzero(without >= 0)
            masked[rows, without[rows]] = -np.inf
        k = min(_NEAREST, masked.shape[1])
        best = -np.partition(-masked, k - 1, axis=1)[:, :k]
        there = np.isfinite(best)
        total = np.where(there, best, 0).sum(1, dtype=np.float64)
        count = there.sum(1)
        return np.where(count > 0, 1 - total / np.maximum(count, 1), np.inf)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays for a file; vectors in half precision."""
        return {
            "members": self.X.astype(np.float16),
            "member_labels": self.labels.astype(np.int32),
            "limits": self.limits,
            "false_alarm_rate": np.array(self.false_alarm_rate),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Members":
        """Read what `to_arrays` returned."""
        return cls(
            unit(arrays["members"]),
            arrays["member_labels"].astype(np.int64),
            np.asarray(arrays["limits"], np.float64),
            float(arrays["false_alarm_rate"]),
        )


def _sample(labels: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return sorted rows: the same share of every cluster and of the noise, but at least 20 of each."""
    share = min(1.0, most / max(len(labels), 1))
    kept = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        n = min(len(rows), max(20, round(share * len(rows))))
        kept.append(rows if n == len(rows) else rng.choice(rows, n, replace=False))
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)


def _limits(
    distances: NDArray[np.float64], labels: NDArray[np.int64], k: int, rate: float
) -> NDArray[np.float64]:
    needed = required_examples(rate)
    together = from_good(distances, false_alarm_rate=rate).value if len(distances) >= needed else np.inf
    limits = np.full(k, together)
    for label in range(k):
        own = distances[labels == label]
        if len(own) >= needed:
            limits[label] = from_good(own, false_alarm_rate=rate).value
    return limits
