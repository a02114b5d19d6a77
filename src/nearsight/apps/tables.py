"""Baskets and customers from CSV files: UTF-8, with a header; separated by commas, semicolons or tabs.

Whether names of columns are written large or small does not matter.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from nearsight.errors import MetadataError


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
        There are no such columns, or no lines.
    OSError
        The file cannot be read.
    """
    baskets: dict[str, list[str]] = {}
    for _, row in _lines(file, "basket", "item"):
        baskets.setdefault(row["basket"], []).append(row["item"])
    return baskets


def read_customers(file: Path) -> list[tuple[str, str, float]]:
    """Return (customer, picture, weight) of each line; without the column, or in an empty cell, it is 1.

    Parameters
    ----------
    file : Path
        With the columns ``customer``, ``picture`` and perhaps ``weight``. Other columns are left alone, and
        so are lines without a customer or a picture.

    Raises
    ------
    MetadataError
        There are no such columns, no lines, or a weight that is no number above 0.
    OSError
        The file cannot be read.
    """
    return [
        (row["customer"], row["picture"], _weight(file, number, row.get("weight", "")))
        for number, row in _lines(file, "customer", "picture")
    ]


def _lines(file: Path, one: str, other: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the cells of each line that has something in both columns."""
    is_empty = True
    # A name with stray bytes must meet the one that the file system gives: same escape as Python's own.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        first = handle.readline()
        handle.seek(0)
        separator = next((s for s in (",", ";", "\t") if {one, other} <= _header(first, s)), None)
        if separator is None:
            raise MetadataError(
                f"{file} needs the columns {one} and {other}; its first line is {first.strip()[:80]!r}:"
                " name the columns there"
            )
        reader = csv.DictReader(handle, delimiter=separator, restkey="", restval="")
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        for row in reader:
            cells = {name: value.strip() for name, value in row.items() if isinstance(value, str)}
            if cells[one] and cells[other]:
                is_empty = False
                yield reader.line_num, cells
    if is_empty:
        raise MetadataError(f"{file} has a header, but no line with a {one} and {_a(other)}; add some")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _weight(file: Path, number: int, text: str) -> float:
    if not text:
        return 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise MetadataError(f"{file}, line {number}: the weight {text!r} is no number above 0")
    return weight


def _header(line: str, separator: str) -> set[str]:
    return {name.strip().lower() for name in next(csv.reader([line], delimiter=separator), [])}
