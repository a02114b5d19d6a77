"""Metadata, labels, baskets and customers from CSV files, and `KEY=VALUE` of the command line.

A file has a header, and separates cells by commas, semicolons or tabs. It is in UTF-8, or in the UTF-16 that
spreadsheets call Unicode. The case of the required column names does not matter. Cells that would be formulas
are marked as text, see `text_format.csv_row`.
"""

import codecs
import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight.artifacts import exported
from nearsight.errors import MetadataError
from nearsight.images.image_lookup import ImageLookup, Resolution
from nearsight.images.path_encoding import absolute
from nearsight.text_format import csv_cell, csv_row, csv_text, nfc

if TYPE_CHECKING:
    from nearsight.collection import Collection

# A number that begins with 0 is a code, such as an article number, and stays text.
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})\Z")
_DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
_BOOLEANS = {"true": True, "false": False}

Value = str | int | float | bool


def parse_pair(text: str) -> tuple[str, Value]:
    """Parse ``KEY=VALUE``; a value in double quotes is text.

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
    value = nfc(value)
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return key.strip(), value[1:-1]
    return key.strip(), _convert(value, _column_type([value]))


def _column_type(values: Sequence[str]) -> type:
    """Return the narrowest type that fits all values of a column."""
    if all(_INTEGER.match(v) for v in values):
        return int
    if all(_DECIMAL.match(v) and math.isfinite(float(v)) for v in values):
        return float
    return bool if all(v.lower() in _BOOLEANS for v in values) else str


def _convert(value: str, kind: type) -> Value:
    return _BOOLEANS[value.lower()] if kind is bool else kind(nfc(value))


class _Reader:
    """The lines of an open table.

    Attributes
    ----------
    header : list of str
        The column names; those that are required in lower case.
    separator : str
        What separates two cells.
    """

    def __init__(self, file: Path, lines: Iterator[list[str]], header: list[str], separator: str) -> None:
        self.file = file
        self.header = header
        self.separator = separator
        self._lines: Any = lines

    def refuse_repeated(self, names: Sequence[str]) -> None:
        if repeated := [name for name in names if self.header.count(name) > 1]:
            n = self.header.count(repeated[0])
            raise MetadataError(f"{self.file} has {n} columns named {repeated[0]}; keep one of them")

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        for cells in self._lines:
            yield self._lines.line_num, [csv_text(cell) for cell in cells]


@contextmanager
def _open_table(file: Path, *required: str, optional: Sequence[str] = ()) -> Iterator[_Reader]:
    """Open a table that has the required columns.

    Raises
    ------
    MetadataError
        The file is not a table, or lacks a required column.
    OSError
        The file cannot be read.
    """
    with file.open("rb") as raw:
        start = raw.read(1024)
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in start and not is_utf16:
        raise MetadataError(f"{file} is not a text file; save the table as CSV in UTF-8")
    # surrogateescape, as in Python's own file names: so a name with bytes that are not UTF-8 is found.
    encoding, errors = ("utf-16", "replace") if is_utf16 else ("utf-8-sig", "surrogateescape")
    with file.open(encoding=encoding, errors=errors, newline="") as handle:
        try:
            first = handle.readline()
            handle.seek(0)
            separator = next((s for s in ",;\t" if {*required} <= {*map(str.lower, _cells(first, s))}), None)
            if separator is None:
                raise MetadataError(
                    f"{file} needs the column{'s' * (len(required) > 1)} {' and '.join(required)}; its first"
                    f" line is {first.strip()[:80]!r}: name the columns there"
                )
            lines = csv.reader(handle, delimiter=separator)
            header = [csv_text(name).strip() for name in next(lines)]
            for name in (*required, *optional):
                if name not in header:
                    header = [name if column.lower() == name else column for column in header]
            yield _Reader(file, lines, header, separator)
        except csv.Error as error:
            raise MetadataError(
                f"{file} is not a valid table ({error}); close each quote, and save it as CSV in UTF-8"
            ) from error


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]


# Tables with one row for each image.


class MetadataTable:
    """The metadata in a CSV file, by image.

    Parameters
    ----------
    file : Path
        Its column ``path`` names the images: by path, absolute or relative to `file`, and after `resolve`
        also by file name, with or without its ending. A column is of numbers or booleans where all its
        values are. Where semicolons separate the cells, a decimal comma is read as a point. An empty cell is
        unset.

    Raises
    ------
    MetadataError
        There is no ``path`` column, a row has no path or another length than the header, or two rows name
        the same image.
    OSError
        The file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        columns, rows, separator = _read_by_path(file)
        if separator == ";":
            _replace_decimal_commas(columns, rows)
        types = {c: _column_type([v for row in rows.values() if (v := row[c])]) for c in columns}
        self._rows: dict[str, dict[str, Any]] = {
            name: {c: _convert(v, types[c]) for c, v in row.items() if v} for name, row in rows.items()
        }
        folder = str(file.parent)
        self._name_by_path = {absolute(name, folder): name for name in self._rows}

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, path: str) -> Mapping[str, Any]:
        """Return the metadata of an image; empty for an image that the table does not name."""
        name = self._name_by_path.get(absolute(path))
        return {} if name is None else self._rows[name]

    def resolve(self, paths: Iterable[str], others: Callable[[], ImageLookup | None]) -> Resolution:
        """Look for the images that the rows name, so that `row` finds them by any name.

        Parameters
        ----------
        paths : iterable of str
            The images that `row` will be asked for.
        others : callable
            Returns further images, for rows that name none of `paths`. Such rows, and those that name a file,
            are not called unmatched.

        Raises
        ------
        MetadataError
            Two rows name the same image.
        """
        folder = str(self.file.parent)
        resolution = ImageLookup((absolute(path), [path]) for path in paths).resolve(self._rows, folder)
        names: dict[str, str] = {}
        for name, path in resolution.ids.items():
            if path in names:
                raise MetadataError(
                    f"{self.file}: the rows {names[path]!r} and {name!r} name the same image {path}; keep one"
                )
            names[path] = name
        self._name_by_path = {**self._name_by_path, **names}
        if resolution.unmatched and (lookup := others()) is not None:
            resolution.forget(name for name in resolution.unmatched if lookup.find(name, folder))
        resolution.forget(name for name in resolution.unmatched if Path(absolute(name, folder)).is_file())
        return resolution


def read_labels(file: Path, *, keep_empty: bool = False) -> list[tuple[str, str]]:
    """Read the name of the image and the label of each row; an image may have several rows.

    Parameters
    ----------
    file : Path
        With the columns ``path`` and ``label``.
    keep_empty : bool
        Whether rows without a label are read, too.

    Raises
    ------
    MetadataError
        A column is missing or repeated, or there are no rows.
    OSError
        The file cannot be read.
    """
    if keep_empty:
        rows = [(row["path"].strip(), row["label"].strip()) for _, row in read_rows(file, "path", "label")]
        return [(path, label) for path, label in rows if path]
    return [(row["path"], row["label"]) for _, row, _ in _pairs(file, "path", "label")]


def read_image_pairs(file: Path) -> list[tuple[str, str]]:
    """Read the names of the two images of each row.

    Parameters
    ----------
    file : Path
        With the columns ``first`` and ``second``.

    Raises
    ------
    MetadataError
        A column is missing or repeated, or there are no rows.
    OSError
        The file cannot be read.
    """
    return [(row["first"], row["second"]) for _, row, _ in _pairs(file, "first", "second")]


def read_rows(file: Path, *required: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line, and its cells by column.

    Raises
    ------
    MetadataError
        The file is not a table, or lacks a required column.
    """
    with _open_table(file, *required) as table:
        table.refuse_repeated(required)
        for line, cells in table:
            if any(cells):
                yield line, dict(zip(table.header, cells, strict=False))


def write_column(file: Path, name: str, paths: Sequence[str]) -> None:
    """Write a table with an empty column for a person to fill in.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    write_columns(file, ["path", name], [[path, ""] for path in paths])


def write_columns(file: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    with exported(file) as handle:
        handle.writelines(csv_row(cells) for cells in (header, *rows))


def _read_by_path(file: Path, *required: str) -> tuple[list[str], dict[str, dict[str, str]], str]:
    """Return the columns other than the path, the rows by what names the image, and the separator."""
    rows: dict[str, dict[str, str]] = {}
    paths: set[str] = set()
    with _open_table(file, "path", *required) as table:
        table.refuse_repeated(table.header)
        if "" in table.header:
            raise MetadataError(f"{file} has a column without a name: {table.header}; give it a name")
        for number, cells in table:
            if not any(cells):
                continue
            if len(cells) != len(table.header):
                raise MetadataError(
                    f"{file}, line {number}: {len(cells)} cells where the header has {len(table.header)};"
                    " quote a value that holds the separator"
                )
            row = dict(zip(table.header, cells, strict=True))
            path = row.pop("path")
            if not path:
                raise MetadataError(f"{file}, line {number}: the path is empty")
            whole = absolute(path, str(file.parent))
            if whole in paths:
                raise MetadataError(f"{file}, line {number}: a second row for {whole!r}; keep one")
            paths.add(whole)
            rows[path] = {name: value.strip() for name, value in row.items()}
        return [name for name in table.header if name != "path"], rows, table.separator


def _replace_decimal_commas(columns: Sequence[str], rows: Mapping[str, dict[str, str]]) -> None:
    """Write a decimal point for a decimal comma in the columns that hold only numbers."""
    for name in columns:
        values = {value: value.replace(",", ".") for row in rows.values() if (value := row[name])}
        if any("," in value for value in values) and _column_type([*values.values()]) is float:
            for row in rows.values():
                row[name] = values.get(row[name], "")


# Tables with several rows for each basket or customer. Other columns are ignored, and so are rows without
# a basket or an item, or without a customer or an image.


def read_baskets(file: Path) -> dict[str, list[str]]:
    """Read the items of each basket, in the order of the file.

    Parameters
    ----------
    file : Path
        With the columns ``basket`` and ``item``.

    Raises
    ------
    MetadataError
        A column is missing or repeated, or there are no rows.
    OSError
        The file cannot be read.
    """
    baskets: dict[str, list[str]] = {}
    for _, row, _ in _pairs(file, "basket", "item"):
        baskets.setdefault(row["basket"], []).append(row["item"])
    return baskets


def read_customers(file: Path) -> list[tuple[str, str, float]]:
    """Read the customer, image and weight of each row.

    Parameters
    ----------
    file : Path
        With the columns ``customer``, ``image`` and optionally ``weight``; a missing weight is 1.

    Raises
    ------
    MetadataError
        A column is missing or repeated, there are no rows, or a weight is not a number above 0.
    OSError
        The file cannot be read.
    """
    return [
        (row["customer"], row["image"], _weight(file, number, row.get("weight", ""), separator))
        for number, row, separator in _pairs(file, "customer", "image", "weight")
    ]


def _pairs(file: Path, group: str, member: str, *optional: str) -> Iterator[tuple[int, dict[str, str], str]]:
    """Yield line number, cells and separator of each row that has a value in both columns."""
    is_empty = True
    with _open_table(file, group, member, optional=optional) as table:
        table.refuse_repeated((group, member, *optional))
        for number, cells in table:
            row = dict(zip(table.header, map(str.strip, cells), strict=False))
            if row.get(group) and row.get(member):
                is_empty = False
                yield number, row, table.separator
    if is_empty:
        raise MetadataError(f"{file} has no line with both {group} and {member} below its header; add some")


def _weight(file: Path, number: int, text: str, separator: str) -> float:
    if not text:
        return 1.0
    try:
        weight = float(text if separator == "," else text.replace(",", "."))
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise MetadataError(
            f"{file}, line {number}: the weight {text!r} is not a number above 0; write for example 2.5,"
            " leave the cell empty for 1, or delete the line"
        )
    return weight


def items_table(
    collection: "Collection", ids: Sequence[str], shown: Callable[[str], str] = str
) -> Iterator[bytes]:
    """Yield a table of images, row by row: id, path, and every field of the collection's metadata.

    Parameters
    ----------
    collection : Collection
    ids : sequence of str
        Whole ids; those of no image are left out.
    shown : callable
        Returns what to write for a path of the collection.
    """
    keys = list(collection.metadata_types())
    yield csv_row(["id", "path", *keys])
    for item in collection.items(ids=ids):
        yield csv_row([item.id, shown(item.path), *(csv_cell(item.metadata.get(key)) for key in keys)])
