"""Baskets and customers from CSV files with a header, separated by commas, semicolons or tabs.

Whether names of columns are written large or small does not matter. Where the separator is no comma, a comma
in a number is its decimal point, as spreadsheets write it in much of Europe.
"""

import codecs
import csv
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from nearsight.errors import MetadataError


@contextmanager
def opened(file: Path) -> Iterator[IO[str]]:
    """Open a table as text: UTF-8, or the UTF-16 that spreadsheets call Unicode.

    Raises
    ------
    MetadataError
        What is read inside the block is no table.
    OSError
        The file cannot be read.
    """
    with file.open("rb") as raw:
        start = raw.read(1024)
    is_wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if b"\0" in start and not is_wide:
        raise MetadataError(f"{file} is no text; save the table as CSV in UTF-8")
    # A name with stray bytes must meet the one that the file system gives: same escape as Python's own.
    encoding, errors = ("utf-16", "replace") if is_wide else ("utf-8-sig", "surrogateescape")
    with file.open(encoding=encoding, errors=errors, newline="") as handle:
        try:
            yield handle
        except csv.Error as error:
            raise MetadataError(
                f"{file} is no sound table ({error}); close each quote, and save it as CSV in UTF-8"
            ) from error


def read_baskets(file: Path) -> dict[str, list[str]]:
    """Return the items of each basket, in the order of the file.

    Parameters
    ----------
    file : Path
        With the columns ``basket`` and ``item``. Other columns are left alone, and so are lines without a
        basket or an item.

    Raises
    ------
    MetadataError
        There are no such columns, one of them twice, or no lines.
    OSError
        The file cannot be read.
    """
    baskets: dict[str, list[str]] = {}
    for _, row, _ in _lines(file, "basket", "item"):
        baskets.setdefault(row["basket"], []).append(row["item"])
    return baskets


def read_customers(file: Path) -> list[tuple[str, str, float]]:
    """Return (customer, image, weight) of each line; without the column, or in an empty cell, it is 1.

    Parameters
    ----------
    file : Path
        With the columns ``customer``, ``image`` and perhaps ``weight``. Other columns are left alone, and
        so are lines without a customer or an image.

    Raises
    ------
    MetadataError
        There are no such columns, one of them twice, no lines, or a weight that is no number above 0.
    OSError
        The file cannot be read.
    """
    return [
        (row["customer"], row["image"], _weight(file, number, row.get("weight", ""), separator))
        for number, row, separator in _lines(file, "customer", "image", "weight")
    ]


def _lines(file: Path, one: str, other: str, *optional: str) -> Iterator[tuple[int, dict[str, str], str]]:
    """Yield number, cells and separator of each line that has something in both columns."""
    is_empty = True
    with opened(file) as handle:
        first = handle.readline()
        handle.seek(0)
        separator = next((s for s in (",", ";", "\t") if {one, other} <= {*_header(first, s)}), None)
        if separator is None:
            raise MetadataError(
                f"{file} needs the columns {one} and {other}; its first line is {first.strip()[:80]!r}:"
                " name the columns there"
            )
        reader = csv.DictReader(handle, delimiter=separator, restkey="", restval="")
        header = reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        if twice := [name for name in (one, other, *optional) if header.count(name) > 1]:
            raise MetadataError(f"{file} has {header.count(twice[0])} columns named {twice[0]}; leave one")
        for row in reader:
            cells = {name: value.strip() for name, value in row.items() if isinstance(value, str)}
            if cells[one] and cells[other]:
                is_empty = False
                yield reader.line_num, cells, separator
    if is_empty:
        raise MetadataError(f"{file} has a header, but no line with a {one} and {_a(other)}; add some")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _weight(file: Path, number: int, text: str, separator: str) -> float:
    if not text:
        return 1.0
    try:
        weight = float(text if separator == "," else text.replace(",", "."))
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise MetadataError(
            f"{file}, line {number}: the weight {text!r} is no number above 0; write such as 2.5, nothing for"
            " 1, and leave out lines that do not count"
        )
    return weight


def _header(line: str, separator: str) -> list[str]:
    return [name.strip().lower() for name in next(csv.reader([line], delimiter=separator), [])]
