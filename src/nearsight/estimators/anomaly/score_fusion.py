"""Several detectors' scores of one image made one, by a rule that needs no defect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import InvalidParameterError


@dataclass(frozen=True, slots=True)
class Scale:
    """What scores of good images are usual for one detector.

    Attributes
    ----------
    center, spread : float
        Mean and standard deviation of scores of good images that the detector had not learned.
    """

    center: float
    spread: float

    @classmethod
    def of(cls, scores: NDArray[np.float64]) -> "Scale":
        """Measure it; scores that are all the same leave a spread that is tiny and not 0.

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
        """Return scores in units of what is usual."""
        return (np.asarray(scores, np.float64) - self.center) / self.spread

    def to_dict(self) -> dict[str, float]:
        """Return plain data for a file."""
        return {"centre": self.center, "spread": self.spread}

    @classmethod
    def from_dict(cls, data: Mapping[str, float]) -> "Scale":
        """Read what `to_dict` wrote."""
        return cls(float(data["centre"]), float(data["spread"]))


def combined(standardized: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Make one score of several detectors' standardized scores.

    *Method*: the root of the sum of squares of those above 0, and the highest where none is. A detector
    that sees nothing odd is not held against one that does, and no defect is needed to choose among them.
    Where detectors are blind to a kind of defect, the combination stays near the one that is not: see the
    figures of ``benchmarks/anomaly.py``, which has the alternatives beside it (the highest, the sum).

    Parameters
    ----------
    standardized : sequence of k arrays of one shape, float64
        At least one; each in units of its `Scale`.

    Returns
    -------
    ndarray of that shape, float64
        Higher is more alarming; 0 is usual.

    Examples
    --------
    >>> combined([np.array([3.0, -1.0]), np.array([4.0, -2.0])]).tolist()
    [5.0, -1.0]
    """
    if not len(standardized):
        raise InvalidParameterError("there are 0 detectors to combine; give at least 1")
    stacked = np.stack(standardized).astype(np.float64)
    highest = stacked.max(0)
    together = np.sqrt((np.maximum(stacked, 0) ** 2).sum(0))
    joined: NDArray[np.float64] = np.where(highest > 0, together, highest)
    return joined
