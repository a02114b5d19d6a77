"""Baskets from a CSV file with the columns basket and item."""

import csv
from pathlib import Path

from nearsight.errors import MetadataError


def read_baskets(file: Path) -> dict[str, list[str]]:
    """Return the items of each basket, in the order of the file.

    Parameters
    ----------
    file : Path
        UTF-8, with a header that names the columns ``basket`` and ``item``; the separator is a comma, a
        semicolon or a tab. Other columns are left alone, and so are lines without a basket or an item.

    Raises
    ------
    MetadataError
        There are no such columns, or no lines.
    OSError
        The file cannot be read.
    """
    # A name with stray bytes must meet the one that the file system gives: same escape as Python's own.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        first = handle.readline()
        handle.seek(0)
        separator = next((s for s in (",", ";", "\t") if {"basket", "item"} <= _header(first, s)), None)
        if separator is None:
            raise MetadataError(
                f"{file} needs the columns basket and item; its first line is {first.strip()[:80]!r}:"
                " name the columns there"
            )
        baskets: dict[str, list[str]] = {}
        lines = csv.reader(handle, delimiter=separator)
        header = [name.strip() for name in next(lines)]
        at, of = header.index("basket"), header.index("item")
        for cells in lines:
            if len(cells) > max(at, of) and cells[at].strip() and cells[of].strip():
                baskets.setdefault(cells[at].strip(), []).append(cells[of].strip())
    if not baskets:
        raise MetadataError(f"{file} has a header, but no line with a basket and an item; add some")
    return baskets


def _header(line: str, separator: str) -> set[str]:
    return {name.strip() for name in next(csv.reader([line], delimiter=separator), [])}
