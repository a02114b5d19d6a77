"""What a collection's jobs (clusters, maps, duplicates, ...) read: rows as arrays.

A job is a function whose first argument is a `View`; `Collection` takes it over as a method.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from nearsight.collection.results import Match
from nearsight.collection.schema import Item
from nearsight.errors import InvalidParameterError
from nearsight.images import decode_path
from nearsight.models import Fingerprint, ModelSpec

# Thumbnails that are read in one go; and the share of rows from which on reading all is quicker than asking.
_THUMBNAILS, _MOST = 256, 0.1
# Rows asked for in one expression.
_IDS_AT_ONCE = 200


class View(Protocol):
    """The part of a `Collection` that jobs read; see there."""

    directory: Path

    @property
    def spec(self) -> ModelSpec:
        """The model whose vectors these are."""
        ...

    @property
    def fingerprint(self) -> Fingerprint:
        """What made the vectors."""
        ...

    def count(self, where: str | None = None) -> int:
        """Return the number of images."""
        ...

    def iter_batches(self, columns: Sequence[str], where: str | None = None) -> Iterator[pa.RecordBatch]:
        """Stream columns of the images."""
        ...

    def items(self, where: str | None = None) -> Iterator[Item]:
        """Stream the images."""
        ...

    def get(self, id: str) -> Item:
        """Return one image by its id, or by a unique start of it."""
        ...

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Return the (n, dim) vectors of images."""
        ...

    def search_vector(
        self, vector: ArrayLike, *, k: int = 10, where: str | None = None, exact: bool = False
    ) -> list[Match]:
        """Return the images most similar to a (dim,) vector."""
        ...

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Return the JPEG thumbnails of images."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Images as arrays, row by row.

    Attributes
    ----------
    ids : list of str, length n
    X : ndarray of shape (n, dim), float32
        Their vectors.
    columns : mapping of str to list, each of length n
        What else was asked for, None where an image has none.
    """

    ids: list[str]
    X: NDArray[np.float32]
    columns: Mapping[str, list[Any]]

    def __len__(self) -> int:
        return len(self.ids)


def gather(view: View, where: str | None = None, columns: Sequence[str] = ()) -> Rows:
    """Read images into arrays; 4 bytes a number, and nothing is held twice.

    Parameters
    ----------
    view : Collection
    where : str, optional
        Only the images that match.
    columns : sequence of str
        Facts or metadata keys to read along, such as ``("path", "label")``.

    Raises
    ------
    InvalidParameterError
        There is no such column.
    FilterError
        `where` is not understood.
    """
    n = view.count(where)
    X = np.empty((n, view.spec.dim), np.float32)
    ids: list[str] = []
    kept: dict[str, list[Any]] = {name: [] for name in columns}
    for batch in view.iter_batches(["id", "vector", *kept], where):
        at = len(ids)
        # Another process may have added images since they were counted.
        batch = batch.slice(0, n - at)
        ids += batch.column("id").to_pylist()
        X[at : len(ids)] = vectors_of(batch)
        for name, values in kept.items():
            found = batch.column(name).to_pylist()
            values += [decode_path(path) for path in found] if name == "path" else found
    return Rows(ids, X[: len(ids)], kept)


def sample(view: View, n: int, *, where: str | None = None, random_state: int = 0) -> Rows:
    """Read at most `n` random images, in memory for `n`.

    Raises
    ------
    InvalidParameterError
        `n` is less than 1.
    """
    if n < 1:
        raise InvalidParameterError(f"n is {n}; it must be at least 1")
    rng = np.random.default_rng(random_state)
    total = view.count(where)
    chosen = np.sort(rng.choice(total, min(n, total), replace=False))
    ids: list[str] = []
    X = np.empty((len(chosen), view.spec.dim), np.float32)
    start = 0
    for batch in view.iter_batches(["id", "vector"], where):
        here = chosen[(chosen >= start) & (chosen < start + len(batch))] - start
        start += len(batch)
        if len(here):
            taken = batch.take(pa.array(here))
            X[len(ids) : len(ids) + len(here)] = vectors_of(taken)
            ids += taken.column("id").to_pylist()
    return Rows(ids, X[: len(ids)], {})


def items_of(view: View, ids: Sequence[str]) -> dict[str, Item]:
    """Return images by their whole ids; those that are not there (any more) are left out."""
    found: dict[str, Item] = {}
    for at in range(0, len(ids), _IDS_AT_ONCE):
        chosen = ", ".join(f"'{id}'" for id in ids[at : at + _IDS_AT_ONCE])
        found |= {item.id: item for item in view.items(f"id IN ({chosen})")}
    return found


def thumbnails_of(view: View, ids: Sequence[str]) -> Iterator[dict[str, bytes]]:
    """Yield the thumbnails of the rows named, some at a time, perhaps with others among them."""
    if len(ids) > _MOST * view.count():
        for batch in view.iter_batches(["id", "thumbnail"]):
            columns = (batch.column(name).to_pylist() for name in ("id", "thumbnail"))
            yield {id: data for id, data in zip(*columns, strict=True) if data is not None}
        return
    for at in range(0, len(ids), _THUMBNAILS):
        yield view.thumbnails(ids[at : at + _THUMBNAILS])


def vectors_of(batch: pa.RecordBatch) -> NDArray[np.float32]:
    """Return the (n, dim) vectors of a batch that `Collection.scan` gave."""
    column = batch.column("vector")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    vectors: NDArray[np.float32] = np.asarray(flat, np.float32).reshape(len(batch), -1)
    return vectors
