"""Images scored by the distance of their patches to those of good images."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from nearsight.errors import InvalidParameterError
from nearsight.estimators.anomaly.coreset import Coreset, nearest_center
from nearsight.estimators.stored_parameters import present_parameters
from nearsight.parameters import require_whole

Maps = NDArray[np.float32] | Iterable[NDArray[np.float32]]

# Numbers that are buffered until the whitening is fitted: 32 MB.
_MOST_BUFFERED = 8_000_000


class PatchMemory(BaseEstimator):
    """Score patches of feature maps by their distance to the nearest patch of a good image.

    *Method*: PatchCore (Roth et al. 2022, arXiv 2106.08265). Features are averaged over their neighborhood
    (section 3.1) and a coreset of the good patches is stored (section 3.2). The score of a patch is its
    distance to the nearest stored one, times the weight of equation 7, which is larger if that one is itself
    far from the rest of the memory.

    Deviations, each measured in ``benchmarks/anomaly.py``: the coreset is of a stream; distances are computed
    after whitening (principal axes scaled to equal variance, shrunk to the mean variance by `shrinkage`), as
    otherwise a few strong and variable features dominate; the score of an image is the mean of its
    `top_share` highest patches rather than the highest. ``shrinkage=None, top_share=0`` is the paper's.

    Parameters
    ----------
    n_rows : int, default 2000
        Size of the coreset.
    neighborhood : int, default 3
        Side of the square of positions that are averaged, odd; 1 for none.
    max_side : int, default 28
        Larger maps are averaged in blocks, to at most so many positions a side.
    shrinkage : float or None, default 0.01
        In 0..1; 1 only centers and scales. None for no whitening.
    top_share : float, default 0.01
        In 0..1: the share of an image's patches that its score is the mean of; at least one patch.
    n_reweight : int, default 9
        Neighbors in memory that the weight is computed from; 0 for no weight.
    max_learned : int, optional
        Patches of each array that are learned, at most: a random choice, since large maps hold many that are
        alike. None learns all.
    random_state : int
        Seeds the coreset, and the choice.

    Attributes
    ----------
    memory_ : ndarray of shape (<= n_rows, d), float32
        Whitened patches.
    mean_, whitening_ : ndarray of shape (d,) and (d, d), float32
    cover_ : float
        Every good patch seen lies within this distance of the memory.
    n_patches_seen_ : int

    Notes
    -----
    The whitening is fitted on the first 8 million numbers. To fit costs n h w × n_rows × d multiplications,
    to score the same, and memory is n_rows × d. No map is refused; one is enough. Duplicate maps add nothing
    to the coreset. If all maps are the same, there is no whitening. NaN and infinity are refused.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> good = rng.normal(size=(20, 8, 8, 4)).astype(np.float32)
    >>> odd = good[:1].copy()
    >>> odd[0, 5, 2] += 9
    >>> memory = PatchMemory(neighborhood=1).fit(good[1:])
    >>> divmod(int(memory.distances(odd)[0].argmax()), 8)
    (5, 2)
    """

    def __init__(
        self,
        *,
        n_rows: int = 2000,
        neighborhood: int = 3,
        max_side: int = 28,
        shrinkage: float | None = 0.01,
        top_share: float = 0.01,
        n_reweight: int = 9,
        max_learned: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.n_rows = n_rows
        self.neighborhood = neighborhood
        self.max_side = max_side
        self.shrinkage = shrinkage
        self.top_share = top_share
        self.n_reweight = n_reweight
        self.max_learned = max_learned
        self.random_state = random_state

    def fit(self, X: Maps, y: Any = None) -> "PatchMemory":
        """Fit on maps of good images only.

        Parameters
        ----------
        X : ndarray of shape (n, h, w, d), float32, or iterable of those
            Of an iterable, one array is in memory at a time; each may have its own h and w.

        Raises
        ------
        InvalidParameterError
            There is no map, a shape is wrong, or a number is not finite.
        """
        for name in ("coreset_", "whitening_", "mean_"):
            if hasattr(self, name):
                delattr(self, name)
        self._buffer: list[NDArray[np.float32]] = []
        return self.partial_fit(X)

    def partial_fit(self, X: Maps, y: Any = None) -> "PatchMemory":
        """Fit on maps of more good images."""
        self.add(X)
        return self.finish()

    def add(self, X: Maps) -> None:
        """Add maps; call `finish` before scoring."""
        self._check()
        if not hasattr(self, "_buffer"):
            self._buffer = []
        for maps in [X] if isinstance(X, np.ndarray) else X:
            rows = self._patches(maps)
            self.n_features_in_ = rows.shape[-1]
            rows = rows.reshape(-1, rows.shape[-1])
            if self.max_learned is not None and len(rows) > self.max_learned:
                # Seeded by what was seen, so that a saved memory goes on like an unsaved one.
                seen = self.coreset_.n_seen if hasattr(self, "coreset_") else sum(map(len, self._buffer))
                rng = np.random.default_rng([self.random_state, seen])
                rows = rows[np.sort(rng.choice(len(rows), self.max_learned, replace=False))]
            if hasattr(self, "whitening_"):
                self.coreset_.add(self._whitened(rows))
                continue
            self._buffer.append(rows)
            if sum(r.size for r in self._buffer) >= _MOST_BUFFERED:
                self._whiten()

    def finish(self) -> "PatchMemory":
        """Finish after `add`, ready to score."""
        if not hasattr(self, "whitening_"):
            if not self._buffer:
                raise InvalidParameterError("there are 0 maps; give at least 1 of a good image")
            self._whiten()
        self.memory_ = self.coreset_.rows
        self.cover_, self.n_patches_seen_ = self.coreset_.cover, self.coreset_.n_seen
        self._half = np.einsum("kd,kd->k", self.memory_, self.memory_) / 2
        return self

    def distances(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distance of each patch to the nearest good one.

        Parameters
        ----------
        X : ndarray of shape (n, h, w, d), float32

        Returns
        -------
        ndarray of shape (n, h, w), float32
            At least 0; higher is more unusual. h and w are those after averaging in blocks.
        """
        return self.score_image(X)[0]

    def score_samples(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return minus the score of each image: higher is more normal.

        Parameters
        ----------
        X : ndarray of shape (n, h, w, d), float32
        """
        return np.array([-self.score_image(X[i : i + 1])[1] for i in range(len(X))])

    def score_image(self, X: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """Return the distances of the patches of one image, and its score.

        Parameters
        ----------
        X : ndarray of shape (n, h, w, d), float32
            The tiles of the image; one if it is not cut.

        Returns
        -------
        distances : ndarray of shape (n, h, w), float32
        score : float
            Higher is more unusual.
        """
        check_is_fitted(self, "memory_")
        maps = self._patches(X)
        if maps.shape[-1] != self.n_features_in_:
            raise InvalidParameterError(
                f"maps have {maps.shape[-1]} features; the memory was fitted on {self.n_features_in_}"
            )
        distances = np.empty(maps.shape[:-1], np.float32)
        patches, nearest = [], []
        # Map by map: matrix products round by their shape, and a score must not depend on its batch.
        for tile, tile_distances in zip(maps, distances, strict=True):
            patches.append(self._whitened(tile.reshape(-1, maps.shape[-1])))
            values, rows = nearest_center(patches[-1], self.memory_)
            tile_distances[:] = values.reshape(tile_distances.shape)
            nearest.append(rows)
        flat = distances.ravel()
        n = max(1, round(self.top_share * len(flat)))
        highest = np.argpartition(flat, len(flat) - n)[-n:]
        weights = self._weights(
            np.concatenate(patches)[highest], flat[highest], np.concatenate(nearest)[highest]
        )
        return distances, float((weights * flat[highest]).mean())

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return the fitted estimator as plain data and arrays; see `from_state`."""
        check_is_fitted(self, "memory_")
        facts = {"params": self.get_params(deep=False), "coreset": self.coreset_.state()}
        return facts, {"memory": self.memory_, "mean": self.mean_, "whitening": self.whitening_}

    @classmethod
    def from_state(cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "PatchMemory":
        """Return the estimator that `state` was called on.

        Raises
        ------
        ValueError
            The arrays do not fit each other.
        """
        memory = cls(**present_parameters(facts["params"]))
        memory.mean_, memory.whitening_ = arrays["mean"], arrays["whitening"]
        d = memory.n_features_in_ = len(memory.mean_)
        if memory.whitening_.shape != (d, d) or arrays["memory"].shape[1:] != (d,):
            raise ValueError(
                f"a memory of shape {arrays['memory'].shape} does not fit a whitening of shape"
                f" {memory.whitening_.shape}"
            )
        memory._buffer = []
        memory.coreset_ = Coreset.from_state(arrays["memory"], facts["coreset"])
        return memory.finish()

    def _weights(
        self, patches: NDArray[np.float32], distances: NDArray[np.float32], nearest: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Equation 7: 1 - the softmax of the nearest stored patch among its own neighbors in memory."""
        if not self.n_reweight or len(self.memory_) == 1:
            return np.ones(len(patches))
        weights = np.empty(len(patches))
        n = min(self.n_reweight, len(self.memory_))
        for i, (patch, distance, row) in enumerate(zip(patches, distances, nearest, strict=True)):
            neighbors = np.argpartition(self._half - self.memory_ @ self.memory_[row], n - 1)[:n]
            others = np.linalg.norm(self.memory_[neighbors] - patch, axis=1).astype(np.float64)
            weights[i] = 1 - 1 / np.exp(others - float(distance)).sum()
        return weights

    def _check(self) -> None:
        if self.neighborhood < 1 or self.neighborhood % 2 == 0:
            raise InvalidParameterError(f"neighborhood is {self.neighborhood}; it must be odd, at least 1")
        require_whole("max_side", self.max_side)
        if self.max_learned is not None and self.max_learned < 1:
            raise InvalidParameterError(f"max_learned is {self.max_learned}; it must be at least 1, or None")
        for name in ("shrinkage", "top_share"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InvalidParameterError(f"{name} is {value}; it must lie between 0 and 1")

    def _patches(self, maps: NDArray[Any]) -> NDArray[np.float32]:
        maps = np.asarray(maps, np.float32)
        if maps.ndim != 4 or 0 in maps.shape:
            raise InvalidParameterError(f"maps have shape {maps.shape}; give (n, h, w, d), none of them 0")
        if not np.isfinite(maps).all():
            raise InvalidParameterError("maps hold NaN or infinity; leave such images out")
        if self.neighborhood > 1:
            maps = uniform_filter(maps, (0, self.neighborhood, self.neighborhood, 0), mode="nearest")
        return _block_averaged(maps, self.max_side)

    def _whiten(self) -> None:
        rows = np.concatenate(self._buffer)
        self._buffer = []
        d = rows.shape[1]
        self.mean_ = rows.mean(0, dtype=np.float64).astype(np.float32)
        self.whitening_ = _whitening(rows - self.mean_, self.shrinkage)
        self.coreset_ = Coreset(self.n_rows, random_state=self.random_state)
        for start in range(0, len(rows), max(1, _MOST_BUFFERED // (8 * d))):
            self.coreset_.add(self._whitened(rows[start : start + max(1, _MOST_BUFFERED // (8 * d))]))

    def _whitened(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        whitened: NDArray[np.float32] = (rows - self.mean_) @ self.whitening_
        return whitened


def _block_averaged(maps: NDArray[np.float32], max_side: int) -> NDArray[np.float32]:
    """Return maps averaged in blocks to at most `max_side` a side; the last block may be smaller."""
    block = -(-max(maps.shape[1:3]) // max_side)
    if block == 1:
        return maps
    for axis in (1, 2):
        starts = np.arange(0, maps.shape[axis], block)
        lengths = np.diff([*starts, maps.shape[axis]]).reshape(-1, *[1] * (3 - axis)).astype(np.float32)
        maps = np.asarray(np.add.reduceat(maps, starts, axis=axis) / lengths, np.float32)
    return maps


def _whitening(centered: NDArray[np.float32], shrinkage: float | None) -> NDArray[np.float32]:
    """Return the (d, d) matrix that gives centered rows equal variance in all directions, mean square 1."""
    d = centered.shape[1]
    covariance = (centered.T @ centered).astype(np.float64) / len(centered)
    mean_variance = np.trace(covariance) / d
    if shrinkage is None or mean_variance == 0:
        return np.eye(d, dtype=np.float32)
    shrunk = (1 - shrinkage) * covariance + shrinkage * mean_variance * np.eye(d)
    values, directions = np.linalg.eigh(shrunk)
    floor = 1e-6 * mean_variance
    return np.asarray(directions / np.sqrt(d * np.maximum(values, floor)), np.float32)
