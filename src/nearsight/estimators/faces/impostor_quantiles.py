"""How similar faces of different persons are: quantiles of a background, and thresholds from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal import Threshold
from nearsight.estimators.conformal.threshold import check_rate

DEFAULT_FALSE_MATCH_RATE = 0.01

# Enough halvings for the last bit of a cosine.
_N_HALVINGS = 60


@dataclass(frozen=True, eq=False)
class ImpostorQuantiles:
    """Similarities of a face to the mean face of another person, as quantiles.

    *Method*: for a person enrolled with one image, and with several, the cosine that a face of somebody else
    exceeds with a given probability. Between two tabulated numbers of images, and beyond the last, the cosine
    is linear in 1 / n: the mean of n faces differs from the person's mean face by a variance of that order.
    Between two tabulated rates it is linear in the logarithm of the rate.

    Parameters
    ----------
    n_enrolled : array of shape (k,), int
        Numbers of images behind the mean face, ascending; the first is 1.
    rates : array of shape (m,), float
        False match rates of one comparison, in (0, 1), descending.
    similarities : array of shape (k, m), float
        The cosine that is exceeded at each rate, ascending along each row.
    n_pairs : array of shape (k,), int
        Number of comparisons behind each row.

    Raises
    ------
    InvalidParameterError
        The shapes do not agree, or the numbers are not in order.

    Examples
    --------
    >>> table = ImpostorQuantiles([1, 2], [0.5, 0.1, 0.01], [[0.7, 0.8, 0.9], [0.72, 0.82, 0.92]], [999, 99])
    >>> round(table.threshold(0.1, [1]).value, 3), round(table.threshold(0.1, [1] * 5).value, 3)
    (0.8, 0.868)
    """

    n_enrolled: NDArray[np.int64]
    rates: NDArray[np.float64]
    similarities: NDArray[np.float64]
    n_pairs: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, dtype in (("n_enrolled", np.int64), ("rates", np.float64), ("similarities", np.float64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        object.__setattr__(self, "n_pairs", np.asarray(self.n_pairs, np.int64))
        k, m = self.n_enrolled.shape[0], self.rates.shape[0]
        if self.similarities.shape != (k, m) or self.n_pairs.shape != (k,):
            raise InvalidParameterError(
                f"similarities has shape {self.similarities.shape} and n_pairs {self.n_pairs.shape}; they"
                f" must have {(k, m)} and {(k,)}, for {k} numbers of images and {m} rates"
            )
        in_order = (np.diff(self.n_enrolled) > 0).all() and (np.diff(self.rates) < 0).all()
        if not in_order or self.n_enrolled[0] != 1 or (np.diff(self.similarities) < 0).any():
            raise InvalidParameterError(
                "n_enrolled must ascend from 1, rates descend, and similarities ascend along each row"
            )

    def at_rate(self, rate: float, n_enrolled: int = 1) -> float:
        """Return the cosine that one comparison exceeds at a rate, for a person with so many images."""
        return float(np.interp(math.log(rate), np.log(self.rates[::-1]), self._curve(n_enrolled)[::-1]))

    def threshold(self, false_match_rate: float, n_enrolled: ArrayLike) -> Threshold:
        """Return the threshold for a face that is compared with several persons.

        *Method*: the smallest similarity t with 1 - Π (1 - F_i(t)) at most the stated rate, where F_i(t) is
        the rate at which the mean face of person i is exceeded (Šidák 1967, doi
        10.1080/01621459.1967.10482935). With as many images of each of N persons, each comparison has the
        rate 1 - (1 - rate)^(1/N). The threshold never falls when the rate falls.

        Parameters
        ----------
        false_match_rate : float
            In (0, 1): the share of faces of unknown persons that may exceed the threshold for any person.
        n_enrolled : array of shape (n_persons,), int
            Number of images of each person, at least 1.

        Returns
        -------
        Threshold
            If the table does not reach the rate for so many persons, its highest similarity, with the rate
            that this keeps: higher than the stated one.
        """
        check_rate("false_match_rate", false_match_rate)
        counts, n_persons = np.unique(np.asarray(n_enrolled, np.int64), return_counts=True)
        curves = [self._curve(int(count)) for count in counts]

        def log_unmatched(similarity: float) -> float:
            """Return the logarithm of the probability that no person is exceeded."""
            return float(np.dot(n_persons, np.log1p(-self._exceedance(similarity, curves))))

        log_wanted = math.log1p(-false_match_rate)
        value = _smallest(lambda similarity: log_unmatched(similarity) >= log_wanted, curves)
        is_reached = log_unmatched(value) >= log_wanted
        expected_rate = false_match_rate if is_reached else -math.expm1(log_unmatched(value))
        n_pairs = int(np.interp(int(counts.max()), self.n_enrolled, self.n_pairs))
        return Threshold(value, expected_rate, expected_rate, n_pairs, "background")

    def mixture_at_rate(self, rate: float, n_enrolled: ArrayLike, weights: ArrayLike) -> float:
        """Return the cosine that a comparison with a person drawn by weight exceeds at a rate.

        Parameters
        ----------
        rate : float
            In (0, 1).
        n_enrolled, weights : array of shape (n_persons,)
            Number of images of each person, and how often it is drawn.
        """
        counts, inverse = np.unique(np.asarray(n_enrolled, np.int64), return_inverse=True)
        shares = np.bincount(inverse, np.asarray(weights, np.float64))
        shares = shares / shares.sum()

        curves = [self._curve(int(count)) for count in counts]
        return _smallest(
            lambda similarity: float(np.dot(shares, self._exceedance(similarity, curves))) <= rate, curves
        )

    def _curve(self, n: int) -> NDArray[np.float64]:
        """Return the similarities at `rates` for a person with n images."""
        known = 1 / self.n_enrolled
        if len(known) == 1:
            first: NDArray[np.float64] = self.similarities[0]
            return first
        # The two tabulated numbers around n, or the last two.
        right = int(np.clip(np.searchsorted(self.n_enrolled, n), 1, len(known) - 1))
        low, high = self.similarities[right - 1], self.similarities[right]
        share = (1 / n - known[right - 1]) / (known[right] - known[right - 1])
        # The last quantiles of a row are of a few pairs: beyond the table they may be out of order.
        curve: NDArray[np.float64] = np.maximum.accumulate(np.minimum(low + share * (high - low), 1.0))
        return curve

    def _exceedance(self, similarity: float, curves: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return for each curve the rate at which a similarity is exceeded; at least the lowest one."""
        log_rates = np.log(self.rates)
        return np.array(
            [
                math.exp(np.interp(similarity, curve, log_rates)) if similarity >= curve[0] else 1 - 1e-12
                for curve in curves
            ]
        )


def _smallest(is_met: Callable[[float], bool], curves: list[NDArray[np.float64]]) -> float:
    """Return the smallest similarity from which on a condition is met; else the last of the curves."""
    low, high = float(min(curve[0] for curve in curves)), float(max(curve[-1] for curve in curves))
    if is_met(low):
        return low
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2
        if is_met(middle):
            high = middle
        else:
            low = middle
    return high
