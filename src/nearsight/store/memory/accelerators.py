"""What the extra ``[fast]`` adds: graphs of usearch, and numkong's products of bytes."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import StorageError

# Edges of a vector, and candidates while one is added: measured at 100,000 x 512, see docs/figures.md.
_CONNECTIVITY, _EXPANSION_ADD = 16, 128
_MAX_LOADED_BYTES = 256 * 2**20


@cache
def _usearch() -> Any:
    """Return the module, or None."""
    try:
        import usearch.index as module
    except ImportError:
        return None
    return module


@cache
def _numkong() -> Any:
    """Return the module, or None."""
    try:
        import numkong as module
    except ImportError:
        return None
    return module


def has_graphs() -> bool:
    """Whether graphs can be built: usearch is installed, and numkong with it."""
    return _usearch() is not None and has_byte_products()


def has_byte_products() -> bool:
    """Whether products of bytes are fast: numkong is installed."""
    return _numkong() is not None


def byte_products(query: NDArray[np.int8], codes: NDArray[np.int8]) -> NDArray[np.float64]:
    """Return the (n,) inner products of a (d,) query with (n, d) codes."""
    products: NDArray[np.float64] = np.asarray(_numkong().cdist(query[None], codes, "dot"))[0]
    return products


class Graph:
    """A graph of near neighbors over (n, d) codes by cosine; a key is the position of a row.

    Parameters
    ----------
    index : usearch.index.Index

    Attributes
    ----------
    recall : float
        The share of the nearest that walks were seen to find.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self.recall = 1.0

    @classmethod
    def empty(cls, dim: int) -> "Graph":
        """Return a graph without rows."""
        return cls(
            _usearch().Index(
                ndim=dim,
                metric="cos",
                dtype="i8",
                connectivity=_CONNECTIVITY,
                expansion_add=_EXPANSION_ADD,
                enable_key_lookups=False,
            )
        )

    @classmethod
    def open(cls, path: Path, expansion: int, recall: float) -> "Graph":
        """Load a saved graph; a large one is mapped into memory, read-only.

        The pages of a mapped file are found one by one when they are first touched, at half of the speed.

        Raises
        ------
        StorageError
            The file is not one.
        """
        try:
            index = _usearch().Index.restore(path, view=path.stat().st_size > _MAX_LOADED_BYTES)
        except (RuntimeError, ValueError) as error:
            raise StorageError(f"{path} is damaged ({error})") from error
        if index is None:
            raise StorageError(f"{path} is not a graph")
        graph = cls(index)
        graph.expansion, graph.recall = expansion, recall
        return graph

    def __len__(self) -> int:
        return len(self._index)

    @property
    def expansion(self) -> int:
        """Candidates that a search keeps: more find more of the nearest, and take longer."""
        return int(self._index.expansion_search)

    @expansion.setter
    def expansion(self, value: int) -> None:
        self._index.expansion_search = value

    def add(self, keys: NDArray[np.int64], codes: NDArray[np.int8], n_threads: int) -> None:
        """Add rows, one for each key."""
        self._index.add(keys.astype(np.uint64), np.ascontiguousarray(codes), threads=n_threads)

    def search(
        self, queries: NDArray[np.int8], count: int, n_threads: int | None = None
    ) -> list[NDArray[np.int64]]:
        """Return the keys of at most `count` near rows for each of the (b, d) queries.

        By default, all cores work on several queries. A row that was added twice may come twice.
        """
        count = min(count, len(self))
        if not count:
            return [np.empty(0, np.int64) for _ in queries]
        if len(queries) == 1:
            return [self._index.search(queries[0], count, threads=1).keys.astype(np.int64)]
        n_threads = min(len(queries), n_threads or os.cpu_count() or 1)
        found = self._index.search(queries, count, threads=n_threads)
        return [keys[:n].astype(np.int64) for keys, n in zip(found.keys, found.counts.tolist(), strict=True)]

    def save(self, path: Path) -> None:
        """Write the graph to a file.

        Raises
        ------
        OSError
            The disk refuses.
        """
        try:
            self._index.save(path)
        except RuntimeError as error:
            raise OSError(str(error)) from error
