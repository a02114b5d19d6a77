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


def read_manifest(data: bytes, name: str) -> VersionFacts:
    """Read the contents of a file of ``_versions``; see `read_manifest_file`."""
    try:
        position, magic = _FOOTER.unpack(data[-_FOOTER.size :])
        if magic != _MAGIC:
            raise ValueError("no Lance file")
        facts, index_position, transaction_position = _manifest(_section(data, position))
        if transaction_position is not None:
            _require_transaction(_section(data, transaction_position), facts)
        if index_position is not None:
            _read_indices(_section(data, index_position), facts)
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise UnknownLayoutError(f"{name}: the layout of this version is not known: {error}") from error
    return facts


def _section(data: bytes, position: int) -> memoryview:
    (length,) = _LENGTH.unpack_from(data, position)
    section = memoryview(data)[position + _LENGTH.size : position + _LENGTH.size + length]
    if len(section) != length:
        raise ValueError("it ends too early")
    return section


def _manifest(data: memoryview) -> tuple[VersionFacts, int | None, int | None]:
    facts, index_position, transaction_position = VersionFacts(), None, None
    for number, value in _fields(data, _MANIFEST_FIELDS):
        if number == 2:
            _read_fragment(_bytes(value), facts)
        elif number == 3:
            facts.version = _integer(value)
        elif number == 6:
            index_position = _integer(value)
        elif number in (9, 10) and _integer(value) & ~_KNOWN_FEATURES:
            raise ValueError(f"it needs the features {_integer(value):#b}")
        elif number == 12 and len(_bytes(value)):
            facts.files.add(f"_transactions/{_text(value)}")
        elif number == 23:
            transaction_position = _integer(value)
    return facts, index_position, transaction_position


def _require_transaction(data: memoryview, facts: VersionFacts) -> None:
    """Refuse the field 23 of pylance 14 unless the transaction stands where it points."""
    parts = {number: value for number, value in _fields(data, frozenset(range(1, 1000))) if number in (1, 2)}
    name = f"_transactions/{_integer(parts.get(1, 0))}-{_text(parts.get(2, 0))}.txn"
    if name not in facts.files:
        raise ValueError(f"the field 23 leads to {name}, which is not the version's")


def _read_fragment(data: memoryview, facts: VersionFacts) -> None:
    n_rows = n_deleted = fragment = 0
    deletion: dict[int, int] | None = None
    for number, value in _fields(data, _FRAGMENT_FIELDS):
        if number == 1:
            fragment = _integer(value)
        elif number == 2:
            paths = [_text(v) for n, v in _fields(_bytes(value), _DATA_FILE_FIELDS) if n == 1]
            if len(paths) != 1 or "/" in paths[0]:
                raise ValueError(f"a data file has the names {paths}")
            facts.files.add(f"data/{paths[0]}")
        elif number == 3:
            deletion = {n: _integer(v) for n, v in _fields(_bytes(value), _DELETION_FILE_FIELDS)}
        elif number == 4:
            n_rows = _integer(value)
    if deletion is not None:
        n_deleted, ending = deletion.get(4, 0), _DELETION_ENDINGS.get(deletion.get(1, 0))
        if ending is None:
            raise ValueError(f"a deletion file is of type {deletion[1]}")
        facts.files.add(f"_deletions/{fragment}-{deletion.get(2, 0)}-{deletion.get(3, 0)}.{ending}")
    facts.fragments.append(FragmentFacts(fragment, n_rows, n_deleted))


def _read_indices(data: memoryview, facts: VersionFacts) -> None:
    for _, index in _fields(data, frozenset({1})):
        for number, value in _fields(_bytes(index), _INDEX_FIELDS):
            if number == 1:
                [(_, digits)] = _fields(_bytes(value), frozenset({1}))
                facts.indices.add(str(uuid.UUID(bytes=bytes(_bytes(digits)))))


def _fields(data: memoryview, known: frozenset[int]) -> Iterator[tuple[int, int | memoryview]]:
    """Yield the numbers and values of a message's fields, by the wire format of protocol buffers."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if number not in known:
            raise ValueError(f"there is an unknown field {number}")
        value: int | memoryview
        if wire_type == 0:
            value, at = _varint(data, at)
        elif wire_type in (1, 2, 5):
            length, at = _varint(data, at) if wire_type == 2 else ({1: 8, 5: 4}[wire_type], at)
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise ValueError("a field ends too late")
        else:
            raise ValueError(f"there is a field of wire type {wire_type}")
        yield number, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _integer(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise TypeError("a field holds bytes, where a number is due")
    return value


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError("a field holds a number, where bytes are due")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode()
