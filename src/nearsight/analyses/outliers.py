"""The images of a collection that are unlike the others."""

import heapq
from dataclasses import dataclass

import numpy as np

from nearsight.collection import Collection
from nearsight.collection.arrays import batch_vectors, items_by_id, sample_vectors
from nearsight.collection.schema import Item
from nearsight.errors import InvalidParameterError
from nearsight.estimators.anomaly import outlyingness

# Images that each is compared with, at most.
_REFERENCE = 5000


@dataclass(frozen=True, slots=True)
class Outlier:
    """An image that has few like it.

    Attributes
    ----------
    item : Item
    distance : float
        Mean distance to its nearest others, between vectors; higher is more unusual.
    """

    item: Item
    distance: float


def outliers(
    self: Collection, k: int = 20, *, where: str | None = None, n_neighbors: int = 3, random_state: int = 0
) -> list[Outlier]:
    """Return the images that are least like any other, the most unusual first.

    Each is compared with up to 5,000 of the images, drawn at random; memory does not grow with the rest. To
    find defects among images that are all alike, fit an `AnomalyDetector` on good ones instead: it looks
    closer, and knows when to raise an alarm.

    Parameters
    ----------
    k : int, default 20
        How many, at least 1.
    where : str, optional
        Only among the images that match.
    n_neighbors : int, default 3
        Nearest others whose distance counts.
    random_state : int

    Raises
    ------
    InvalidParameterError
        `k` or `n_neighbors` is less than 1.
    FilterError
        `where` is not understood.

    Notes
    -----
    An image costs as many multiplications as the 5,000 have numbers. Without images the answer is empty;
    one alone has a distance of 0, and so have images that are all the same. Of two, both are as unusual.
    """
    if k < 1:
        raise InvalidParameterError(f"k is {k}; it must be at least 1")
    reference = sample_vectors(self, _REFERENCE, where=where, random_state=random_state)
    places = {id: at for at, id in enumerate(reference.ids)}
    best: list[tuple[float, str]] = []
    for batch in self.iter_batches(["id", "vector"], where):
        ids = batch.column("id").to_pylist()
        own = np.array([places.get(id, -1) for id in ids], np.int64)
        found = outlyingness(batch_vectors(batch), reference.X, own, n_neighbors=n_neighbors)
        best = heapq.nlargest(k, [*best, *zip(found.tolist(), ids, strict=True)])
    items = items_by_id(self, [id for _, id in best])
    # Another process may have removed some since.
    return [Outlier(items[id], distance) for distance, id in best if id in items]
