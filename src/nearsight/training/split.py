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
        Rows to fit on, rows to judge, and all rows of classes that are not fitted.
    gallery : ndarray of int
        Rows among which those of `validation` are searched: those that are fitted, of the same classes.
    """

    fit: Ints
    validation: Ints
    unseen: Ints
    gallery: Ints


def rows_of_test(
    y: ArrayLike,
    groups: ArrayLike,
    splits: Sequence[str],
    *,
    whole_classes: bool = False,
    random_state: int = 0,
) -> Bools:
    """Return which images only judge the result: the test split, else a fifth of each class.

    Parameters
    ----------
    y, groups : array-like of shape (n,), int
        Class, and number of the group of near-duplicates, of each image.
    splits : sequence of str, length n
        ``test`` for images of the test split; empty for none.
    whole_classes : bool
        Whether a fifth of the classes judge, in place of a fifth of each class.
    random_state : int
    """
    groups = np.asarray(groups)
    if "test" in splits:
        # What a folder named train shares with one named test cannot be learned from.
        is_test: Bools = np.isin(groups, groups[[split == "test" for split in splits]])
        return is_test
    rng = np.random.default_rng(random_state)
    if whole_classes:
        classes = rng.permutation(np.unique(y))
        return np.isin(y, classes[: round(len(classes) * _SHARE_TEST)])
    return _drawn(np.asarray(y), groups, _SHARE_TEST, rng)


def draws(
    y: ArrayLike,
    groups: ArrayLike,
    *,
    whole_classes: bool = False,
    known_only: bool = False,
    random_state: int = 0,
) -> Iterator[Draw]:
    """Yield a few divisions of the images that a model may be fitted on.

    Parameters
    ----------
    y, groups : array-like of shape (n,), int
    whole_classes : bool
        Whether classes that are held out are all that judges.
    known_only : bool
        Whether no class is held out, however many there are.
    random_state : int
    """
    y, groups, rng = np.asarray(y), np.asarray(groups), np.random.default_rng(random_state)
    classes = rng.permutation(np.unique(y))
    if whole_classes:
        n_out = max(round(len(classes) * _SHARE_UNSEEN), 1)
        for number in range(_N_DRAWS):
            is_out = np.isin(y, np.roll(classes, -number * n_out)[:n_out])
            out = np.flatnonzero(is_out)
            yield Draw(np.flatnonzero(~is_out), out, out, out)
        return
    is_tested = len(classes) >= MIN_CLASSES_FOR_UNSEEN and not known_only
    n_unseen = round(len(classes) * _SHARE_UNSEEN) if is_tested else 0
    for number in range(_N_DRAWS):
        # Other classes each time, as far as there are enough.
        unseen_classes = np.roll(classes, -number * n_unseen)[:n_unseen]
        is_unseen = np.isin(y, unseen_classes)
        is_seen = ~np.isin(groups, groups[is_unseen])
        is_validation = _drawn(y, groups, _SHARE_VALIDATION, rng) & is_seen
        fit = np.flatnonzero(is_seen & ~is_validation)
        yield Draw(fit, np.flatnonzero(is_validation), np.flatnonzero(is_unseen), fit)


def _drawn(y: Ints, groups: Ints, share: float, rng: np.random.Generator) -> Bools:
    """Return images of whole groups, about a share of each class, never all of one class."""
    is_drawn = np.zeros(len(y), bool)
    for number in np.unique(y):
        names = rng.permutation(np.unique(groups[y == number]))
        n_drawn = min(round(len(names) * share), len(names) - 1)
        is_drawn |= np.isin(groups, names[:n_drawn])
    return is_drawn
