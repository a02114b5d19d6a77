"""How well vectors serve retrieval and classification, query by query."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import InvalidParameterError
from nearsight.estimators.neighbors import highest, nearest_neighbors, similarity_blocks, unit_length

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

#: Matches that are kept of each query.
N_MATCHES = 10
_N_FOLDS = 5
_N_EPISODES = 20


@dataclass(frozen=True)
class Task:
    """Labeled queries, and the labeled gallery in which each is searched.

    Attributes
    ----------
    queries, gallery : ndarray of int
        Rows of the data.
    y : ndarray of shape (n,), int
        Class of each row of the data, by number.
    groups : ndarray of shape (n,), int
        Rows of one group are the same physical thing, near-duplicates for instance. A query is never
        compared with its own group.
    """

    queries: Ints
    gallery: Ints
    y: Ints
    groups: Ints

    def __post_init__(self) -> None:
        if not len(self.queries) or not len(self.gallery):
            raise InvalidParameterError("there are no queries or no gallery; an evaluation needs both")

    @property
    def is_left_out(self) -> bool:
        """Whether each image is a query, searched among all others."""
        return np.array_equal(self.queries, self.gallery)

    @classmethod
    def split(cls, y: ArrayLike, groups: ArrayLike, is_query: ArrayLike) -> "Task":
        """Return the task of searching the marked rows among the others."""
        marked = np.asarray(is_query, bool)
        return cls(np.flatnonzero(marked), np.flatnonzero(~marked), np.asarray(y), np.asarray(groups))

    @classmethod
    def left_out(cls, y: ArrayLike, groups: ArrayLike) -> "Task":
        """Return the task of searching each row among those of other groups."""
        rows = np.arange(len(np.asarray(y)))
        return cls(rows, rows, np.asarray(y), np.asarray(groups))


@dataclass(frozen=True)
class Retrieval:
    """Metrics of each query, and its first matches.

    Attributes
    ----------
    values : dict of str to ndarray of shape (n_queries,), float64
        In 0..1; NaN where the gallery has no other image of the query's class.
        ``recall@k``: 1 if one of the first k matches has the query's class. ``map@10``: precision at each
        right match among the first 10, averaged over min(10, number of right images). ``r_precision``: share
        of right ones among the first R, R being the number of right images. ``knn_accuracy``: 1 if the
        classes of the first 10, weighted by similarity, elect the query's.
    matches : ndarray of shape (n_queries, 10), int64
        Rows of the data, the most similar first; -1 where the gallery ends.
    """

    values: dict[str, NDArray[np.float64]]
    matches: NDArray[np.int64]


def retrieval(X: Floats, task: Task) -> Retrieval:
    """Search each query in the gallery by cosine, exactly.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        Any length; unit length is taken of it.
    task : Task

    Returns
    -------
    Retrieval

    Notes
    -----
    Costs n_queries × n_gallery × d operations.

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    >>> result = retrieval(X, Task.left_out([0, 0, 1, 1], [0, 1, 2, 3]))
    >>> result.values["recall@1"].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    X = unit_length(np.asarray(X, np.float32))
    y_gallery, groups = task.y[task.gallery], task.groups[task.gallery]
    blocks: list[dict[str, NDArray[np.float64]]] = []
    matches = np.full((len(task.queries), N_MATCHES), -1)
    for rows, similarities in similarity_blocks(X[task.queries], X[task.gallery]):
        queries = task.queries[rows]
        similarities[task.groups[queries][:, None] == groups[None, :]] = -np.inf
        is_there = np.isfinite(similarities)
        n_right = ((y_gallery[None, :] == task.y[queries][:, None]) & is_there).sum(axis=1)
        k = max(N_MATCHES, int(n_right.max()))
        columns, values = highest(similarities, k)
        is_match = np.isfinite(values)
        hits = (y_gallery[columns] == task.y[queries][:, None]) & is_match
        blocks.append(_of_block(hits, n_right, values, y_gallery[columns], task.y[queries]))
        first = np.where(is_match, task.gallery[columns], -1)[:, :N_MATCHES]
        matches[rows, : first.shape[1]] = first
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return Retrieval(joined, matches)


def recalls(
    similarities: Floats, queries: Ints, task: Task, ranks: Sequence[int]
) -> list[NDArray[np.float64]]:
    """Return recall at some ranks, as `retrieval` does, of queries whose similarities are known.

    Parameters
    ----------
    similarities : ndarray of shape (n_queries, n_gallery)
        With the gallery of the task; they are changed.
    queries : ndarray of int
        Rows of the data.
    task : Task
    ranks : sequence of int
        From 1 to the size of the gallery.
    """
    same = task.groups[queries][:, None] == task.groups[task.gallery]
    is_right = task.y[queries][:, None] == task.y[task.gallery]
    similarities[same] = -np.inf
    has_right = (is_right & ~same).any(axis=1)
    columns, values = highest(similarities, max(ranks))
    hits = np.take_along_axis(is_right, columns, axis=1) & np.isfinite(values)
    return [np.where(has_right, hits[:, :rank].any(axis=1), np.nan) for rank in ranks]


def _of_block(
    hits: NDArray[np.bool_], n_right: Ints, similarities: Floats, labels: Ints, y: Ints
) -> dict[str, NDArray[np.float64]]:
    n, k = hits.shape
    ranks = np.arange(1, k + 1)
    first = hits[:, :N_MATCHES]
    precision = np.cumsum(first, axis=1) / ranks[: first.shape[1]]
    values = {f"recall@{at}": first[:, :at].any(axis=1).astype(float) for at in (1, 5, 10)}
    values["map@10"] = (precision * first).sum(axis=1) / np.minimum(np.maximum(n_right, 1), N_MATCHES)
    values["r_precision"] = (hits & (ranks <= n_right[:, None])).sum(axis=1) / np.maximum(n_right, 1)
    weights = np.where(np.isfinite(similarities[:, :N_MATCHES]), similarities[:, :N_MATCHES], 0)
    votes = np.zeros((n, int(max(labels.max(initial=0), y.max())) + 1))
    np.add.at(votes, (np.arange(n)[:, None], labels[:, :N_MATCHES]), weights)
    values["knn_accuracy"] = (votes.argmax(axis=1) == y).astype(float)
    for of_metric in values.values():
        of_metric[n_right == 0] = np.nan
    return values


def probe_accuracy(X: Floats, task: Task) -> NDArray[np.float64]:
    """Return for each query whether a linear probe of the gallery classifies it right, 1 or 0.

    *Method*: least squares with a penalty that leave-one-out log-loss on the gallery chooses. Where each
    image is a query, five folds by group take turns.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    task : Task
    """
    # Loads scikit-learn, which others do not need.
    from nearsight.estimators.classification import heads
    from nearsight.estimators.classification.temperature_scaling import fit_temperature, log_loss

    points: NDArray[np.float64] = unit_length(np.asarray(X, np.float32)).astype(np.float64)
    right = np.full(len(task.queries), np.nan)
    for fitted, queries in _folds(task):
        classes, y = np.unique(task.y[task.gallery[fitted]], return_inverse=True)
        solver, targets = heads.Ridge(points[task.gallery[fitted]]), np.eye(len(classes))[y]
        left_out = [solver.left_out(targets, ridge) for ridge in heads.RIDGES]
        losses = [log_loss(scores, y, fit_temperature(scores, y)) for scores in left_out]
        probe = solver.probe(targets, heads.RIDGES[int(np.argmin(losses))])
        scores = probe.scores(points[task.queries[queries]])
        right[queries] = classes[scores.argmax(axis=1)] == task.y[task.queries[queries]]
    return right


def _folds(task: Task) -> Iterator[tuple[Ints, Ints]]:
    """Yield positions in the gallery to fit on, and positions of the queries to predict."""
    if not task.is_left_out:
        yield np.arange(len(task.gallery)), np.arange(len(task.queries))
        return
    names, group = np.unique(task.groups, return_inverse=True)
    fold = np.random.default_rng(0).permutation(len(names))[group] % min(_N_FOLDS, len(names))
    for number in np.unique(fold):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


def few_shot_accuracy(X: Floats, task: Task, shots: int, *, random_state: int = 0) -> NDArray[np.float64]:
    """Return for each query the share of episodes in which the nearest class mean has its class.

    *Method*: prototypical networks without training (Snell, Swersky and Zemel 2017): in each of 20 episodes
    the mean of `shots` images of each class, drawn from the gallery, stands for the class.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    task : Task
    shots : int
        Images of each class; a class with fewer gives all that it has.
    random_state : int

    Returns
    -------
    ndarray of shape (n_queries,), float64
        NaN for a query that is never judged, because its own group was drawn each time.
    """
    X = unit_length(np.asarray(X, np.float32))
    rng = np.random.default_rng(random_state)
    y = task.y[task.gallery]
    classes = np.unique(y)
    members = [task.gallery[y == number] for number in classes]
    right, judged = np.zeros(len(task.queries)), np.zeros(len(task.queries))
    for _ in range(_N_EPISODES):
        drawn = [rng.permutation(rows)[:shots] for rows in members]
        prototypes = unit_length(np.stack([X[rows].mean(axis=0) for rows in drawn]))
        is_fair = ~np.isin(task.groups[task.queries], task.groups[np.concatenate(drawn)])
        predicted = classes[(X[task.queries] @ prototypes.T).argmax(axis=1)]
        right += is_fair & (predicted == task.y[task.queries])
        judged += is_fair
    return np.where(judged > 0, right / np.maximum(judged, 1), np.nan)


def cluster_agreement(X: Floats, y: Ints, *, random_state: int = 0) -> tuple[float, float]:
    """Return how well k-means with the true number of classes agrees with them.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    y : ndarray of shape (n,), int
    random_state : int

    Returns
    -------
    nmi, ari : float
        Normalized mutual information and adjusted Rand index.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    X = unit_length(np.asarray(X, np.float32))
    labels = KMeans(len(np.unique(y)), n_init=3, random_state=random_state).fit_predict(X)
    return float(normalized_mutual_info_score(y, labels)), float(adjusted_rand_score(y, labels))


def defect_scores(X: Floats, good: Ints, queries: Ints, *, k: int = 3) -> NDArray[np.float64]:
    """Return the mean cosine distance of each query from its `k` nearest good images.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    good, queries : ndarray of int
        Rows of the data; no query is among the good ones.
    k : int
    """
    X = unit_length(np.asarray(X, np.float32))
    similarities = nearest_neighbors(X[queries], X[good], k)[1]
    return np.asarray(1 - similarities.mean(axis=1), np.float64)
