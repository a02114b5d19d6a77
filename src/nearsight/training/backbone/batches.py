"""Which views of which images each step learns from: a function of the seed and the epoch alone."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer]

#: Views of one class that follow each other where a loss compares the images of a batch.
N_TOGETHER = 4


def epoch_batches(
    y: Ints, n_views: int, batch_size: int, *, random_state: int, epoch: int, is_grouped: bool
) -> Iterator[tuple[Ints, Ints]]:
    """Yield the rows and the numbers of their views of each batch; an epoch has each view of each row once.

    No state is carried from epoch to epoch, so that a training that goes on after a crash sees the same
    batches.

    Parameters
    ----------
    y : ndarray of shape (n,), int
        Class of each row.
    n_views, batch_size : int
    random_state, epoch : int
    is_grouped : bool
        Whether several views of one class are in a batch.

    Yields
    ------
    rows, views : ndarray of int
        Of equal length, at most `batch_size`.

    Examples
    --------
    >>> batches = epoch_batches(np.zeros(3, int), 2, 4, random_state=0, epoch=0, is_grouped=False)
    >>> [len(rows) for rows, _ in batches]
    [4, 2]
    """
    rng = np.random.default_rng([random_state, epoch])
    order: Ints = rng.permutation(len(y) * n_views)
    if is_grouped:
        order = _grouped(order, np.asarray(y)[order // n_views], rng)
    for start in range(0, len(order), batch_size):
        items = order[start : start + batch_size]
        yield items // n_views, items % n_views


def _grouped(order: Ints, y: Ints, rng: np.random.Generator) -> Ints:
    """Return the items in groups of one class, the groups in random order."""
    by_class = np.argsort(y, kind="stable")
    starts = np.flatnonzero(np.diff(y[by_class], prepend=-1))
    groups = [
        members[start : start + N_TOGETHER]
        for members in np.split(order[by_class], starts[1:])
        for start in range(0, len(members), N_TOGETHER)
    ]
    return np.concatenate([groups[number] for number in rng.permutation(len(groups))])
