"""The file that makes a directory a collection, and says whose vectors it holds."""

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from nearsight._version import __version__
from nearsight.artifacts import (
    DirectoryState,
    directory_state,
    exported,
    is_temporary,
    manifest_bytes,
    manifest_facts,
)
from nearsight.errors import CollectionNotFoundError, FingerprintMismatchError, NotACollectionError
from nearsight.models import Fingerprint, ModelSpec
from nearsight.store import Location, is_directory, is_store, is_unfinished_store, locate

# Format 2 names the store of its rows; only collections that were upgraded to another model need it.
FORMAT = 2
FILENAME = "collection.json"
STORE = "store"
LOCK = "write.lock"
# What makes searches fast and can be built anew.
CACHE = "cache"
# In a collection of projected vectors; and the id of its model, which names no place so that it can be moved.
PROJECTION = "projection.npz"
OWN_PROJECTION = "pca:the collection's own"
# The command line keeps the bank of faces here; it may be there before the collection.
FACES = "faces"
# While a collection of projected vectors is built: one of whole vectors, and the lock of whoever builds.
FULL = "full"
BUILD_LOCK = "build.lock"
# While a collection is copied here: of what it is a copy.
COPY = "copy.json"


@dataclass(frozen=True, slots=True)
class CollectionManifest:
    """The contents of `collection.json`.

    Attributes
    ----------
    spec : ModelSpec
        The model whose vectors the collection holds.
    fingerprint : Fingerprint
        As it was when the collection was created.
    created : datetime
        UTC.
    written_by : str
        The version of nearsight that created it. It is shown, not compared: a new version that gives the same
        vectors may go on writing.
    storage : str
        The type of a stored number. It is not part of the fingerprint: a vector in float16 has a cosine of
        0.9999999 to the same in float32.
    store : str
        Name of the store of the rows. An upgrade writes another one beside it.
    """

    spec: ModelSpec
    fingerprint: Fingerprint
    created: datetime
    written_by: str
    storage: str = "float32"
    store: str = STORE

    @classmethod
    def of(cls, spec: ModelSpec, storage: str = "float32") -> "CollectionManifest":
        """Return the manifest of a new collection."""
        return cls(spec, spec.fingerprint, datetime.now(timezone.utc), __version__, storage)

    def has_rows_of(self, other: "CollectionManifest") -> bool:
        """Whether both name the same rows, of the same model; not so before and after an upgrade."""
        return (self.store, self.fingerprint) == (other.store, other.fingerprint)

    def write(self, place: Path | Location) -> None:
        """Write it atomically."""
        locate(place).write_document(FILENAME, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the contents of the file."""
        facts = {
            "nearsight": self.written_by,
            "created": self.created.isoformat(),
            "storage": self.storage,
            "model": self.spec.to_dict(),
            "fingerprint": self.fingerprint.to_dict(),
        }
        if self.store == STORE:
            return manifest_bytes(FORMAT - 1, facts)
        return manifest_bytes(FORMAT, {**facts, "store": self.store})

    @classmethod
    def read(cls, place: Path | Location) -> "CollectionManifest":
        """Read the manifest of a collection.

        Raises
        ------
        CollectionNotFoundError
            There is nothing at `place`.
        NotACollectionError
            There is something else, or the manifest is damaged.
        NewerFormatError
            A newer nearsight wrote it.
        """
        location = locate(place)
        content = location.read_document(FILENAME)
        if content is None:
            raise _not_found(location)
        with manifest_facts(content, location.uri, FILENAME, FORMAT) as facts:
            return cls(
                ModelSpec.from_dict(facts["model"]),
                Fingerprint.from_dict(facts["fingerprint"]),
                datetime.fromisoformat(facts["created"]),
                facts["nearsight"],
                # Older collections have no such key; their vectors are in float32.
                facts.get("storage", "float32"),
                facts.get("store", STORE),
            )


def state_of(directory: Path) -> DirectoryState:
    """Return what a directory is to a collection; every question of that kind is answered here.

    A bank of faces may be there before the collection, and counts as nothing.
    """
    return directory_state(directory, FILENAME, _is_leftover)


def _is_leftover(entry: Path) -> bool:
    if entry.name == STORE:
        # The creation deletes it: so it must be certain that it holds no rows, or none but copies.
        has_copies = any((entry.parent / name).exists() for name in (PROJECTION, FULL))
        return is_unfinished_store(entry, with_rows=has_copies)
    if entry.name == FULL:
        return state_of(entry) != DirectoryState.FOREIGN
    if entry.name == FACES:
        return entry.is_dir()
    return entry.name in (LOCK, BUILD_LOCK, PROJECTION) or is_temporary(entry, PROJECTION)


def require_free(directory: Path) -> None:
    """Refuse a directory in which no collection can be created.

    Raises
    ------
    NotACollectionError
        It is a file, a collection, an unfinished collection of projected vectors, or holds something else.
    """
    state = state_of(directory)
    if state is DirectoryState.COMPLETE:
        raise NotACollectionError(f"{directory} is a collection already; choose another directory")
    if state is DirectoryState.FOREIGN:
        raise _foreign(directory)


def interrupted(location: Location) -> NotACollectionError:
    """Return the error for a collection of projected vectors that was never finished."""
    return NotACollectionError(
        f"{location.uri} is an unfinished collection of projected vectors: indexing was interrupted, or there"
        " were too few images. Nothing is lost: the same nearsight index PATH, with --dim D or #centered as"
        " before, goes on from there"
    )


def unfinished_copy(location: Location) -> NotACollectionError:
    """Return the error for a copy of a collection that was interrupted."""
    return NotACollectionError(
        f"{location.uri} is an unfinished copy of a collection; the same nearsight copy SRC DST as before"
        " goes on, or delete it"
    )


def _not_found(location: Location) -> CollectionNotFoundError | NotACollectionError:
    if location.read_document(COPY) is not None:
        return unfinished_copy(location)
    directory = location.files
    if not is_directory(location):
        if (directory / FULL).is_dir():
            return interrupted(location)
        return _missing(location.uri)
    if state_of(directory) is DirectoryState.FOREIGN:
        return _foreign(directory)
    if (directory / FULL).is_dir():
        return interrupted(location)
    return _missing(str(directory))


def _missing(uri: str) -> CollectionNotFoundError:
    return CollectionNotFoundError(
        f"there is no collection at {uri}; create one with Collection.create({uri!r})", uri
    )


def _foreign(directory: Path) -> NotACollectionError:
    if not directory.is_dir():
        return NotACollectionError(
            f"{directory} is a file; a collection is a directory: choose another with -c DIR"
        )
    if is_store(directory / STORE):
        return NotACollectionError(
            f"{directory} holds the rows of a collection, but no {FILENAME}: restore that file from a backup,"
            " or delete the directory and index the images again"
        )
    return NotACollectionError(
        f"{directory} is not empty and not a nearsight collection (it has no {FILENAME});"
        " choose an empty or new directory with -c DIR"
    )


def model_name(location: Location, id: str) -> str:
    """Return the name that loads a collection's model: the id, or the place of the collection's projection.

    Raises
    ------
    FingerprintMismatchError
        The file of the projection is gone.
    """
    if id != OWN_PROJECTION:
        return id
    path = location.files / PROJECTION
    content = None if is_directory(location) else location.read_document(PROJECTION)
    if content is not None and not (path.is_file() and path.read_bytes() == content):
        # Of a collection elsewhere, each machine has a copy; this one is missing, or an older one.
        with exported(path) as file:
            file.write(content)
    if not path.is_file():
        raise FingerprintMismatchError(
            f"{path} is gone, without which no image can be compared with those of {location.uri}; restore it"
            " from a backup, or make the collection again with nearsight reduce-dim"
        )
    return f"pca:{path}"
