"""The bank's directory: one manifest, one table, and nothing left of what was deleted.

A column store keeps deleted rows in its files for a while, and old versions of the table for longer. Faces
are personal data, so a bank is never changed in place: whatever removes or renames writes the remaining rows
to a new table, names that in the manifest, and removes the old one, files and all.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from nearsight.artifacts import replacing
from nearsight.errors import (
    CollectionNotFoundError,
    FingerprintMismatchError,
    NewerFormatError,
    NotACollectionError,
)
from nearsight.faces.schema import schema
from nearsight.models import Fingerprint
from nearsight.store import VectorStore, create_store, open_store

# Grows when an older nearsight could no longer read what is written.
FORMAT = 1
FILENAME = "faces.json"
_LOCK = "write.lock"
_STORE = "faces-"
_WITHOUT_FACES = "without-faces.txt"


@dataclass(frozen=True, slots=True)
class BankManifest:
    """What `faces.json` holds.

    Attributes
    ----------
    detector, recognizer : str
        Names of the models.
    licenses : tuple of str
        Of the two, in that order.
    dim : int
        Length of the vectors.
    fingerprint : Fingerprint
        What made them.
    store : str
        The directory that holds the table now.
    """

    detector: str
    recognizer: str
    licenses: tuple[str, ...]
    dim: int
    fingerprint: Fingerprint
    store: str

    def write(self, directory: Path) -> None:
        """Write atomically."""
        data = {
            "format": FORMAT,
            "nearsight": version("nearsight"),
            "detector": self.detector,
            "recogniser": self.recognizer,
            "licences": list(self.licenses),
            "dim": self.dim,
            "fingerprint": self.fingerprint.to_dict(),
            "store": self.store,
        }
        with replacing(directory / FILENAME) as file:
            file.write(json.dumps(data, indent=2).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def read(directory: Path) -> BankManifest:
    """Read the manifest.

    Raises
    ------
    CollectionNotFoundError
        There is no bank.
    NotACollectionError, NewerFormatError
        It is damaged, or a newer nearsight wrote it.
    """
    path = directory / FILENAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CollectionNotFoundError(
            f"there is no bank of faces at {directory}; make one with: nearsight faces enroll DIR, with a "
            "folder of photographs for each person"
        ) from None
    except ValueError as error:
        raise NotACollectionError(f"{path} is damaged ({error}); restore it from a backup") from error
    try:
        if data["format"] > FORMAT:
            raise NewerFormatError(
                f"{directory} has format {data['format']}, written by nearsight {data['nearsight']}; this is "
                f"{version('nearsight')}: pip install --upgrade nearsight"
            )
        return BankManifest(
            data["detector"],
            data["recogniser"],
            tuple(data["licences"]),
            int(data["dim"]),
            Fingerprint.from_dict(data["fingerprint"]),
            data["store"],
        )
    except (KeyError, TypeError) as error:
        raise NotACollectionError(f"{path} is damaged ({error!r}); restore it from a backup") from error


class BankStorage:
    """The files of one bank, shared between processes.

    Parameters
    ----------
    directory : Path
        That of an existing bank.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._manifest = read(directory)
        self._store = open_store(directory / self._manifest.store)

    @classmethod
    def make(cls, directory: Path, facts: Mapping[str, Any]) -> "BankStorage":
        """Make an empty bank, unless there is one; `facts` are those of `BankManifest`, without the store."""
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / _LOCK):
            if not (directory / FILENAME).exists():
                manifest = BankManifest(**facts, store=_fresh())
                create_store(directory / manifest.store, schema(manifest.dim))
                manifest.write(directory)
        return cls(directory)

    @property
    def manifest(self) -> BankManifest:
        """As it was when it was last looked at."""
        return self._manifest

    def require(self, fingerprint: Fingerprint) -> None:
        """Refuse vectors that other models made.

        Raises
        ------
        FingerprintMismatchError
        """
        if fingerprint != self._manifest.fingerprint:
            different = "; ".join(self._manifest.fingerprint.differences(fingerprint))
            raise FingerprintMismatchError(
                f"the bank at {self.directory} holds faces of {self._manifest.recognizer} found by "
                f"{self._manifest.detector}; other vectors cannot be compared with them ({different}). "
                "Enroll the photographs into another bank"
            )

    @contextmanager
    def writing(self) -> Iterator[VectorStore]:
        """Keep other writers out, and yield the table as it is now."""
        with FileLock(self.directory / _LOCK):
            yield self.store()
            self._sweep()

    def store(self) -> VectorStore:
        """Return the table as it is now; another process may have replaced it."""
        manifest = read(self.directory)
        if manifest.store != self._manifest.store:
            self._manifest, self._store = manifest, open_store(self.directory / manifest.store)
        return self._store

    def table(self, *columns: str) -> pa.Table:
        """Return columns of all rows, oldest first; all columns if none is named."""
        store = self.store()
        wanted = list(columns) or store.schema.names
        # Between looking and reading, another process may have removed what was found.
        batches = list(store.scan([*wanted, *({"enrolled_at"} - set(wanted))]))
        types = store.schema
        if not batches:
            return pa.schema([types.field(name) for name in wanted]).empty_table()
        return pa.Table.from_batches(batches).sort_by("enrolled_at").select(wanted)

    def rewrite(self, table: pa.Table) -> None:
        """Put another table in place of the present one, of which nothing remains.

        The caller holds `writing`. A crash leaves the old table or the new one, and what is left of the other
        is removed by the next writer.
        """
        fresh = _fresh()
        store = create_store(self.directory / fresh, schema(self._manifest.dim))
        if table.num_rows:
            store.append(table)
        self._manifest = replace(self._manifest, store=fresh)
        self._manifest.write(self.directory)
        self._store = store
        self._sweep()

    def _sweep(self) -> None:
        """Remove every table that is not the bank's."""
        for entry in self.directory.iterdir():
            if entry.name.startswith(_STORE) and entry.name != self._manifest.store:
                shutil.rmtree(entry)

    def without_faces(self) -> set[str]:
        """Return the contents of images that were looked at and hold no face."""
        try:
            return set((self.directory / _WITHOUT_FACES).read_text(encoding="ascii").split())
        except FileNotFoundError:
            return set()

    def note_without_faces(self, images: set[str]) -> None:
        """Remember images that hold no face."""
        if images:
            with open(self.directory / _WITHOUT_FACES, "a", encoding="ascii") as file:
                file.write("".join(f"{image}\n" for image in sorted(images)))

    def destroy(self) -> None:
        """Remove the whole bank."""
        with FileLock(self.directory / _LOCK):
            # First what makes it a bank: a crash leaves something that nobody can open.
            (self.directory / FILENAME).unlink(missing_ok=True)
            (self.directory / _WITHOUT_FACES).unlink(missing_ok=True)
            for entry in self.directory.iterdir():
                if entry.name.startswith(_STORE):
                    shutil.rmtree(entry)


def _fresh() -> str:
    return f"{_STORE}{secrets.token_hex(4)}"
