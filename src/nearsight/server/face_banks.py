"""The face banks of collections, opened once; their models are loaded when somebody sends an image."""

import threading
from pathlib import Path
from typing import Any

from nearsight.errors import CollectionNotFoundError
from nearsight.faces import FaceBank, FaceReader
from nearsight.faces.storage import FILENAME
from nearsight.server.catalog import CollectionCatalog
from nearsight.server.collection_folders import identity
from nearsight.server.errors import Problem
from nearsight.services.faces import bank_directory, open_or_create_bank


class FaceBanks:
    """Face banks by the name of their collection.

    Parameters
    ----------
    catalog : CollectionCatalog
    **reader_options
        For `FaceReader`.
    """

    def __init__(self, catalog: CollectionCatalog, **reader_options: Any) -> None:
        self._catalog = catalog
        self._reader_options = {"progress": False, **reader_options}
        # By name, with the identity of the collection: another one of that name has another bank.
        self._open: dict[str, tuple[str, FaceBank]] = {}
        self._reader: FaceReader | None = None
        self._lock = threading.Lock()

    def directory(self, name: str) -> Path:
        """Return where the bank of a collection lies, or would lie."""
        self._catalog.open(name)
        return bank_directory(self._catalog.directory(name).absolute())

    def exists(self, name: str) -> bool:
        """Return whether somebody has looked for faces in a collection."""
        return (self.directory(name) / FILENAME).exists()

    def open(self, name: str) -> FaceBank:
        """Return the bank of a collection.

        Raises
        ------
        Problem
            404: nobody has looked for faces yet.
        """
        directory, own = self.directory(name), identity(self._catalog.open(name))
        with self._lock:
            owner, bank = self._open.get(name, ("", None))
            if bank is None or owner != own or not (directory / FILENAME).exists():
                self._open.pop(name, None)
                try:
                    bank = FaceBank.open(directory, **self._reader_options)
                except CollectionNotFoundError:
                    raise Problem(
                        404,
                        f"no faces were found yet; POST to /v1/collections/{name}/faces",
                        code="no_result",
                    ) from None
                self._open[name] = own, bank
            return bank

    def with_models(self, name: str, *, create: bool = False) -> FaceBank:
        """Return the bank of a collection with its models loaded; create it where that is asked for.

        Raises
        ------
        Problem
            404: nobody has looked for faces yet.
        MissingExtraError
            The models are not installed.
        """
        if create and not self.exists(name):
            open_or_create_bank(self.directory(name), **self._reader_options)
        bank = self.open(name)
        with self._lock:
            bank.reader  # noqa: B018 - loads them; two requests must not do it at once
        return bank

    def reader(self, name: str) -> FaceReader:
        """Return what reads faces in images: that of the collection's bank, or one with the default models.

        Raises
        ------
        MissingExtraError
            The models are not installed.
        """
        if self.exists(name):
            return self.with_models(name).reader
        with self._lock:
            if self._reader is None:
                self._reader = FaceReader(**self._reader_options)
            return self._reader
