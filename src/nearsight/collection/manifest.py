"""The file that makes a directory a collection, and says whose vectors it holds."""

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nearsight._version import __version__
from nearsight.artifacts import replacing
from nearsight.errors import (
    CollectionNotFoundError,
    FingerprintMismatchError,
    NewerFormatError,
    NotACollectionError,
)
from nearsight.models import Fingerprint, ModelSpec

# Grows when an older nearsight could no longer read what is written.
FORMAT = 1
FILENAME = "collection.json"
STORE = "store"
LOCK = "write.lock"
# Of a collection of shorter vectors, and the name of its model in the manifest: it lies wherever they lie.
PROJECTION = "projection.npz"
# Where the command line keeps the bank of faces; it may be there first.
FACES = "faces"
OWN_PROJECTION = "pca:the collection's own"
# While a collection of shorter vectors is made: a collection of them in full, and who is at it.
FULL = "full"
BUILD_LOCK = "build.lock"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `collection.json` holds.

    Attributes
    ----------
    spec : ModelSpec
        The model whose vectors these are.
    fingerprint : Fingerprint
        As it was when the collection was made.
    created : datetime
        UTC.
    written_by : str
        Version of nearsight that made it. It is told, not compared: a new version that
        gives the same vectors may go on writing.
    storage : str
        What a number of a vector is kept as. Vectors in float16 have a cosine of .9999999 to those in
        float32, so that it is no part of the fingerprint.
    """

    spec: ModelSpec
    fingerprint: Fingerprint
    created: datetime
    written_by: str
    storage: str = "float32"

    @classmethod
    def of(cls, spec: ModelSpec, storage: str = "float32") -> "Manifest":
        """Return the manifest of a new collection."""
        return cls(spec, spec.fingerprint, datetime.now(timezone.utc), __version__, storage)

    def write(self, directory: Path) -> None:
        """Write atomically: after a crash there is a whole manifest or none."""
        text = json.dumps(
            {
                "format": FORMAT,
                "nearsight": self.written_by,
                "created": self.created.isoformat(),
                "storage": self.storage,
                "model": self.spec.to_dict(),
                "fingerprint": self.fingerprint.to_dict(),
            },
            indent=2,
        )
        with replacing(directory / FILENAME) as file:
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def read(directory: Path) -> Manifest:
    """Read a collection's manifest.

    Raises
    ------
    CollectionNotFoundError
        There is nothing at `directory`.
    NotACollectionError
        There is something else, or the manifest is damaged.
    NewerFormatError
        A newer nearsight wrote it.
    """
    path = directory / FILENAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _absent(directory) from None
    except NotADirectoryError:
        raise NotACollectionError(
            f"{directory} is a file; a collection is a directory: choose another with -c DIR"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotACollectionError(
            f"{path} is damaged ({error}); restore that file from a backup, or index into another directory"
        ) from error
    return _parse(data, path)


def _parse(data: Any, path: Path) -> Manifest:
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise NotACollectionError(
            f"{path} was not written by nearsight; choose another directory with -c DIR"
        )
    if data["format"] > FORMAT:
        raise NewerFormatError(
            f"{path.parent} has collection format {data['format']}, written by nearsight"
            f" {data.get('nearsight', '?')}; this is nearsight {__version__}, which reads up to"
            f" format {FORMAT}: pip install --upgrade nearsight"
        )
    try:
        return Manifest(
            ModelSpec.from_dict(data["model"]),
            Fingerprint.from_dict(data["fingerprint"]),
            datetime.fromisoformat(data["created"]),
            data["nearsight"],
            # Collections older than the choice have the one there was.
            data.get("storage", "float32"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NotACollectionError(
            f"{path} is damaged ({error!r}); restore that file from a backup, or index into another directory"
        ) from error


def interrupted(directory: Path) -> NotACollectionError:
    """Return the error that a collection of shorter vectors was never finished."""
    return NotACollectionError(
        f"{directory} was to become a collection of shorter vectors, and that was interrupted or lacks"
        " images; nothing is lost: the same nearsight index PATH --dim D goes on from there"
    )


def _absent(directory: Path) -> CollectionNotFoundError | NotACollectionError:
    if (directory / FULL).is_dir():
        return interrupted(directory)
    if directory.is_dir() and any(entry.name != FACES for entry in directory.iterdir()):
        return NotACollectionError(
            f"{directory} exists and is not a nearsight collection (it has no {FILENAME});"
            " choose another directory with -c DIR"
        )
    return CollectionNotFoundError(
        f"there is no collection at {directory}; make one with: nearsight index PATH -c {directory}"
    )


def is_free(directory: Path) -> bool:
    """Whether a collection may be made there: nothing is there, a bank of faces, or what a crash left."""
    leftovers = {STORE, LOCK, PROJECTION, FULL, BUILD_LOCK, FACES}
    return all(
        entry.name in leftovers or entry.name.startswith((f".{FILENAME}.", f".{PROJECTION}."))
        for entry in directory.iterdir()
    )


def model_name(directory: Path, id: str) -> str:
    """Return the name that loads a collection's model: the id, or the place of the collection's projection.

    Raises
    ------
    FingerprintMismatchError
        The file of the projection is gone.
    """
    if id != OWN_PROJECTION:
        return id
    path = directory / PROJECTION
    if not path.is_file():
        raise FingerprintMismatchError(
            f"{path} is gone, without which no image can be compared with those of {directory}; restore it"
            " from a backup, or make the collection again with nearsight reduce-dim"
        )
    return f"pca:{path}"
