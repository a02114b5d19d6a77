"""Judges a network between epochs, on images and classes that it does not learn from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearsight.training.judgement import MAX_LOSS, Judged
from nearsight.training.split import Draw

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

#: Epochs without a gain of one standard error after which a training stops.
PATIENCE = 3


@dataclass(frozen=True)
class EpochResult:
    """Recall@1 of the network's own vectors after an epoch.

    Attributes
    ----------
    epoch : int
        Counted from 1; 0 is the pretrained network.
    share : float
        Of the way from the pretrained weights to the trained ones.
    seen, error : float
        On images of learned classes that were left out, with its standard error.
    unseen : float or None
        Of classes that were held out, minus the pretrained network's.
    is_allowed : bool
        Whether classes that were held out keep their quality.
    """

    epoch: int
    share: float
    seen: float
    error: float
    unseen: float | None
    is_allowed: bool


@dataclass(frozen=True)
class Judge:
    """The images that judge, and what the pretrained network reaches.

    Attributes
    ----------
    draw : Draw
    y, groups : ndarray of shape (n,), int
    frozen : ndarray of shape (n, d)
        Vectors of the pretrained network.
    """

    draw: Draw
    y: Ints
    groups: Ints
    frozen: Floats

    @property
    def rows(self) -> Ints:
        """Rows whose vectors are needed."""
        return np.unique(np.concatenate([self.draw.gallery, self.draw.validation, self.draw.unseen]))

    def result(self, vectors: Floats, epoch: int, share: float) -> EpochResult:
        """Judge the vectors of `rows`."""
        X = np.zeros((len(self.y), vectors.shape[1]), np.float32)
        X[self.rows] = vectors
        judged = Judged(self.y, self.groups, self.frozen, [self.draw])
        [quality] = judged.qualities([[judged.judges[0].answers(X)]])
        # Half of the 95 % interval is two standard errors.
        error = (quality.seen.high - quality.seen.low) / 4
        unseen = None if quality.unseen is None else quality.unseen.value
        return EpochResult(
            epoch,
            share,
            quality.seen.value,
            error,
            unseen,
            # The map behind the network is judged by the interval; an epoch, of which there are many, is not.
            unseen is None or unseen > -MAX_LOSS,
        )


def best_epoch(results: list[EpochResult]) -> EpochResult | None:
    """Return the best result that held-out classes allow, the earliest of equal ones; None without any."""
    allowed = [result for result in results if result.is_allowed]
    return max(allowed, key=lambda result: (result.seen, -result.epoch, -result.share), default=None)


def is_done(results: list[EpochResult]) -> bool:
    """Whether recall@1 has not risen by a standard error for `PATIENCE` epochs.

    Examples
    --------
    >>> def after(*values):
    ...     return [EpochResult(n, 1.0, value, 0.02, None, True) for n, value in enumerate(values, 1)]
    >>> is_done(after(0.7, 0.8, 0.81, 0.815)), is_done(after(0.7, 0.8, 0.81, 0.815, 0.81))
    (False, True)
    """
    whole = [result for result in results if result.share == 1.0]
    reached, since = -1.0, 0
    for result in whole:
        if result.seen >= reached + result.error or reached < 0:
            reached, since = result.seen, 0
        else:
            since += 1
    return since >= PATIENCE
