"""Names for groups of images, out of words."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from tqdm import tqdm

from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError, MissingExtraError, UnknownModelError, WeightsError
from nearsight.estimators.clustering import word_distinctiveness
from nearsight.models import TextEncoder
from nearsight.models.text.conse import classes

# Images of one group that are compared with words, and words that a group gets.
_IMAGES = 100
_WORDS = 3
# A word must tell so much of what the best one does, and more than rounding.
_LEAST, _NOTHING = 0.25, 1e-4
# Words that are read between two steps of the bar.
_AT_ONCE = 128


def name_groups(
    view: Collection,
    X: NDArray[np.float32],
    labels: NDArray[np.int64],
    words: Sequence[str] | None,
    *,
    random_state: int = 0,
    progress: bool = False,
) -> list[list[str]]:
    """Return for each group the words that set it apart, the most telling first.

    *Method*: at most 100 images of each group and of the noise are labeled with the words, and what tells
    most of each group is kept (see `nearsight.estimators.clustering.word_distinctiveness`),
    with what tells a quarter as much.

    Parameters
    ----------
    view : Collection
    X : ndarray of shape (n, dim), float32
    labels : ndarray of shape (n,), int
        Groups 0, 1, ...; -1 is none.
    words : sequence of str or None
        To choose from; none are given if it is empty. None stands for the names of ImageNet's classes, and
        for no names where texts cannot be read.
    random_state : int, default 0
    progress : bool, default False
        Whether a bar is shown on stderr while words are read.

    Raises
    ------
    InvalidParameterError
        A word is empty.
    MissingExtraError, UnknownModelError, WeightsError
        Words were given, and what reads them is not installed, or the model knows none.
    """
    k = int(labels.max(initial=-1)) + 1
    if k == 0 or (words is not None and len(words) == 0):
        return [[] for _ in range(k)]
    if words is None:
        with suppress(MissingExtraError, UnknownModelError, WeightsError):
            return _named(view.text_encoder, X, labels, k, _vocabulary(), random_state, progress)
        return [[] for _ in range(k)]
    if not all(word.strip() for word in words):
        raise InvalidParameterError("a word is empty; leave it out")
    stripped = [word.strip() for word in words]
    return _named(view.text_encoder, X, labels, k, stripped, random_state, progress)


def _vocabulary() -> list[str]:
    return list({names[0].lower(): names[0] for names, _ in classes()}.values())


def _named(
    tower: TextEncoder,
    X: NDArray[np.float32],
    labels: NDArray[np.int64],
    k: int,
    words: Sequence[str],
    random_state: int,
    progress: bool = False,
) -> list[list[str]]:
    rng = np.random.default_rng(random_state)
    chosen = []
    for label in range(-1, k):
        rows = np.flatnonzero(labels == label)
        chosen.append(rows if len(rows) <= _IMAGES else rng.choice(rows, _IMAGES, replace=False))
    some = np.concatenate(chosen)
    queries = _read(tower, [tower.prompt.replace("{}", word) for word in words], progress)
    found = word_distinctiveness(softmax(tower.logits(X[some], queries), axis=1), labels[some])
    best = np.argsort(-found, axis=1, kind="stable")[:, :_WORDS]
    least = np.maximum(found.max(1, initial=0) * _LEAST, _NOTHING)
    return [[words[j] for j in row if found[i, j] > least[i]] for i, row in enumerate(best)]


def _read(tower: TextEncoder, texts: list[str], progress: bool) -> NDArray[np.float32]:
    """Return the vectors of texts, some at a time so that it can be seen."""
    # Texts of like length together, as they are read fastest.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    blocks = [order[at : at + _AT_ONCE] for at in range(0, len(order), _AT_ONCE)]
    shown = tqdm(blocks, desc="reading words", unit="block", disable=not progress, leave=False)
    vectors = np.concatenate([tower.embed([texts[i] for i in block]) for block in shown])
    return vectors[np.argsort(order)]


def labels_of(words: Sequence[Sequence[str]]) -> list[str | None]:
    """Return one label a group; groups with the same best word get their next best as well.

    Examples
    --------
    >>> labels_of([["sandal", "loafer"], ["jersey"], ["sandal", "clog"], []])
    ['sandal, loafer', 'jersey', 'sandal, clog', None]
    """
    first = [group[0] if group else None for group in words]
    return [
        None if not group else group[0] if first.count(group[0]) == 1 else ", ".join(group[:2])
        for group in words
    ]
