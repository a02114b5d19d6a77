"""Which images a model is fitted on, and which judge it; near-duplicates are never on two sides."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer]

#: From so many classes on, some are held out to judge classes that were not learned.
MIN_CLASSES_FOR_UNSEEN = 8
_SHARE_VALIDATION, _SHARE_TEST, _SHARE_UNSEEN = 0.15, 0.2, 0.2
_N_DRAWS = 3


@dataclass(frozen=True)
class Draw:
    """One division of the images for choosing settings.

    Attributes
    ----------
    fit, validation, unseen : ndarray of int
        Rows to fit on, rows of the same classes to judge, and all rows of classes that are not fitted.
    """

    fit: Ints
    validation: Ints
    unseen: Ints


def rows_of_test(y: ArrayLike, groups: ArrayLike, splits: Sequence[str], *, random_state: int = 0) -> Bools:
    """Return which images only judge the result: the test split, else a fifth of each class.

    Parameters
    ----------
    y, groups : array-like of shape (n,), int
        Class, and number of the group of near-duplicates, of each image.
    splits : sequence of str, length n
        ``test`` for images of the test split; empty for none.
    random_state : int
    """
    groups = np.asarray(groups)
    if "test" in splits:
        # What a folder named train shares with one named test cannot be learned from.
        is_test: Bools = np.isin(groups, groups[[split == "test" for split in splits]])
        return is_test
    return _drawn(np.asarray(y), groups, _SHARE_TEST, np.random.default_rng(random_state))


def draws(y: ArrayLike, groups: ArrayLike, *, random_state: int = 0) -> Iterator[Draw]:
    """Yield a few divisions of the images that a model may be fitted on.

    Parameters
    ----------
    y, groups : array-like of shape (n,), int
    random_state : int
    """
    y, groups, rng = np.asarray(y), np.asarray(groups), np.random.default_rng(random_state)
    classes = rng.permutation(np.unique(y))
    n_unseen = round(len(classes) * _SHARE_UNSEEN) if len(classes) >= MIN_CLASSES_FOR_UNSEEN else 0
    for number in range(_N_DRAWS):
        # Other classes each time, as far as there are enough.
        unseen_classes = np.roll(classes, -number * n_unseen)[:n_unseen]
        is_unseen = np.isin(y, unseen_classes)
        is_seen = ~np.isin(groups, groups[is_unseen])
        is_validation = _drawn(y, groups, _SHARE_VALIDATION, rng) & is_seen
        yield Draw(
            np.flatnonzero(is_seen & ~is_validation), np.flatnonzero(is_validation), np.flatnonzero(is_unseen)
        )


def _drawn(y: Ints, groups: Ints, share: float, rng: np.random.Generator) -> Bools:
    """Return images of whole groups, about a share of each class, never all of one class."""
    is_drawn = np.zeros(len(y), bool)
    for number in np.unique(y):
        names = rng.permutation(np.unique(groups[y == number]))
        n_drawn = min(round(len(names) * share), len(names) - 1)
        is_drawn |= np.isin(groups, names[:n_drawn])
    return is_drawn
