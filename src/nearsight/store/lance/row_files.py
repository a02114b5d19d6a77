"""Looks up the rows that a search found, straight from the files of a table in a directory."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.store.lance.data_file import Cell, DataColumn, read_column
from nearsight.store.lance.manifest_file import UnknownLayoutError, manifest_path, read_places

# By fragment and name of a column: the name of its file, and its number there.
_Places = dict[int, dict[str, tuple[str, int]]]


class RowFiles:
    """The rows of a table by their addresses: the fragment in the upper 32 bits, the row in it below.

    Parameters
    ----------
    root : Path
        Of the table.
    """

    def __init__(self, root: Path) -> None:
        self._versions, self._data = root / "_versions", f"{root / 'data'}{os.sep}"
        #: A version of which something is not known.
        self.refused = -1
        self._places: tuple[int, _Places] = (-1, {})
        # By file name and number; no file is ever written twice.
        self._columns: dict[tuple[str, int], DataColumn] = {}

    def at(self, version: int, schema: pa.Schema) -> "RowsAt | None":
        """Return the rows of a version with these columns, or None if its files are not known."""
        return None if version == self.refused or not hasattr(os, "pread") else RowsAt(self, version, schema)

    def cells(self, version: int, addresses: Sequence[int], names: Sequence[str]) -> list[list[Cell]]:
        """Return by column the cells of rows, in the order of the addresses; see `RowsAt`."""
        places = self._of(version)
        cells: list[list[Cell]] = [[None] * len(addresses) for _ in names]
        with ExitStack() as stack:
            files: dict[str, int] = {}
            for position, address in enumerate(addresses):
                own = places.get(address >> 32)
                if own is None:  # another thread goes on to a newer version
                    raise UnknownLayoutError(f"version {version} has no fragment {address >> 32}")
                for column, name in zip(cells, names, strict=True):
                    place = own.get(name)
                    if place is None:  # added later, and not written for these rows
                        continue
                    if place[0] not in files:
                        files[place[0]] = os.open(self._data + place[0], os.O_RDONLY | os.O_CLOEXEC)
                        stack.callback(os.close, files[place[0]])
                    column[position] = self._column(place).cell(files[place[0]], address & 0xFFFFFFFF)
        return cells

    def _column(self, place: tuple[str, int]) -> DataColumn:
        column = self._columns.get(place)
        if column is None:
            name, number = place
            column = self._columns[place] = read_column(Path(self._data + name), number)
        return column

    def _of(self, version: int) -> _Places:
        known, places = self._places
        if known != version:
            places = read_places(manifest_path(self._versions, version))
            live = {place for own in places.values() for place in own.values()}
            self._columns = {place: column for place, column in self._columns.items() if place in live}
            self._places = (version, places)
        return places


@dataclass(frozen=True, slots=True)
class RowsAt:
    """The rows of one version by their addresses.

    The methods that read raise UnknownLayoutError and OSError where files are not known for certain or cannot
    be read.

    Attributes
    ----------
    files : RowFiles
    version : int
    schema : pa.Schema
        Of the table.
    """

    files: RowFiles
    version: int
    schema: pa.Schema

    def are_readable(self, names: Sequence[str]) -> bool:
        """Return whether cells of these columns can be read, by their types."""
        return all(_is_readable(self.schema.field(name).type) for name in names)

    def refuse(self) -> None:
        """Note that something of this version is not known."""
        self.files.refused = self.version

    def take(self, addresses: Sequence[int], names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of rows, in the order of the addresses."""
        schema = pa.schema([self.schema.field(name) for name in names])
        cells = self.files.cells(self.version, addresses, names)
        arrays = [array_of(own, type_) for own, type_ in zip(cells, schema.types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def vectors(self, addresses: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Return the vectors of rows, shape (n, d)."""
        type_ = self.schema.field("vector").type
        [cells] = self.files.cells(self.version, addresses.tolist(), ["vector"])
        flat = array_of(cells, type_).flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat.reshape(len(cells), type_.list_size), np.float32)


def _is_readable(type_: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(type_)
        or pa.types.is_binary(type_)
        or pa.types.is_boolean(type_)
        or pa.types.is_fixed_size_list(type_)
        or (pa.types.is_primitive(type_) and type_.bit_width % 8 == 0)
    )


def array_of(cells: Sequence[Cell], type_: pa.DataType) -> pa.Array:
    """Return cells as an array."""
    if pa.types.is_string(type_):
        return pa.array([None if cell is None else bytes(cell).decode() for cell in cells], type_)
    if pa.types.is_binary(type_) or pa.types.is_boolean(type_):
        return pa.array(cells, type_)
    is_vector = pa.types.is_fixed_size_list(type_)
    item, n_items = (type_.value_type, type_.list_size) if is_vector else (type_, 1)
    width = n_items * item.bit_width // 8
    data = b"".join(bytes(width) if cell is None else bytes(cell) for cell in cells)
    if len(data) != width * len(cells):
        raise UnknownLayoutError(f"a value of type {type_} has another width")
    if is_vector:
        items = pa.Array.from_buffers(item, n_items * len(cells), [None, pa.py_buffer(data)])
        return pa.FixedSizeListArray.from_arrays(items, type=type_)
    is_set = np.packbits(np.array([cell is not None for cell in cells], bool), bitorder="little").tobytes()
    return pa.Array.from_buffers(type_, len(cells), [pa.py_buffer(is_set), pa.py_buffer(data)])
