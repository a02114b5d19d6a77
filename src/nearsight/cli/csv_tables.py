"""User metadata from the command line: `KEY=VALUE`, and a CSV file with a `path` column."""

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nearsight.artifacts import exported
from nearsight.cli.basket_tables import opened
from nearsight.errors import MetadataError
from nearsight.images.path_encoding import absolute

# A number that begins with 0 is a code, such as an article number: it stays text.
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})\Z")
_DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
_TRUTH = {"true": True, "false": False}

Value = str | int | float | bool


def parse_pair(text: str) -> tuple[str, Value]:
    """Read ``KEY=VALUE``; a value in double quotes is text whatever it looks like.

    Raises
    ------
    MetadataError
        There is no ``=``, or nothing before it.

    Examples
    --------
    >>> parse_pair("year=2024"), parse_pair('code="2024"'), parse_pair("article=00123")
    (('year', 2024), ('code', '2024'), ('article', '00123'))
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise MetadataError(f"{text!r} is not KEY=VALUE; write for example place=Delft")
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return key.strip(), value[1:-1]
    return key.strip(), _convert(value, _kind([value]))


def _kind(values: Sequence[str]) -> type:
    """Return the one type that all of a column's values have."""
    if all(_INTEGER.match(v) for v in values):
        return int
    if all(_DECIMAL.match(v) and math.isfinite(float(v)) for v in values):
        return float
    return bool if all(v.lower() in _TRUTH for v in values) else str


def _convert(value: str, kind: type) -> Value:
    return _TRUTH[value.lower()] if kind is bool else kind(value)


def _turn_commas(columns: Sequence[str], rows: Mapping[str, dict[str, str]]) -> None:
    """Write a point for the decimal comma in columns of nothing but numbers."""
    for name in columns:
        values = {value: value.replace(",", ".") for row in rows.values() if (value := row[name])}
        if any("," in value for value in values) and _kind([*values.values()]) is float:
            for row in rows.values():
                row[name] = values.get(row[name], "")


class Sheet:
    """The rows of a CSV file, by image.

    Parameters
    ----------
    file : Path
        With a header; the separator is a comma, a semicolon or a tab. The column ``path`` names the
        image, absolute or relative to `file`. A column is of numbers or of true/false where all its
        values are, with a decimal comma too where semicolons separate; an empty cell is unset.

    Raises
    ------
    MetadataError
        No ``path`` column, a row without a path, one of another length, or two for the same image.
    OSError
        The file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.columns, rows, separator = _read(file)
        if separator == ";":
            _turn_commas(self.columns, rows)
        kinds = {c: _kind([v for row in rows.values() if (v := row[c])]) for c in self.columns}
        self._rows: dict[str, dict[str, Any]] = {
            key: {c: _convert(v, kinds[c]) for c, v in row.items() if v} for key, row in rows.items()
        }
        self._met: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, path: str) -> Mapping[str, Any]:
        """Return what the sheet says of an image; nothing for one it does not name."""
        key = absolute(path)
        row = self._rows.get(key)
        if row is None:
            return {}
        self._met.add(key)
        return row

    @property
    def unmet(self) -> list[str]:
        """Images that the sheet names and nobody asked for."""
        return [key for key in self._rows if key not in self._met]


def read_column(file: Path, name: str) -> dict[str, str]:
    """Return one column of a table by image, as text; empty cells are left out.

    Parameters
    ----------
    file : Path
        See `Sheet`.
    name : str
        Of the column.

    Raises
    ------
    MetadataError
        There is no such column, or what `Sheet` refuses.
    OSError
        The file cannot be read.
    """
    columns, rows, _ = _read(file)
    name = next((one for one in columns if one.lower() == name), name) if name not in columns else name
    if name not in columns:
        raise MetadataError(
            f"{file} has no column named {name}; it has: {', '.join(['path', *columns])}. Name one {name}"
        )
    return {key: row[name] for key, row in rows.items() if row[name]}


def write_column(file: Path, name: str, paths: Sequence[str]) -> None:
    """Write a table with an empty column, for a person to fill in.

    Raises
    ------
    StorageError
        The disk refuses.
    """
    text = io.StringIO()
    csv.writer(text).writerows([["path", name], *([path, ""] for path in paths)])
    with exported(file) as handle:
        handle.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _read(file: Path) -> tuple[list[str], dict[str, dict[str, str]], str]:
    """Return the columns beside the path, the rows by image, and the separator."""
    with opened(file) as handle:
        first = handle.readline()
        handle.seek(0)
        separator = next((s for s in (",", ";", "\t") if "path" in map(str.lower, _header(first, s))), None)
        if separator is None:
            raise MetadataError(
                f"{file} has no column named path; its first line is {first.strip()[:80]!r}:"
                " name the columns there, one of them path"
            )
        lines = csv.reader(handle, delimiter=separator)
        header = _with_path([name.strip() for name in next(lines)])
        columns = [name for name in header if name != "path"]
        if len(set(header)) < len(header) or "" in header:
            raise MetadataError(
                f"{file} names a column twice or not at all: {header}; give each its own name"
            )
        rows: dict[str, dict[str, str]] = {}
        for cells in lines:
            if not any(cells):
                continue
            key, row = _row(file, lines.line_num, header, cells)
            if key in rows:
                raise MetadataError(f"{file}, line {lines.line_num}: a second row for {key!r}; keep one")
            rows[key] = row
    return columns, rows, separator


def _with_path(header: list[str]) -> list[str]:
    """Call the column of paths ``path``, however large its letters are."""
    if "path" in header:
        return header
    at = [name.lower() for name in header].index("path")
    return [*header[:at], "path", *header[at + 1 :]]


def _header(line: str, separator: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]


def _row(file: Path, number: int, header: list[str], cells: list[str]) -> tuple[str, dict[str, str]]:
    if len(cells) != len(header):
        raise MetadataError(
            f"{file}, line {number}: {len(cells)} cells where the header has {len(header)};"
            " quote a value that holds the separator"
        )
    row = dict(zip(header, cells, strict=True))
    path = row.pop("path")
    if not path:
        raise MetadataError(f"{file}, line {number}: the path is empty")
    return absolute(path, str(file.parent)), {name: value.strip() for name, value in row.items()}
