"""The rows of a new model, written beside those that a collection answers from."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight import images
from nearsight.collection import manifest
from nearsight.collection import schema as row_schema
from nearsight.collection.arrays import batch_vectors
from nearsight.collection.upgrade_state import UpgradeState
from nearsight.collection.write_lock import WriteLock
from nearsight.embedder import Embedded, Embedder
from nearsight.errors import CollectionNotFoundError, StorageError
from nearsight.models import Backend
from nearsight.store import Location, VectorStore

_ROWS_AT_ONCE = 256


class ShadowRows:
    """The old and the new rows of an upgrade.

    Parameters
    ----------
    location : Location
        Of the collection.
    facts : CollectionManifest
        Of the old model.
    name : str
        Of the store of the new rows; made if it is missing.
    backend : Backend
        The new model.
    cache_dir : Path, optional
    """

    def __init__(
        self,
        location: Location,
        facts: manifest.CollectionManifest,
        name: str,
        backend: Backend,
        cache_dir: Path | None = None,
    ) -> None:
        self.location, self._facts, self._name = location, facts, name
        self._embedder = Embedder(backend, cache_dir=cache_dir, progress=False)
        self.old = location.open_store(facts.store)
        vector = row_schema.schema(backend.spec.dim, facts.storage).field("vector")
        schema = self.old.schema.set(self.old.schema.get_field_index("vector"), vector)
        # Others may have added columns since it was created, so it is opened where it is there.
        try:
            self.new = location.open_store(name)
        except CollectionNotFoundError:
            with self.locked():
                self.new = location.create_store(name, schema)

    def embed(
        self, ids: Iterable[str], source: VectorStore | None = None
    ) -> Iterator[tuple[pa.RecordBatch, dict[str, NDArray[np.float32]]]]:
        """Yield old rows, a few hundred at a time, with the new model's vectors of those that have a file.

        Parameters
        ----------
        ids : iterable of str
        source : VectorStore, optional
            Other rows to read than the old ones.
        """
        for rows in chunks(source or self.old, ids):
            yield rows, self._embedded(rows)

    def keep(
        self, rows: pa.RecordBatch, vectors: Mapping[str, NDArray[np.float32]], *, estimated: bool = False
    ) -> int:
        """Write new rows for those that have a vector and no row yet; return how many.

        Parameters
        ----------
        rows, vectors, estimated
            See `append_new`.

        Raises
        ------
        StorageError
            The upgrade was ended or finished meanwhile, or the disk refuses.
        """
        with self.locked():
            return append_new(self.new, rows, vectors, estimated=estimated)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of writers while the upgrade goes on.

        Raises
        ------
        StorageError
            The upgrade was ended or finished meanwhile.
        """
        with WriteLock(self.location, self._facts):
            state = UpgradeState.read(self.location)
            if state is None or state.store != self._name or state.deleting:
                raise StorageError(f"the upgrade of {self.location.uri} was ended meanwhile")
            yield

    def _embedded(self, rows: pa.RecordBatch) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of rows by id, of those whose file still has that content."""
        columns = (rows.column(name).to_pylist() for name in ("id", "paths"))
        left = {
            id: [images.decode_path(path) for path in paths or ()] for id, paths in zip(*columns, strict=True)
        }
        vectors: dict[str, NDArray[np.float32]] = {}
        # Usually the first file of an image is there; of the others, the next is tried.
        while left := {id: paths for id, paths in left.items() if paths and id not in vectors}:
            firsts = [paths.pop(0) for paths in left.values()]
            there = [path for path in firsts if images.exists(path)]
            for result in self._embedder.stream(images.find(there)) if there else ():
                if isinstance(result, Embedded) and result.id in left and result.vector is not None:
                    vectors[result.id] = result.vector
        return vectors


def ids_of(store: VectorStore) -> set[str]:
    """Return the ids of all rows."""
    return {id for batch in store.scan(["id"]) for id in batch.column("id").to_pylist()}


def vectors_of(store: VectorStore, ids: Sequence[str]) -> NDArray[np.float32]:
    """Return the (n, d) vectors of rows, in the order of `ids`; all are there."""
    found = vectors_by_id(store, ids)
    dim = store.schema.field("vector").type.list_size
    return np.stack([found[id] for id in ids]) if ids else np.empty((0, dim), np.float32)


def vectors_by_id(store: VectorStore, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of those rows that are there."""
    found: dict[str, NDArray[np.float32]] = {}
    for batch in store.scan(["id", "vector"], ids=ids):
        found |= dict(zip(batch.column("id").to_pylist(), batch_vectors(batch), strict=True))
    return found


def chunks(store: VectorStore, ids: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """Yield some rows whole, a few hundred at a time."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), _ROWS_AT_ONCE):
        yield from store.scan(store.schema.names, ids=ordered[start : start + _ROWS_AT_ONCE])


def append_new(
    store: VectorStore,
    rows: pa.RecordBatch,
    vectors: Mapping[str, NDArray[np.float32]],
    *,
    estimated: bool = False,
) -> int:
    """Append those rows that have a vector here and are not there yet; the caller holds the write lock.

    Parameters
    ----------
    store : VectorStore
    rows : pa.RecordBatch
        Whole rows of the old store.
    vectors : mapping of str to ndarray of shape (d,)
    estimated : bool
        Whether the rows are marked in their metadata as estimates.
    """
    ids = rows.column("id").to_pylist()
    there = {id for batch in store.scan(["id"], ids=ids) for id in batch.column("id").to_pylist()}
    kept = [row for row, id in enumerate(ids) if id in vectors and id not in there]
    if not kept:
        return 0
    mark = row_schema.PREFIX + row_schema.ESTIMATED_KEY
    if estimated:
        store.add_columns([pa.field(mark, pa.bool_())])
    rows = rows.take(pa.array(kept))
    X = np.stack([vectors[ids[row]] for row in kept])
    kind = store.schema.field("vector").type
    numbers = pa.array(X.ravel().astype(np.float16 if kind.value_type == pa.float16() else np.float32))
    columns = {name: rows.column(name) for name in store.schema.names if name in rows.schema.names}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(numbers, type=kind)
    if mark in store.schema.names:
        columns[mark] = pa.array([True if estimated else None] * len(kept), pa.bool_())
    store.append(pa.Table.from_pydict(columns))
    return len(kept)


def carry_columns(source: VectorStore, target: VectorStore) -> None:
    """Give rows what the other store says of the same images; the caller holds the write lock.

    Vectors, thumbnails and the mark of estimates stay: they are each store's own.

    Parameters
    ----------
    source, target : VectorStore
        Only rows of images that are in both are changed, in `target`.
    """
    others = ("vector", "thumbnail", row_schema.PREFIX + row_schema.ESTIMATED_KEY)
    columns = [name for name in source.schema.names if name not in others]
    if added := [source.schema.field(name) for name in columns if name not in target.schema.names]:
        target.add_columns(added)

    def digest(row: Mapping[str, Any]) -> bytes:
        # A million rows fit into memory as digests, and hardly as what they say.
        said = repr([row[name] for name in columns])
        return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    before = {row["id"]: digest(row) for batch in target.scan(columns) for row in batch.to_pylist()}
    schema = pa.schema([target.schema.field(name) for name in columns])
    for batch in source.scan(columns):
        changed = [
            row for row in batch.to_pylist() if row["id"] in before and before[row["id"]] != digest(row)
        ]
        if changed:
            target.update(pa.Table.from_pylist(changed, schema=schema))
