"""What a clustering remembers of its rows, to say later where others belong, if anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nearsight.estimators.clustering.spectral import Floats, unit
from nearsight.estimators.conformal import from_good, required_examples

# Remembered rows that have a say about one that is new.
_VOTERS = 10
# So many of the nearest of a cluster say how far away it is.
_NEAREST = 3
_ROWS = 1024
# Rows that a threshold is learned from; more would not move it.
_MOST_EXAMPLES = 20_000
# So many times what a rate needs at least, a cluster must have for a limit of its own.
_ENOUGH = 10
_LEAST_USUAL = 1e-4
# In multiples of a limit, what is near no cluster at all.
_FAR = 1e6


@dataclass(frozen=True, slots=True)
class Members:
    """Some rows of each cluster, and how strange a row may be for it.

    Attributes
    ----------
    X : ndarray of shape (m, d), float32, unit length
    labels : ndarray of shape (m,), int
        The cluster of each; -1 is noise, which is remembered too.
    limits : ndarray of shape (k,), float
        Of each cluster: what is stranger belongs nowhere. Infinite where there are too few rows to tell.
    false_alarm_rate : float
        The share of a cluster's own rows that its limit may turn away where they come later.
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
        """Choose what to remember of (n, d) unit vectors and their labels: a random share of each cluster.

        *Method*: each row of a cluster is judged by all others that are remembered (the jackknife), and the
        limit of the cluster that it is nearest to is learned from that (Mondrian conformal prediction, Vovk
        et al. 2003), where there are rows enough; elsewhere all clusters are judged together, each in
        multiples of what is usual in it. That is right for groups which do not depend on the rows; clusters
        found in them need wider limits (`widened`).

        Parameters
        ----------
        most : int
            To remember, but at least 20 of each cluster.
        """
        rng = np.random.default_rng(random_state)
        kept = _sample(labels, most, rng)
        k = int(labels.max(initial=-1)) + 1
        found = cls(X[kept], labels[kept], np.full(k, np.inf), false_alarm_rate)
        if k == 0:
            return found
        inside = _some(np.flatnonzero(labels >= 0), rng)
        voted, scores = found._scores(X, inside, kept, progress=progress)
        usual = np.array([np.median(scores[voted == c]) if (voted == c).any() else 0 for c in range(k)])
        found.limits[:] = limits_of(scores, voted, usual, false_alarm_rate)
        return found

    def assign(self, X: NDArray[np.floating], *, progress: bool = False) -> NDArray[np.int64]:
        """Return the cluster of each of (n, d) rows, -1 where none is near enough; n * m * d operations.

        *Method*: the vote of the 10 most similar remembered rows; a tie goes to the cluster that is nearer.
        How strange a row is: its distance to the 3 nearest of that cluster, times one more than the share of
        the vote that noise has. Beyond the cluster's limit it is noise.
        """
        labels, excess = self._judged(unit(X), progress=progress)
        return np.where(excess > 1, -1, labels)

    def widened(self, excess: NDArray[np.float64]) -> "Members":
        """Return the same, with limits that rows need which had no part in the clusters.

        *Method*: the limits rest on rows that the clusters were made of, and such clusters may look otherwise
        without one. Each limit is multiplied so that no more than the stated share of others lies beyond it.

        Parameters
        ----------
        excess : ndarray of shape (m,), float
            How strange rows are, in multiples of the limit, for clusters that were made without them. Fewer
            than the rate needs change nothing.
        """
        if len(excess) < required_examples(self.false_alarm_rate):
            return self
        factor = from_good(excess, false_alarm_rate=self.false_alarm_rate).value
        return replace(self, limits=self.limits * factor)

    def excess(self, X: Floats) -> NDArray[np.float64]:
        """Return how strange (n, d) unit vectors are where they are nearest, in multiples of the limit."""
        return self._judged(X, progress=False)[1]

    def _judged(self, X: Floats, *, progress: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the cluster that rows are nearest to, and their strangeness there over its limit."""
        labels, excess = np.full(len(X), -1, np.int64), np.full(len(X), _FAR)
        if not (self.labels >= 0).any():
            return labels, excess
        starts = range(0, len(X), _ROWS)
        for at in tqdm(starts, desc="assigning", unit="block", disable=not progress, leave=False):
            block = slice(at, at + _ROWS)
            labels[block], scores = self._judge(X[block] @ self.X.T)
            limits = self.limits[labels[block]]
            excess[block] = np.where(scores <= limits, 0, _FAR)
            np.divide(scores, limits, out=excess[block], where=(limits > 0) & np.isfinite(scores))
        return labels, np.minimum(excess, _FAR)

    def _scores(
        self, X: Floats, rows: NDArray[np.intp], kept: NDArray[np.intp], *, progress: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Judge rows, each left out of what is remembered."""
        place = np.full(len(X), -1)
        place[kept] = np.arange(len(kept))
        voted, scores = [np.empty(0, np.int64)], [np.empty(0)]
        blocks = np.split(rows, range(_ROWS, len(rows), _ROWS))
        for block in tqdm(blocks, desc="limits", unit="block", disable=not progress, leave=False):
            similarities = X[block] @ self.X.T
            own = np.flatnonzero(place[block] >= 0)
            similarities[own, place[block][own]] = -np.inf
            labels, strange = self._judge(similarities)
            voted.append(labels)
            scores.append(strange)
        return np.concatenate(voted), np.concatenate(scores)

    def _judge(self, similarities: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the cluster that rows are nearest to, and how strange they are there."""
        n, m = similarities.shape
        k = len(self.limits)
        voters = np.argpartition(-similarities, min(_VOTERS, m) - 1, axis=1)[:, :_VOTERS]
        alike = np.take_along_axis(similarities, voters, 1)
        # Noise is the last column, which is what an index of -1 means; who is left out has no vote.
        votes = np.zeros((n, k + 1))
        np.add.at(
            votes,
            (np.arange(n)[:, None], self.labels[voters]),
            np.where(np.isfinite(alike), 1 + 0.01 * alike, 0),
        )
        share = votes[:, k] / np.maximum(votes.sum(1), 1e-9)
        labels = votes[:, :k].argmax(1)
        without = np.flatnonzero(votes[:, :k].sum(1) == 0)
        nearest = np.where(self.labels >= 0, similarities[without], -np.inf).argmax(1)
        labels[without] = np.maximum(self.labels[nearest], 0)
        return labels, self._distances(similarities, labels) * (1 + share)

    def _distances(self, similarities: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how far rows are from the clusters named; 1 - cosine, infinite where nothing is left."""
        masked = np.where(self.labels[None] == labels[:, None], similarities, -np.inf)
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


def _some(rows: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the rows, or a random part of them that is large enough to learn a threshold from."""
    if len(rows) <= _MOST_EXAMPLES:
        return rows
    return np.sort(rng.choice(rows, _MOST_EXAMPLES, replace=False))


def limits_of(
    scores: NDArray[np.float64], labels: NDArray[np.int64], usual: NDArray[np.float64], rate: float
) -> NDArray[np.float64]:
    """Return how strange what belongs to each cluster may be, infinite where there are too few to tell.

    Parameters
    ----------
    scores : ndarray of shape (n,), float
        Of rows that belong somewhere and had no part in what judges them; higher is stranger.
    labels : ndarray of shape (n,), int
        The cluster that each was judged by.
    usual : ndarray of shape (k,), float
        The score that is usual in each cluster.
    rate : float
        In (0, 1): the share that may lie beyond its limit.
    """
    needed = required_examples(rate)
    # Copies have no distance to be a multiple of.
    scale = np.maximum(usual, _LEAST_USUAL)
    limits = np.full(len(usual), np.inf)
    if len(scores) >= needed:
        limits = scale * from_good(scores / scale[labels], false_alarm_rate=rate).value
    for label in range(len(usual)):
        own = scores[labels == label]
        # A rank among few examples is a coarse one: with just enough, the rate would be half of what is said.
        if len(own) >= _ENOUGH * needed:
            limits[label] = from_good(own, false_alarm_rate=rate).value
    return limits
