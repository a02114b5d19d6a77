"""Reads which files a version of a Lance table consists of.

LanceDB deletes old versions only together with a compaction that rewrites fragments without bound. So old
versions are deleted by `old_versions`, which must know the files of those that stay. A version is one
manifest: a protocol buffer whose layout Lance publishes (``protos/table.proto``). Whatever is not known for
certain is refused; then nothing is deleted.
"""

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nearsight.errors import StorageError
from nearsight.store.lance.protobuf import as_bytes, as_integer, as_text, fields, integers, message

_MAGIC = b"LANC"
_FOOTER = struct.Struct("<q4x4s")
_LENGTH = struct.Struct("<I")
# Deletion files, the format 2 of files, a table's configuration, and no transaction files: features that say
# nothing about further files. Others (row ids in files, several places, overlays) do.
_KNOWN_FEATURES = 0b101101
# The fields that were there when this was written; a new one may name files.
_MANIFEST_FIELDS = (frozenset(range(1, 22)) - {17, 18, 20}) | {23}
_FRAGMENT_FIELDS = frozenset({1, 2, 3, 4, 5, 7, 9})
_DATA_FILE_FIELDS = frozenset(range(1, 7))
_DELETION_FILE_FIELDS = frozenset(range(1, 5))
_INDEX_FIELDS = frozenset({*range(1, 9), 10, 11})
# `parent_id` of a column that is not part of another: -1.
_NO_PARENT = 2**64 - 1
_DELETION_ENDINGS = {0: "arrow", 1: "bin"}


class UnknownLayoutError(StorageError):
    """A manifest holds something that this module does not know."""


@dataclass(frozen=True, slots=True)
class FragmentFacts:
    """What a manifest says about a fragment.

    Attributes
    ----------
    number : int
        The upper 32 bits of the addresses of its rows.
    n_rows, n_deleted : int
        Rows as they were written, and those of them that are deleted.
    """

    number: int
    n_rows: int
    n_deleted: int


@dataclass(slots=True)
class VersionFacts:
    """What a version consists of.

    Attributes
    ----------
    version : int
    fragments : list of FragmentFacts
        In the order of a scan.
    files : set of str
        The files, relative to the table's directory.
    indices : set of str
        The directories of indexes, below ``_indices``.
    """

    version: int = 0
    fragments: list[FragmentFacts] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    indices: set[str] = field(default_factory=set)

    @property
    def n_rows(self) -> int:
        """The rows that are not deleted."""
        return sum(fragment.n_rows - fragment.n_deleted for fragment in self.fragments)


def read_manifest_file(path: Path) -> VersionFacts:
    """Read a file of ``_versions``.

    Raises
    ------
    UnknownLayoutError
        It is damaged, or of a layout that is not known for certain.
    """
    return read_manifest(path.read_bytes(), str(path))


def manifest_path(folder: Path, version: int) -> Path:
    """Return the file of a version in ``_versions``."""
    # Lance numbers the files downwards; at first, it did upwards.
    downwards, upwards = (folder / f"{number}.manifest" for number in (f"{2**64 - 1 - version:020}", version))
    return upwards if not downwards.exists() and upwards.exists() else downwards


def read_manifest(data: bytes, name: str) -> VersionFacts:
    """Read the contents of a file of ``_versions``; see `read_manifest_file`."""
    try:
        facts, index_position, transaction_position = _manifest(data)
        if transaction_position is not None:
            _require_transaction(_section(data, transaction_position), facts)
        if index_position is not None:
            _read_indices(_section(data, index_position), facts)
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise UnknownLayoutError(f"{name}: the layout of this version is not known: {error}") from error
    return facts


def read_places(path: Path) -> dict[int, dict[str, tuple[str, int]]]:
    """Return by fragment where its columns are: the name of a file in ``data``, and the number in it.

    Raises
    ------
    UnknownLayoutError
        See `read_manifest_file`.
    """
    names: dict[int, str] = {}
    fragments: dict[int, dict[int, tuple[str, int]]] = {}
    try:
        for number, value in _parts(path.read_bytes()):
            if number == 1:
                column = message(as_bytes(value))
                if column.get(4) == _NO_PARENT:
                    names[as_integer(column.get(3, 0))] = as_text(column[2])
            elif number == 2:
                own = list(fields(as_bytes(value), _FRAGMENT_FIELDS))
                [fragment] = [as_integer(part) for number, part in own if number == 1] or [0]
                files = [message(as_bytes(part), _DATA_FILE_FIELDS) for number, part in own if number == 2]
                fragments[fragment] = {
                    column_id: (as_text(file[1]), place)
                    for file in files
                    for column_id, place in zip(integers(file[2]), integers(file[3]), strict=True)
                }
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise UnknownLayoutError(f"{path}: the layout of this version is not known: {error}") from error
    return {
        fragment: {names[column_id]: place for column_id, place in columns.items() if column_id in names}
        for fragment, columns in fragments.items()
    }


def _section(data: bytes, position: int) -> memoryview:
    (length,) = _LENGTH.unpack_from(data, position)
    section = memoryview(data)[position + _LENGTH.size : position + _LENGTH.size + length]
    if len(section) != length:
        raise ValueError("it ends too early")
    return section


def _parts(data: bytes) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the fields of the manifest."""
    position, magic = _FOOTER.unpack(data[-_FOOTER.size :])
    if magic != _MAGIC:
        raise ValueError("no Lance file")
    for number, value in fields(_section(data, position), _MANIFEST_FIELDS):
        if number in (9, 10) and as_integer(value) & ~_KNOWN_FEATURES:
            raise ValueError(f"it needs the features {as_integer(value):#b}")
        yield number, value


def _manifest(data: bytes) -> tuple[VersionFacts, int | None, int | None]:
    facts, index_position, transaction_position = VersionFacts(), None, None
    for number, value in _parts(data):
        if number == 2:
            _read_fragment(as_bytes(value), facts)
        elif number == 3:
            facts.version = as_integer(value)
        elif number == 6:
            index_position = as_integer(value)
        elif number == 12 and len(as_bytes(value)):
            facts.files.add(f"_transactions/{as_text(value)}")
        elif number == 23:
            transaction_position = as_integer(value)
    return facts, index_position, transaction_position


def _require_transaction(data: memoryview, facts: VersionFacts) -> None:
    """Refuse the field 23 of pylance 14 unless the transaction stands where it points."""
    parts = {number: value for number, value in fields(data, frozenset(range(1, 1000))) if number in (1, 2)}
    name = f"_transactions/{as_integer(parts.get(1, 0))}-{as_text(parts.get(2, 0))}.txn"
    if name not in facts.files:
        raise ValueError(f"the field 23 leads to {name}, which is not the version's")


def _read_fragment(data: memoryview, facts: VersionFacts) -> None:
    n_rows = n_deleted = fragment = 0
    deletion: dict[int, int] | None = None
    for number, value in fields(data, _FRAGMENT_FIELDS):
        if number == 1:
            fragment = as_integer(value)
        elif number == 2:
            paths = [as_text(v) for n, v in fields(as_bytes(value), _DATA_FILE_FIELDS) if n == 1]
            if len(paths) != 1 or "/" in paths[0]:
                raise ValueError(f"a data file has the names {paths}")
            facts.files.add(f"data/{paths[0]}")
        elif number == 3:
            deletion = {n: as_integer(v) for n, v in fields(as_bytes(value), _DELETION_FILE_FIELDS)}
        elif number == 4:
            n_rows = as_integer(value)
    if deletion is not None:
        n_deleted, ending = deletion.get(4, 0), _DELETION_ENDINGS.get(deletion.get(1, 0))
        if ending is None:
            raise ValueError(f"a deletion file is of type {deletion[1]}")
        facts.files.add(f"_deletions/{fragment}-{deletion.get(2, 0)}-{deletion.get(3, 0)}.{ending}")
    facts.fragments.append(FragmentFacts(fragment, n_rows, n_deleted))


def _read_indices(data: memoryview, facts: VersionFacts) -> None:
    for _, index in fields(data, frozenset({1})):
        for number, value in fields(as_bytes(index), _INDEX_FIELDS):
            if number == 1:
                [(_, digits)] = fields(as_bytes(value), frozenset({1}))
                facts.indices.add(str(uuid.UUID(bytes=bytes(as_bytes(digits)))))
