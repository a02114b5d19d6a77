"""How a metric falls as vectors get shorter, and which length is enough."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.neighbors import unit_length
from nearsight.evaluation.metrics import Task, retrieval
from nearsight.evaluation.significance import Estimate, estimate

DIMENSIONS = (16, 32, 64, 128, 256, 512, 1024)


def curve_dimensions(longest: int, *, below: int = DIMENSIONS[-1] + 1) -> list[int]:
    """Return the lengths of a curve: powers of two shorter than `below`, and the longest itself, last.

    Examples
    --------
    >>> curve_dimensions(80)
    [16, 32, 64, 80]
    >>> curve_dimensions(1280, below=100)
    [16, 32, 64, 1280]
    """
    return [*(dim for dim in DIMENSIONS if dim < min(longest, below)), longest]


def pca_curve(X: NDArray[np.floating], task: Task, metric: str) -> list[tuple[int, Estimate]]:
    """Return a metric of vectors shortened by PCA, by dimension; of the full length last.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    task : Task
        The components are learned from its gallery.
    metric : str
        One of `METRICS`.
    """
    X = unit_length(np.asarray(X, np.float32))
    mean = X[task.gallery].mean(axis=0)
    components = np.linalg.svd(X[task.gallery] - mean, full_matrices=False)[2]
    groups = task.groups[task.queries]
    curve = []
    for dim in curve_dimensions(X.shape[1], below=len(components)):
        shortened = X if dim == X.shape[1] else (X - mean) @ components[:dim].T
        curve.append((dim, estimate(retrieval(shortened, task).values[metric], groups)))
    return curve


def advised_dim(curve: Sequence[tuple[int, Estimate]]) -> int:
    """Return the shortest dimension within one standard error of the best (Breiman et al. 1984, 3.4.3)."""
    best = max((value for _, value in curve), key=lambda value: value.value)
    # A 95 % interval is about four standard errors wide.
    limit = best.value - (best.high - best.low) / 3.92
    return min(dim for dim, value in curve if value.value >= limit)
