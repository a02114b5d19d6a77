"""Three ways to tell classes apart, each with the scores its examples get when they are left out.

A row's scores, one a class, are higher for what is likelier. Leaving one out is exact for all three and
costs no second fit: that is what lets a handful of examples choose a method, a temperature and a threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

# Ridge of the probe where the examples are too few to choose it: of those tried on photographs of clothes,
# it was within .005 of the best from 1 to 20 examples a class.
RIDGE_BY_RULE = 1.0
RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
NEIGHBORS_BY_RULE = 5
NEIGHBORS = (1, 5, 10, 20)
# How fast a neighbor's vote fades with its similarity, and a vote that each class has for nothing.
_FADING = 10.0
_FREE_VOTE = 0.01
# Rows compared at once with all examples.
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Prototypes:
    """The cosine with each class's mean (Snell et al. 2017, arXiv 1703.05175, section 2.3).

    Attributes
    ----------
    means : ndarray of shape (n_classes, d)
        Of unit length, or zero.
    """

    means: Floats

    def scores(self, points: Floats) -> Floats:
        """Score (n, d) rows."""
        found: Floats = points @ self.means.T
        return found


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The logarithm of each class's share in the votes of the most similar examples.

    Attributes
    ----------
    examples : ndarray of shape (n, d)
    y : ndarray of shape (n,)
        Their classes, by number.
    k : int
        Voters; fewer where there are fewer examples.
    n_classes : int
    """

    examples: Floats
    y: Ints
    k: int
    n_classes: int

    def scores(self, points: Floats) -> Floats:
        """Score (n, d) rows."""
        found = np.empty((len(points), self.n_classes))
        for at in range(0, len(points), _BLOCK):
            part = slice(at, at + _BLOCK)
            found[part] = _votes(points[part] @ self.examples.T, self.y, self.k, self.n_classes)
        return found


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear probe: least squares on one-of-n targets with an L2 penalty.

    Attributes
    ----------
    weights : ndarray of shape (d, n_classes)
    bias : ndarray of shape (n_classes,)
    ridge : float
        The penalty.
    """

    weights: Floats
    bias: Floats
    ridge: float

    def scores(self, points: Floats) -> Floats:
        """Score (n, d) rows."""
        found: Floats = points @ self.weights + self.bias
        return found


Head = Prototypes | Neighbors | Probe


def unit(X: Floats) -> Floats:
    """Return rows at unit length; a row of zeros stays as it is."""
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    scaled: Floats = X / np.where(lengths > 0, lengths, 1.0)
    return scaled


def fit_prototypes(points: Floats, y: Ints, n_classes: int) -> tuple[Prototypes, Floats]:
    """Return the head and the (n, n_classes) scores of each row without itself; costs n × d.

    A class whose only example is left out scores as if at a right angle.
    """
    sums = np.zeros((n_classes, points.shape[1]))
    np.add.at(sums, y, points)
    dots, squares = points @ sums.T, (sums**2).sum(1)
    lengths = np.tile(np.sqrt(squares), (len(points), 1))
    rows, own = np.arange(len(points)), (points**2).sum(1)
    rest = squares[y] - 2 * dots[rows, y] + own
    dots[rows, y] -= own
    lengths[rows, y] = np.sqrt(np.maximum(rest, 0))
    # What is left of one example alone is rounding.
    nothing = lengths <= 1e-7
    return Prototypes(unit(sums)), np.where(nothing, 0.0, dots / np.where(nothing, 1.0, lengths))


def fit_neighbors(points: Floats, y: Ints, n_classes: int, k: int) -> tuple[Neighbors, Floats]:
    """Return the head and the (n, n_classes) scores of each row without itself; costs n² × d."""
    left_out = np.empty((len(points), n_classes))
    for at in range(0, len(points), _BLOCK):
        similarities = points[at : at + _BLOCK] @ points.T
        rows = np.arange(len(similarities))
        similarities[rows, at + rows] = -np.inf
        left_out[at : at + _BLOCK] = _votes(similarities, y, min(k, max(1, len(points) - 1)), n_classes)
    return Neighbors(points, y, k, n_classes), left_out


def _votes(similarities: Floats, y: Ints, k: int, n_classes: int) -> Floats:
    n = similarities.shape[1]
    if k < n:
        last = np.partition(similarities, n - k, axis=1)[:, n - k, None]
        similarities = np.where(similarities >= last, similarities, -np.inf)
    best = similarities.max(axis=1, keepdims=True)
    weights = np.exp(_FADING * (similarities - np.where(np.isfinite(best), best, 0.0)))
    votes = weights @ np.eye(n_classes)[y] + _FREE_VOTE
    shares: Floats = np.log(votes / votes.sum(axis=1, keepdims=True))
    return shares


class Ridge:
    """Least squares for every penalty at once: one decomposition, then each penalty costs a product.

    *Method*: with the hat matrix H of the fit, a row left out is predicted as (Hy - hy) / (1 - h), h its own
    entry on the diagonal: exact, intercept included (Hastie, Tibshirani and Friedman 2009, section 7.10).

    Parameters
    ----------
    points : ndarray of shape (n, d)
    y : ndarray of shape (n,)
        Classes, by number.
    n_classes : int

    Notes
    -----
    Costs n d min(n, d) time, and the larger of n d and min(n, d)² numbers.
    """

    def __init__(self, points: Floats, y: Ints, n_classes: int) -> None:
        self._middle = points.mean(axis=0)
        self._targets = np.eye(n_classes)[y]
        self._share = self._targets.mean(axis=0)
        centered = points - self._middle
        if len(centered) <= centered.shape[1]:
            values, self._left = np.linalg.eigh(centered @ centered.T)
            self._values = np.maximum(values, 0)
            self._right = centered.T @ self._left
        else:
            values, vectors = np.linalg.eigh(centered.T @ centered)
            kept = values > values.max(initial=0) * 1e-12
            self._values = values[kept]
            self._left = centered @ vectors[:, kept] / np.sqrt(self._values)
            self._right = vectors[:, kept] * np.sqrt(self._values)

    def probe(self, ridge: float) -> Probe:
        """Return the head of one penalty."""
        told = self._left.T @ (self._targets - self._share)
        weights = self._right @ (told / (self._values + ridge)[:, None])
        return Probe(weights, self._share - self._middle @ weights, ridge)

    def left_out(self, ridge: float) -> Floats:
        """Return the (n, n_classes) scores of each row without itself."""
        n = len(self._targets)
        shrink = self._values / (self._values + ridge)
        fitted = self._share + self._left @ (shrink[:, None] * (self._left.T @ (self._targets - self._share)))
        own = (1 / n + (self._left**2) @ shrink)[:, None]
        # A single row leaves nothing to predict from.
        alone = own >= 1 - 1e-9
        scores: Floats = np.where(
            alone, self._share, (fitted - own * self._targets) / np.where(alone, 1.0, 1 - own)
        )
        return scores
