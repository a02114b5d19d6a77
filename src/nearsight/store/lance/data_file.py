"""Reads single cells of Lance's data files, where a search needs a few.

The engine takes milliseconds to look up ten rows in ten fragments, most of it for plans, tasks and decoders
of whole pages; a cell lies at a place that can be computed. This knows what version 2.0 of the files writes
for numbers, truth values, text, bytes and vectors (Lance publishes it: ``protos/file2.proto`` and
``encodings.proto``), and refuses everything else; then the engine reads.
"""

import os
import struct
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from nearsight.store.lance.manifest_file import UnknownLayoutError
from nearsight.store.lance.protobuf import as_bytes, as_integer, fields, integers, message

_MAGIC, _VERSION = b"LANC", (0, 3)
# Where the table of columns begins, and the number of columns.
_FOOTER = struct.Struct("<8xQ8x4xIHH4s")
_PLACE = struct.Struct("<QQ")
_PAIR, _ONE = struct.Struct("<QQ"), struct.Struct("<Q")

#: Bytes as they are stored, or a truth value, or nothing.
Cell = bytes | bool | None


@dataclass(frozen=True, slots=True)
class _EqualCells:
    """Cells of one width."""

    position: int
    width: int

    def cell(self, file: int, row: int) -> Cell:
        return _read(file, self.position + row * self.width, self.width)


@dataclass(frozen=True, slots=True)
class _TruthCells:
    """Truth values, eight in a byte."""

    position: int

    def cell(self, file: int, row: int) -> Cell:
        return bool(_read(file, self.position + row // 8, 1)[0] >> row % 8 & 1)


@dataclass(frozen=True, slots=True)
class _TextCells:
    """Cells of any width, by where each ends; an end beyond `null` is that of a cell without a value."""

    ends: int
    position: int
    null: int

    def cell(self, file: int, row: int) -> Cell:
        if row:
            start, end = _PAIR.unpack(_read(file, self.ends + 8 * (row - 1), 16))
        else:
            start, (end,) = 0, _ONE.unpack(_read(file, self.ends, 8))
        if end >= self.null:
            return None
        start %= self.null
        return _read(file, self.position + start, end - start)


@dataclass(frozen=True, slots=True)
class _NullableCells:
    """Cells of which some have no value."""

    is_set: _TruthCells
    values: "_Encoding"

    def cell(self, file: int, row: int) -> Cell:
        return self.values.cell(file, row) if self.is_set.cell(file, row) else None


@dataclass(frozen=True, slots=True)
class _EmptyCells:
    """Cells without a value."""

    def cell(self, file: int, row: int) -> Cell:
        return None


@dataclass(frozen=True, slots=True)
class _NumberedCells:
    """Cells that are one of a few values, numbered from 1; 0 is none."""

    numbers: _EqualCells
    values: tuple[Cell, ...]

    def cell(self, file: int, row: int) -> Cell:
        numbers = self.numbers
        number = _read(file, numbers.position + row * numbers.width, numbers.width)
        return self.values[int.from_bytes(number, "little")]


_Encoding = _EqualCells | _TruthCells | _TextCells | _NullableCells | _EmptyCells | _NumberedCells


@dataclass(frozen=True, slots=True)
class DataColumn:
    """Where the cells of a column lie.

    Attributes
    ----------
    starts : list of int
        The first row of each page.
    n_rows : int
    pages : list
    """

    starts: list[int]
    n_rows: int
    pages: list[_Encoding]

    def cell(self, file: int, row: int) -> Cell:
        """Return a cell of an open file."""
        if not 0 <= row < self.n_rows:
            raise UnknownLayoutError(f"there is no row {row} in a file of {self.n_rows}")
        page = bisect_right(self.starts, row) - 1
        return self.pages[page].cell(file, row - self.starts[page])


def read_column(path: Path, index: int) -> DataColumn:
    """Return a column of a file, by its number.

    Raises
    ------
    UnknownLayoutError
        The file is of another version, or the column is written in a way that is not known.
    """
    with path.open("rb", buffering=0) as file:
        number = file.fileno()
        try:
            table, n_columns, *version, magic = _FOOTER.unpack(
                _read(number, os.fstat(number).st_size - _FOOTER.size, _FOOTER.size)
            )
            if magic != _MAGIC or tuple(version) != _VERSION:
                raise ValueError(f"it is of the version {version}")
            return _column(number, table, index, n_columns)
        except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
            raise UnknownLayoutError(f"{path}: the layout of this file is not known: {error}") from error


def _column(file: int, table: int, index: int, n_columns: int) -> DataColumn:
    if not 0 <= index < n_columns:
        raise ValueError(f"there is no column {index}")
    position, n_bytes = _PLACE.unpack(_read(file, table + _PLACE.size * index, _PLACE.size))
    starts, pages, n_rows = [], [], 0
    for number, value in fields(memoryview(_read(file, position, n_bytes))):
        if number == 2:
            page = message(as_bytes(value))
            starts.append(n_rows)
            pages.append(_PageReader(file, page).encoding())
            n_rows += as_integer(page[3])
    return DataColumn(starts, n_rows, pages)


class _PageReader:
    """A page, as the file describes it."""

    def __init__(self, file: int, page: dict[int, int | memoryview]) -> None:
        self._file = file
        self._buffers = integers(page[1]) if 1 in page else []
        # Directly in this message, as bytes of an `Any`.
        [self._encoding] = [as_bytes(value) for value in message(as_bytes(page[4]), {2}).values()]

    def encoding(self) -> _Encoding:
        content = message(as_bytes(message(self._encoding, {1})[1]), {1, 2})
        return self._read(as_bytes(content[2]))

    def _read(self, data: memoryview) -> _Encoding:
        [(kind, value)] = fields(data)
        parts = as_bytes(value)
        if kind == 1:
            return self._flat(message(parts, {1, 2}))
        if kind == 2:
            return self._nullable(parts)
        if kind == 3:
            return self._vectors(message(parts, {1, 2}))
        if kind == 6:
            return self._texts(message(parts, {1, 2, 3}))
        if kind == 7:
            return self._named(message(parts, {1, 2, 3}))
        raise ValueError(f"a page is of kind {kind}")

    def _flat(self, parts: dict[int, int | memoryview]) -> _EqualCells | _TruthCells:
        buffer = message(as_bytes(parts[2]), {1})
        position, n_bits = self._buffers[as_integer(buffer.get(1, 0))], as_integer(parts[1])
        if n_bits == 1:
            return _TruthCells(position)
        if n_bits % 8:
            raise ValueError(f"a value has {n_bits} bits")
        return _EqualCells(position, n_bits // 8)

    def _nullable(self, data: memoryview) -> _Encoding:
        [(kind, value)] = fields(data, {1, 2, 3})
        if kind == 3:
            return _EmptyCells()
        parts = message(as_bytes(value), {1, 2} if kind == 2 else {1})
        if kind == 1:
            return self._read(as_bytes(parts[1]))
        is_set = self._read(as_bytes(parts[1]))
        if not isinstance(is_set, _TruthCells):
            raise TypeError("what has a value is not told by bits")
        return _NullableCells(is_set, self._read(as_bytes(parts[2])))

    def _vectors(self, parts: dict[int, int | memoryview]) -> _EqualCells:
        items = self._fixed(parts[2])
        return _EqualCells(items.position, items.width * as_integer(parts[1]))

    def _texts(self, parts: dict[int, int | memoryview]) -> _TextCells:
        ends, content = self._fixed(parts[1]), self._fixed(parts[2])
        if (ends.width, content.width) != (8, 1):
            raise ValueError(f"a text has ends of {ends.width} bytes")
        return _TextCells(ends.position, content.position, as_integer(parts[3]))

    def _named(self, parts: dict[int, int | memoryview]) -> _NumberedCells:
        values, n_values = self._read(as_bytes(parts[2])), as_integer(parts[3])
        return _NumberedCells(
            self._fixed(parts[1]), (None, *(values.cell(self._file, row) for row in range(n_values)))
        )

    def _fixed(self, value: int | memoryview) -> _EqualCells:
        encoding = self._read(as_bytes(value))
        if not isinstance(encoding, _EqualCells):
            raise TypeError(f"values lie as {type(encoding).__name__}")
        return encoding


def _read(file: int, position: int, n_bytes: int) -> bytes:
    data = os.pread(file, n_bytes, position)
    if len(data) != n_bytes:
        raise UnknownLayoutError("a file is shorter than it says")
    return data
