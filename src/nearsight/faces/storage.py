"""The bank's directory: one manifest, one table, and no trace of deleted rows.

A column store keeps deleted rows in its files for a while, and old versions of the table for longer. Faces
are personal data, so rows are never deleted or renamed in place. The remaining rows are written to a new
table, the manifest is changed to name it, and the files of the old table are removed.
"""

import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from nearsight.artifacts import DirectoryState, directory_state, read_manifest, write_manifest
from nearsight.errors import CollectionNotFoundError, FingerprintMismatchError, NotACollectionError
from nearsight.faces import decisions, suggestions
from nearsight.faces.schema import schema
from nearsight.models import Fingerprint
from nearsight.store import VectorStore, create_store, is_unfinished_store, open_store

FORMAT = 1
FILENAME = "faces.json"
_LOCK = "write.lock"
_STORE = "faces-"
_WITHOUT_FACES = "without-faces.txt"
_LEFTOVERS = (_WITHOUT_FACES, decisions.FILENAME, suggestions.FILENAME)


@dataclass(frozen=True, slots=True)
class BankManifest:
    """The content of `faces.json`.

    Attributes
    ----------
    detector, recognizer : str
        Names of the models.
    licenses : tuple of str
        Licenses of the detector and the recognizer.
    dim : int
        Length of the vectors.
    fingerprint : Fingerprint
        That of the vectors.
    store : str
        Name of the directory that holds the table.
    """

    detector: str
    recognizer: str
    licenses: tuple[str, ...]
    dim: int
    fingerprint: Fingerprint
    store: str

    def write(self, directory: Path) -> None:
        """Write atomically."""
        facts = {
            "detector": self.detector,
            "recogniser": self.recognizer,
            "licences": list(self.licenses),
            "dim": self.dim,
            "fingerprint": self.fingerprint.to_dict(),
            "store": self.store,
        }
        write_manifest(directory / FILENAME, FORMAT, facts)

    @classmethod
    def read(cls, directory: Path) -> "BankManifest":
        """Read the manifest of a bank.

        Raises
        ------
        CollectionNotFoundError
            There is no bank.
        NotACollectionError, NewerFormatError
            The manifest is damaged, or a newer nearsight wrote it.
        """
        try:
            with read_manifest(directory / FILENAME, FORMAT) as facts:
                return cls(
                    facts["detector"],
                    facts["recogniser"],
                    tuple(facts["licences"]),
                    int(facts["dim"]),
                    Fingerprint.from_dict(facts["fingerprint"]),
                    facts["store"],
                )
        except (FileNotFoundError, NotADirectoryError):
            raise CollectionNotFoundError(
                f"there is no face bank at {directory}; make one with: nearsight faces enroll DIR, with a"
                " folder of photographs for each person"
            ) from None


class BankStorage:
    """The files of one bank, shared between processes.

    Parameters
    ----------
    directory : Path
        Directory of an existing bank.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._manifest = BankManifest.read(directory)
        self._store = open_store(directory / self._manifest.store)

    @classmethod
    def create(cls, directory: Path, facts: Mapping[str, Any]) -> "BankStorage":
        """Create an empty bank, unless one exists; `facts` are those of `BankManifest` without `store`.

        Raises
        ------
        NotACollectionError
            The directory holds something else.
        """
        if directory_state(directory, FILENAME, _is_leftover) is DirectoryState.FOREIGN:
            raise NotACollectionError(
                f"{directory} is not empty and not a face bank (it has no {FILENAME}); choose an empty or new"
                " directory"
            )
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(directory / _LOCK):
            if not (directory / FILENAME).exists():
                manifest = BankManifest(**facts, store=_new_store_name())
                create_store(directory / manifest.store, schema(manifest.dim))
                manifest.write(directory)
        return cls(directory)

    @property
    def manifest(self) -> BankManifest:
        """The manifest, as it was last read."""
        return self._manifest

    def require(self, fingerprint: Fingerprint) -> None:
        """Check that vectors are comparable with those of the bank.

        Raises
        ------
        FingerprintMismatchError
            Other models or rules made them: upgrade the bank, or enroll the photographs in another one.
        """
        if fingerprint != self._manifest.fingerprint:
            different = "; ".join(self._manifest.fingerprint.differences(fingerprint))
            raise FingerprintMismatchError(
                f"the bank at {self.directory} holds faces of {self._manifest.recognizer} found by "
                f"{self._manifest.detector}; other vectors cannot be compared with them ({different}). "
                f"Compute its faces again with: nearsight faces upgrade --bank "
                f"{shlex.quote(str(self.directory))}; or enroll the photographs in another bank"
            )

    @contextmanager
    def writing(self) -> Iterator[VectorStore]:
        """Lock out other writers, and yield the current table."""
        with FileLock(self.directory / _LOCK):
            yield self.store()
            self._remove_old_stores()

    def store(self) -> VectorStore:
        """Return the table as it is now; another process may have replaced it."""
        manifest = BankManifest.read(self.directory)
        if manifest.store != self._manifest.store:
            self._manifest, self._store = manifest, open_store(self.directory / manifest.store)
        return self._store

    def table(self, *columns: str, ids: Sequence[str] | None = None) -> pa.Table:
        """Return columns of all rows, or of those of some ids, oldest first; all columns by default.

        Columns that a bank of an earlier version does not have are left out.
        """
        store = self.store()
        names = [name for name in columns if name in store.schema.names] or store.schema.names
        # Read at once, because another process may replace the table meanwhile.
        batches = list(store.scan([*names, *({"enrolled_at"} - set(names))], ids=ids))
        types = store.schema
        if not batches:
            return pa.schema([types.field(name) for name in names]).empty_table()
        return pa.Table.from_batches(batches).sort_by("enrolled_at").select(names)

    def replace_table(self, table: pa.Table, *, fingerprint: Fingerprint | None = None) -> None:
        """Replace the table, and its fingerprint if one is given; remove all files of the old one.

        The caller holds `writing`. A crash leaves the old table or the new one; the next writer removes the
        files of the other.
        """
        store_name = _new_store_name()
        store = create_store(self.directory / store_name, table.schema)
        if table.num_rows:
            store.append(table)
        self._manifest = replace(
            self._manifest, store=store_name, fingerprint=fingerprint or self._manifest.fingerprint
        )
        self._manifest.write(self.directory)
        self._store = store
        self._remove_old_stores()

    def _remove_old_stores(self) -> None:
        """Remove every table that the manifest does not name."""
        for entry in self.directory.iterdir():
            if entry.name.startswith(_STORE) and entry.name != self._manifest.store:
                shutil.rmtree(entry)

    def without_faces(self) -> set[str]:
        """Return the ids of images that were read and have no face, or none that is still in the bank."""
        try:
            return set((self.directory / _WITHOUT_FACES).read_text(encoding="ascii").split())
        except FileNotFoundError:
            return set()

    def add_without_faces(self, images: set[str]) -> None:
        """Record images that have no face, or none that is still in the bank."""
        if images:
            with open(self.directory / _WITHOUT_FACES, "a", encoding="ascii") as file:
                file.write("".join(f"{image}\n" for image in sorted(images)))

    def destroy(self) -> None:
        """Remove the whole bank."""
        with FileLock(self.directory / _LOCK):
            # The manifest first: after a crash nobody can open what remains.
            for name in (FILENAME, *_LEFTOVERS):
                (self.directory / name).unlink(missing_ok=True)
            for entry in self.directory.iterdir():
                if entry.name.startswith(_STORE):
                    shutil.rmtree(entry)


def _is_leftover(entry: Path) -> bool:
    """Whether a creation or a removal of the bank that was interrupted can have left this entry."""
    if entry.name.startswith(_STORE):
        return is_unfinished_store(entry, with_rows=True)
    return entry.name in (_LOCK, *_LEFTOVERS)


def _new_store_name() -> str:
    return f"{_STORE}{secrets.token_hex(4)}"
