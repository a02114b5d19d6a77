"""The images of a collection that differ most from the others."""

import heapq
from dataclasses import dataclass

import numpy as np

from nearsight.collection import Collection, Item
from nearsight.collection.arrays import batch_vectors, items_by_id, sample_vectors
from nearsight.estimators.anomaly import knn_distances
from nearsight.parameters import require_whole

_MAX_REFERENCE_IMAGES = 5000


@dataclass(frozen=True, slots=True)
class Outlier:
    """An image with few similar ones.

    Attributes
    ----------
    item : Item
    distance : float
        Mean distance to its nearest neighbors among the vectors; higher is more unusual.
    """

    item: Item
    distance: float


def outliers(
    collection: Collection,
    k: int = 20,
    *,
    where: str | None = None,
    n_neighbors: int = 3,
    random_state: int = 0,
) -> list[Outlier]:
    """Return the images that are farthest from their nearest neighbors, the most unusual first.

    *Method*: mean distance to the nearest neighbors among up to 5,000 random images. To find defects among
    images that are all alike, fit an `AnomalyDetector` on good ones instead: it looks at details, and has a
    calibrated threshold.

    Parameters
    ----------
    k : int, default 20
        Number of images, at least 1.
    where : str, optional
        Only among the images that match.
    n_neighbors : int, default 3
        Number of nearest neighbors, at least 1.
    random_state : int

    Raises
    ------
    InvalidParameterError
        `k` or `n_neighbors` is less than 1.
    FilterError
        `where` is not understood.

    Notes
    -----
    Time: 5,000 dot products an image. Memory does not grow with the collection. A single image has a distance
    of 0, and so have identical ones.
    """
    require_whole("k", k)
    reference = sample_vectors(collection, _MAX_REFERENCE_IMAGES, where=where, random_state=random_state)
    reference_rows = {id: row for row, id in enumerate(reference.ids)}
    most_unusual: list[tuple[float, str]] = []
    for batch in collection.iter_batches(["id", "vector"], where):
        ids = batch.column("id").to_pylist()
        own_rows = np.array([reference_rows.get(id, -1) for id in ids], np.int64)
        distances = knn_distances(batch_vectors(batch), reference.X, own_rows, n_neighbors=n_neighbors)
        most_unusual = heapq.nlargest(k, [*most_unusual, *zip(distances.tolist(), ids, strict=True)])
    items = items_by_id(collection, [id for _, id in most_unusual])
    # Another process may have removed some since.
    return [Outlier(items[id], distance) for distance, id in most_unusual if id in items]
