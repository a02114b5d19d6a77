"""A trash for files of a collection: nothing is deleted, and everything can be put back."""

# Paths stay strings: names that are not UTF-8 survive.
# ruff: noqa: PTH104, PTH108, PTH114, PTH116

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from nearsight.artifacts import exported
from nearsight.collection import Collection
from nearsight.collection.schema import ESTIMATED_KEY, metadata_columns, metadata_of
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, NearsightError, StorageError
from nearsight.images import content_id, decode_path, encode_path
from nearsight.images.limits import stamp_of

_log = logging.getLogger("nearsight.trash")

#: In the collection's directory; in a root, where that lies on another file system. No index looks into it.
FOLDER = ".nearsight-trash"
_ENTRY, _ROWS, _LOCK = "entry.json", "rows.arrow", "trash.lock"
_MOVING, _TRASHED, _RESTORING = "moving", "trashed", "restoring"


@dataclass(frozen=True, slots=True)
class TrashedFile:
    """A file in the trash.

    Attributes
    ----------
    id : str
        Its image.
    path : str
        Where it came from.
    place : str
        Where it is now.
    """

    id: str
    path: str
    place: str


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file that stays where it is, and why."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """What was put into the trash at once, and is put back at once.

    Attributes
    ----------
    id : str
    when : str
        ISO 8601, UTC.
    ids : list of str
        Images that lost files; those that lost all of them have left the collection.
    files : list of TrashedFile
    state : {"moving", "trashed", "restoring"}
        "trashed", except while a process works on it, or after it was killed.
    """

    id: str
    when: str
    ids: list[str]
    files: list[TrashedFile]
    state: str = _TRASHED


@dataclass(frozen=True, slots=True)
class TrashReport:
    """What became of a request. `entry` is None if every file was refused."""

    entry: TrashEntry | None
    refused: list[RefusedFile] = field(default_factory=list)


class Trash:
    """The trash of a collection.

    Files are moved by renaming, so that no byte is copied: into the collection's directory, or, if that lies
    on another file system, into a folder of the root that the file lies in. Whole rows are stored beside
    them. A journal is on disk before the first file moves. `recover` undoes what a crash interrupted.

    Parameters
    ----------
    collection : Collection
    roots : iterable of path
        Only files below one of these directories are moved, and only to there are they put back.
    shared : iterable of path
        Files below these stay, since other collections show them, too.
    """

    def __init__(
        self, collection: Collection, roots: Iterable[str | Path], *, shared: Iterable[str | Path] = ()
    ) -> None:
        self._collection = collection
        self._roots = [Path(root).resolve() for root in roots]
        self._shared = [Path(folder).resolve() for folder in shared]
        self._folder = collection.directory.absolute() / FOLDER

    def put(self, paths: Mapping[str, Sequence[str] | None]) -> TrashReport:
        """Move files of images into the trash.

        An image loses all the files asked for, or none. If it keeps no file, its row leaves the collection.

        Parameters
        ----------
        paths : mapping of str to sequence of str or None
            By whole id: the files as `Item.paths` names them, or None for all.

        Raises
        ------
        StorageError
            A directory cannot be written to; then everything is as before.
        """
        self._require_writable()
        with self._lock:
            self._recover()
            rows = self._collection.rows(list(paths))
            moves, refused = self._plan(rows, paths)
            if not moves:
                return TrashReport(None, refused)
            entry = self._new_entry(moves)
            folder = self._folder / entry.id
            try:
                folder.mkdir(parents=True)
                _write_rows(folder / _ROWS, rows.filter(pc.is_in(rows["id"], pa.array(entry.ids))))
                self._note(entry, _MOVING)
                for file in entry.files:
                    Path(file.place).parent.mkdir(parents=True, exist_ok=True)
                    os.rename(file.path, file.place)
                self._collection.remove_files({id: [key for key, _ in moves[id]] for id in moves})
                self._note(entry, _TRASHED)
            except Exception as error:
                self._give_up(entry)
                if not isinstance(error, OSError) or isinstance(error, StorageError):
                    raise
                raise StorageError(
                    f"the files could not be moved into the trash ({error.strerror or error}), and are where"
                    " they were; check that their folders may be written to"
                ) from error
        return TrashReport(entry, refused)

    def entries(self) -> list[TrashEntry]:
        """Return what is in the trash, the latest first."""
        found = map(self._read, list(self._folders()))
        return sorted((each for each in found if each is not None), key=lambda each: each.when, reverse=True)

    def restore(self, id: str) -> TrashEntry:
        """Put files back where they were, and their rows into the collection.

        Raises
        ------
        InvalidParameterError
            There is no such entry, or another file is where one of its files was.
        StorageError
            A directory cannot be written to; the files stay in the trash.
        """
        self._require_writable()
        with self._lock:
            self._recover()
            entry = next((each for each in self.entries() if each.id == id), None)
            if entry is None:
                raise InvalidParameterError(
                    f"there is no {id!r} in the trash; it may have been put back already"
                )
            if not entry.when:
                raise StorageError(f"the journal of {id!r} is damaged; its files are in {self._folder / id}")
            if taken := [file.path for file in entry.files if os.path.lexists(file.path)]:
                raise InvalidParameterError(
                    f"another file named {Path(taken[0]).name} is there now; move it away first"
                )
            self._note(entry, _RESTORING)
            self._put_back(entry)
        return entry

    def thumbnail(self, id: str) -> bytes | None:
        """Return the thumbnail of an image in the trash, a JPEG; None if it is not there, or has none."""
        for entry in self.entries():
            # It may be put back meanwhile.
            with contextlib.suppress(OSError):
                if id in entry.ids:
                    # Not read as a whole: there may be thousands of images.
                    with pa.memory_map(str(self._folder / entry.id / _ROWS)) as file:
                        rows = pa.ipc.open_file(file).read_all().select(["id", "thumbnail"])
                        found: list[bytes | None] = rows.filter(pc.equal(rows["id"], id))[
                            "thumbnail"
                        ].to_pylist()
                    return next(iter(found), None)
        return None

    def recover(self) -> None:
        """Undo what a crash interrupted. It is quick if there is nothing, and leaves alone what runs."""
        if not any(self._folders()) or not os.access(self._folder, os.W_OK):
            return
        with contextlib.suppress(TimeoutError), self._lock.acquire(timeout=0):
            self._recover()

    def _recover(self) -> None:
        for folder in list(self._folders()):
            entry = self._read(folder)
            if entry is None:
                _remove_folder(folder)  # the crash came before the first move
            elif entry.state != _TRASHED:
                try:
                    self._put_back(entry)
                except NearsightError as error:
                    # What is in the way is somebody's file. The entry stays, and can be put back later.
                    _log.warning("the trash cannot put back %s: %s", entry.id, error)

    def _give_up(self, entry: TrashEntry) -> None:
        folder = self._folder / entry.id
        if (folder / _ENTRY).exists():
            self._put_back(entry)
        else:
            _remove_folder(folder)

    def _plan(
        self, rows: pa.Table, paths: Mapping[str, Sequence[str] | None]
    ) -> tuple[dict[str, list[tuple[str, str]]], list[RefusedFile]]:
        """Return the key and the path of the files to move by image, and what is refused."""
        moves: dict[str, list[tuple[str, str]]] = {}
        refused: list[RefusedFile] = []
        columns = ["id", "paths", "keys", "stamps", "size_bytes"]
        for row in rows.select(columns).to_pylist():
            wanted = paths[row["id"]]
            files = [
                (key, decode_path(key), stamp)
                for path, key, stamp in zip(row["paths"], row["keys"], row["stamps"], strict=True)
                if wanted is None or decode_path(path) in wanted
            ]
            reasons = [
                RefusedFile(row["id"], path, reason)
                for _, path, stamp in files
                if (reason := self._reason_to_refuse(row["id"], path, row["size_bytes"], stamp))
            ]
            refused += reasons
            if not reasons and (files or wanted is None):
                moves[row["id"]] = [(key, path) for key, path, _ in files]
        return moves, refused

    def _reason_to_refuse(self, id: str, path: str, size_bytes: int, stamp: int) -> str:
        """Return why a file must not be moved; empty if it may, or if it is gone already."""
        if "://" in path:
            return "it lies in a shard or at a URL"
        if self._root_of(path) is None:
            return "it lies in no folder that the service may change (nearsight serve --root ALIAS=DIR)"
        folder = Path(path).parent.resolve()
        if any(folder.is_relative_to(shared) for shared in self._shared):
            return "a copy of this collection shows it, too"
        try:
            if os.path.islink(path):
                return "it is a link; the file that it leads to would stay"
            info = os.stat(path)
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            return f"it cannot be read ({error})"
        if not os.access(Path(path).parent, os.W_OK):
            return "its folder may not be written to"
        if (info.st_size, stamp_of(info.st_mtime_ns)) != (size_bytes, stamp):
            try:
                if content_id(Path(path).read_bytes()) != id:
                    return "it has changed since it was indexed"
            except OSError as error:
                return f"it cannot be read ({error.strerror})"
        return ""

    def _new_entry(self, moves: Mapping[str, Sequence[tuple[str, str]]]) -> TrashEntry:
        now = datetime.now(timezone.utc)
        id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
        self._folder.mkdir(exist_ok=True)
        device = self._folder.stat().st_dev
        files: list[TrashedFile] = []
        for image, pairs in moves.items():
            for _, path in pairs:
                if not os.path.lexists(path):
                    continue
                root = self._root_of(path)
                is_near = os.stat(Path(path).parent).st_dev == device
                folder = self._folder / id if is_near or root is None else root / FOLDER / id
                # A folder for each file: two may have the same name.
                files.append(TrashedFile(image, path, str(folder / str(len(files)) / Path(path).name)))
        return TrashEntry(id, now.isoformat(timespec="seconds"), list(moves), files, _MOVING)

    def _put_back(self, entry: TrashEntry) -> None:
        """Undo an entry, wherever it stopped; safe to repeat."""
        for file in entry.files:
            if not os.path.lexists(file.place) or self._root_of(file.path) is None:
                continue
            Path(file.path).parent.mkdir(parents=True, exist_ok=True)
            _move_to_free_place(file.place, file.path)
        rows = _read_rows(self._folder / entry.id / _ROWS)
        try:
            self._collection.restore_rows(rows)
        except FingerprintMismatchError:
            # The collection has another model since.
            self._add_again(entry, rows)
        left = [file.place for file in entry.files if os.path.lexists(file.place)]
        if left:
            raise StorageError(
                f"{left[0]} could not be put back, since another file is there; move that away"
            )
        _fsync(self._folder / entry.id)
        for file in entry.files:
            for folder in (Path(file.place).parent, Path(file.place).parent.parent):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        _remove_folder(self._folder / entry.id)

    def _add_again(self, entry: TrashEntry, rows: pa.Table) -> None:
        """Add files to the collection by its model now; an image that left it gets its metadata back."""
        there = {item.id for item in self._collection.items(ids=entry.ids)}
        columns = ["id", *metadata_columns(rows.schema)]
        stored = {row["id"]: metadata_of(row) for row in rows.select(columns).to_pylist()}
        metadata = {
            file.path: {key: value for key, value in stored[file.id].items() if key != ESTIMATED_KEY}
            for file in entry.files
            if file.id in stored and file.id not in there
        }
        files = [file.path for file in entry.files if os.path.lexists(file.path)]
        self._collection.add(files, metadata=lambda path: metadata.get(path, {}), progress=False)

    def _note(self, entry: TrashEntry, state: str) -> None:
        facts = asdict(entry) | {"format": 1, "state": state}
        for file in facts["files"]:
            file |= {"path": encode_path(file["path"]), "place": encode_path(file["place"])}
        folder = self._folder / entry.id
        with exported(folder / _ENTRY) as file:
            file.write(json.dumps(facts).encode())
            file.flush()
            os.fsync(file.fileno())
        _fsync(folder)

    def _read(self, folder: Path) -> TrashEntry | None:
        try:
            facts = json.loads((folder / _ENTRY).read_bytes())
            files = [
                TrashedFile(each["id"], decode_path(each["path"]), decode_path(each["place"]))
                for each in facts["files"]
            ]
            return TrashEntry(facts["id"], facts["when"], facts["ids"], files, facts["state"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("%s is damaged (%s); the files beside it are whole", folder / _ENTRY, error)
            return TrashEntry(folder.name, "", [], [])

    def _folders(self) -> Iterable[Path]:
        with contextlib.suppress(FileNotFoundError):
            yield from (each for each in self._folder.iterdir() if each.is_dir())

    def _root_of(self, path: str) -> Path | None:
        """Return the root that a file lies in, after links are followed; the file itself may be missing."""
        folder = Path(path).parent.resolve()
        return next((root for root in self._roots if folder.is_relative_to(root)), None)

    def _require_writable(self) -> None:
        if not os.access(self._collection.directory, os.W_OK):
            raise StorageError(
                f"{self._collection.directory} cannot be written to, so nothing can be put into its trash"
            )

    @property
    def _lock(self) -> FileLock:
        return FileLock(self._folder.with_name(_LOCK))


def _write_rows(path: Path, rows: pa.Table) -> None:
    with exported(path) as file:
        with pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
        file.flush()
        os.fsync(file.fileno())


def _read_rows(path: Path) -> pa.Table:
    with pa.ipc.open_file(path.read_bytes()) as reader:
        rows: pa.Table = reader.read_all()
    return rows


def _move_to_free_place(source: str, target: str) -> None:
    """Move a file without ever replacing another."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(os.lstat(source), os.lstat(target)):
            return
    except OSError:
        # A file system without hard links.
        if os.path.lexists(target):
            return
        os.rename(source, target)
        return
    os.unlink(source)


def _remove_folder(folder: Path) -> None:
    """Remove the folder of an entry that holds no file any more; a file of an image is never deleted."""
    (folder / _ENTRY).unlink(missing_ok=True)
    (folder / _ROWS).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _fsync(folder: Path) -> None:
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def certainly_redundant(collection: Collection, group: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the files that can go of a group of duplicates, by image.

    Parameters
    ----------
    group : mapping
        Of `documents.duplicates_document`.

    Raises
    ------
    InvalidParameterError
        The group is not certain, or the file to keep is gone or has changed.
    """
    if not group["certain"]:
        raise InvalidParameterError("this group needs a look first; name the images to put into the trash")
    redundant = set(group["redundant"])
    items = {item.id: item for item in collection.items(ids=group["ids"])}
    keep = items.get(group["keep"])
    kept = [] if keep is None else [path for path in keep.paths if path not in redundant]
    if not any(_holds(path, group["keep"]) for path in kept):
        raise InvalidParameterError(
            "the file to keep is gone or has changed since it was indexed; index its folder again"
        )
    paths = {id: [path for path in item.paths if path in redundant] for id, item in items.items()}
    return {id: each for id, each in paths.items() if each}


def _holds(path: str, id: str) -> bool:
    """Whether a file still has the content that was indexed; True for a URL, which nobody asks here."""
    if "://" in path:
        return True
    try:
        return content_id(Path(path).read_bytes()) == id
    except (OSError, ValueError):
        return False
