"""Makes a collection's directory."""

import shutil
from pathlib import Path

from filelock import FileLock

from nearsight.collection import manifest, rows
from nearsight.errors import NotACollectionError
from nearsight.models import ModelSpec
from nearsight.store.lance import LanceStore


def make(directory: Path, spec: ModelSpec) -> None:
    """Make an empty collection, unless another process has just done so.

    Raises
    ------
    NotACollectionError
        The directory holds something else.
    """
    clear(directory)
    with FileLock(directory / manifest.LOCK):
        # Another process may have been first; without a manifest, a store is what a crash left.
        if not (directory / manifest.FILENAME).exists():
            shutil.rmtree(directory / manifest.STORE, ignore_errors=True)
            LanceStore.create(directory / manifest.STORE, rows.schema(spec.dim))
            manifest.Manifest.of(spec).write(directory)


def clear(directory: Path) -> None:
    """Make the directory if it is missing.

    Raises
    ------
    NotACollectionError
        It holds something else than what a crash left of making a collection.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if not manifest.is_free(directory):
        raise NotACollectionError(
            f"{directory} is not empty and not a nearsight collection (it has no {manifest.FILENAME});"
            " choose an empty or new directory with -c DIR"
        )
