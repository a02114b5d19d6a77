"""Searching a collection with words."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nearsight.collection.arrays import batch_vectors, items_by_id
from nearsight.collection.results import Match
from nearsight.errors import InvalidParameterError

if TYPE_CHECKING:
    from nearsight.collection.collection import Collection

# Up to this many images, each is compared with the text (0.3 s); of more, the index picks candidates.
_MAX_COMPARED = 5000
_MIN_CANDIDATES = 2000

_Chunks = Iterator[tuple[list[str], NDArray[np.float32]]]


def search_text(
    collection: "Collection", text: str, *, k: int = 10, where: str | None = None, exact: bool = False
) -> list[Match]:
    """Return the `k` images most similar to a text, the most similar first.

    *Method*: where texts and images share a space, the text's vector is searched for. Otherwise each image
    vector is projected into the space of the texts first. In a collection of more than 5,000 images, only
    candidates are projected: the nearest neighbors of the image vector that the text points at, at least
    2,000 of them.

    Parameters
    ----------
    collection : Collection
    text : str
        Not empty.
    k, where, exact
        See `Collection.search`.

    Raises
    ------
    InvalidParameterError
        The text is empty, or `k` is less than 1.
    """
    if not text.strip():
        raise InvalidParameterError("the text is empty; say what is to be seen, such as 'a dog on a beach'")
    if k < 1:
        raise InvalidParameterError(f"k is {k}; it must be at least 1")
    encoder = collection.text_encoder
    query = encoder.embed([text])
    if encoder.shares_space:
        return collection.search(vector=query[0], k=k, where=where, exact=exact)
    if exact or collection.count(where) <= _MAX_COMPARED:
        chunks = _all_vectors(collection, where)
    else:
        n_candidates = max(_MIN_CANDIDATES, 50 * k)
        chunks = _nearest_vectors(collection, encoder.to_image_space(query)[0], n_candidates, where)
    best: list[tuple[float, str]] = []
    for ids, X in chunks:
        similarities = encoder.to_text_space(X) @ query[0]
        best += zip(similarities.tolist(), ids, strict=True)
        # Equal similarities are ordered by id: the same search gives the same order.
        best = sorted(best, key=lambda pair: (-pair[0], pair[1]))[:k]
    items = items_by_id(collection, [id for _, id in best])
    # Another process may have removed a row meanwhile.
    return [
        Match(id, items[id].path, similarity, items[id].metadata) for similarity, id in best if id in items
    ]


def _all_vectors(collection: "Collection", where: str | None) -> _Chunks:
    for batch in collection.iter_batches(["id", "vector"], where):
        yield batch.column("id").to_pylist(), batch_vectors(batch)


def _nearest_vectors(
    collection: "Collection", vector: NDArray[np.float32], n: int, where: str | None
) -> _Chunks:
    ids = [match.id for match in collection.search(vector=vector, k=n, where=where)]
    yield ids, collection.vectors(ids)
