"""Makes a collection of shorter vectors out of one that is there, without embedding anything again."""

import shutil
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from filelock import FileLock

from nearsight.collection import manifest
from nearsight.collection import schema as row_schema
from nearsight.collection.create import clear
from nearsight.collection.view import View, sample
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, NotACollectionError
from nearsight.models.pca import Projection, fit_projection
from nearsight.store import VectorStore
from nearsight.store.lance.store import LanceStore

# Enough for any sensible dimension: the directions hardly move after some four times as many images.
_MOST_IMAGES = 20_000
# Rows that travel together.
_ROWS = 1024


class Stored(View, Protocol):
    """A collection with its store."""

    _store: VectorStore
    _manifest: manifest.Manifest


def reduce_dim(
    self: Stored,
    dim: int,
    directory: str | Path,
    *,
    storage: str | None = None,
    random_state: int = 0,
) -> Projection:
    """Make a collection of shorter vectors, `dim` numbers each, from the images that are here.

    Everything else of an image comes along. Images can be added to the new collection like to any other:
    they are embedded and projected. It holds its projection itself, so that it can be moved.

    Parameters
    ----------
    dim : int
        At least 1, less than the model's own, and less than there are images.
    directory : path
        Of the new collection: missing or empty.
    storage : {"float32", "float16"}, optional
        What each number is kept as; by default as here.
    random_state : int, default 0
        Chooses the images that the projection is learned on where there are more than 20,000.

    Returns
    -------
    Projection
        What was learned; `variance_kept` says how much of the differences is left.

    Raises
    ------
    InvalidParameterError
        `dim` is out of its range; the message says which there is.
    NotACollectionError
        The directory holds something.
    """
    directory = Path(directory)
    if self.spec.layer.rpartition(" > ")[1]:
        raise InvalidParameterError(
            f"{self.directory} is projected already; project the collection it came from"
        )
    if directory.resolve() == self.directory.resolve():
        raise InvalidParameterError(
            f"{directory} is this collection; choose another directory for the new one"
        )
    kept_as = storage or self._manifest.storage
    row_schema.schema(dim, kept_as)  # says so where vectors cannot be kept so
    projection = fit_projection(sample(self, _MOST_IMAGES, random_state=random_state).X, dim, self.spec)
    clear(directory)
    with FileLock(directory / manifest.LOCK):
        if (directory / manifest.FILENAME).exists():
            raise NotACollectionError(f"{directory} is a collection already; choose another directory")
        # Without a manifest, a store is what a crash left.
        shutil.rmtree(directory / manifest.STORE, ignore_errors=True)
        schema = _shortened(self._store.schema, dim, kept_as)
        store = LanceStore.create(directory / manifest.STORE, schema)
        _copy(self._store, store, projection)
        projection.save(directory / manifest.PROJECTION)
        # Last: before it, the directory is no collection.
        manifest.Manifest.of(projection.spec(manifest.OWN_PROJECTION), kept_as).write(directory)
    store.maintain()
    return projection


def own_model(directory: Path, id: str) -> str:
    """Return the name of a collection's model: where it is the collection's own, its place now.

    Raises
    ------
    FingerprintMismatchError
        The collection's own projection is gone.
    """
    if id != manifest.OWN_PROJECTION:
        return id
    path = directory / manifest.PROJECTION
    if not path.is_file():
        raise FingerprintMismatchError(
            f"{path} is gone, without which no image can be compared with those of {directory}; restore it "
            "from a backup, or make the collection again with nearsight project"
        )
    return f"pca:{path}"


def _shortened(schema: pa.Schema, dim: int, storage: str) -> pa.Schema:
    at = schema.get_field_index("vector")
    return schema.set(at, row_schema.schema(dim, storage).field("vector"))


def _copy(source: VectorStore, target: VectorStore, projection: Projection) -> None:
    names = source.schema.names
    for batch in source.scan(names):
        for at in range(0, len(batch), _ROWS):
            part = batch.slice(at, _ROWS)
            X = part.column("vector").flatten().to_numpy(zero_copy_only=False)
            short = projection.apply(X.reshape(len(part), -1))
            vectors = pa.FixedSizeListArray.from_arrays(
                pa.array(short.ravel()), type=target.schema.field("vector").type
            )
            columns = [vectors if name == "vector" else part.column(name) for name in names]
            target.append(pa.Table.from_arrays(columns, schema=target.schema))
