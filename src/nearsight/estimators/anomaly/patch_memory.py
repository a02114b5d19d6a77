"""Patches of good images remembered, and how far those of another image are from any of them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from nearsight.errors import InvalidParameterError
from nearsight.estimators.anomaly.coreset import Coreset, nearest

Maps = NDArray[np.float32] | Iterable[NDArray[np.float32]]

# Numbers that wait until the whitening is learned: 32 MB.
_N_WAITING = 8_000_000


class PatchMemory(BaseEstimator):  # type: ignore[misc] # scikit-learn is untyped
    """Score the places of feature maps by their distance to the nearest good place.

    *Method*: PatchCore (Roth et al. 2022, arXiv 2106.08265). Features are averaged over their neighborhood
    (section 3.1); a coreset of the good ones is kept (section 3.2), here out of a stream; a place's score is
    its distance to the nearest of them, times the weight of equation 7, which is larger where that one is
    itself far from the rest of the memory.

    Deviations, each measured in ``benchmarks/anomaly.py``: distances are taken after whitening (principal
    axes scaled to equal variance, `shrinkage` of the way to the mean), because otherwise a few strong and
    variable features drown the rest; and an image's score is the mean of its `top` highest places rather
    than the one highest. ``shrinkage=None, top=0`` is the paper's.

    Parameters
    ----------
    n_rows : int, default 2000
        Patches that are remembered, at most.
    neighborhood : int, default 3
        Places on a side that are averaged, odd; 1 for none.
    most_places : int, default 28
        Maps with more places on a side are averaged in blocks, down to at most so many.
    shrinkage : float or None, default 0.01
        In 0..1; 1 only centers and scales. None takes distances between features as they are.
    top : float, default 0.01
        In 0..1: share of an image's places that its score is the mean of, at least one.
    n_reweight : int, default 9
        Neighbors in memory that the weight looks at; 0 for no weight.
    random_state : int
        Seeds the choice of what is remembered.

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
    The whitening is learned on the first 8 million numbers and then stays. To fit costs
    n h w x n_rows x d multiplications, to score the same, and memory is n_rows x d whatever n is. No map is
    refused; one is enough, and two are no special case. Duplicate maps add nothing to what is remembered.
    Where all maps are the same there is nothing to whiten: distances are plain ones. NaN and infinity are
    refused.

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
        most_places: int = 28,
        shrinkage: float | None = 0.01,
        top: float = 0.01,
        n_reweight: int = 9,
        random_state: int = 0,
    ) -> None:
        self.n_rows = n_rows
        self.neighborhood = neighborhood
        self.most_places = most_places
        self.shrinkage = shrinkage
        self.top = top
        self.n_reweight = n_reweight
        self.random_state = random_state

    def fit(self, X: Maps, y: Any = None) -> "PatchMemory":
        """Learn from maps of good images only.

        Parameters
        ----------
        X : ndarray of shape (n, h, w, d), float32, or iterable of those
            Of an iterable, one array is held at a time, and each may have its own h and w.

        Raises
        ------
        InvalidParameterError
            There is no map, a shape is wrong, or a number is not finite.
        """
        for name in ("coreset_", "whitening_", "mean_"):
            if hasattr(self, name):
                delattr(self, name)
        self._waiting: list[NDArray[np.float32]] = []
        return self.partial_fit(X)

    def partial_fit(self, X: Maps, y: Any = None) -> "PatchMemory":
        """Learn from maps of more good images; what they add is kept as far as the memory has room."""
        self.add(X)
        return self.finish()

    def add(self, X: Maps) -> None:
        """Take in maps without yet being ready to score; `finish` makes it ready."""
        self._check()
        if not hasattr(self, "_waiting"):
            self._waiting = []
        for maps in [X] if isinstance(X, np.ndarray) else X:
            rows = self._places(maps)
            self.n_features_in_ = rows.shape[-1]
            rows = rows.reshape(-1, rows.shape[-1])
            if hasattr(self, "whitening_"):
                self.coreset_.add(self._whitened(rows))
                continue
            self._waiting.append(rows)
            if sum(r.size for r in self._waiting) >= _N_WAITING:
                self._whiten()

    def finish(self) -> "PatchMemory":
        """Make ready to score after `add`."""
        if not hasattr(self, "whitening_"):
            if not self._waiting:
                raise InvalidParameterError("there are 0 maps; a memory needs at least 1 of a good image")
            self._whiten()
        self.memory_ = self.coreset_.rows
        self.cover_, self.n_patches_seen_ = self.coreset_.cover, self.coreset_.n_seen
        self._half = np.einsum("kd,kd->k", self.memory_, self.memory_) / 2
        return self

    def distances(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how far each place is from the nearest good one.

        Parameters
        ----------
        X : ndarray of shape (n, h, w, d), float32

        Returns
        -------
        ndarray of shape (n, h, w), float32
            At least 0; higher is more alarming. h and w after averaging in blocks.
        """
        return self.assess(X)[0]

    def score_samples(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return how normal each image is: minus its score, so that higher is more normal.

        Parameters
        ----------
        X : ndarray of shape (n, h, w, d), float32
        """
        return np.array([-self.assess(X[i : i + 1])[1] for i in range(len(X))])

    def assess(self, X: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        """Return the distances of one image's maps, and its score.

        Parameters
        ----------
        X : ndarray of shape (n, h, w, d), float32
            The image's tiles; one where it is not cut.

        Returns
        -------
        distances : ndarray of shape (n, h, w), float32
        score : float
            Higher is more alarming.
        """
        check_is_fitted(self, "memory_")
        maps = self._places(X)
        if maps.shape[-1] != self.n_features_in_:
            raise InvalidParameterError(
                f"maps have {maps.shape[-1]} features a place; the memory was fitted on {self.n_features_in_}"
            )
        distances = np.empty(maps.shape[:-1], np.float32)
        rows, at = [], []
        # Map by map: a product of matrices rounds by their shape, and a score must not depend on its batch.
        for one, out in zip(maps, distances, strict=True):
            rows.append(self._whitened(one.reshape(-1, maps.shape[-1])))
            away, which = nearest(rows[-1], self.memory_)
            out[:] = away.reshape(out.shape)
            at.append(which)
        flat = distances.ravel()
        n = max(1, round(self.top * len(flat)))
        highest = np.argpartition(flat, len(flat) - n)[-n:]
        weights = self._weights(np.concatenate(rows)[highest], flat[highest], np.concatenate(at)[highest])
        return distances, float((weights * flat[highest]).mean())

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what was learned as plain data and arrays; `from_state` makes it whole again."""
        check_is_fitted(self, "memory_")
        facts = {"params": self.get_params(deep=False), "coreset": self.coreset_.facts()}
        return facts, {"memory": self.memory_, "mean": self.mean_, "whitening": self.whitening_}

    @classmethod
    def from_state(cls, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> "PatchMemory":
        """Return what `state` described.

        Raises
        ------
        ValueError
            The arrays do not fit each other.
        """
        params = dict(facts["params"])
        if "neighbourhood" in params:  # files of 0.1
            params["neighborhood"] = params.pop("neighbourhood")
        found = cls(**params)
        found.mean_, found.whitening_ = arrays["mean"], arrays["whitening"]
        d = found.n_features_in_ = len(found.mean_)
        if found.whitening_.shape != (d, d) or arrays["memory"].shape[1:] != (d,):
            raise ValueError(
                f"a memory of shape {arrays['memory'].shape} does not fit a whitening of shape"
                f" {found.whitening_.shape}"
            )
        found._waiting = []
        found.coreset_ = Coreset.restored(arrays["memory"], facts["coreset"])
        return found.finish()

    def _weights(
        self, rows: NDArray[np.float32], distances: NDArray[np.float32], at: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Equation 7: one less the softmax of the nearest among its own neighbors in memory."""
        if not self.n_reweight or len(self.memory_) == 1:
            return np.ones(len(rows))
        weights = np.empty(len(rows))
        n = min(self.n_reweight, len(self.memory_))
        for i, (row, distance, nearest_at) in enumerate(zip(rows, distances, at, strict=True)):
            near = self.memory_[nearest_at]
            around = np.argpartition(self._half - self.memory_ @ near, n - 1)[:n]
            away = np.linalg.norm(self.memory_[around] - row, axis=1).astype(np.float64)
            weights[i] = 1 - 1 / np.exp(away - float(distance)).sum()
        return weights

    def _check(self) -> None:
        if self.neighborhood < 1 or self.neighborhood % 2 == 0:
            raise InvalidParameterError(f"neighborhood is {self.neighborhood}; it must be odd, at least 1")
        if self.most_places < 1:
            raise InvalidParameterError(f"most_places is {self.most_places}; it must be at least 1")
        for name in ("shrinkage", "top"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InvalidParameterError(f"{name} is {value}; it must lie between 0 and 1")

    def _places(self, maps: NDArray[Any]) -> NDArray[np.float32]:
        maps = np.asarray(maps, np.float32)
        if maps.ndim != 4 or 0 in maps.shape:
            raise InvalidParameterError(
                f"maps have shape {maps.shape}; it must be (n, h, w, d), none of them 0"
            )
        if not np.isfinite(maps).all():
            raise InvalidParameterError("maps hold NaN or infinity; leave such images out")
        if self.neighborhood > 1:
            maps = uniform_filter(maps, (0, self.neighborhood, self.neighborhood, 0), mode="nearest")
        return _coarser(maps, self.most_places)

    def _whiten(self) -> None:
        rows = np.concatenate(self._waiting)
        self._waiting = []
        d = rows.shape[1]
        self.mean_ = rows.mean(0, dtype=np.float64).astype(np.float32)
        self.whitening_ = _whitening(rows - self.mean_, self.shrinkage)
        self.coreset_ = Coreset(self.n_rows, random_state=self.random_state)
        for start in range(0, len(rows), max(1, _N_WAITING // (8 * d))):
            self.coreset_.add(self._whitened(rows[start : start + max(1, _N_WAITING // (8 * d))]))

    def _whitened(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        whitened: NDArray[np.float32] = (rows - self.mean_) @ self.whitening_
        return whitened


def _coarser(maps: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Average blocks of places until there are at most so many on a side; the last block may be smaller."""
    block = -(-max(maps.shape[1:3]) // most)
    if block == 1:
        return maps
    for axis in (1, 2):
        starts = np.arange(0, maps.shape[axis], block)
        lengths = np.diff([*starts, maps.shape[axis]]).reshape(-1, *[1] * (3 - axis)).astype(np.float32)
        maps = np.asarray(np.add.reduceat(maps, starts, axis=axis) / lengths, np.float32)
    return maps


def _whitening(centered: NDArray[np.float32], shrinkage: float | None) -> NDArray[np.float32]:
    """Return what brings centered rows to equal variance in all directions, and their mean square to 1."""
    d = centered.shape[1]
    covariance = (centered.T @ centered).astype(np.float64) / len(centered)
    mean_variance = np.trace(covariance) / d
    if shrinkage is None or mean_variance == 0:
        return np.eye(d, dtype=np.float32)
    shrunk = (1 - shrinkage) * covariance + shrinkage * mean_variance * np.eye(d)
    values, directions = np.linalg.eigh(shrunk)
    floor = 1e-6 * mean_variance
    return np.asarray(directions / np.sqrt(d * np.maximum(values, floor)), np.float32)
