"""Names of clusters: what sets each apart from the others, in one to three words."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError, MissingExtraError, UnknownModelError, WeightsError
from nearsight.models import TextEncoder
from nearsight.models.text.vocabulary import Word, default_vocabulary
from nearsight.models.text.word_vectors import word_vectors
from nearsight.progress import track

_MAX_IMAGES_PER_CLUSTER = 100
_MAX_WORDS = 3
# A word needs this share of the best word's distinctiveness, and more than a rounding error.
_MIN_SHARE_OF_BEST, _MIN_DISTINCTIVENESS = 0.25, 1e-4
# A category is better than one of its words that is hardly more distinctive, unless it holds little else.
_CATEGORY_SHARE_OF_BEST, _MOST_OF_CATEGORY = 0.75, 0.9
# Below this distinctiveness, a name is "perhaps" right.
_SURE_DISTINCTIVENESS = 0.8
# An image is of the category of the highest probability, if that is at least a fifth. A cluster is mixed if
# fewer than six tenths of its images are of the best category, and at least half are of distinctive ones that
# hold a quarter each.
_MIN_PROBABILITY, _MIN_COVERAGE, _MIN_SHARE, _MIN_TOTAL = 0.2, 0.6, 0.25, 0.5
_OTHER_SHARE_OF_BEST = 0.15
# The images of a cluster are divided into three parts by their vectors. A part is uncovered if the mean
# probability of the name there is less than a quarter of that in the best part. A cluster is mixed, too, if a
# quarter of its images are uncovered. These have a name of their own if it is so distinctive and so probable.
# The settings were chosen on stamps, not on photographs of clothes (`benchmarks/cluster_names.py`).
_N_PARTS, _COVERED, _MIN_UNCOVERED = 3, 0.25, 0.25
_PART_DISTINCTIVENESS, _PART_PROBABILITY = 0.4, 0.2
#: What stands before a name that is hardly distinctive, and before the words of a mixed cluster.
PERHAPS, MIXED = "perhaps ", "mixed: "
_OTHERS = "others"
_WORDS_PER_BATCH = 128


@dataclass(frozen=True, slots=True)
class ClusterName:
    """What sets a cluster apart.

    Attributes
    ----------
    words : list of str
        Words and categories, the most distinctive first; at most 3.
    name : str or None
        The best of them; "perhaps" stands before one that is hardly distinctive. That of a mixed cluster is
        "mixed: " and what it holds, the most frequent first; "others" are images without a clear word. No two
        clusters have the same name.
    """

    words: list[str]
    name: str | None


def cluster_names(
    collection: Collection,
    X: NDArray[np.float32],
    labels: NDArray[np.int64],
    words: Sequence[str] | None,
    *,
    random_state: int = 0,
    progress: bool | None = None,
) -> list[ClusterName]:
    """Return the name of each cluster.

    *Method*: zero-shot classification of at most 100 images of each cluster, and of the noise, by the words.
    A category has the probability of all its words, so that a cluster of many kinds of birds is "bird". The
    most distinctive word or category (`estimators.clustering.word_distinctiveness`) is the name: a category
    rather than a word of it that is hardly more distinctive.

    Parameters
    ----------
    collection : Collection
    X : ndarray of shape (n, dim), float32
    labels : ndarray of shape (n,), int
        Clusters 0, 1, ...; -1 is noise.
    words : sequence of str or None
        The vocabulary; if it is empty, clusters get no names. None stands for the default vocabulary, or for
        an empty one if the model cannot read text.
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
    nothing = [ClusterName([], None) for _ in range(n_clusters)]
    if n_clusters == 0 or (words is not None and len(words) == 0):
        return nothing
    if words is not None and not all(word.strip() for word in words):
        raise InvalidParameterError("a word is empty; leave it out")
    # Only the default vocabulary is dropped silently.
    ignored = (MissingExtraError, UnknownModelError, WeightsError) if words is None else ()
    with suppress(*ignored):
        encoder = collection.text_encoder
        vocabulary = default_vocabulary() if words is None else [Word(word.strip()) for word in words]
        return names_from_words(
            encoder,
            X,
            labels,
            vocabulary,
            is_cached=words is None,
            cache_dir=collection.cache_dir,
            random_state=random_state,
            progress=progress,
        )
    return nothing


def names_from_words(
    encoder: TextEncoder,
    X: NDArray[np.float32],
    labels: NDArray[np.int64],
    vocabulary: Sequence[Word],
    *,
    is_cached: bool = False,
    cache_dir: Path | None = None,
    random_state: int = 0,
    progress: bool | None = False,
) -> list[ClusterName]:
    """Return the name of each cluster, from a vocabulary with categories; see `cluster_names`.

    Parameters
    ----------
    is_cached : bool, default False
        Keep the vectors of the words in `cache_dir` (`models.text.word_vectors`).
    """
    from nearsight.estimators.clustering import word_distinctiveness

    n_clusters = int(labels.max(initial=-1)) + 1
    sample = _sample(labels, n_clusters, random_state)
    prompts = [encoder.prompt.replace("{}", word.text) for word in vocabulary]
    embed = partial(_embed_texts, encoder, progress=progress)
    queries = (
        word_vectors(encoder, prompts, cache_dir=cache_dir, embed=embed) if is_cached else embed(prompts)
    )
    tree = _Tree.of(vocabulary)
    probabilities = tree.with_categories(scipy.special.softmax(encoder.logits(X[sample], queries), axis=1))
    values = word_distinctiveness(probabilities, labels[sample])
    names = [_name(tree, row, probabilities[labels[sample] == label]) for label, row in enumerate(values)]
    return unique_names(_with_uncovered(names, tree, X[sample], labels[sample], probabilities, random_state))


def unique_names(names: Sequence[ClusterName]) -> list[ClusterName]:
    """Return the same names, with another of its words, or else a number, after each that occurs twice.

    Examples
    --------
    >>> twice = [ClusterName(["shoe", "clog"], "shoe"), ClusterName(["shoe", "boot"], "shoe")]
    >>> [name.name for name in unique_names([*twice, *twice[:1]])]
    ['shoe, clog', 'shoe, boot', 'shoe, clog 2']
    """
    counts = Counter(name.name for name in names)
    longer = [
        replace(name, name=_longer(name.name, name.words))
        if name.name is not None and counts[name.name] > 1
        else name
        for name in names
    ]
    taken: set[str] = set()
    unique = []
    for name in longer:
        text, number = name.name, 2
        while text is not None and text in taken:
            text, number = f"{name.name} {number}", number + 1
        taken |= {text} if text is not None else set()
        unique.append(replace(name, name=text))
    return unique


def _longer(name: str, words: Sequence[str]) -> str:
    """Return a name with one more of the cluster's words; "others" stay last."""
    known = name.removesuffix(f", {_OTHERS}")
    texts = known.removeprefix(MIXED).split(", ")
    more = [word for word in words[1:] if word not in texts][:1]
    return ", ".join([known, *more]) + name.removeprefix(known)


@dataclass(frozen=True, slots=True)
class _Tree:
    """Words and categories.

    Attributes
    ----------
    texts : list of str
    members : ndarray of shape (words, texts), float32
        1 where a word is the text, or belongs to the category.
    """

    texts: list[str]
    members: NDArray[np.float32]

    @classmethod
    def of(cls, vocabulary: Sequence[Word]) -> "_Tree":
        column: dict[str, int] = {}
        for word in vocabulary:
            for text in (word.text, *word.categories):
                column.setdefault(text, len(column))
        members = np.zeros((len(vocabulary), len(column)), np.float32)
        for row, word in enumerate(vocabulary):
            members[row, [column[text] for text in (word.text, *word.categories)]] = 1
        return cls(list(column), members)

    def with_categories(self, probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
        summed: NDArray[np.float32] = np.asarray(probabilities, np.float32) @ self.members
        return summed

    def is_above(self, node: int) -> NDArray[np.bool_]:
        """Return which texts hold all words of a node, and more."""
        inside = self.members[:, node] > 0
        sizes = self.members.sum(0)
        return np.asarray((self.members[inside].sum(0) == inside.sum()) & (sizes > inside.sum()))

    def is_disjoint(self, nodes: Sequence[int]) -> NDArray[np.bool_]:
        """Return which texts share no word with any of the nodes."""
        inside = self.members[:, list(nodes)].max(1) > 0
        return np.asarray(self.members[inside].sum(0) == 0)


def _name(tree: _Tree, values: NDArray[np.float64], probabilities: NDArray[np.float32]) -> ClusterName:
    """Return a cluster's name from the distinctiveness of texts and their probabilities for its images."""
    # The values of a cluster without images are all 0.
    if values.max() <= _MIN_DISTINCTIVENESS:
        return ClusterName([], None)
    means = probabilities.mean(0)
    best = _general(tree, int(values.argmax()), values, means)
    is_above = tree.is_above(best)
    words = [best]
    for node in np.argsort(-values, kind="stable").tolist():
        far_enough = values[node] >= max(_MIN_SHARE_OF_BEST * values[best], _MIN_DISTINCTIVENESS)
        if len(words) < _MAX_WORDS and far_enough and node not in words and not is_above[node]:
            words.append(node)
    texts = [tree.texts[node] for node in words]
    categories = _mixed_categories(tree, best, values, probabilities)
    if len(categories) > 1:
        return ClusterName(texts, MIXED + ", ".join(tree.texts[node] for node in categories))
    sure = "" if values[best] >= _SURE_DISTINCTIVENESS else PERHAPS
    return ClusterName(texts, f"{sure}{texts[0]}")


def _general(tree: _Tree, node: int, values: NDArray[np.float64], means: NDArray[np.float32]) -> int:
    """Return the most specific category of a word that says nearly as much, or the word."""
    if tree.members[:, node].sum() > 1:
        return node
    holds_more = means[node] < _MOST_OF_CATEGORY * means
    candidates = tree.is_above(node) & holds_more & (values >= _CATEGORY_SHARE_OF_BEST * values[node])
    above = np.flatnonzero(candidates)
    return int(above[tree.members[:, above].sum(0).argmin()]) if len(above) else node


def _mixed_categories(
    tree: _Tree, best: int, values: NDArray[np.float64], probabilities: NDArray[np.float32]
) -> list[int]:
    """Return the categories of a mixed cluster, that of the most images first."""
    if (probabilities[:, best] >= _MIN_PROBABILITY).mean() >= _MIN_COVERAGE:
        return []
    nodes, means = [best], probabilities.mean(0)
    while len(nodes) < _MAX_WORDS:
        others = np.where(tree.is_disjoint(nodes), values, -np.inf)
        node = int(others.argmax())
        if others[node] < max(_OTHER_SHARE_OF_BEST * values[best], _MIN_DISTINCTIVENESS):
            break
        nodes.append(_general(tree, node, others, means))
    columns = probabilities[:, nodes]
    of_node = np.where(columns.max(1) >= _MIN_PROBABILITY, columns.argmax(1), len(nodes))
    counts = np.bincount(of_node, minlength=len(nodes) + 1)[: len(nodes)] / len(probabilities)
    frequent = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i] >= _MIN_SHARE]
    return [nodes[i] for i in frequent] if counts[frequent].sum() >= _MIN_TOTAL else []


def _with_uncovered(
    names: Sequence[ClusterName],
    tree: _Tree,
    X: NDArray[np.float32],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    random_state: int,
) -> list[ClusterName]:
    """Return the names, mixed ones where a name does not hold for a part of a cluster's images."""
    from nearsight.estimators.clustering import word_distinctiveness

    part_labels, uncovered = labels.copy(), {}
    for label, name in enumerate(names):
        rows = np.flatnonzero(labels == label)
        # A mixed name covers what it is about.
        if name.name is None or name.name.startswith(MIXED) or len(rows) < 2 * _N_PARTS:
            continue
        is_uncovered = _is_uncovered(
            X[rows], probabilities[rows, tree.texts.index(name.words[0])], random_state
        )
        if is_uncovered.mean() >= _MIN_UNCOVERED:
            uncovered[label] = is_uncovered
            part_labels[rows[is_uncovered]] = len(names) + len(uncovered) - 1
    if not uncovered:
        return list(names)
    values = word_distinctiveness(probabilities, part_labels)
    result = list(names)
    for part, (label, is_uncovered) in enumerate(uncovered.items(), len(names)):
        result[label] = _mixed_name(
            tree, names[label].words, values[part], probabilities[part_labels == part], is_uncovered.mean()
        )
    return result


def _is_uncovered(
    X: NDArray[np.float32], probabilities: NDArray[np.float32], random_state: int
) -> NDArray[np.bool_]:
    """Return which images are in parts of a cluster where its name's probability is low."""
    from nearsight.estimators.clustering import k_means_parts

    parts = k_means_parts(X, _N_PARTS, random_state=random_state)
    means = np.array(
        [probabilities[parts == part].mean() if (parts == part).any() else 0 for part in range(_N_PARTS)]
    )
    result: NDArray[np.bool_] = (means < _COVERED * means.max())[parts]
    return result


def _mixed_name(
    tree: _Tree,
    words: Sequence[str],
    values: NDArray[np.float64],
    probabilities: NDArray[np.float32],
    share: np.floating,
) -> ClusterName:
    """Return the name of a cluster whose first word does not hold for a share, whose values are given."""
    best = tree.texts.index(words[0])
    others = np.where(tree.is_disjoint([best]), values, -np.inf)
    means = probabilities.mean(0)
    node = _general(tree, int(others.argmax()), others, means)
    is_clear = others[node] >= _PART_DISTINCTIVENESS and means[node] >= _PART_PROBABILITY
    if not is_clear:
        return ClusterName(list(words), f"{MIXED}{words[0]}, {_OTHERS}")
    other = tree.texts[node]
    texts = [other, words[0]] if share > 0.5 else [words[0], other]
    known = dict.fromkeys([words[0], other, *words[1:]])
    return ClusterName(list(known)[:_MAX_WORDS], MIXED + ", ".join(texts))


def _sample(labels: NDArray[np.int64], n_clusters: int, random_state: int) -> NDArray[np.intp]:
    rng = np.random.default_rng(random_state)
    samples = []
    for label in range(-1, n_clusters):
        rows = np.flatnonzero(labels == label)
        if len(rows) > _MAX_IMAGES_PER_CLUSTER:
            rows = rng.choice(rows, _MAX_IMAGES_PER_CLUSTER, replace=False)
        samples.append(rows)
    return np.concatenate(samples)


def _embed_texts(encoder: TextEncoder, texts: Sequence[str], *, progress: bool | None) -> NDArray[np.float32]:
    # Texts of similar length together are embedded fastest.
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    batches = [order[at : at + _WORDS_PER_BATCH] for at in range(0, len(order), _WORDS_PER_BATCH)]
    shown = track(batches, "embedding words", unit="batches", progress=progress)
    vectors = np.concatenate([encoder.embed([texts[i] for i in batch]) for batch in shown])
    return vectors[np.argsort(order)]
