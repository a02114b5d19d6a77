"""A linear map of vectors, in closed form, that brings images of one class together.

Estimates the map from class means and from the scatter within classes; no gradients, no torch.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError

Floats = NDArray[np.floating]

#: Stands for a stretch without limit: only the directions between classes are kept.
ONLY_BETWEEN = float("inf")


@dataclass(frozen=True)
class AffineMap:
    """``(x - mean) @ components.T``, the direction of most variance first.

    Attributes
    ----------
    mean : ndarray of shape (d_in,), float32
    components : ndarray of shape (d_out, d_in), float32
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def apply(self, X: Floats) -> NDArray[np.float32]:
        """Map (n, d_in) to (n, d_out) float32."""
        mapped: NDArray[np.float32] = (np.asarray(X, np.float32) - self.mean) @ self.components.T
        return mapped

    def truncated(self, dim: int) -> "AffineMap":
        """Return the map to the first `dim` numbers."""
        return AffineMap(self.mean, self.components[:dim])


class ClassScatter:
    """The scatter of vectors within and between classes, from which maps of any setting follow.

    *Method*: linear discriminant analysis in two steps (Fukunaga 1990, chapter 10). Vectors are whitened by
    their covariance within classes, shrunk to a multiple of the identity (Friedman 1989); then the directions
    in which class means differ are stretched. Without a stretch, classes that were not learned keep their
    distances; with one that has no limit, only the learned classes are told apart.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    y : array-like of shape (n,), int
        Class of each vector.

    Raises
    ------
    InvalidParameterError
        There are fewer than two classes, or no class has two vectors.

    Notes
    -----
    Costs min(n, d)² × max(n, d) operations once.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 50)
    >>> X = rng.normal(size=(100, 3)) * [5, 1, 1] + np.outer(y, [0, 3, 0])
    >>> mapped = ClassScatter(X, y).map(shrinkage=0.1, stretch=1.0, dim=1).apply(X)
    >>> bool(abs(mapped[y == 0].mean() - mapped[y == 1].mean()) > 2 * mapped[y == 0].std())
    True
    """

    def __init__(self, X: Floats, y: ArrayLike) -> None:
        X = np.asarray(X, np.float64)
        classes, number = np.unique(np.asarray(y), return_inverse=True)
        counts = np.bincount(number)
        if len(classes) < 2 or counts.max() < 2:
            raise InvalidParameterError(
                f"there are {len(classes)} classes, the largest with {counts.max(initial=0)} images; "
                "training needs at least two classes, and one with two images"
            )
        self.mean = X.mean(axis=0)
        self._centered = X - self.mean
        sums = np.zeros((len(classes), X.shape[1]))
        np.add.at(sums, number, self._centered)
        self._class_means, self._weights = sums / counts[:, None], np.sqrt(counts / len(X))
        residuals = self._centered - self._class_means[number]
        self._variances, self._axes = _principal_axes(residuals / np.sqrt(len(X) - len(classes)))
        self._mean_variance = float(self._variances.sum() / X.shape[1])

    @property
    def n_between(self) -> int:
        """Number of directions in which class means differ."""
        return min(len(self._class_means) - 1, int(self._centered.shape[1]))

    def coordinates(self, X: Floats) -> "Coordinates":
        """Return vectors in the coordinates in which every map is a scaling.

        Parameters
        ----------
        X : ndarray of shape (n, d)
        """
        centered = np.asarray(X, np.float64) - self.mean
        inside = centered @ self._axes.T
        return Coordinates(inside.astype(np.float32), (centered - inside @ self._axes).astype(np.float32))

    def mapped(self, points: "Coordinates", *, shrinkage: float, stretch: float) -> NDArray[np.float32]:
        """Map vectors without shortening them; equal to `map` up to a rotation.

        Parameters
        ----------
        points : Coordinates
        shrinkage : float
            Share of the identity in the covariance within classes, above 0 and at most 1.
        stretch : float
            The directions between classes become 1 + `stretch` times as long; `ONLY_BETWEEN` drops the rest.

        Returns
        -------
        ndarray of shape (n, k), or (n, n_between) with `ONLY_BETWEEN`, float32
        """
        factors, outside = self._factors(shrinkage)
        whitened = points.scaled(factors, outside)
        means = self._mean_coordinates.scaled(factors, outside) * self._weights[:, None]
        between = np.linalg.svd(means, full_matrices=False)[2][: self.n_between].astype(np.float32)
        along = whitened @ between.T
        return np.asarray(along if np.isinf(stretch) else whitened + stretch * along @ between, np.float32)

    def map(self, *, shrinkage: float, stretch: float, dim: int) -> AffineMap:
        """Return the map to the `dim` directions in which the mapped vectors vary most.

        Parameters
        ----------
        shrinkage, stretch
            See `mapped`.
        dim : int
            At most d, and at most `n_between` with `ONLY_BETWEEN`.

        Raises
        ------
        InvalidParameterError
            `dim` is too large.
        """
        between = self._between(shrinkage)
        whitened = self._whitened(self._centered, shrinkage)
        along = whitened @ between.T
        _, axes = _principal_axes(along if np.isinf(stretch) else whitened + stretch * along @ between)
        if not 1 <= dim <= len(axes):
            raise InvalidParameterError(f"dim is {dim}; it must be between 1 and {len(axes)}")
        axes = axes[:dim]
        # Whitening and stretch are symmetric, so the map's rows are the images of the axes.
        rows = axes @ between if np.isinf(stretch) else axes + stretch * (axes @ between.T) @ between
        return AffineMap(self.mean.astype(np.float32), self._whitened(rows, shrinkage).astype(np.float32))

    @cached_property
    def _mean_coordinates(self) -> "Coordinates":
        return self.coordinates(self._class_means + self.mean)

    def _factors(self, shrinkage: float) -> tuple[NDArray[np.float64], float]:
        """Return the inverse square roots of the shrunken covariance: along its axes, and outside of them."""
        floor = shrinkage * self._mean_variance
        return 1 / np.sqrt((1 - shrinkage) * self._variances + floor), float(1 / np.sqrt(floor))

    def _whitened(self, X: Floats, shrinkage: float) -> NDArray[np.float64]:
        """Multiply rows by the inverse square root of the shrunken covariance."""
        factors, outside = self._factors(shrinkage)
        whitened: NDArray[np.float64] = outside * X + ((X @ self._axes.T) * (factors - outside)) @ self._axes
        return whitened

    def _between(self, shrinkage: float) -> NDArray[np.float64]:
        """Return orthonormal directions that the whitened class means span."""
        means = self._whitened(self._class_means, shrinkage) * self._weights[:, None]
        directions: NDArray[np.float64] = np.linalg.svd(means, full_matrices=False)[2][: self.n_between]
        return directions


@dataclass(frozen=True)
class Coordinates:
    """Vectors by their parts along and outside of the axes of the scatter within classes.

    Attributes
    ----------
    inside : ndarray of shape (n, n_axes), float32
    outside : ndarray of shape (n, d), float32
    """

    inside: NDArray[np.float32]
    outside: NDArray[np.float32]

    def scaled(self, factors: NDArray[np.float64], outside: float) -> NDArray[np.float32]:
        """Return (n, n_axes + d) coordinates of scaled vectors; distances are those of the vectors."""
        return np.hstack([self.inside * factors.astype(np.float32), self.outside * np.float32(outside)])


def _principal_axes(X: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sums of squares along the principal axes of the rows, and the axes, the largest first."""
    n, d = X.shape
    # The smaller of the two products; a product in float32 is twice as fast, and no axis is needed exactly.
    values, vectors = np.linalg.eigh((X.T @ X if d <= n else X @ X.T).astype(np.float64))
    order = np.argsort(values)[::-1]
    values = values[order]
    is_there = values > max(values[0], 1e-300) * 1e-7
    values, vectors = values[is_there], vectors[:, order[is_there]]
    if d <= n:
        return values, vectors.T
    return values, (vectors.T @ X) / np.sqrt(values)[:, None]
