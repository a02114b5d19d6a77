"""Assign later rows to the clusters of a clustering, or to none."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.conformal import from_good, group_thresholds, required_examples
from nearsight.estimators.neighbors import similarity_blocks, unit_length
from nearsight.progress import bar

Floats = NDArray[np.float32]

# The most similar rows that vote on the cluster of a new row.
_N_VOTERS = 10
# The rows of a cluster that its distance is averaged over.
_N_NEAREST = 3
_BLOCK_ROWS = 1024
# Rows that thresholds are calibrated on; more would hardly move them.
_MOST_EXAMPLES = 20_000
_LEAST_ROWS_PER_CLUSTER = 20
# The least cosine of a row and itself, after storage in half precision.
_SAME = 1 - 1e-5
# The relative novelty of a row that is near no cluster.
_MAX_NOVELTY = 1e6


@dataclass(frozen=True, slots=True)
class ClusterAssigner:
    """Sampled rows of each cluster, and the highest novelty of a row that belongs to it.

    Attributes
    ----------
    X : ndarray of shape (m, d), float32, unit length
    labels : ndarray of shape (m,), int
        The cluster of each row; -1 is noise, which is sampled too.
    limits : ndarray of shape (k,), float
        For each cluster: a row of higher novelty is noise. Infinite if there are too few rows to calibrate.
    false_alarm_rate : float or None
        The share of a cluster's own later rows that may be called noise. None: no row is.
    """

    X: Floats
    labels: NDArray[np.int64]
    limits: NDArray[np.float64]
    false_alarm_rate: float | None

    @classmethod
    def fit(
        cls,
        X: Floats,
        labels: NDArray[np.int64],
        *,
        max_rows: int,
        false_alarm_rate: float | None,
        random_state: int,
        progress: bool | None = False,
    ) -> "ClusterAssigner":
        """Sample (n, d) unit vectors with their labels and calibrate the limits.

        *Method*: each row of a cluster is scored by all other sampled rows (the jackknife), and limits are
        calibrated on these scores, where possible for each cluster (`conformal.group_thresholds`). This is
        right for groups that do not depend on the rows. Clusters that were found in the same rows need wider
        limits (`with_wider_limits`).

        Parameters
        ----------
        max_rows : int
            Rows to sample, the same share of every cluster; but at least 20 of each.
        """
        rng = np.random.default_rng(random_state)
        sample = _stratified_sample(labels, max_rows, rng)
        k = int(labels.max(initial=-1)) + 1
        assigner = cls(X[sample], labels[sample], np.full(k, np.inf), false_alarm_rate)
        if k == 0 or false_alarm_rate is None:
            return assigner
        examples = np.flatnonzero(labels >= 0)
        if len(examples) > _MOST_EXAMPLES:
            examples = np.sort(rng.choice(examples, _MOST_EXAMPLES, replace=False))
        clusters, scores = assigner._leave_one_out(X, examples, sample, progress=progress)
        typical = [np.median(scores[clusters == c]) if (clusters == c).any() else 0 for c in range(k)]
        assigner.limits[:] = group_thresholds(scores, clusters, np.array(typical), false_alarm_rate)
        return assigner

    def assign(self, X: NDArray[np.floating], *, progress: bool | None = False) -> NDArray[np.int64]:
        """Return the cluster of each of (n, d) rows, -1 where none is near enough; n × m × d operations.

        *Method*: the 10 most similar sampled rows vote; a tie goes to the nearer cluster. The novelty of a
        row is its distance to the 3 nearest rows of that cluster, times 1 + the share of noise in the vote.
        Beyond the cluster's limit the row is noise. But a row that is a sampled row itself keeps its cluster.
        """
        labels, novelty = self._scored(unit_length(np.asarray(X, np.float32)), progress=progress)
        return np.where(novelty > 1, -1, labels)

    def relative_novelty(self, X: Floats) -> NDArray[np.float64]:
        """Return the novelty of (n, d) unit vectors in their nearest cluster, divided by its limit."""
        return self._scored(X, progress=False)[1]

    def with_wider_limits(self, novelty: NDArray[np.float64]) -> "ClusterAssigner":
        """Return the same assigner with limits for rows that had no part in the clusters.

        *Method*: all limits are multiplied by the factor that keeps the stated rate for these rows.

        Parameters
        ----------
        novelty : ndarray of shape (m,), float
            Relative novelty of rows that belong to some cluster, by clusterings made without them. Fewer rows
            than the rate requires change nothing.
        """
        if self.false_alarm_rate is None or len(novelty) < required_examples(self.false_alarm_rate):
            return self
        factor = from_good(novelty, false_alarm_rate=self.false_alarm_rate).value
        return replace(self, limits=self.limits * factor)

    def without_limits(self) -> "ClusterAssigner":
        """Return the same assigner, which calls no row noise."""
        return replace(self, limits=np.full(len(self.limits), np.inf), false_alarm_rate=None)

    def with_rows(self, X: NDArray[np.floating], label: int) -> "ClusterAssigner":
        """Return the same assigner after it learned that (n, d) rows belong to one cluster; -1 is noise.

        Sampled rows that are the same get the label; the others are appended.
        """
        rows = unit_length(np.asarray(X, np.float32))
        labels, is_sampled = self.labels.copy(), np.zeros(len(rows), bool)
        if len(self.X):
            for block, similarities in similarity_blocks(rows, self.X, block_rows=_BLOCK_ROWS):
                same = similarities > _SAME
                labels[same.any(0)] = label
                is_sampled[block] = same.any(1)
        new = rows[~is_sampled]
        appended = np.concatenate([self.X, new]) if len(self.X) else new
        return replace(self, X=appended, labels=np.append(labels, np.full(len(new), label)))

    def _scored(self, X: Floats, *, progress: bool | None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the nearest cluster of rows, and their novelty relative to its limit."""
        labels, novelty = np.full(len(X), -1, np.int64), np.full(len(X), _MAX_NOVELTY)
        if not (self.labels >= 0).any():
            return labels, novelty
        with bar("assigning rows to clusters", len(X), unit="rows", progress=progress) as shown:
            for rows, similarities in similarity_blocks(
                X, self.X, block_rows=_BLOCK_ROWS, progress=shown.update
            ):
                labels[rows], scores = self._nearest_clusters(similarities)
                limits = self.limits[labels[rows]]
                novelty[rows] = np.where(scores <= limits, 0, _MAX_NOVELTY)
                np.divide(scores, limits, out=novelty[rows], where=(limits > 0) & np.isfinite(scores))
                own = similarities.argmax(1)
                same = similarities[np.arange(len(own)), own] > _SAME
                labels[rows] = np.where(same, np.maximum(self.labels[own], 0), labels[rows])
                own_novelty = np.where(self.labels[own] < 0, _MAX_NOVELTY, 0)
                novelty[rows] = np.where(same, own_novelty, novelty[rows])
        return labels, np.minimum(novelty, _MAX_NOVELTY)

    def _leave_one_out(
        self, X: Floats, examples: NDArray[np.intp], sample: NDArray[np.intp], *, progress: bool | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the nearest cluster and the novelty of examples, each left out of the sample."""
        sample_row = np.full(len(X), -1)
        sample_row[sample] = np.arange(len(sample))
        clusters, scores = np.empty(len(examples), np.int64), np.empty(len(examples))
        with bar("calibrating cluster limits", len(examples), unit="rows", progress=progress) as shown:
            for rows, similarities in similarity_blocks(
                X[examples],
                self.X,
                own=sample_row[examples],
                block_rows=_BLOCK_ROWS,
                progress=shown.update,
            ):
                clusters[rows], scores[rows] = self._nearest_clusters(similarities)
        return clusters, scores

    def _nearest_clusters(self, similarities: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the nearest cluster of rows and their novelty there, from similarities to the sample."""
        n, m = similarities.shape
        k = len(self.limits)
        voters = np.argpartition(-similarities, min(_N_VOTERS, m) - 1, axis=1)[:, :_N_VOTERS]
        voter_similarities = np.take_along_axis(similarities, voters, 1)
        # Index -1 is the last column, so that is the vote for noise. A row that is left out has no vote.
        votes = np.zeros((n, k + 1))
        np.add.at(
            votes,
            (np.arange(n)[:, None], self.labels[voters]),
            np.where(np.isfinite(voter_similarities), 1 + 0.01 * voter_similarities, 0),
        )
        noise_share = votes[:, k] / np.maximum(votes.sum(1), 1e-9)
        labels = votes[:, :k].argmax(1)
        all_noise = np.flatnonzero(votes[:, :k].sum(1) == 0)
        nearest = np.where(self.labels >= 0, similarities[all_noise], -np.inf).argmax(1)
        labels[all_noise] = np.maximum(self.labels[nearest], 0)
        return labels, self._distances(similarities, labels) * (1 + noise_share)

    def _distances(self, similarities: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the distances (1 - cosine) of rows to the clusters named; infinite to an empty one."""
        masked = np.where(self.labels[None] == labels[:, None], similarities, -np.inf)
        k = min(_N_NEAREST, masked.shape[1])
        nearest = -np.partition(-masked, k - 1, axis=1)[:, :k]
        is_row = np.isfinite(nearest)
        total = np.where(is_row, nearest, 0).sum(1, dtype=np.float64)
        count = is_row.sum(1)
        return np.where(count > 0, 1 - total / np.maximum(count, 1), np.inf)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays for a file; vectors in half precision."""
        rate = np.nan if self.false_alarm_rate is None else self.false_alarm_rate
        return {
            "members": self.X.astype(np.float16),
            "member_labels": self.labels.astype(np.int32),
            "limits": self.limits,
            "false_alarm_rate": np.array(rate),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "ClusterAssigner":
        """Return the assigner that `to_arrays` was called on."""
        rate = float(arrays["false_alarm_rate"])
        return cls(
            unit_length(arrays["members"].astype(np.float32)),
            arrays["member_labels"].astype(np.int64),
            np.asarray(arrays["limits"], np.float64),
            None if np.isnan(rate) else rate,
        )


def _stratified_sample(
    labels: NDArray[np.int64], max_rows: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return sorted rows: the same share of every cluster and of noise, but at least 20 of each."""
    share = min(1.0, max_rows / max(len(labels), 1))
    samples = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        n = min(len(rows), max(_LEAST_ROWS_PER_CLUSTER, round(share * len(rows))))
        samples.append(rows if n == len(rows) else rng.choice(rows, n, replace=False))
    return np.sort(np.concatenate(samples)) if samples else np.empty(0, np.int64)
