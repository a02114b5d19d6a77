"""Three classifier heads, each with the leave-one-out scores of its examples.

A row has one score a class; higher is likelier. Leave-one-out scores are exact for all three and need no
second fit, so that few examples suffice to choose a method, a temperature and a threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.neighbors import similarity_blocks, unit_length

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

# The penalty of the probe if there are too few examples to choose it: on images of clothes, its accuracy was
# within 0.005 of the best from 1 to 20 examples a class.
DEFAULT_RIDGE = 1.0
RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
DEFAULT_N_NEIGHBORS = 5
N_NEIGHBORS = (1, 5, 10, 20)
# The vote of a neighbor falls exponentially with its similarity at this rate; every class has a prior vote.
_VOTE_DECAY = 10.0
_PRIOR_VOTE = 0.01
_BLOCK_ROWS = 1024


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
        scores: Floats = points @ self.means.T
        return scores


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
        scores = np.empty((len(points), self.n_classes))
        for rows, similarities in similarity_blocks(points, self.examples, block_rows=_BLOCK_ROWS):
            scores[rows] = _votes(similarities, self.y, self.k, self.n_classes)
        return scores


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
        scores: Floats = points @ self.weights + self.bias
        return scores


Head = Prototypes | Neighbors | Probe


def fit_prototypes(points: Floats, y: Ints, n_classes: int) -> tuple[Prototypes, Floats]:
    """Return the head and the (n, n_classes) scores of each row without itself; costs n × d.

    A class whose only example is left out has a cosine of 0.
    """
    sums = np.zeros((n_classes, points.shape[1]))
    np.add.at(sums, y, points)
    dots, squares = points @ sums.T, (sums**2).sum(1)
    lengths = np.tile(np.sqrt(squares), (len(points), 1))
    rows, own = np.arange(len(points)), (points**2).sum(1)
    rest = squares[y] - 2 * dots[rows, y] + own
    dots[rows, y] -= own
    lengths[rows, y] = np.sqrt(np.maximum(rest, 0))
    # The rest of a class with one example is rounding.
    is_empty = lengths <= 1e-7
    return Prototypes(unit_length(sums)), np.where(is_empty, 0.0, dots / np.where(is_empty, 1.0, lengths))


def fit_neighbors(points: Floats, y: Ints, n_classes: int, k: int) -> tuple[Neighbors, Floats]:
    """Return the head and the (n, n_classes) scores of each row without itself; costs n² × d."""
    left_out, k_others = np.empty((len(points), n_classes)), min(k, max(1, len(points) - 1))
    for rows, similarities in similarity_blocks(
        points, points, own=np.arange(len(points)), block_rows=_BLOCK_ROWS
    ):
        left_out[rows] = _votes(similarities, y, k_others, n_classes)
    return Neighbors(points, y, k, n_classes), left_out


def _votes(similarities: Floats, y: Ints, k: int, n_classes: int) -> Floats:
    n = similarities.shape[1]
    if k < n:
        last = np.partition(similarities, n - k, axis=1)[:, n - k, None]
        similarities = np.where(similarities >= last, similarities, -np.inf)
    best = similarities.max(axis=1, keepdims=True)
    weights = np.exp(_VOTE_DECAY * (similarities - np.where(np.isfinite(best), best, 0.0)))
    votes = weights @ np.eye(n_classes)[y] + _PRIOR_VOTE
    shares: Floats = np.log(votes / votes.sum(axis=1, keepdims=True))
    return shares


class Ridge:
    """Least squares for every penalty and every target at once: one decomposition, then each costs a product.

    *Method*: with the hat matrix H of the fit, a row left out is predicted as (Hy - hy) / (1 - h), h its own
    entry on the diagonal: exact, intercept included (Hastie, Tibshirani and Friedman 2009, section 7.10).

    Parameters
    ----------
    points : ndarray of shape (n, d)

    Notes
    -----
    Costs n d min(n, d) time, and the larger of n d and min(n, d)² numbers.
    """

    def __init__(self, points: Floats) -> None:
        self._mean = points.mean(axis=0)
        centered = points - self._mean
        if len(centered) <= centered.shape[1]:
            values, self._left = np.linalg.eigh(centered @ centered.T)
            self._values = np.maximum(values, 0)
            self._right = centered.T @ self._left
        else:
            values, vectors = np.linalg.eigh(centered.T @ centered)
            is_positive = values > values.max(initial=0) * 1e-12
            self._values = values[is_positive]
            self._left = centered @ vectors[:, is_positive] / np.sqrt(self._values)
            self._right = vectors[:, is_positive] * np.sqrt(self._values)

    def probe(self, targets: Floats, ridge: float) -> Probe:
        """Return the head of one penalty, for (n, n_classes) targets: each row's shares of the classes."""
        share = targets.mean(axis=0)
        projected = self._left.T @ (targets - share)
        weights = self._right @ (projected / (self._values + ridge)[:, None])
        return Probe(weights, share - self._mean @ weights, ridge)

    def left_out(self, targets: Floats, ridge: float) -> Floats:
        """Return the (n, n_classes) scores of each row without itself."""
        share = targets.mean(axis=0)
        shrink = self._values / (self._values + ridge)
        fitted = share + self._left @ (shrink[:, None] * (self._left.T @ (targets - share)))
        own = (1 / len(targets) + (self._left**2) @ shrink)[:, None]
        # A single row leaves no other to predict from.
        is_alone = own >= 1 - 1e-9
        scores: Floats = np.where(
            is_alone, share, (fitted - own * targets) / np.where(is_alone, 1.0, 1 - own)
        )
        return scores
