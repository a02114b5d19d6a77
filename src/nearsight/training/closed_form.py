"""A linear map of vectors, in closed form, that brings images of one class together.

Estimates the map from class means and from the scatter within classes; no gradients, no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

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
    precision : type
        Of all that is computed: float32 takes half the time and memory.

    Raises
    ------
    InvalidParameterError
        There are fewer than two classes, or no class has two vectors.

    Notes
    -----
    Costs n × d² operations once, and min(n, d)³ for each shrinkage. With fewer vectors than numbers, all is
    computed in the space that they span.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 50)
    >>> X = rng.normal(size=(100, 3)) * [5, 1, 1] + np.outer(y, [0, 3, 0])
    >>> mapped = ClassScatter(X, y).map(shrinkage=0.1, stretch=1.0, dim=1).apply(X)
    >>> bool(abs(mapped[y == 0].mean() - mapped[y == 1].mean()) > 2 * mapped[y == 0].std())
    True
    """

    def __init__(self, X: Floats, y: ArrayLike, precision: type[np.floating] = np.float64) -> None:
        X = np.asarray(X, precision)
        classes, number = np.unique(np.asarray(y), return_inverse=True)
        counts = np.bincount(number)
        if len(classes) < 2 or counts.max() < 2:
            raise InvalidParameterError(
                f"there are {len(classes)} classes, the largest with {counts.max(initial=0)} images; "
                "training needs at least two classes, and one with two images"
            )
        self.mean = X.mean(axis=0, dtype=np.float64).astype(precision)
        self._n_classes, self._d = len(classes), int(X.shape[1])
        centered = X - self.mean
        # Beyond the vectors that it is estimated from, the covariance is the identity's share alone.
        self._turn = None
        if len(X) < self._d:
            self._turn, centered = Turn.onto(centered)
        starts = np.cumsum(counts) - counts
        sums = np.add.reduceat(centered[np.argsort(number, kind="stable")], starts, axis=0, dtype=np.float64)
        means = (sums / counts[:, None]).astype(precision)
        self._weighted_means = means * np.sqrt(counts / len(X)).astype(precision)[:, None]
        residuals = centered - means[number]
        self._within = residuals.T @ residuals / (len(X) - len(classes))
        # Of all vectors: the scatter within classes and that of the means.
        self._total = (
            self._within * (1 - len(classes) / len(X)) + self._weighted_means.T @ self._weighted_means
        )
        self._mean_variance = float(self._within.trace() / self._d)

    @property
    def n_between(self) -> int:
        """Number of directions in which class means differ."""
        return min(self._n_classes - 1, self._d)

    def coordinates(self, X: Floats) -> NDArray[np.float32]:
        """Return vectors as `whitened` takes them: centered, and perhaps turned.

        Parameters
        ----------
        X : ndarray of shape (n, d)
        """
        centered = (np.asarray(X, self.mean.dtype) - self.mean).astype(np.float32)
        return centered if self._turn is None else self._turn.apply(centered)

    def whitened(self, points: NDArray[np.float32], shrinkage: float) -> "WhitenedPoints":
        """Whiten vectors; with a stretch, they are equal to those of `map` up to a rotation.

        Parameters
        ----------
        points : ndarray of shape (n, d), float32
            From `coordinates`.
        shrinkage : float
            Share of the identity in the covariance within classes, above 0 and at most 1.
        """
        n_inside = len(self._within)
        factor = self._factor(shrinkage)
        inside = _solved(factor.astype(np.float32), points[:, :n_inside].T).T
        outside = points[:, n_inside:] / np.float32(np.sqrt(shrinkage * self._mean_variance))
        between = np.zeros((self.n_between, self._d), np.float32)
        between[:, :n_inside] = self._between(factor)
        return WhitenedPoints(np.hstack([inside, outside]), between)

    def map(self, *, shrinkage: float, stretch: float, dim: int) -> AffineMap:
        """Return the map to the `dim` directions in which the mapped vectors vary most.

        Parameters
        ----------
        shrinkage : float
            See `whitened`.
        stretch : float
            See `WhitenedPoints.stretched`.
        dim : int
            At most d, and at most `n_between` with `ONLY_BETWEEN`. Of more than there are fitted vectors, the
            last are directions in which these do not differ.

        Raises
        ------
        InvalidParameterError
            `dim` is too large.
        """
        factor = self._factor(shrinkage)
        between = self._between(factor)
        # Of the whitened vectors.
        [divide] = scipy.linalg.get_lapack_funcs(("sygst",), (self._total, factor))
        total = divide(self._total, factor, lower=1)[0]
        total = np.tril(total) + np.tril(total, -1).T
        directions: Floats
        if np.isinf(stretch):
            directions = _largest_axes(between @ total @ between.T, dim) @ between
        else:
            longer = stretch * between.T
            total += longer @ (between @ total)
            total += (total @ between.T) @ longer.T
            directions = _largest_axes(total, dim)
            directions = directions + (directions @ longer) @ between
        axes = _solved(factor, directions.T, transposed=True).T
        most = self._d if np.isfinite(stretch) else len(axes)
        if not 1 <= dim <= most:
            raise InvalidParameterError(f"dim is {dim}; it must be between 1 and {most}")
        if self._turn is not None:
            axes = self._with_others(axes, dim, 1 / np.sqrt(shrinkage * self._mean_variance))
        return AffineMap(self.mean.astype(np.float32), axes.astype(np.float32))

    def _with_others(self, axes: Floats, dim: int, length: float) -> Floats:
        """Turn axes back, and add directions in which the fitted vectors do not differ, in no order."""
        n_others = dim - len(axes)
        padded = np.zeros((dim, self._d), axes.dtype)
        padded[: len(axes), : axes.shape[1]] = axes
        others = np.arange(n_others)
        padded[len(axes) + others, axes.shape[1] + others] = length
        return self._turn.undo(padded) if self._turn is not None else padded

    def _factor(self, shrinkage: float) -> Floats:
        """Return the Cholesky factor of the shrunken covariance within classes."""
        covariance = (1 - shrinkage) * self._within
        covariance.flat[:: len(covariance) + 1] += shrinkage * self._mean_variance
        factor: Floats = scipy.linalg.cholesky(covariance, lower=True, check_finite=False)
        return factor

    def _between(self, factor: Floats) -> Floats:
        """Return orthonormal directions that the whitened class means span."""
        means = _solved(factor, self._weighted_means.T).T
        directions: Floats = np.linalg.svd(means, full_matrices=False)[2][: self.n_between]
        return directions


@dataclass(frozen=True)
class WhitenedPoints:
    """Vectors that are whitened within classes.

    Attributes
    ----------
    X : ndarray of shape (n, d), float32
    between : ndarray of shape (n_between, d), float32
        Orthonormal directions in which class means differ.
    """

    X: NDArray[np.float32]
    between: NDArray[np.float32]

    def stretched(self, stretch: float) -> NDArray[np.float32]:
        """Stretch the directions between classes.

        Parameters
        ----------
        stretch : float
            They become 1 + `stretch` times as long; `ONLY_BETWEEN` drops the rest.

        Returns
        -------
        ndarray of shape (n, d), or (n, n_between) with `ONLY_BETWEEN`, float32
        """
        if stretch == 0:
            return self.X
        stretched: NDArray[np.float32] = self.X @ self.between.T
        if np.isfinite(stretch):
            stretched = self.X + np.float32(stretch) * stretched @ self.between
        return stretched

    def cosines(
        self, queries: Ints, gallery: Ints, stretches: Sequence[float]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the cosines of stretched vectors for each stretch; only few numbers depend on it.

        Parameters
        ----------
        queries, gallery : ndarray of int
            Rows.
        stretches : sequence of float
            See `stretched`.
        """
        first, second = self.X[queries], self.X[gallery]
        dots, squares = first @ second.T, [np.einsum("ij,ij->i", part, part) for part in (first, second)]
        between = [part @ self.between.T for part in (first, second)]
        squares_between = [np.einsum("ij,ij->i", part, part) for part in between]
        for stretch in stretches:
            # A direction that is 1 + s times as long counts for (1 + s)² in every product.
            more = np.float32((1 + stretch) ** 2 - 1) if np.isfinite(stretch) else np.float32(1)
            of_rest = np.float32(np.isfinite(stretch))
            found = more * (between[0] @ between[1].T) + of_rest * dots
            lengths = [
                np.sqrt(np.maximum(of_rest * whole + more * part, np.float32(1e-30)))
                for whole, part in zip(squares, squares_between, strict=True)
            ]
            yield found / lengths[0][:, None] / lengths[1]


@dataclass(frozen=True)
class Turn:
    """An orthogonal turn of d numbers, as Householder reflections; see `onto`.

    Attributes
    ----------
    reflections : ndarray of shape (d, n)
    factors : ndarray of shape (n,)
    """

    reflections: Floats
    factors: Floats

    @classmethod
    def onto(cls, X: Floats) -> "tuple[Turn, Floats]":
        """Return the turn after which n < d vectors lie in the first n numbers, and these numbers."""
        (reflections, factors), turned = scipy.linalg.qr(X.T, mode="raw", check_finite=False)
        return cls(reflections, factors), turned.T

    def apply(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn vectors of d numbers."""
        return self._multiplied(X, "T")

    def undo(self, X: Floats) -> Floats:
        """Turn vectors back, whose numbers that are not given are zero."""
        padded = np.zeros((len(X), len(self.reflections)), X.dtype)
        padded[:, : X.shape[1]] = X
        return self._multiplied(padded, "N")

    def _multiplied(self, X: NDArray[Any], direction: str) -> NDArray[Any]:
        multiply = scipy.linalg.lapack.sormqr if X.dtype == np.float32 else scipy.linalg.lapack.dormqr
        columns = np.array(X.T, order="F")
        reflections, factors = (part.astype(X.dtype, copy=False) for part in (self.reflections, self.factors))
        arguments = ("L", direction, reflections, factors, columns)
        size = int(multiply(*arguments, lwork=-1)[1][0])
        turned: NDArray[Any] = multiply(*arguments, lwork=size, overwrite_c=True)[0].T
        return turned


def _solved(factor: Floats, right: Floats, *, transposed: bool = False) -> NDArray[Any]:
    """Multiply by the inverse of a lower triangular matrix."""
    solved: NDArray[Any] = scipy.linalg.solve_triangular(
        factor, right, lower=True, trans=int(transposed), check_finite=False
    )
    return solved


def _largest_axes(scatter: Floats, n: int) -> Floats:
    """Return up to n principal axes of a scatter matrix, the largest first."""
    d = len(scatter)
    n = min(max(n, 1), d)
    vectors = scipy.linalg.eigh(scatter, subset_by_index=(d - n, d - 1), check_finite=False)[1]
    axes: Floats = vectors.T[::-1]
    return axes
