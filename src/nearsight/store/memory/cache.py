"""The files that keep a graph and its rows from one process to the next.

A directory of its own random name is filled, and its manifest is written last; without one it is trash. All
files are checked when they are opened, never changed afterwards, and mapped read-only; vectors beyond 256 MB
are read row by row instead. What is doubtful is deleted: the store has everything.
"""

import logging
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.artifacts import read_manifest, write_manifest
from nearsight.errors import NearsightError
from nearsight.store.memory.accelerators import Graph
from nearsight.store.memory.codes import Codes
from nearsight.store.memory.partitions import Partitions
from nearsight.store.memory.plan import MAX_HELD_NUMBERS
from nearsight.store.memory.rows import Part, Rows
from nearsight.store.memory.vectors import in_file

_LOG = logging.getLogger(__name__)
# Graphs of the first were measured on too few rows.
_FORMAT = 2
_PREFIX, _MANIFEST, _LOCK = "memory-", "memory.json", "memory.lock"
_TABLE, _VECTORS, _NORMS = "rows.arrow", "vectors.f32", "norms.f32"
_CODES, _SCALES, _GRAPH = "codes.i8", "scales.f32", "graph.usearch"
_PARTITIONS, _UNORDERED = "partitions.npz", "unordered-"
_CHUNK_BYTES = 16 * 2**20


class MemoryCache:
    """Saved rows in a directory, shared by processes.

    Parameters
    ----------
    directory : Path
        It is made when something is saved.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def is_writable(self) -> bool:
        """Whether files can be made there."""
        existing = self._directory if self._directory.exists() else self._directory.parent
        return os.access(existing, os.W_OK)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Try to become the one process that writes; yield whether it worked."""
        try:
            self._directory.mkdir(exist_ok=True)
            lock = filelock.FileLock(self._directory / _LOCK, blocking=False, thread_local=False)
            lock.acquire()
        except (OSError, filelock.Timeout):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def new_directory(self) -> Path:
        """Return a new directory to save into; hold the lock.

        Raises
        ------
        OSError
            The disk refuses.
        """
        directory = self._directory / f"{_PREFIX}{secrets.token_hex(4)}"
        directory.mkdir()
        return directory

    def open(self) -> tuple[Rows, str] | None:
        """Return the saved rows and the revision that they are of; None if there are none that are sound."""
        for directory in self._directories():
            if not (directory / _MANIFEST).exists():
                continue
            try:
                return _read(directory)
            # Damage can raise nearly anything.
            except Exception as error:
                _LOG.info("%s is deleted: %s", directory, error)
                shutil.rmtree(directory, ignore_errors=True)
        return None

    def discard(self, keep: Path | None = None) -> None:
        """Delete all directories but one, also those that a killed process left; hold the lock."""
        for directory in self._directories():
            if directory != keep:
                # Where mapped files cannot be deleted, the next process deletes them.
                shutil.rmtree(directory, ignore_errors=True)

    def _directories(self) -> list[Path]:
        try:
            return sorted(entry for entry in self._directory.iterdir() if entry.name.startswith(_PREFIX))
        except OSError:
            return []


def write_arrays(directory: Path, part: Part) -> None:
    """Write vectors and their codes.

    Raises
    ------
    OSError
        The disk refuses.
    """
    arrays: dict[str, Any] = {_VECTORS: part.vectors.block(0, len(part)), _NORMS: part.inverse_norms}
    if part.codes:
        arrays |= {_CODES: part.codes.values, _SCALES: part.codes.scales}
    for name, array in arrays.items():
        with open(directory / name, "wb") as file:
            for start in range(0, len(array), 4096):
                file.write(np.ascontiguousarray(array[start : start + 4096]).data)


class ArrayFiles:
    """Vectors and codes written piece by piece, where they are too many for memory.

    Parameters
    ----------
    directory : Path
    dim : int
    """

    def __init__(self, directory: Path, dim: int, prefix: str = _UNORDERED) -> None:
        self._directory, self._dim, self._prefix = directory, dim, prefix
        names = (_VECTORS, _NORMS, _CODES, _SCALES)
        self._files = {name: (directory / f"{prefix}{name}").open("wb") for name in names}
        self._n_rows, self._error = 0, 0.0

    def append(self, vectors: NDArray[np.float32], norms: NDArray[np.float32], codes: Codes) -> None:
        """Write some more rows."""
        arrays = {_VECTORS: vectors, _NORMS: norms, _CODES: codes.values, _SCALES: codes.scales}
        for name, array in arrays.items():
            self._files[name].write(np.ascontiguousarray(array).data)
        self._n_rows += len(vectors)
        self._error = max(self._error, codes.error)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def part(self, table: pa.Table) -> Part:
        """Return the rows that were written, mapped into memory."""
        self.close()
        return _mapped(self._directory, table, self._n_rows, self._dim, self._error, self._prefix)


def ordered(directory: Path, part: Part, order: NDArray[np.int64]) -> Part:
    """Return the rows of unordered files in another order, in files for good.

    Raises
    ------
    OSError
        The disk refuses.
    """
    codes = part.codes
    if codes is None:
        raise ValueError("the rows have no codes")
    files = ArrayFiles(directory, part.vectors.shape[1], prefix="")
    try:
        for start in range(0, len(order), 4096):
            own = order[start : start + 4096]
            values = Codes(codes.values[own], codes.scales[own], codes.error)
            files.append(part.vectors.take(own), part.inverse_norms[own], values)
        part = files.part(part.table.take(pa.array(order)).combine_chunks())
    finally:
        files.close()
    for name in (_VECTORS, _NORMS, _CODES, _SCALES):
        with suppress(OSError):  # where mapped files cannot be deleted, they go with the directory
            (directory / f"{_UNORDERED}{name}").unlink()
    return part


def save(directory: Path, part: Part, graph: Graph | Partitions, revision: str) -> None:
    """Write the rest of the files into a directory that has the arrays, and its manifest last.

    Raises
    ------
    OSError
        The disk refuses.
    """
    table = part.table
    with pa.OSFile(str(directory / _TABLE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    if isinstance(graph, Graph):
        graph.save(directory / _GRAPH)
        own: dict[str, Any] = {"expansion": graph.expansion}
    else:
        np.savez(
            directory / _PARTITIONS,
            centers=graph.centers.values,
            scales=graph.centers.scales,
            ends=graph.ends,
        )
        own = {"reach": graph.reach, "centers_error": graph.centers.error}
    names = (*_ARRAYS, _GRAPH if isinstance(graph, Graph) else _PARTITIONS)
    facts: dict[str, Any] = {
        "revision": revision,
        "rows": len(part),
        "dim": part.vectors.shape[1],
        "error": part.codes.error if part.codes else 0.0,
        "recall": graph.recall,
        **own,
        "files": {name: _checked(directory / name) for name in names},
    }
    for name in facts["files"]:
        with open(directory / name, "rb") as file:
            os.fsync(file.fileno())
    write_manifest(directory / _MANIFEST, _FORMAT, facts)


def _read(directory: Path) -> tuple[Rows, str]:
    with read_manifest(directory / _MANIFEST, _FORMAT) as facts:
        if facts["format"] < _FORMAT:
            raise NearsightError("it is of an earlier version")
        files = facts["files"]
        names = (*_ARRAYS, _PARTITIONS if _PARTITIONS in files else _GRAPH)
        with ThreadPoolExecutor(max_workers=4) as pool:
            checks = dict(zip(names, pool.map(lambda name: _checked(directory / name), names), strict=True))
        wrong = [name for name in checks if list(checks[name]) != list(files[name])]
        if wrong:
            raise NearsightError(f"{wrong[0]} is not as it was written")
        with pa.memory_map(str(directory / _TABLE)) as source:
            table = pa.ipc.open_file(source).read_all()
        part = _mapped(directory, table, facts["rows"], facts["dim"], facts["error"])
        graph = _partitions(directory, part, facts) if _PARTITIONS in files else _graph(directory, facts)
        # Some rows may be in the graph twice.
        if not len(table) == len(part) <= len(graph):
            raise NearsightError("the files do not have the same rows")
        return Rows.of(part, graph), facts["revision"]


_ARRAYS = (_TABLE, _VECTORS, _NORMS, _CODES, _SCALES)


def _graph(directory: Path, facts: dict[str, Any]) -> Graph:
    return Graph.open(directory / _GRAPH, facts["expansion"], facts["recall"])


def _partitions(directory: Path, part: Part, facts: dict[str, Any]) -> Partitions:
    with np.load(directory / _PARTITIONS, allow_pickle=False) as arrays:
        centers = Codes(arrays["centers"], arrays["scales"], facts["centers_error"])
        ends = arrays["ends"]
    if part.codes is None or ends[-1] != len(part):
        raise NearsightError("the partitions are not those of the rows")
    reach = [(int(count), int(n_probes)) for count, n_probes in facts["reach"]]
    return Partitions(centers, ends, part.codes, reach, facts["recall"])


def _mapped(directory: Path, table: pa.Table, n: int, dim: int, error: float, prefix: str = "") -> Part:
    def array(name: str, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
        return np.memmap(directory / f"{prefix}{name}", dtype, "r", shape=shape).view(np.ndarray)

    codes = Codes(array(_CODES, np.int8, (n, dim)), array(_SCALES, np.float32, (n,)), error)
    vectors = in_file(directory / f"{prefix}{_VECTORS}", n, dim, is_large=n * dim > MAX_HELD_NUMBERS)
    return Part(table, vectors, array(_NORMS, np.float32, (n,)), codes)


def _checked(path: Path) -> tuple[int, int]:
    """Return the size and the checksum of a file."""
    size, crc = 0, 0
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    with open(path, "rb", buffering=0) as file:
        while n := file.readinto(buffer):
            size, crc = size + n, zlib.crc32(buffer[:n], crc)
    return size, crc
