"""Searching a collection: by images, by text, or by several of these."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight import images
from nearsight.collection import schema
from nearsight.collection.arrays import batch_vectors, items_by_id
from nearsight.collection.results import Match
from nearsight.embedder import Embedder
from nearsight.errors import InvalidParameterError
from nearsight.parameters import require_whole
from nearsight.store import Filter

if TYPE_CHECKING:
    from nearsight.collection.collection import Collection
    from nearsight.collection.reader import CollectionReader

# Up to this many images, each is compared with the text (0.3 s); of more, the index picks candidates.
_MAX_COMPARED = 5000
_MIN_CANDIDATES = 2000
_MIN_VARIANCE = 1e-12
# Images that widen a query, and the power of their similarity that weighs them.
_N_EXPANSION, _EXPANSION_POWER = 3, 3

# The weight of unwanted images, chosen on half of the queries of `benchmarks.combined_search`.
_UNWANTED_WEIGHT = 0.25

_Chunks = Iterator[tuple[list[str], NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class _Parts:
    """What to look for, and what is not wanted: image vectors of shape (dim,), and texts."""

    vectors: list[NDArray[np.float32]]
    text: str | None
    not_vectors: list[NDArray[np.float32]]
    not_texts: list[str]

    @property
    def image_vector(self) -> NDArray[np.float32] | None:
        """The mean direction of the image vectors, away from that of unwanted ones (Rocchio 1971)."""
        wanted, unwanted = _mean_direction(self.vectors), _mean_direction(self.not_vectors)
        if wanted is None or unwanted is None:
            return wanted
        return _unit(_unit(wanted) - _UNWANTED_WEIGHT * _unit(unwanted))

    @property
    def unwanted_image_vector(self) -> NDArray[np.float32] | None:
        """The mean direction of unwanted images, where `image_vector` does not account for them."""
        return None if self.vectors else _mean_direction(self.not_vectors)


def search(
    collection: "Collection",
    query: Any = None,
    *,
    id: str | Sequence[str] | None = None,
    text: str | None = None,
    vector: ArrayLike | None = None,
    not_query: Any = None,
    not_id: str | Sequence[str] | None = None,
    not_text: str | Sequence[str] | None = None,
    not_vector: ArrayLike | None = None,
    k: int = 10,
    where: str | Filter | None = None,
    exact: bool = False,
    expand: bool = False,
    allow_remote: bool = False,
) -> list[Match]:
    """Return the `k` most similar images; see `Collection.search`."""
    require_whole("k", k)
    ids, not_ids = ([collection.get(name).id for name in _as_list(names)] for names in (id, not_id))

    def vectors(images: Any, ids: list[str], given: ArrayLike | None) -> list[NDArray[np.float32]]:
        return [
            *(embed_query(collection, image, allow_remote=allow_remote) for image in _as_list(images)),
            *(collection.vectors(ids) if ids else ()),
            *([] if given is None else np.atleast_2d(np.asarray(given, np.float32))),
        ]

    parts = _Parts(
        vectors(query, ids, vector), text, vectors(not_query, not_ids, not_vector), _as_list(not_text)
    )
    if not parts.vectors and text is None:
        raise InvalidParameterError(
            "name what to search for: an image, the id of one in the collection, a text, or a vector"
        )
    if any(not words.strip() for words in [*([] if text is None else [text]), *parts.not_texts]):
        raise InvalidParameterError("the text is empty; say what is to be seen, such as 'a dog on a beach'")
    if expand and (text is not None or parts.not_texts):
        raise InvalidParameterError("expand widens a search by images; leave out the text, or expand")
    ids += not_ids
    n_matches = k + len(ids)
    image_vector = parts.image_vector
    if expand and image_vector is not None:
        image_vector = _expanded(collection, image_vector, ids, where, exact)
    if image_vector is not None and text is None and not parts.not_texts:
        matches = _nearest(collection, image_vector, n_matches, where, exact)
    else:
        matches = _search_texts(collection, parts, n_matches, where, exact)
    return [match for match in matches if match.id not in ids][:k]


def embed_query(collection: "Collection", query: Any, *, allow_remote: bool = False) -> NDArray[np.float32]:
    """Return the (dim,) vector of one image by the collection's model."""
    embedder = collection.embedder(n_threads=1, progress=False)
    return embed_with(embedder, query, allow_remote=allow_remote)


def embed_with(embedder: Embedder, query: Any, *, allow_remote: bool = False) -> NDArray[np.float32]:
    """Return the (dim,) vector of one image."""
    if isinstance(query, (str, PathLike)) and Path(query).is_dir():
        raise InvalidParameterError(f"a query is one image; {query} is a folder")
    result = embedder.embed([query], on_error="raise", allow_remote=allow_remote)
    if len(result.vectors) != 1:
        raise InvalidParameterError(f"a query is one image; {query} holds {len(result.vectors)}")
    vector: NDArray[np.float32] = result.vectors[0]
    return vector


def _mean_direction(vectors: list[NDArray[np.float32]]) -> NDArray[np.float32] | None:
    if len(vectors) < 2:
        return vectors[0] if vectors else None
    return _unit(np.mean([vector / np.linalg.norm(vector) for vector in vectors], axis=0))


def _unit(vector: Any) -> NDArray[np.float32]:
    return np.asarray(vector / max(np.linalg.norm(vector), 1e-12), np.float32)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _nearest(
    collection: "Collection", vector: NDArray[np.float32], k: int, where: str | Filter | None, exact: bool
) -> list[Match]:
    [matches] = search_vectors(collection, vector[None], k, where, exact)
    return matches


def _expanded(
    collection: "Collection",
    vector: NDArray[np.float32],
    ids: list[str],
    where: str | Filter | None,
    exact: bool,
) -> NDArray[np.float32]:
    """Add the nearest images to a query, by the third power of their similarity.

    *Method*: alpha query expansion (Radenović, Tolias and Chum 2018, section 4.3).
    """
    matches = _nearest(collection, vector, _N_EXPANSION + len(ids), where, exact)
    matches = [match for match in matches if match.id not in ids and match.similarity > 0][:_N_EXPANSION]
    if not matches:
        return vector
    X = collection.vectors([match.id for match in matches])
    X = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)
    weights = np.array([match.similarity for match in matches]) ** _EXPANSION_POWER
    expanded = vector / max(float(np.linalg.norm(vector)), 1e-12) + weights @ X
    return np.asarray(expanded / np.linalg.norm(expanded), np.float32)


def search_vectors(
    collection: "CollectionReader",
    vectors: NDArray[np.float32],
    k: int,
    where: str | Filter | None,
    exact: bool,
) -> list[list[Match]]:
    """Return the `k` most similar images of each vector; see `CollectionReader.search_vectors`."""
    store = collection._snapshot()
    metadata = schema.metadata_columns(store.schema)
    condition = collection._filter(where, store.schema)
    hits = store.search(vectors, k, where=condition, columns=["path", *metadata], exact=exact)
    return [
        [
            Match(
                hit.id,
                images.decode_path(hit.row["path"]),
                hit.similarity,
                schema.metadata_of(hit.row, metadata),
            )
            for hit in own
        ]
        for own in hits
    ]


def _search_texts(
    collection: "Collection", parts: _Parts, k: int, where: str | Filter | None, exact: bool
) -> list[Match]:
    """Return the `k` images that fit texts best, or texts and images.

    Where texts and images share a space, a single text's vector is searched for. Otherwise image vectors are
    projected into the space of the texts first. In a collection of more than 5,000 images, only candidates
    are compared: the nearest neighbors of the image, and of the image vector that the text points at, at
    least 2,000 of each.
    """
    encoder = collection.text_encoder
    texts = [*([] if parts.text is None else [parts.text]), *parts.not_texts]
    text_vectors = encoder.embed(texts)
    image_vector, unwanted = parts.image_vector, parts.unwanted_image_vector
    is_single = image_vector is None and unwanted is None and len(texts) == 1
    if is_single and encoder.shares_space:
        return _nearest(collection, text_vectors[0], k, where, exact)
    candidates = [] if image_vector is None else [image_vector]
    if parts.text is not None:
        candidates.append(
            text_vectors[0] if encoder.shares_space else encoder.to_image_space(text_vectors[:1])[0]
        )
    n_candidates = max(_MIN_CANDIDATES, 50 * k)
    compares_all = exact or collection.count(where) <= _MAX_COMPARED

    def chunks() -> _Chunks:
        if compares_all:
            return _all_vectors(collection, where)
        return _nearest_vectors(collection, candidates, n_candidates, where)

    def similarities(X: NDArray[np.float32]) -> NDArray[np.float64]:
        columns = [encoder.to_text_space(X) @ text_vectors.T]
        if image_vector is not None:
            columns.insert(0, X @ image_vector[:, None])
        if unwanted is not None:
            columns.append(X @ unwanted[:, None])
        return np.hstack(columns).astype(np.float64)

    weights = np.array([1.0] * len(parts.not_texts) + [_UNWANTED_WEIGHT] * (unwanted is not None))
    score = _first_column if is_single else _combination(chunks(), similarities, weights)
    best: list[tuple[float, str]] = []
    for ids, X in chunks():
        best += zip(score(similarities(X)).tolist(), ids, strict=True)
        # Equal similarities are ordered by id: the same search gives the same order.
        best = sorted(best, key=lambda pair: (-pair[0], pair[1]))[:k]
    items = items_by_id(collection, [id for _, id in best])
    # Another process may have removed a row meanwhile.
    return [
        Match(id, items[id].path, similarity, items[id].metadata) for similarity, id in best if id in items
    ]


def _first_column(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    return columns[:, 0]


def _combination(
    chunks: _Chunks,
    similarities: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    weights: NDArray[np.float64],
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return the function that combines the similarities to several parts into one score.

    Similarities of different kinds have different ranges (image to image about 0.6, image to text about
    0.2), so each is counted in standard deviations from its mean over the images compared. An unwanted part
    lowers the score only of images that are more similar to it than the mean, by its weight; unwanted parts
    are the last columns.
    """
    sums = [(len(S), S.sum(axis=0), (S**2).sum(axis=0)) for S in (similarities(X) for _, X in chunks)]
    n = max(sum(rows for rows, _, _ in sums), 1)
    mean = sum(total for _, total, _ in sums) / n
    deviation = np.sqrt(np.maximum(sum(squares for _, _, squares in sums) / n - mean**2, _MIN_VARIANCE))

    def score(columns: NDArray[np.float64]) -> NDArray[np.float64]:
        z = (columns - mean) / deviation
        n_wanted = columns.shape[1] - len(weights)
        unwanted: NDArray[np.float64] = np.maximum(z[:, n_wanted:], 0) @ weights
        wanted: NDArray[np.float64] = z[:, :n_wanted].mean(axis=1)
        return wanted - unwanted

    return score


def _all_vectors(collection: "Collection", where: str | Filter | None) -> _Chunks:
    for batch in collection.iter_batches(["id", "vector"], where):
        yield batch.column("id").to_pylist(), batch_vectors(batch)


def _nearest_vectors(
    collection: "Collection", vectors: Sequence[NDArray[np.float32]], n: int, where: str | Filter | None
) -> _Chunks:
    matches = [match for vector in vectors for match in _nearest(collection, vector, n, where, exact=False)]
    ids = list(dict.fromkeys(match.id for match in matches))
    yield ids, collection.vectors(ids)
