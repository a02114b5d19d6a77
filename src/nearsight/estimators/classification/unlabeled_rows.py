"""A linear probe that learns from rows without a label, too."""

import numpy as np
from scipy import sparse
from sklearn.semi_supervised import LabelSpreading

from nearsight.estimators.classification.heads import DEFAULT_RIDGE, Floats, Ints, Probe, Ridge
from nearsight.estimators.neighbors import nearest_neighbors

#: Rows without a label that are used at most: more would cost much, and add little.
MAX_UNLABELED = 10_000
_N_NEIGHBORS = 10
_ALPHA = 0.5
_N_FOLDS = 5
_UNLABELED = -1


def fit_label_spreading(points: Floats, y: Ints, n_classes: int, unlabeled: Floats) -> tuple[Probe, Floats]:
    """Return the probe, and the (n, n_classes) scores of each example whose label was hidden.

    *Method*: labels spread from the examples over the graph of the 10 nearest neighbors of all rows, half
    of each row's label coming from its neighbors (Zhou et al. 2004, "Learning with local and global
    consistency", by scikit-learn's `LabelSpreading`); edges weigh the cosine's third power. The ridge
    regression then learns the shares of the classes that each row without a label got. Scores of hidden
    labels come from five folds: the examples of a fold are rows without a label, each left out of the
    regression. An example that is alone in its class is never hidden; its scores are those of the
    regression without it.

    Parameters
    ----------
    points : ndarray of shape (n, d), unit length
        The examples.
    y : ndarray of shape (n,)
        Their classes, by number.
    n_classes : int
    unlabeled : ndarray of shape (n_unlabeled, d), unit length
        May show other things than the classes.

    Notes
    -----
    Costs (n + n_unlabeled)² d for the neighbors up to 20,000 rows, and one `Ridge` of all rows.
    """
    rows = np.concatenate([points, unlabeled])
    graph, solver = _graph(rows), Ridge(rows)
    labels = np.concatenate([y, np.full(len(unlabeled), _UNLABELED)])
    targets = _spread(graph, labels, n_classes)
    left_out = solver.left_out(targets, DEFAULT_RIDGE)[: len(y)]
    folds = _folds(y)
    for fold in range(_N_FOLDS):
        hidden = np.flatnonzero(folds == fold)
        if len(hidden):
            kept = labels.copy()
            kept[hidden] = _UNLABELED
            left_out[hidden] = solver.left_out(_spread(graph, kept, n_classes), DEFAULT_RIDGE)[hidden]
    return solver.probe(targets, DEFAULT_RIDGE), left_out


def _graph(rows: Floats) -> sparse.csr_matrix:
    """Return the symmetric weights of neighbors: the third power of their cosine, 0 for opposite rows."""
    n = len(rows)
    near, similarities = nearest_neighbors(rows, rows, min(_N_NEIGHBORS, n - 1), own=np.arange(n))
    weights = np.where(near >= 0, np.maximum(similarities, 0), 0.0) ** 3
    starts = np.arange(0, near.size + 1, near.shape[1])
    graph = sparse.csr_matrix((weights.ravel(), np.maximum(near, 0).ravel(), starts), shape=(n, n))
    return graph.maximum(graph.T).tocsr()


def _spread(graph: sparse.csr_matrix, labels: Ints, n_classes: int) -> Floats:
    """Return (n, n_classes) shares of the classes: of an example its own, of other rows what reached them."""
    spreading = LabelSpreading(kernel=lambda *_: graph, alpha=_ALPHA, max_iter=100)
    # It looks at the graph alone, and wants rows only to count them.
    spreading.fit(np.zeros((len(labels), 1)), labels)
    shares = np.zeros((len(labels), n_classes))
    shares[:, spreading.classes_] = spreading.label_distributions_
    # Rows that no label reached say nothing: each class is as likely.
    shares[shares.sum(axis=1) == 0] = 1 / n_classes
    is_example = labels != _UNLABELED
    shares[is_example] = np.eye(n_classes)[labels[is_example]]
    return shares


def _folds(y: Ints) -> Ints:
    """Return the fold of each example, in turn within its class; -1 for one that is alone in it."""
    order = np.argsort(y, kind="stable")
    counts = np.bincount(y)
    rank = np.empty(len(y), np.intp)
    rank[order] = np.arange(len(y)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.where(counts[y] > 1, rank % _N_FOLDS, -1)
