"""Compares the rows of a collection with those of its copy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearsight.store import VectorStore
from nearsight.text_format import count

# The rounding of a number beside the largest of its vector: float16 keeps eleven significant bits, and
# some engines keep float32 as a direction and a length.
_TOLERANCES = {"float16": 2.0**-11, "float32": 2.0**-20}
_MAX_NAMED = 20


@dataclass(slots=True)
class CopyDifferences:
    """How a copy differs from its original.

    Attributes
    ----------
    n_missing : int
        Images that the copy lacks.
    n_surplus : int
        Images that only the copy has.
    n_different : int
        Images of both that differ.
    named : list of str
        What is the matter with the first 20 images.
    """

    n_missing: int = 0
    n_surplus: int = 0
    n_different: int = 0
    named: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.n_missing or self.n_surplus or self.n_different)

    def __str__(self) -> str:
        counts = [
            f"{count(n, 'image')} {verb}"
            for n, verb in (
                (self.n_missing, "missing"),
                (self.n_different, "different"),
                (self.n_surplus, "not in the original"),
            )
            if n
        ]
        return ", ".join(counts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "missing": self.n_missing,
            "different": self.n_different,
            "surplus": self.n_surplus,
            "first": self.named,
        }

    def name(self, lines: Iterable[str]) -> None:
        """Name images, as long as there is room."""
        for line in lines:
            if len(self.named) >= _MAX_NAMED:
                return
            self.named.append(line)


def differences(
    tables: Iterable[pa.Table], rows: VectorStore, copied: VectorStore, storage: str
) -> CopyDifferences:
    """Return how a copy differs from its original.

    Parameters
    ----------
    tables : iterable of pa.Table
        All rows of the original.
    rows, copied : VectorStore
        The original and the copy.
    storage : {"float32", "float16"}
        The type of a number of the copy.
    """
    result, n_common = CopyDifferences(), 0
    for table in tables:
        ids = table["id"].to_pylist()
        absent, different = compare(table, copied, storage)
        n_common += len(ids) - len(absent)
        result.n_missing += len(absent)
        result.n_different += len(different)
        result.name(f"{ids[row]} is missing" for row in absent)
        result.name(f"{ids[row]} differs in {', '.join(names)}" for row, names in different.items())
    result.n_surplus = copied.count() - n_common
    if result.n_surplus:
        result.name(f"{id} is not in the original" for own in surplus(copied, rows) for id in own)
    return result


def compare(table: pa.Table, copied: VectorStore, storage: str) -> tuple[list[int], dict[int, list[str]]]:
    """Return the rows of a table that a copy lacks, and of those that differ there the names of columns.

    Vectors may differ by the rounding of what the copy stores.
    """
    schema = copied.schema
    names = [name for name in table.column_names if name in schema.names]
    others = pa.Table.from_batches(
        copied.scan(names, ids=table["id"].to_pylist()), pa.schema([schema.field(name) for name in names])
    )
    positions = pc.index_in(table["id"].combine_chunks(), value_set=others["id"].combine_chunks())
    is_there = np.asarray(positions.is_valid())
    there = np.flatnonzero(is_there)
    both, copies = table.take(pa.array(there)), others.take(positions.drop_null())
    found: dict[int, list[str]] = {}
    for name in table.column_names if len(there) else ():
        if name not in names:
            wrong = np.asarray(both[name].is_valid())
        elif name == "vector":
            wrong = _different_vectors(both[name], copies[name], _TOLERANCES[storage])
        else:
            wrong = _different_values(both[name], copies[name])
        for row in np.flatnonzero(wrong):
            found.setdefault(int(there[row]), []).append(name)
    return np.flatnonzero(~is_there).tolist(), found


def surplus(copied: VectorStore, rows: VectorStore) -> Iterable[Sequence[str]]:
    """Yield the ids of a copy that its original lacks, in parts."""
    for batch in copied.scan(["id"]):
        ids = batch.column(0).to_pylist()
        there = {id for own in rows.scan(["id"], ids=ids) for id in own.column(0).to_pylist()}
        if lost := [id for id in ids if id not in there]:
            yield lost


def _different_values(column: pa.ChunkedArray, others: pa.ChunkedArray) -> NDArray[np.bool_]:
    if column.equals(others):
        return np.zeros(len(column), bool)
    pairs = zip(column.to_pylist(), others.to_pylist(), strict=True)
    return np.array([a != b and not (a != a and b != b) for a, b in pairs], bool)


def _different_vectors(
    column: pa.ChunkedArray, others: pa.ChunkedArray, tolerance: float
) -> NDArray[np.bool_]:
    pair = [np.asarray(one.combine_chunks().flatten(), np.float64) for one in (column, others)]
    X, copies = (flat.reshape(len(column), -1) for flat in pair)
    scale = np.abs(X).max(axis=1, keepdims=True)
    different: NDArray[np.bool_] = (np.abs(X - copies) > tolerance * scale).any(axis=1)
    return different
