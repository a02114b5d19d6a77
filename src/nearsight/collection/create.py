"""Creates collections."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from nearsight.collection import manifest
from nearsight.collection import schema as row_schema
from nearsight.errors import NotACollectionError
from nearsight.models import Backend, ModelSpec, find_model, load_model
from nearsight.models.pca import Projection
from nearsight.store import Location, VectorStore, is_directory, locate

if TYPE_CHECKING:
    from nearsight.collection.reader import CollectionReader

_ROWS_PER_APPEND = 1024


def load_if_needed(model: str | Backend, device: str, cache_dir: Path | None) -> str | Backend:
    """Load a model whose fingerprint depends on the device or the arithmetic; return others as they are."""
    if isinstance(model, str) and (
        device not in ("auto", "cpu") or find_model(model).load_on_device is not None
    ):
        return load_model(model, device=device, cache_dir=cache_dir)
    return model


def spec_of(model: str | Backend) -> ModelSpec:
    """Return the spec of a model; a model given by its name is not loaded."""
    return find_model(model).spec if isinstance(model, str) else model.spec


def create_collection(
    place: Path | Location, spec: ModelSpec, *, storage: str = "float32", exist_ok: bool = True
) -> None:
    """Create an empty collection, unless there is one already.

    Raises
    ------
    InvalidParameterError
        `storage` is not a type that vectors can have.
    NotACollectionError
        The directory holds something else, or a collection although `exist_ok` is false.
    """
    location = locate(place)
    if location.read_document(manifest.FILENAME) is not None:
        if not exist_ok:
            raise NotACollectionError(
                f"{location.uri} is a collection already; open it, or choose another place"
            )
        return
    if location.read_document(manifest.COPY) is not None:
        raise manifest.unfinished_copy(location)
    schema = row_schema.schema(spec.dim, storage)
    if is_directory(location):
        manifest.require_free(location.files)
    if (location.files / manifest.FULL).is_dir():
        raise manifest.interrupted(location)
    if is_directory(location):
        make_free_directory(location.files)
    with location.lock():
        # Another process may have been first; without a manifest, a store is what a crash left.
        if location.read_document(manifest.FILENAME) is None:
            location.delete_store(manifest.STORE)
            location.create_store(manifest.STORE, schema)
            manifest.CollectionManifest.of(spec, storage).write(location)


def create_like(directory: Path, source: "CollectionReader") -> None:
    """Create an empty collection of the same model and storage as another one.

    Raises
    ------
    NotACollectionError
        The directory holds something.
    """
    make_free_directory(directory)
    projection = source.location.read_document(manifest.PROJECTION)
    if projection is not None:
        locate(directory).write_document(manifest.PROJECTION, projection)
    create_collection(directory, source.spec, storage=source.storage, exist_ok=False)


def create_projected(
    place: str | Path | Location, source: VectorStore, projection: Projection, storage: str
) -> None:
    """Create a collection of the rows of a store, with projected vectors and the projection's document.

    Raises
    ------
    InvalidParameterError
        `storage` is not a type that vectors can have.
    NotACollectionError
        There is something.
    """
    location = locate(place)
    spec = projection.spec(manifest.OWN_PROJECTION)
    vector_field = row_schema.schema(spec.dim, storage).field("vector")
    schema = source.schema.set(source.schema.get_field_index("vector"), vector_field)
    if is_directory(location):
        make_free_directory(location.files)
    with location.lock():
        if location.read_document(manifest.FILENAME) is not None:
            raise NotACollectionError(f"{location.uri} is a collection already; choose another place")
        if location.read_document(manifest.COPY) is not None:
            raise manifest.unfinished_copy(location)
        # Without a manifest, a store is what a crash left.
        location.delete_store(manifest.STORE)
        # First the projection: beside it, a store with rows is known to hold copies.
        location.write_document(manifest.PROJECTION, projection.to_bytes())
        target = location.create_store(manifest.STORE, schema)
        _copy_projected(source, target, projection)
        # Last: before it, the place is not a collection.
        manifest.CollectionManifest.of(spec, storage).write(location)
    target.maintain()


def _copy_projected(source: VectorStore, target: VectorStore, projection: Projection) -> None:
    schema = target.schema
    for batch in source.scan(schema.names):
        for start in range(0, len(batch), _ROWS_PER_APPEND):
            rows = batch.slice(start, _ROWS_PER_APPEND)
            X = rows.column("vector").flatten().to_numpy(zero_copy_only=False)
            projected = projection.apply(X.reshape(len(rows), -1))
            vectors = pa.FixedSizeListArray.from_arrays(
                pa.array(projected.ravel()), type=schema.field("vector").type
            )
            columns = [vectors if name == "vector" else rows.column(name) for name in schema.names]
            target.append(pa.Table.from_arrays(columns, schema=schema))


def make_free_directory(directory: Path) -> None:
    """Make the directory if it is missing.

    Raises
    ------
    NotACollectionError
        It holds anything but leftovers of an interrupted creation.
    """
    manifest.require_free(directory)
    directory.mkdir(parents=True, exist_ok=True)
