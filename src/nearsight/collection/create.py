"""Makes a collection's directory."""

import shutil
from pathlib import Path

from filelock import FileLock

from nearsight.collection import manifest
from nearsight.collection import schema as row_schema
from nearsight.errors import NotACollectionError
from nearsight.models import Backend, ModelSpec, find_model, load_model
from nearsight.store.lance.store import LanceStore


def settled(model: str | Backend, device: str, cache_dir: Path | None) -> str | Backend:
    """Load a model where only that shows whose vectors it gives: on a device, or in some arithmetic."""
    if isinstance(model, str) and (device not in ("auto", "cpu") or find_model(model).load_on is not None):
        return load_model(model, device=device, cache_dir=cache_dir)
    return model


def spec_of(model: str | Backend) -> ModelSpec:
    """Return a model's facts; of one that is named, without loading it."""
    return find_model(model).spec if isinstance(model, str) else model.spec


def make(directory: Path, spec: ModelSpec, *, storage: str = "float32", exist_ok: bool = True) -> None:
    """Make an empty collection, where there is none yet.

    Raises
    ------
    InvalidParameterError
        Vectors cannot be kept as `storage` says.
    NotACollectionError
        The directory holds something else, or a collection where that is not wanted.
    """
    if directory.exists() and not directory.is_dir():
        raise NotACollectionError(f"{directory} is a file; a collection is a directory")
    if (directory / manifest.FILENAME).exists():
        if not exist_ok:
            raise NotACollectionError(
                f"{directory} is a collection already; open it, or choose another directory"
            )
        return
    schema = row_schema.schema(spec.dim, storage)
    if (directory / manifest.FULL).is_dir():
        raise manifest.interrupted(directory)
    clear(directory)
    with FileLock(directory / manifest.LOCK):
        # Another process may have been first; without a manifest, a store is what a crash left.
        if not (directory / manifest.FILENAME).exists():
            shutil.rmtree(directory / manifest.STORE, ignore_errors=True)
            LanceStore.create(directory / manifest.STORE, schema)
            manifest.Manifest.of(spec, storage).write(directory)


def clear(directory: Path) -> None:
    """Make the directory if it is missing.

    Raises
    ------
    NotACollectionError
        It holds something else than what a crash left of making a collection.
    """
    if (directory / manifest.FILENAME).exists():
        raise NotACollectionError(f"{directory} is a collection already; choose another directory")
    directory.mkdir(parents=True, exist_ok=True)
    if not manifest.is_free(directory):
        raise NotACollectionError(
            f"{directory} is not empty and not a nearsight collection (it has no {manifest.FILENAME});"
            " choose an empty or new directory with -c DIR"
        )
