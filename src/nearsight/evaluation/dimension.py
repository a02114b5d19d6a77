"""How many numbers of a vector are enough: quality, bytes and search time by dimension."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearsight.collection import Collection
from nearsight.collection.arrays import sample_vectors
from nearsight.errors import InvalidParameterError
from nearsight.estimators.neighbors import highest, unit_length
from nearsight.evaluation.dimension_curve import advised_dim, curve_dimensions
from nearsight.evaluation.metrics import Task, retrieval
from nearsight.evaluation.significance import Estimate, estimate
from nearsight.parameters import require_number

Floats = NDArray[np.floating]

#: Share of the ten nearest neighbors that shorter vectors should keep, where there are no labels.
DEFAULT_KEEP = 0.9
_N_NEIGHBORS = 10
_MAX_IMAGES = 8000
_MAX_QUERIES = 1000
_MIN_IMAGES = 50
_N_TIMED = 15


@dataclass(frozen=True, slots=True)
class DimensionRow:
    """One length of the vectors.

    Attributes
    ----------
    dim : int
    neighbors_kept : Estimate
        Share of the full vectors' ten nearest that are among the ten nearest, 0..1.
    recall : Estimate or None
        Recall@1 of the labels, if there are any.
    bytes_per_vector : int
        In the collection's storage.
    search_ms : float
        An exact comparison of one query with all images, on one core: measured on the images that were
        compared, scaled by the number of images.
    """

    dim: int
    neighbors_kept: Estimate
    recall: Estimate | None
    bytes_per_vector: int
    search_ms: float


@dataclass(frozen=True)
class DimensionAdvice:
    """The curve by dimension, and the dimension that is advised.

    Attributes
    ----------
    rows : list of DimensionRow
        The shortest first, the full length last.
    advised_dim : int
    rule : str
        Why, in a sentence.
    method : {"pca", "truncation"}
        How vectors were shortened; models that were trained for it are truncated.
    n_images : int
        Images that were compared.
    """

    rows: list[DimensionRow]
    advised_dim: int
    rule: str
    method: str
    n_images: int


def advise_dimension(
    collection: Collection,
    labels: Mapping[str, str] | None = None,
    *,
    keep: float = DEFAULT_KEEP,
    random_state: int = 0,
) -> DimensionAdvice:
    """Compare lengths of a collection's vectors.

    *Method*: of up to 8,000 random images, half teach the projection, and the others are searched among
    themselves. With labels, the shortest length within one standard error of the best recall@1 is advised
    (Breiman et al. 1984); without, the shortest that keeps a share of the ten nearest neighbors.

    Parameters
    ----------
    collection : Collection
    labels : mapping of str to str, optional
        Label by id; images without one are not searched for.
    keep : float
        The share of neighbors to keep, 0..1; unused with labels.
    random_state : int

    Raises
    ------
    InvalidParameterError
        There are fewer than 50 images, fewer than two labels, or `keep` is out of its range.
    """
    require_number("keep", keep)
    if not 0 < keep <= 1:
        raise InvalidParameterError(f"keep is {keep}; it must be above 0 and at most 1")
    if (n := len(collection)) < _MIN_IMAGES:
        raise InvalidParameterError(f"there are {n} images; a comparison needs at least {_MIN_IMAGES}")
    table = sample_vectors(collection, _MAX_IMAGES, random_state=random_state)
    X = unit_length(np.asarray(table.X, np.float32))
    order = np.random.default_rng(random_state).permutation(len(X))
    taught, judged = np.array_split(order, 2)
    trained_dims = collection.spec.matryoshka_dims
    is_trained = bool(trained_dims)
    shortened = X[judged] if is_trained else _projected(X[taught], X[judged])
    task = _label_task([table.ids[row] for row in judged], labels)
    full = _nearest(X[judged])
    bytes_per_number = 2 if collection.storage == "float16" else 4
    rows = []
    for dim in curve_dimensions(X.shape[1], below=shortened.shape[1]):
        if dim < min(trained_dims, default=1):
            continue
        vectors = X[judged] if dim == X.shape[1] else unit_length(shortened[:, :dim])
        kept = _share_kept(full, _nearest(vectors))
        recall = None
        if task is not None:
            recalls = retrieval(vectors, task).values["recall@1"]
            recall = estimate(recalls, task.groups[task.queries])
        rows.append(
            DimensionRow(
                dim,
                estimate(kept, np.arange(len(kept))),
                recall,
                dim * bytes_per_number,
                _seconds(vectors) * 1000 * n / len(vectors),
            )
        )
    advised, rule = _advised(rows, keep)
    return DimensionAdvice(rows, advised, rule, "truncation" if is_trained else "pca", len(judged))


def _projected(taught: Floats, judged: Floats) -> NDArray[np.float32]:
    mean = taught.mean(axis=0)
    axes = np.linalg.svd(taught - mean, full_matrices=False)[2]
    projected: NDArray[np.float32] = (judged - mean) @ axes.T
    return projected


def _label_task(ids: Sequence[str], labels: Mapping[str, str] | None) -> Task | None:
    if labels is None:
        return None
    rows = np.array([row for row, id in enumerate(ids) if id in labels], np.intp)
    names = [labels[ids[row]] for row in rows]
    if len(set(names)) < 2:
        raise InvalidParameterError(
            f"{len(rows):,} of the images have a label, of {len(set(names))} kinds; two are needed at least"
        )
    y = np.full(len(ids), -1)
    y[rows] = np.unique(names, return_inverse=True)[1]
    return Task(rows, rows, y, np.arange(len(ids)))


def _nearest(X: Floats) -> NDArray[np.integer]:
    queries = X[:_MAX_QUERIES]
    similarities = queries @ X.T
    np.fill_diagonal(similarities, -np.inf)
    return highest(similarities, _N_NEIGHBORS)[0]


def _share_kept(full: NDArray[np.integer], short: NDArray[np.integer]) -> NDArray[np.float64]:
    same = (full[:, :, None] == short[:, None, :]).any(axis=2)
    share: NDArray[np.float64] = same.mean(axis=1)
    return share


def _seconds(X: Floats) -> float:
    """Return the median time to compare one query with all vectors."""
    X, seconds = np.ascontiguousarray(X), []
    for row in range(_N_TIMED):
        started = time.perf_counter()
        X @ X[row % len(X)]
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))


def _advised(rows: Sequence[DimensionRow], keep: float) -> tuple[int, str]:
    recalls = [(row.dim, row.recall) for row in rows if row.recall is not None]
    if recalls:
        dim = advised_dim(recalls)
        return dim, f"{dim:,} numbers find the right label within one standard error of the best."
    dim = min((row.dim for row in rows if row.neighbors_kept.value >= keep), default=rows[-1].dim)
    share = next(row.neighbors_kept.value for row in rows if row.dim == dim)
    return dim, f"{dim:,} numbers are the fewest that keep {keep:.0%} of the ten nearest ({share:.1%})."
