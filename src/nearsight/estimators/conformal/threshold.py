"""Where an alarm begins, and what is known of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from nearsight.errors import CalibrationError, InvalidParameterError

Source = Literal["good", "pairs", "background"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where an alarm begins, and what is known of how often it is false.

    Attributes
    ----------
    value : float
        A score above it is an alarm.
    false_alarm_rate : float
        As stated: at most this share of good examples raises an alarm.
    expected_rate : float
        What the examples allow, at most the stated rate and at most 1 / (n_examples + 1) below it, unless
        `confidence` asks for more room.
    n_examples : int
        Examples it was learned from: good ones, pairs that are not the same, or background pairs.
    source : {"good", "pairs", "background"}
        What those were.
    confidence : float or None
        The chance that the stated rate holds for this very threshold; None where it holds on average.
    detection_rate : float or None
        From labeled pairs: share of the pairs that are the same that were found.

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
        """Return which scores are alarms; a score equal to the threshold is none, NaN always is one.

        What has no score cannot be called good.
        """
        values = np.asarray(scores, np.float64)
        alarms: NDArray[np.bool_] = ~(values <= self.value)
        return alarms

    def band(self, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
        """Return between which rates false alarms among `n` good examples lie, if the stated one is true.

        *Method*: quantiles of the binomial distribution; both ends belong to the band.

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
        low, high = stats.binom.interval(confidence, n, self.false_alarm_rate)
        return float(low) / n, float(high) / n

    def own_rate(self, *, confidence: float = 0.95) -> tuple[float, float]:
        """Return between which shares of good examples this very threshold calls alarms.

        *Method*: `expected_rate` is a mean over all the sets of examples that could have been drawn. Of one
        set, the k-th largest of n is exceeded by a share that follows Beta(k, n + 1 - k) (Vovk 2012, arXiv
        1209.2673, proposition 2a); these are its quantiles. More examples narrow it.

        Parameters
        ----------
        confidence : float, default 0.95
            In (0, 1).

        Returns
        -------
        (low, high) : float
            In 0..1. Where examples are background pairs, of single comparisons.

        Examples
        --------
        >>> from nearsight.estimators.conformal import from_good
        >>> few, many = (from_good(range(n), false_alarm_rate=0.05) for n in (19, 999))
        >>> [round(rate, 3) for rate in (*few.own_rate(), *many.own_rate())]
        [0.001, 0.176, 0.037, 0.064]
        """
        check_rate("confidence", confidence)
        rank = max(1, round(self.expected_rate * (self.n_examples + 1)))
        low, high = stats.beta.interval(confidence, rank, self.n_examples + 1 - rank)
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Threshold":
        """Read what `to_dict` wrote."""
        return cls(**{f.name: data[f.name] for f in fields(cls)})


def finite_scores(scores: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return an array of shape (n,) in which every number is finite, or raise."""
    values = np.asarray(scores, np.float64)
    if values.ndim != 1:
        raise InvalidParameterError(f"{name} has shape {values.shape}; it must be one score an example, (n,)")
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise CalibrationError(
            f"{name}[{wrong[0]}] is {values[wrong[0]]}; a threshold is learned from finite scores only: leave"
            f" out the {len(wrong)} that are not"
        )
    return values


def check_rate(name: str, rate: float) -> None:
    """Raise where a rate is not between 0 and 1."""
    if not 0 < rate < 1:
        raise InvalidParameterError(f"{name} is {rate!r}; it must lie between 0 and 1, both left out")
