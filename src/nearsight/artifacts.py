"""Files that appear whole or not at all: vectors and fitted estimators as `.npz`, manifests as JSON."""

import enum
import errno
import json
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from nearsight._version import __version__
from nearsight.errors import NearsightError, NewerFormatError, NotACollectionError, StorageError


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that becomes `path` at the end of the block, whole, or never.

    Raises
    ------
    OSError
        The directory is missing, read-only or full; the old file, if any, is untouched.
    """
    # Not tempfile: its files are closed to others, and a result deserves the mode of any new file.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def exported(path: Path) -> Iterator[IO[bytes]]:
    """Like `replacing`, but raise `StorageError` with a remedy if the disk refuses."""
    try:
        with replacing(path) as file:
            yield file
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}; {remedy(error)}"
        ) from error


def remedy(error: OSError) -> str:
    """Return what the user can do about an error while writing."""
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "choose a directory that you may write to"
    return "free some space or choose another directory"


def write_npz(
    path: Path,
    dim: int,
    chunks: Iterable[tuple[Sequence[str], Sequence[str], Any]],
    facts: Mapping[str, str] | None = None,
) -> int:
    """Write ``vectors``, ``ids`` and ``paths`` from a stream, in memory that does not grow with the vectors.

    Parameters
    ----------
    path : Path
        Ends in ``.npz``. An older file of that name is replaced at the very end.
    dim : int
        Length of each vector.
    chunks : iterable of (ids, paths, vectors)
        Vectors of shape (n, dim), and the ids and paths of their images.
    facts : mapping of str to str, optional
        Further arrays of one text each.

    Returns
    -------
    int
        Rows written. ``vectors`` is float32; the texts load without pickle.

    Raises
    ------
    StorageError
        The disk is full or cannot be written to; nothing is left behind.
    """
    ids: list[str] = []
    paths: list[str] = []
    # The number of vectors stands at the beginning of their file, and is known only at the end.
    with exported(path) as file, tempfile.TemporaryFile(dir=path.parent) as raw:
        for chunk_ids, chunk_paths, vectors in chunks:
            ids += chunk_ids
            paths += chunk_paths
            raw.write(vectors.astype("<f4", copy=False).tobytes())
        raw.seek(0)
        _write_archive(file, raw, (len(ids), dim), {"ids": ids, "paths": paths, **(facts or {})})
    return len(ids)


def _write_archive(file: IO[bytes], raw: IO[bytes], shape: tuple[int, int], texts: Mapping[str, Any]) -> None:
    import numpy as np
    from numpy.lib import format as npy

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("vectors.npy", "w", force_zip64=True) as entry:
            npy.write_array_header_1_0(entry, {"descr": "<f4", "fortran_order": False, "shape": shape})
            shutil.copyfileobj(raw, entry, 1024 * 1024)
        for name, values in texts.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                npy.write_array(entry, np.array(values, dtype=str), allow_pickle=False)


def write_artifact(
    path: Path,
    kind: str,
    version: int,
    facts: Mapping[str, Any],
    arrays: Mapping[str, Any],
    *,
    compressed: bool = False,
) -> None:
    """Write a fitted estimator, whole or not at all, as an `.npz` of arrays and JSON: no pickle.

    Parameters
    ----------
    path : Path
        Usually ends in ``.npz``.
    kind : str
        Such as "clustering"; `read_artifact` refuses other kinds.
    version : int
        Of the file's format.
    facts : mapping
        Plain data.
    arrays : mapping of str to ndarray
        No name is "about".
    compressed : bool, default False

    Raises
    ------
    StorageError
        The disk refuses.
    """
    import numpy as np

    about = json.dumps({**facts, "kind": f"nearsight {kind}", "format": version})
    write = np.savez_compressed if compressed else np.savez
    with exported(path) as file:
        write(file, allow_pickle=False, about=np.array(about), **arrays)


@contextmanager
def read_artifact(
    path: Path,
    kind: str,
    version: int,
    *,
    error: type[NearsightError],
    remedy: str,
    former_kind: str | None = None,
    only: Collection[str] | None = None,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Give the facts and arrays that `write_artifact` wrote to the block, which makes of them what they were.

    Zip's own checksums tell a damaged file; whatever the block finds missing or misshapen counts as damage.

    Parameters
    ----------
    path, kind, version
        See `write_artifact`.
    error : type of NearsightError
        Raised for a file that is missing, damaged, or something else.
    remedy : str
        How to get one, for the end of its message.
    former_kind : str, optional
        The kind that earlier versions wrote.
    only : collection of str, optional
        The arrays to read, if not all: without any, the facts of a large file come at once.

    Raises
    ------
    NewerFormatError
        A newer nearsight wrote it.
    """
    import numpy as np

    try:
        # Opened here: of a torn archive, numpy would leave the file open.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            facts = json.loads(str(archive["about"]))
            if facts["kind"] not in (f"nearsight {kind}", f"nearsight {former_kind}"):
                raise ValueError(f"it is a {facts['kind']}")
            if facts["format"] > version:
                raise NewerFormatError(
                    f"{path} is of format {facts['format']}, and this version reads {version}:"
                    " pip install --upgrade nearsight"
                )
            names = (name for name in archive.files if name != "about")
            arrays = {name: archive[name] for name in names if only is None or name in only}
        yield facts, arrays
    except FileNotFoundError:
        raise error(f"there is no {kind} at {path}; {remedy}") from None
    # A file that is right can still be refused, such as for its fingerprint.
    except NearsightError:
        raise
    # A damaged archive can raise nearly anything.
    except Exception as damage:
        # numpy takes whatever it does not know for a pickle, and says how to run it.
        reason = "it is not an npz file" if "pickle" in str(damage) else f"{type(damage).__name__}: {damage}"
        raise error(f"{path} holds no sound {kind} ({reason}); {remedy}") from damage


def write_manifest(path: Path, version: int, facts: Mapping[str, Any]) -> None:
    """Write a manifest, the JSON file that makes a directory ours: after a crash it is whole or absent.

    Parameters
    ----------
    path : Path
    version : int
        Of the format; it grows when an older nearsight could no longer read what is written.
    facts : mapping
        Plain data. "nearsight" is this version unless it is given.
    """
    with replacing(path) as file:
        file.write(manifest_bytes(version, facts))
        file.flush()
        os.fsync(file.fileno())


def manifest_bytes(version: int, facts: Mapping[str, Any]) -> bytes:
    """Return the contents of a manifest; see `write_manifest`."""
    return json.dumps({"format": version, "nearsight": __version__, **facts}, indent=2).encode() + b"\n"


@contextmanager
def read_manifest(path: Path, version: int) -> Iterator[dict[str, Any]]:
    """Give what `write_manifest` wrote to the block; whatever the block finds missing counts as damage.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is no such file.
    NotACollectionError
        It is damaged, or something else.
    NewerFormatError
        A newer nearsight wrote it.
    """
    with manifest_facts(path.read_bytes(), str(path.parent), path.name, version) as facts:
        yield facts


@contextmanager
def manifest_facts(content: bytes, place: str, name: str, version: int) -> Iterator[dict[str, Any]]:
    """Give the facts of a manifest that was read to the block; see `read_manifest`."""
    path = os.path.join(place, name) if "://" not in place else f"{name} of {place}"  # noqa: PTH118 - a text, not a Path
    try:
        facts = json.loads(content.decode())
    except ValueError as error:
        raise _damaged_manifest(path, str(error)) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("format"), int):
        raise NotACollectionError(
            f"{path} was not written by nearsight; choose another directory with -c DIR"
        )
    if facts["format"] > version:
        raise NewerFormatError(
            f"{place} has format {facts['format']}, written by nearsight {facts.get('nearsight', '?')};"
            f" this is nearsight {__version__}, which reads up to format {version}:"
            " pip install --upgrade nearsight"
        )
    try:
        yield facts
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, NearsightError):
            raise
        raise _damaged_manifest(path, repr(error)) from error


class DirectoryState(enum.Enum):
    """What a directory is to the program that wants to keep its files there."""

    #: There is nothing at that path.
    MISSING = "missing"
    #: It is empty.
    FREE = "free"
    #: It holds only what an interrupted creation left; the same command goes on there.
    RECOVERABLE = "recoverable"
    #: It has its manifest.
    COMPLETE = "complete"
    #: It is a file, or holds something else, which must not be touched.
    FOREIGN = "foreign"


def directory_state(directory: Path, manifest: str, is_leftover: Callable[[Path], bool]) -> DirectoryState:
    """Return what a directory is: the one rule of what may be created there.

    Parameters
    ----------
    directory : Path
    manifest : str
        Name of the file that makes the directory ours; it is written last.
    is_leftover : callable
        Whether an interrupted creation can have left this entry of the directory.
    """
    try:
        entries = list(directory.iterdir())
    except FileNotFoundError:
        # A dangling link is in the way, although it leads nowhere.
        return DirectoryState.FOREIGN if directory.is_symlink() else DirectoryState.MISSING
    except NotADirectoryError:
        return DirectoryState.FOREIGN
    if any(entry.name == manifest for entry in entries):
        return DirectoryState.COMPLETE
    if not entries:
        return DirectoryState.FREE
    if all(is_temporary(entry, manifest) or is_leftover(entry) for entry in entries):
        return DirectoryState.RECOVERABLE
    return DirectoryState.FOREIGN


def is_temporary(path: Path, name: str) -> bool:
    """Whether an interrupted `replacing` of a file of that name left this path."""
    prefix, _, token = path.name.rpartition(".")
    return prefix == f".{name[:40]}" and len(token) == 8 and set(token) <= set("0123456789abcdef")


def _damaged_manifest(path: str, reason: str) -> NotACollectionError:
    return NotACollectionError(
        f"{path} is damaged ({reason}); restore that file from a backup, or use another directory"
    )
