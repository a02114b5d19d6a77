"""What a collection asks of the engine below it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.store.filter import Filter


@dataclass(frozen=True, slots=True)
class Hit:
    """One row found by similarity.

    Attributes
    ----------
    id : str
        Key of the row.
    similarity : float
        Cosine in -1..1; higher is closer.
    row : dict
        The other columns that were asked for.
    """

    id: str
    similarity: float
    row: dict[str, Any]


@runtime_checkable
class VectorStore(Protocol):
    """Rows keyed by ``id`` with one ``vector`` each; every write is durable when the call returns.

    The store knows columns, not pictures. Vectors are float32 of unit length. Rows written by
    another process are seen by the next call. Nothing needs to be called for housekeeping:
    writing does it when it is due.
    """

    @property
    def schema(self) -> pa.Schema:
        """Columns as they are now."""
        ...

    @property
    def version(self) -> int:
        """Grows with every change, by whichever process."""
        ...

    def count(self, where: Filter | None = None) -> int:
        """Return the number of rows."""
        ...

    def scan(
        self, columns: Sequence[str], where: Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream `columns` of all rows, of those that match, or of those named, in bounded memory."""
        ...

    def append(self, rows: pa.Table) -> None:
        """Add rows whose ids are new (the caller holds the write lock and has looked)."""
        ...

    def update(self, rows: pa.Table) -> None:
        """Overwrite the given columns of the rows with these ids, in one transaction."""
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        ...

    def add_columns(self, columns: Sequence[pa.Field]) -> None:
        """Add nullable columns; those that exist with the same type already are left alone."""
        ...

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        *,
        where: Filter | None = None,
        columns: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Hit]]:
        """Return for each of the (n, d) vectors its k nearest rows, the most similar first."""
        ...

    def optimize(self) -> None:
        """Compact, build or extend the index, and drop old versions now."""
        ...
