"""Customers' pictures from a CSV file with the columns customer, picture and perhaps weight."""

import csv
import math
from pathlib import Path

from nearsight.errors import MetadataError


def read_customers(file: Path) -> list[tuple[str, str, float]]:
    """Return (customer, picture, weight) of each line; without the column, or in an empty cell, it is 1.

    Parameters
    ----------
    file : Path
        UTF-8, with a header that names the columns; the separator is a comma, a semicolon or a tab. Other
        columns are left alone, and so are lines without a customer or a picture.

    Raises
    ------
    MetadataError
        There are no such columns, no lines, or a weight that is no number above 0.
    OSError
        The file cannot be read.
    """
    # A name with stray bytes must meet the one that the file system gives: same escape as Python's own.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        first = handle.readline()
        handle.seek(0)
        separator = next((s for s in (",", ";", "\t") if {"customer", "picture"} <= _header(first, s)), None)
        if separator is None:
            raise MetadataError(
                f"{file} needs the columns customer and picture; its first line is {first.strip()[:80]!r}:"
                " name the columns there"
            )
        reader = csv.DictReader(handle, delimiter=separator)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        lines = []
        for row in reader:
            customer, picture = ((row[name] or "").strip() for name in ("customer", "picture"))
            if customer and picture:
                lines.append((customer, picture, _weight(file, reader.line_num, row.get("weight"))))
    if not lines:
        raise MetadataError(f"{file} has a header, but no line with a customer and a picture; add some")
    return lines


def _weight(file: Path, number: int, text: str | None) -> float:
    if text is None or not text.strip():
        return 1.0
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise MetadataError(f"{file}, line {number}: the weight {text.strip()!r} is no number above 0")
    return weight


def _header(line: str, separator: str) -> set[str]:
    return {name.strip() for name in next(csv.reader([line], delimiter=separator), [])}
