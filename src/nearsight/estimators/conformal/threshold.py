"""The threshold above which a score is an alarm, and how often it is false."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.parameters import require_number

Source = Literal["good", "pairs", "background"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A calibrated threshold and its false-alarm rate.

    Attributes
    ----------
    value : float
        A score above it is an alarm.
    false_alarm_rate : float
        The stated rate: at most this share of good examples raises an alarm.
    expected_rate : float
        The rate that is expected of these examples: at most the stated rate, and at most
        1 / (n_examples + 1) below it unless `confidence` asks for more room.
    n_examples : int
        Number of calibration examples: good ones, different pairs, or non-matching pairs.
    source : {"good", "pairs", "background"}
        What the examples were: good ones, labeled pairs, or pairs taken not to match.
    confidence : float or None
        The probability that the stated rate holds for this very threshold; None where it holds on average.
    detection_rate : float or None
        The share of same pairs above the threshold, where labeled pairs were given.

    Examples
    --------
    >>> import numpy as np
    >>> from nearsight.estimators.conformal import from_good
    >>> good = np.random.default_rng(0).normal(size=999)
    >>> threshold = from_good(good, false_alarm_rate=0.01)
    >>> threshold.n_examples, round(threshold.expected_rate, 4), bool(threshold.exceeded([5.0])[0])
    (999, 0.01, True)
    """

    value: float
    false_alarm_rate: float
    expected_rate: float
    n_examples: int
    source: Source
    confidence: float | None = None
    detection_rate: float | None = None

    def exceeded(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Return which scores are alarms: those above `value`, and NaN."""
        alarms: NDArray[np.bool_] = ~(np.asarray(scores, np.float64) <= self.value)
        return alarms

    def observed_rate_interval(self, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
        """Return the interval of the false-alarm rate among `n` good examples, if the stated rate is true.

        *Method*: quantiles of the binomial distribution; both ends are included.

        Parameters
        ----------
        n : int
            At least 1.
        confidence : float, default 0.95
            In (0, 1).
        """
        check_rate("confidence", confidence)
        if n < 1:
            raise InvalidParameterError(f"n is {n}; a rate needs at least 1 example")
        low, high = scipy.stats.binom.interval(confidence, n, self.false_alarm_rate)
        return float(low) / n, float(high) / n

    def true_rate_interval(self, *, confidence: float = 0.95) -> tuple[float, float]:
        """Return the interval of the true false-alarm rate of this very threshold.

        *Method*: `expected_rate` is a mean over all samples of examples. For one sample of n, the share that
        exceeds the k-th largest follows Beta(k, n + 1 - k) (Vovk 2012, arXiv 1209.2673, proposition 2a);
        these are its quantiles. More examples narrow the interval.

        Parameters
        ----------
        confidence : float, default 0.95
            In (0, 1).

        Returns
        -------
        (low, high) : float
            In 0..1. For non-matching pairs, the rate of single comparisons.

        Examples
        --------
        >>> from nearsight.estimators.conformal import from_good
        >>> few, many = (from_good(range(n), false_alarm_rate=0.05) for n in (19, 999))
        >>> [round(rate, 3) for rate in (*few.true_rate_interval(), *many.true_rate_interval())]
        [0.001, 0.176, 0.037, 0.064]
        """
        check_rate("confidence", confidence)
        rank = max(1, round(self.expected_rate * (self.n_examples + 1)))
        low, high = scipy.stats.beta.interval(confidence, rank, self.n_examples + 1 - rank)
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Threshold":
        """Return the threshold that `to_dict` was called on."""
        return cls(**{f.name: data[f.name] for f in fields(cls)})


def finite_scores(scores: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return scores as an array of shape (n,), or raise if they are not one-dimensional and finite."""
    values = np.asarray(scores, np.float64)
    if values.ndim != 1:
        raise InvalidParameterError(f"{name} has shape {values.shape}; give one score an example, (n,)")
    not_finite = np.flatnonzero(~np.isfinite(values))
    if len(not_finite):
        first = not_finite[0]
        raise CalibrationError(
            f"{name}[{first}] is {values[first]}; a threshold needs finite scores: leave out the"
            f" {len(not_finite)} that are not"
        )
    return values


def check_rate(name: str, rate: float) -> None:
    """Raise if a rate is not a number between 0 and 1."""
    require_number(name, rate)
    if not 0 < rate < 1:
        raise InvalidParameterError(f"{name} is {rate!r}; it must be above 0 and below 1")
