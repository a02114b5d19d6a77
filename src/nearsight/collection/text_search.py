"""Searching a collection with words."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nearsight.collection.results import Match
from nearsight.collection.view import View, items_of, vectors_of
from nearsight.errors import InvalidParameterError
from nearsight.models import TextTower

# So many images are compared with a text one by one (0.3 s); of more, the index chooses candidates.
_FEW = 5000
_CANDIDATES = 2000


def search_words(
    view: View,
    tower: TextTower,
    text: str,
    *,
    k: int = 10,
    where: str | None = None,
    exact: bool = False,
) -> list[Match]:
    """Return the `k` images most similar to a text, the most similar first.

    *Method*: where texts and images share a space, the text's vector is searched for. Elsewhere each
    image vector must first be brought among texts; in a large collection, that is done for the nearest
    neighbors of where the text aims, at least 2,000 of them.

    Parameters
    ----------
    view : Collection
    tower : TextTower
        Of the collection's model.
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
    query = tower.embed([text])
    if tower.is_shared:
        return view.search_vector(query[0], k=k, where=where, exact=exact)
    if exact or view.count(where) <= _FEW:
        chunks = _all(view, where)
    else:
        chunks = _candidates(view, tower.aim(query)[0], max(_CANDIDATES, 50 * k), where)
    best: list[tuple[float, str]] = []
    for ids, X in chunks:
        similarities = tower.project(X) @ query[0]
        best += zip(similarities.tolist(), ids, strict=True)
        # Equal similarities are told apart by id: the same search gives the same order.
        best = sorted(best, key=lambda pair: (-pair[0], pair[1]))[:k]
    items = items_of(view, [id for _, id in best])
    # A row that another process has removed meanwhile is no match any more.
    return [
        Match(id, items[id].path, similarity, items[id].metadata) for similarity, id in best if id in items
    ]


def _all(view: View, where: str | None) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    for batch in view.iter_batches(["id", "vector"], where):
        yield batch.column("id").to_pylist(), vectors_of(batch)


def _candidates(
    view: View, aim: NDArray[np.float32], n: int, where: str | None
) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    ids = [match.id for match in view.search_vector(aim, k=n, where=where)]
    yield ids, view.vectors(ids)
