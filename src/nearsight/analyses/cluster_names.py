"""Names of clusters: the words that set each apart from the others."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError, MissingExtraError, UnknownModelError, WeightsError
from nearsight.estimators.clustering import word_distinctiveness
from nearsight.models import TextEncoder
from nearsight.models.text.conse import classes
from nearsight.progress import track

_MAX_IMAGES_PER_CLUSTER = 100
_MAX_WORDS = 3
# A word needs this share of the best word's distinctiveness, and more than a rounding error.
_MIN_SHARE_OF_BEST, _MIN_DISTINCTIVENESS = 0.25, 1e-4
_WORDS_PER_BATCH = 128


def distinctive_words(
    collection: Collection,
    X: NDArray[np.float32],
    labels: NDArray[np.int64],
    words: Sequence[str] | None,
    *,
    random_state: int = 0,
    progress: bool | None = None,
) -> list[list[str]]:
    """Return for each cluster the words that set it apart, the most distinctive first.

    *Method*: zero-shot classification of at most 100 images of each cluster, and of the noise, by the words;
    then the most distinctive words of each cluster (`estimators.clustering.word_distinctiveness`), and those
    at least a quarter as distinctive.

    Parameters
    ----------
    collection : Collection
    X : ndarray of shape (n, dim), float32
    labels : ndarray of shape (n,), int
        Clusters 0, 1, ...; -1 is noise.
    words : sequence of str or None
        The vocabulary; if it is empty, clusters get no words. None stands for the names of ImageNet's
        classes, or for an empty vocabulary if the model cannot read text.
    random_state : int, default 0
    progress : bool, optional
        Show progress on stderr; by default only where that is a terminal.

    Raises
    ------
    InvalidParameterError
        A word is empty.
    MissingExtraError, UnknownModelError, WeightsError
        Words were given, and the model cannot read text, or the package for that is not installed.
    """
    n_clusters = int(labels.max(initial=-1)) + 1
    if n_clusters == 0 or (words is not None and len(words) == 0):
        return [[] for _ in range(n_clusters)]
    if words is not None and not all(word.strip() for word in words):
        raise InvalidParameterError("a word is empty; leave it out")
    # Only the default vocabulary is dropped silently.
    ignored = (MissingExtraError, UnknownModelError, WeightsError) if words is None else ()
    with suppress(*ignored):
        encoder = collection.text_encoder
        vocabulary = _default_vocabulary() if words is None else [word.strip() for word in words]
        return _distinctive_words(encoder, X, labels, n_clusters, vocabulary, random_state, progress)
    return [[] for _ in range(n_clusters)]


def names_from_words(words: Sequence[Sequence[str]]) -> list[str | None]:
    """Return a name for each cluster: its best word, or its two best where another has the same best word.

    Examples
    --------
    >>> names_from_words([["sandal", "loafer"], ["jersey"], ["sandal", "clog"], []])
    ['sandal, loafer', 'jersey', 'sandal, clog', None]
    """
    best_words = [cluster_words[0] if cluster_words else None for cluster_words in words]
    return [
        ", ".join(cluster_words[: 1 if best_words.count(cluster_words[0]) == 1 else 2])
        if cluster_words
        else None
        for cluster_words in words
    ]


def _default_vocabulary() -> list[str]:
    return list({names[0].lower(): names[0] for names, _ in classes()}.values())


def _distinctive_words(
    encoder: TextEncoder,
    X: NDArray[np.float32],
    labels: NDArray[np.int64],
    n_clusters: int,
    words: Sequence[str],
    random_state: int,
    progress: bool | None,
) -> list[list[str]]:
    rng = np.random.default_rng(random_state)
    samples = []
    for label in range(-1, n_clusters):
        rows = np.flatnonzero(labels == label)
        if len(rows) > _MAX_IMAGES_PER_CLUSTER:
            rows = rng.choice(rows, _MAX_IMAGES_PER_CLUSTER, replace=False)
        samples.append(rows)
    sample = np.concatenate(samples)
    queries = _embed_texts(encoder, [encoder.prompt.replace("{}", word) for word in words], progress)
    probabilities = softmax(encoder.logits(X[sample], queries), axis=1)
    values = word_distinctiveness(probabilities, labels[sample])
    best_columns = np.argsort(-values, axis=1, kind="stable")[:, :_MAX_WORDS]
    minima = np.maximum(values.max(1, initial=0) * _MIN_SHARE_OF_BEST, _MIN_DISTINCTIVENESS)
    return [
        [words[column] for column in columns if row[column] > minimum]
        for columns, row, minimum in zip(best_columns, values, minima, strict=True)
    ]


def _embed_texts(encoder: TextEncoder, texts: list[str], progress: bool | None) -> NDArray[np.float32]:
    # Texts of similar length together are embedded fastest.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    batches = [order[at : at + _WORDS_PER_BATCH] for at in range(0, len(order), _WORDS_PER_BATCH)]
    shown = track(batches, "embedding words", unit="batches", progress=progress)
    vectors = np.concatenate([encoder.embed([texts[i] for i in batch]) for batch in shown])
    return vectors[np.argsort(order)]
