"""One score of several detectors, by a rule that needs no examples of defects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import InvalidParameterError


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """The mean and standard deviation of one detector's scores of good images.

    Attributes
    ----------
    center, spread : float
        Of scores of good images that the detector was not fitted on.
    """

    center: float
    spread: float

    @classmethod
    def fit(cls, scores: NDArray[np.float64]) -> "ScoreScale":
        """Measure the scale of (n,) scores; if all are the same, the spread is tiny but not 0.

        Raises
        ------
        InvalidParameterError
            There is no score.
        """
        if not len(scores):
            raise InvalidParameterError("there are 0 scores; a scale needs at least 1")
        center = float(np.mean(scores))
        return cls(center, max(float(np.std(scores)), 1e-6 * abs(center), 1e-12))

    def standardized(self, scores: Any) -> NDArray[np.float64]:
        """Return scores in standard deviations from the mean."""
        return (np.asarray(scores, np.float64) - self.center) / self.spread

    def to_dict(self) -> dict[str, float]:
        """Return plain data for a file."""
        return {"centre": self.center, "spread": self.spread}

    @classmethod
    def from_dict(cls, data: Mapping[str, float]) -> "ScoreScale":
        """Return the scale that `to_dict` was called on."""
        return cls(float(data["centre"]), float(data["spread"]))


def combine_scores(standardized: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Combine the standardized scores of several detectors into one.

    *Method*: the root of the sum of squares of the scores above 0, or the highest score if none is. A low
    score of one detector does not lower the high score of another, and no defects are needed to weight them.
    ``benchmarks/anomaly.py`` compares the alternatives (the highest, the sum).

    Parameters
    ----------
    standardized : sequence of k arrays of one shape, float64
        At least one; each in units of its `ScoreScale`.

    Returns
    -------
    ndarray of that shape, float64
        Higher is more unusual; 0 is the mean of good images.

    Examples
    --------
    >>> combine_scores([np.array([3.0, -1.0]), np.array([4.0, -2.0])]).tolist()
    [5.0, -1.0]
    """
    if not len(standardized):
        raise InvalidParameterError("there are 0 detectors to combine; give at least 1")
    stacked = np.stack(standardized).astype(np.float64)
    highest = stacked.max(0)
    root = np.sqrt((np.maximum(stacked, 0) ** 2).sum(0))
    combined: NDArray[np.float64] = np.where(highest > 0, root, highest)
    return combined
