"""What is usual at each place of an image: the mean and spread of a map by relative position."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from nearsight.errors import InvalidParameterError

# Cells a side. The outermost positions are cells of their own: a network's padding shows there only.
_N_CELLS, _N_BORDER = 24, 3
# A spread is at least this share of the mean spread, so that a place that never varied raises no alarm alone.
_LEAST_SPREAD = 0.2
# A variance that is as high as this is unlikely, from so few maps, is not excluded.
_UNLIKELY = 0.01
_N_FOLDS = 5
# The share of values that are a tail.
_TAIL = 0.01

Floats = NDArray[np.float64]


class PositionScale:
    """The mean and standard deviation of maps of good images, by relative position.

    Distances to good patches are larger in some places than in others: at the border, which a network pads,
    and where good parts vary. A distance counts by how unusual it is *there*.

    *Method*: a z-score per place. A map is divided into 24 × 24 cells of relative position. Of each cell the
    mean and the variance over good images are kept, smoothed over the adjacent cells. The outermost three
    positions of each side are cells of their own, and are smoothed along the side only. They hold few values,
    and a variance that was too low by chance would be an alarm in a new image; so their variance is raised to
    that of their whole ring, at most to its own upper confidence limit (99 %). A spread below a fifth of the
    mean one is raised to that. Near the border
    distances are also more skewed, and the highest ones are what counts: `fit_tails` rescales the outermost
    three rings of positions, so that the mean of their highest hundredth is that of the inner places, in
    images that the means and variances do not come from.

    Attributes
    ----------
    n_maps : int
        Maps added.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> usual = np.ones((40, 40))
    >>> usual[0] = 3
    >>> scale = PositionScale()
    >>> for _ in range(100):
    ...     scale.add(usual * rng.normal(1, 0.1))
    >>> float(np.abs(scale.standardized(usual)).max()) < 2
    True
    """

    def __init__(self) -> None:
        self.n_maps = 0
        self._sums = np.zeros((3, _N_CELLS, _N_CELLS))
        self._tails = np.ones(_N_BORDER + 1)
        # Not in files of earlier versions, whose thresholds belong to spreads that are not pooled.
        self._is_pooled = True
        self._fitted: tuple[Floats, Floats] | None = None

    def add(self, values: NDArray[np.floating[Any]]) -> None:
        """Add the map of one good image, of shape (h, w) and any size."""
        if values.ndim != 2 or 0 in values.shape:
            raise InvalidParameterError(f"a map has shape {values.shape}; give (height, width), neither 0")
        rows, columns = (_memberships(n) for n in values.shape)
        exact = values.astype(np.float64)
        for total, part in zip(self._sums, (np.ones_like(exact), exact, exact**2), strict=True):
            total += rows @ part @ columns.T
        self.n_maps += 1
        self._fitted = None

    def fit_tails(self, maps: Sequence[NDArray[np.floating[Any]]]) -> None:
        """Learn how high the highest values are in each ring of positions, from maps that were added.

        Each map is standardized by the maps of the other folds (cross-validation).
        """
        self._tails = np.ones(_N_BORDER + 1)
        parts, rings = [], []
        for fold, others in folds(len(maps)):
            scale = PositionScale()
            for i in others:
                scale.add(maps[i])
            parts += [scale.standardized(maps[i]).ravel() for i in fold]
            rings += [_rings(maps[i].shape).ravel() for i in fold]
        standardized, ring_of = np.concatenate(parts), np.concatenate(rings)
        inner = _highest(standardized[ring_of == _N_BORDER])
        for ring in range(_N_BORDER):
            own = _highest(standardized[ring_of == ring])
            if inner > 0 and own > 0:
                self._tails[ring] = own / inner

    def standardized(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return a map in standard deviations from the mean of good images, place by place.

        Parameters
        ----------
        values : ndarray of shape (h, w)

        Raises
        ------
        InvalidParameterError
            No map was added.
        """
        if not self.n_maps:
            raise InvalidParameterError("there are 0 maps of good images; add at least 1")
        rows, columns = (_memberships(n) for n in values.shape)
        if self._fitted is None:
            self._fitted = self._mean_and_spread()
        mean, spread = (rows.T @ cells @ columns for cells in self._fitted)
        return np.asarray((values - mean) / (spread * self._tails[_rings(values.shape)]), np.float32)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return it as plain data and arrays; see `from_state`."""
        return {"n_maps": self.n_maps, "pooled": self._is_pooled}, {"sums": self._sums, "tails": self._tails}

    @classmethod
    def from_state(cls, facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> "PositionScale":
        """Return the scale that `state` was called on.

        Raises
        ------
        ValueError
            The array has another shape.
        """
        scale = cls()
        scale.n_maps, scale._is_pooled = int(facts["n_maps"]), bool(facts.get("pooled", False))
        if arrays["sums"].shape != scale._sums.shape:
            raise ValueError(f"sums have shape {arrays['sums'].shape}, not {scale._sums.shape}")
        scale._sums, scale._tails = arrays["sums"], arrays["tails"]
        return scale

    def _mean_and_spread(self) -> tuple[Floats, Floats]:
        """Return mean and spread of each cell."""
        count, total, squares = self._sums
        filled = np.maximum(count, 1)
        own_mean = total / filled
        # Weighted by the number of values: small maps leave cells empty.
        weights = _smoothed(count)
        deviations = np.maximum(squares - total * own_mean, 0)
        variance = _smoothed(deviations) / np.maximum(weights, 1e-300)
        mean = np.where(
            weights > 0, _smoothed(total) / np.maximum(weights, 1e-300), total.sum() / count.sum()
        )
        if self._is_pooled:
            highest = variance * self.n_maps / chi2.ppf(_UNLIKELY, max(self.n_maps - 1, 1))
            variance = np.maximum(variance, np.minimum(_pooled(deviations, count), highest))
        spread = np.sqrt(variance)
        usual = float(np.average(spread, weights=count))
        least = max(_LEAST_SPREAD * usual, 1e-6 * float(np.abs(mean).max()), 1e-12)
        return mean, np.maximum(spread, least)


def _memberships(n: int) -> Floats:
    """Return (24, n): which cell each of n positions along a side belongs to."""
    at = np.arange(n)
    if n <= _N_CELLS:
        cells = np.where(at < n / 2, at, _N_CELLS - n + at)
    else:
        inner = _N_BORDER + (at - _N_BORDER) * (_N_CELLS - 2 * _N_BORDER) // (n - 2 * _N_BORDER)
        from_end = _N_CELLS - n + at
        cells = np.where(at < _N_BORDER, at, np.where(at >= n - _N_BORDER, from_end, inner))
    return np.asarray(cells == np.arange(_N_CELLS)[:, None], np.float64)


def _rings(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return how far each position of a map lies from its border: 0, 1, 2, or 3 and more."""
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in shape)
    return np.minimum(np.minimum(rows[:, None], columns), _N_BORDER)


def _pooled(deviations: Floats, count: Floats) -> Floats:
    """Return the variance of each border cell's ring of cells, from sums of squared deviations; 0 inside."""
    ring_of, variance = _rings(count.shape), np.zeros_like(count)
    for ring in range(_N_BORDER):
        is_ring = ring_of == ring
        variance[is_ring] = deviations[is_ring].sum() / max(count[is_ring].sum(), 1)
    return variance


def folds(n: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the members of each of five folds of n, and the others; a single one is both."""
    n_folds = min(_N_FOLDS, n)
    for fold in range(n_folds):
        others = [i for i in range(n) if i % n_folds != fold]
        yield list(range(fold, n, n_folds)), others or [fold]


def _highest(values: NDArray[np.floating[Any]]) -> float:
    """Return the mean of the highest hundredth of values; 0 of none."""
    if not values.size:
        return 0.0
    n = max(1, round(_TAIL * values.size))
    return float(np.partition(values, values.size - n)[-n:].mean(dtype=np.float64))


def _smoothed(cells: Floats) -> Floats:
    """Return the mean over adjacent cells; those of the border do not mix with what lies farther in."""
    for axis in (0, 1):
        cells = np.moveaxis(cells.copy(), axis, 0)
        inner = cells[_N_BORDER:-_N_BORDER]
        padded = np.concatenate([inner[:1], inner, inner[-1:]])
        cells[_N_BORDER:-_N_BORDER] = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
        cells = np.moveaxis(cells, 0, axis)
    return cells
