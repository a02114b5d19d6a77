"""Rows of a collection as arrays, for the analyses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.collection.results import Item
from nearsight.images import decode_path
from nearsight.images.image_lookup import ImageLookup
from nearsight.parameters import require_whole

if TYPE_CHECKING:
    from nearsight.collection.collection import Collection

_THUMBNAILS_PER_READ = 256
# Above this share of the rows, reading every thumbnail is faster than looking them up by id.
_FULL_SCAN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class VectorTable:
    """Vectors of images, with further columns of the same rows.

    Attributes
    ----------
    ids : list of str, length n
    X : ndarray of shape (n, dim), float32
        The vectors.
    columns : mapping of str to list, each of length n
        The columns that were asked for; None where an image has no value.
    """

    ids: list[str]
    X: NDArray[np.float32]
    columns: Mapping[str, list[Any]]

    def __len__(self) -> int:
        return len(self.ids)


def read_vectors(
    collection: "Collection",
    where: str | None = None,
    columns: Sequence[str] = (),
    *,
    empty_array: Callable[[tuple[int, int], Any], NDArray[Any]] = np.empty,
    progress: Callable[[int], object] | None = None,
) -> VectorTable:
    """Read the vectors of all images, or of those that match, into one array.

    Parameters
    ----------
    collection : Collection
    where : str, optional
        Only the images that match.
    columns : sequence of str
        Further columns to read, such as ``("path", "label")``.
    empty_array : callable
        Given a shape and a dtype, returns the array that vectors are read into, such as one in a file.
    progress : callable, optional
        Called with numbers of images.

    Raises
    ------
    InvalidParameterError
        There is no such column.
    FilterError
        `where` is not understood.

    Notes
    -----
    Memory: 4 bytes a number; no vector is held twice.
    """
    n = collection.count(where)
    X = np.asarray(empty_array((n, collection.spec.dim), np.float32))
    ids: list[str] = []
    lists: dict[str, list[Any]] = {name: [] for name in columns}
    for batch in collection.iter_batches(["id", "vector", *lists], where):
        start = len(ids)
        # Another process may have added images since they were counted.
        batch = batch.slice(0, n - start)
        ids += batch.column("id").to_pylist()
        X[start : len(ids)] = batch_vectors(batch)
        for name, values in lists.items():
            cells = batch.column(name).to_pylist()
            values += [decode_path(path) for path in cells] if name == "path" else cells
        if progress is not None:
            progress(len(batch))
    return VectorTable(ids, X[: len(ids)], lists)


def sample_vectors(
    collection: "Collection", n: int, *, where: str | None = None, random_state: int = 0
) -> VectorTable:
    """Read the vectors of at most `n` random images, in memory for `n`.

    Raises
    ------
    InvalidParameterError
        `n` is less than 1, or `random_state` is no whole number of at least 0.
    """
    require_whole("n", n)
    require_whole("random_state", random_state, least=0)
    rng = np.random.default_rng(random_state)
    total = collection.count(where)
    sampled = np.sort(rng.choice(total, min(n, total), replace=False))
    ids: list[str] = []
    X = np.empty((len(sampled), collection.spec.dim), np.float32)
    start = 0
    for batch in collection.iter_batches(["id", "vector"], where):
        rows = sampled[(sampled >= start) & (sampled < start + len(batch))] - start
        start += len(batch)
        if len(rows):
            sampled_batch = batch.take(pa.array(rows))
            X[len(ids) : len(ids) + len(rows)] = batch_vectors(sampled_batch)
            ids += sampled_batch.column("id").to_pylist()
    return VectorTable(ids, X[: len(ids)], {})


def batch_vectors(batch: pa.RecordBatch) -> NDArray[np.float32]:
    """Return the (n, dim) vectors of a batch from `Collection.iter_batches`."""
    numbers = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
    vectors: NDArray[np.float32] = np.asarray(numbers, np.float32).reshape(len(batch), -1)
    return vectors


def image_lookup(collection: "Collection") -> ImageLookup:
    """Return what finds the images of a collection by the names in a table."""
    return ImageLookup((item.id, item.paths) for item in collection.items())


def items_by_id(collection: "Collection", ids: Sequence[str]) -> dict[str, Item]:
    """Return images by their whole ids; ids that are not (or no longer) in the collection are left out."""
    return {item.id: item for item in collection.items(ids=ids)}


def iter_thumbnails(collection: "Collection", ids: Sequence[str]) -> Iterator[dict[str, bytes]]:
    """Yield the thumbnails of images in chunks by id; a chunk may hold thumbnails of other images too."""
    if len(ids) > _FULL_SCAN_SHARE * collection.count():
        for batch in collection.iter_batches(["id", "thumbnail"]):
            columns = (batch.column(name).to_pylist() for name in ("id", "thumbnail"))
            yield {id: data for id, data in zip(*columns, strict=True) if data is not None}
        return
    for start in range(0, len(ids), _THUMBNAILS_PER_READ):
        yield collection.thumbnails(ids[start : start + _THUMBNAILS_PER_READ])
