"""A store in Milvus: a `VectorStore` whose rows a cluster keeps."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import CollectionNotFoundError, MetadataError, StorageError, VectorError
from nearsight.store.base import Hit, check_rows, require_accepted
from nearsight.store.filters.ast import Filter
from nearsight.store.json_columns import (
    LENGTH,
    arrow_column,
    directions,
    json_rows,
    vector_column,
    vector_matrix,
)
from nearsight.store.milvus.address import MilvusAddress
from nearsight.store.milvus.entry import MARK, ROUGH_ROWS, StoreEntry, entry_of
from nearsight.store.milvus.expressions import COLUMNS, MilvusExpressions, among
from nearsight.store.milvus.search import Found, MilvusSearch, Question, matching
from nearsight.store.milvus.server import BATCH, MAX_TEXT_BYTES, Server

if TYPE_CHECKING:
    from nearsight.store.milvus.location import MilvusLocation

_NO_VECTOR = [1.0, 0.0]
# After so many rows that were written anew, they are sealed.
_MAX_UNSEALED = 20_000
# So long after rows were sealed, few more wait for others: each call seals a part of its own.
_SECONDS_BETWEEN_SEALS = 30.0
#: Of its JSON, with room for the mark.
MAX_ROW_BYTES = MAX_TEXT_BYTES - 35


def key_of(id: str) -> str:
    """Return the key of a row, which needs no quotes in an expression."""
    return hashlib.sha256(id.encode()).hexdigest()[:32]


def binary_table(table: str) -> str:
    """Return the table of the binary values of another one."""
    return f"{table}__binary"


class MilvusStore:
    """A VectorStore in Milvus. `MilvusLocation` opens and creates it.

    A row is a key, its columns as JSON, and its vector scaled to length one. Thumbnails have a table of their
    own. A call that writes many rows sends them in parts: one that is killed may leave some of them, and none
    of those was acknowledged. A search never returns fewer rows than match: where the index does, rows are
    compared one by one.

    Parameters
    ----------
    location : MilvusLocation
    server : Server
    address : MilvusAddress
    name : str
    """

    def __init__(self, location: "MilvusLocation", server: Server, address: MilvusAddress, name: str) -> None:
        self._location = location
        self._server = server
        self._address = address
        self._name = name
        self._table = address.table(name)
        self._binary = binary_table(self._table)
        self._has_binary = False
        self._sealed_at: float | None = None
        self._writing = threading.RLock()
        self._search = MilvusSearch(server, self._table, self._read_entry)

    # --- reading ------------------------------------------------------------------------------

    def _read_entry(self) -> StoreEntry:
        content = self._location.read_document(entry_of(self._name))
        if content is None:
            raise CollectionNotFoundError(f"{self._address.shown}: the collection was deleted; open it again")
        return StoreEntry.decode(content)

    @property
    def stored_schema(self) -> pa.Schema:
        """The current columns, with the vector of the type that was asked for."""
        return self._read_entry().schema

    @property
    def schema(self) -> pa.Schema:
        """The current columns, with the vector in float32."""
        return self._read_entry().public_schema

    @property
    def version(self) -> int:
        """Grows with every change by any process."""
        return self._read_entry().version

    @property
    def revision(self) -> str:
        """Names the current version; see VectorStore."""
        entry = self._read_entry()
        return f"{entry.version}-{entry.incarnation}"

    def count(self, where: Filter | None = None) -> int:
        """Return the number of rows."""
        expression, is_exact = MilvusExpressions().write(where) if where else ("", True)
        if is_exact:
            return self._server.count(self._table, expression)
        return sum(len(batch) for batch in self.scan(["id"], where))

    def scan(
        self, columns: Sequence[str], where: Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream `columns`; see VectorStore."""
        schema = self.schema
        fields = [schema.field(name) for name in columns]
        expression, is_exact = MilvusExpressions().write(where) if where else ("", True)
        checked = None if is_exact else where
        asked = [COLUMNS, "vector"] if "vector" in columns else [COLUMNS]
        binary = [field for field in fields if pa.types.is_binary(field.type)]
        dim = schema.field("vector").type.list_size if "vector" in columns else 0
        for page in self._pages(expression, asked, ids, dim):
            rows = [row[COLUMNS] for row in page]
            kept = matching(checked, rows, schema) if checked else [True] * len(page)
            page = [row for row, keep in zip(page, kept, strict=True) if keep]
            if not page:
                continue
            arrays = self._columns(page, fields, binary)
            yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _pages(
        self, expression: str, fields: Sequence[str], ids: Sequence[str] | None, dim: int
    ) -> Iterator[list[dict[str, Any]]]:
        if ids is None:
            yield from self._server.pages(self._table, expression, fields, dim)
            return
        keys = [key_of(id) for id in dict.fromkeys(ids)]
        for start in range(0, len(keys), BATCH):
            own = among(keys[start : start + BATCH])
            both = f"{own} and {expression}" if expression else own
            if page := self._server.read(self._table, both, ["key", *fields]):
                yield page

    def _binary_values(self, keys: list[str], fields: Sequence[pa.Field]) -> list[dict[str, Any]]:
        """Return the binary values of each row, as JSON has them."""
        if not fields or not self._find_binary():
            return [{} for _ in keys]
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(keys), BATCH):
            for row in self._server.read(
                self._binary, among(keys[start : start + BATCH]), ["key", "content"]
            ):
                found[row["key"]] = json.loads(row["content"])
        return [found.get(key, {}) for key in keys]

    def _find_binary(self) -> bool:
        self._has_binary = self._has_binary or self._server.has(self._binary)
        return self._has_binary

    def search(
        self,
        vectors: NDArray[np.float32],
        k: int,
        *,
        where: Filter | None = None,
        columns: Sequence[str] = (),
        exact: bool = False,
    ) -> list[list[Hit]]:
        """Return the k nearest rows of each vector; see VectorStore."""
        entry, found = self._search.nearest(Question(vectors, k, where, "vector" in columns, exact))
        schema = entry.public_schema
        return self._hits(found, [schema.field(name) for name in dict.fromkeys(columns) if name != "id"])

    def _hits(self, found: list[list[Found]], fields: list[pa.Field]) -> list[list[Hit]]:
        rows = {one.row["key"]: one.row for own in found for one in own}
        binary = [field for field in fields if pa.types.is_binary(field.type)]
        columns = self._columns(list(rows.values()), fields, binary)
        lists = [column.to_pylist() for column in columns]
        names = [field.name for field in fields]
        values = dict(zip(rows, zip(*lists, strict=True) if lists else ((),) * len(rows), strict=True))
        return [
            [
                Hit(
                    one.row[COLUMNS]["id"],
                    float(np.clip(one.similarity, -1, 1)),
                    dict(zip(names, values[one.row["key"]], strict=True)),
                )
                for one in own
            ]
            for own in found
        ]

    def _columns(
        self, page: list[dict[str, Any]], fields: Sequence[pa.Field], binary: Sequence[pa.Field]
    ) -> list[pa.Array]:
        """Return columns of rows as the table has them."""
        rows = [row[COLUMNS] for row in page]
        values = self._binary_values([row["key"] for row in page], binary)
        return [
            vector_column([row["vector"] for row in page], rows, field.type.list_size)
            if field.name == "vector"
            else arrow_column(values if field in binary else rows, field)
            for field in fields
        ]

    # --- writing ------------------------------------------------------------------------------

    def _write(self, work: Callable[[int], Any], n_rows: int) -> Any:
        """Return what `work` returns, which writes up to `n_rows` with the mark that it is given.

        The version grows before it, for who reads meanwhile, and after it.
        """
        with self._writing:
            entry = self._count_up(n_rows)
            try:
                return work(entry.n_flushes)
            finally:
                self._count_up()

    def _count_up(self, n_rows: int = 0, schema: pa.Schema | None = None) -> StoreEntry:
        entry = self._read_entry()
        n_unsealed = entry.n_unsealed + n_rows
        return self._write_entry(
            replace(entry, schema=schema or entry.schema, version=entry.version + 1, n_unsealed=n_unsealed)
        )

    def _write_entry(self, entry: StoreEntry) -> StoreEntry:
        self._location.write_document(entry_of(self._name), entry.encode())
        return entry

    def append(self, rows: pa.Table) -> None:
        """Add rows; one with the id of a new row is replaced. See VectorStore."""
        rows = check_rows(rows, self.schema)
        if "vector" not in rows.column_names:
            raise VectorError("the rows have no column 'vector'.")
        if not rows.num_rows:
            return
        units, lengths = directions(vector_matrix(rows["vector"], rows.schema.field("vector").type.list_size))
        keys = [key_of(id) for id in rows["id"].to_pylist()]
        binary = [field.name for field in rows.schema if pa.types.is_binary(field.type)]
        narrow = json_rows(rows.drop_columns(binary) if binary else rows)
        narrow = [{**row, LENGTH: float(length)} for row, length in zip(narrow, lengths, strict=True)]
        values = json_rows(rows.select(binary)) if binary else [{} for _ in keys]
        require_accepted("Milvus", reasons_against(narrow, values))

        def add(mark: int) -> None:
            self._write_binary(keys, values)
            self._server.write(
                self._table,
                [
                    {"key": key, COLUMNS: {**row, MARK: mark}, "vector": unit.tolist()}
                    for key, row, unit in zip(keys, narrow, units, strict=True)
                ],
            )
            for start in range(0, len(keys), BATCH):
                own = keys[start : start + BATCH]
                n_there = self._server.count(self._table, among(own), patiently=True)
                if n_there != len(own):
                    raise StorageError(
                        f"{self._address.shown}: {len(own):,} rows were written and {n_there:,} are there;"
                        " check the server's log, and run the same command again"
                    )

        self._write(add, len(keys))

    def _write_binary(self, keys: Sequence[str], values: Sequence[dict[str, Any]]) -> None:
        """Write binary values, and delete those of rows that have none."""
        if any(values) and not self._find_binary():
            self._server.create(self._binary, {"content": "text"}, len(_NO_VECTOR))
        if not self._find_binary():
            return
        rows = [
            {"key": key, "content": json.dumps(value), "vector": _NO_VECTOR}
            for key, value in zip(keys, values, strict=True)
            if value
        ]
        if rows:
            self._server.write(self._binary, rows)
        lacking = [key for key, value in zip(keys, values, strict=True) if not value]
        for start in range(0, len(lacking), BATCH):
            self._server.delete(self._binary, among(lacking[start : start + BATCH]))

    def update(self, rows: pa.Table) -> None:
        """Overwrite the given columns of some rows; Milvus replaces whole rows. See VectorStore."""
        rows = check_rows(rows, self.schema)
        if not rows.num_rows or rows.num_columns == 1:
            return
        units = lengths = None
        if "vector" in rows.column_names:
            dim = rows.schema.field("vector").type.list_size
            units, lengths = directions(vector_matrix(rows["vector"], dim))
        binary = [field.name for field in rows.schema if pa.types.is_binary(field.type)]
        narrow = json_rows(rows.drop_columns(binary) if binary else rows, with_nulls=True)
        values = json_rows(rows.select(binary), with_nulls=True) if binary else None
        places = {key_of(id): place for place, id in enumerate(rows["id"].to_pylist())}

        def merged() -> Iterator[list[dict[str, Any]]]:
            for there in self._pages("", [COLUMNS, "vector"], rows["id"].to_pylist(), 0):
                for row in there:
                    place = places[row["key"]]
                    if units is not None and lengths is not None:
                        row["vector"] = units[place].tolist()
                        row[COLUMNS][LENGTH] = float(lengths[place])
                    both = {**row[COLUMNS], **narrow[place], MARK: None}
                    row[COLUMNS] = {name: value for name, value in both.items() if value is not None}
                    row["vector"] = np.asarray(row["vector"], np.float32).tolist()
                yield there

        def change(mark: int) -> None:
            for there in held if held is not None else merged():
                for row in there:
                    row[COLUMNS][MARK] = mark
                self._server.write(self._table, there)
                if values is not None:
                    self._change_binary([row["key"] for row in there], places, values)

        with self._writing:
            # Nothing is written before all rows were looked at; few are not read again for it.
            held = list(merged()) if rows.num_rows <= BATCH else None
            reasons: dict[str, str] = {}
            for there in held if held is not None else merged():
                own = [values[places[row["key"]]] for row in there] if values else [{} for _ in there]
                reasons |= reasons_against([row[COLUMNS] for row in there], own)
            require_accepted("Milvus", reasons)
            self._write(change, rows.num_rows)
            if self._read_entry().n_unsealed >= _MAX_UNSEALED:
                self._seal()

    def _change_binary(
        self, keys: list[str], places: dict[str, int], values: Sequence[dict[str, Any]]
    ) -> None:
        fields = [field for field in self.schema if pa.types.is_binary(field.type)]
        before = self._binary_values(keys, fields)
        merged = [{**old, **values[places[key]]} for key, old in zip(keys, before, strict=True)]
        self._write_binary(keys, [{k: v for k, v in row.items() if v is not None} for row in merged])

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        if not ids:
            return 0

        def remove(_: int) -> int:
            keys, n_found = [key_of(id) for id in dict.fromkeys(ids)], 0
            for start in range(0, len(keys), BATCH):
                own = among(keys[start : start + BATCH])
                n_found += self._server.count(self._table, own, patiently=True)
                self._server.delete(self._table, own)
                if self._find_binary():
                    self._server.delete(self._binary, own)
            return n_found

        return int(self._write(remove, 0))

    def add_columns(self, columns: Sequence[pa.Field]) -> None:
        """Add nullable columns; those that exist with the same type already are left alone."""
        with self._writing:
            stored = self.stored_schema
            for field in columns:
                if field.name in stored.names and stored.field(field.name).type != field.type:
                    raise MetadataError(
                        f"column {field.name!r} holds {stored.field(field.name).type}, not {field.type}. "
                        "Use another name, or values of that type."
                    )
            new = [field.with_nullable(True) for field in columns if field.name not in stored.names]
            if new:
                self._count_up(schema=pa.schema([*stored, *new]))

    # --- maintenance --------------------------------------------------------------------------

    def maintain(self) -> None:
        """Have the server seal what was written, and index it if there is much; see VectorStore."""
        if self._read_entry().n_unsealed >= ROUGH_ROWS:
            self.optimize()
        elif self._sealed_at is None or time.monotonic() - self._sealed_at > _SECONDS_BETWEEN_SEALS:
            with self._location.lock(), self._writing:
                self._seal(patiently=False)

    def optimize(self) -> None:
        """Have the server seal and index what was written last, and wait for it; see VectorStore.

        An index that takes more than ten minutes is left to the server.
        """
        with self._location.lock(), self._writing:
            sealed = self._seal()
        if sealed.n_indexed == sealed.n_flushes or not self._server.wait_for_index(self._table):
            return
        with self._location.lock(), self._writing:
            entry = self._read_entry()
            if (entry.incarnation, entry.n_flushes) == (sealed.incarnation, sealed.n_flushes):
                self._write_entry(replace(entry, n_indexed=entry.n_flushes, is_marked=True))

    def _seal(self, *, patiently: bool = True) -> StoreEntry:
        """Have the server seal all that was written; the caller holds the lock of writers.

        So rows begin to be indexed, and outlive whatever happens to the server's log of what is not sealed.
        Unless `patiently`, a server that refuses to do so that often is let be.
        """
        entry = self._read_entry()
        if entry.n_unsealed:
            if self._find_binary():
                self._server.flush(self._binary, patiently=patiently)
            if not self._server.flush(self._table, patiently=patiently):
                return entry
            n_flushes, n_indexed = entry.n_flushes + 1, entry.n_indexed
            if entry.n_unsealed < ROUGH_ROWS and n_indexed == entry.n_flushes:
                # So few are compared one by one until they are indexed.
                n_indexed = n_flushes
            entry = self._write_entry(replace(entry, n_unsealed=0, n_flushes=n_flushes, n_indexed=n_indexed))
        self._location.seal_documents(patiently=patiently)
        self._sealed_at = time.monotonic()
        return entry


def reasons_against(rows: Sequence[dict[str, Any]], binary: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return why Milvus cannot hold some rows, by id; both as JSON has them."""
    reasons: dict[str, str] = {}
    for row, others in zip(rows, binary, strict=True):
        for values in (row, others):
            size = _n_bytes(values)
            if size <= MAX_ROW_BYTES:
                continue
            longest = max(values, key=lambda name: _n_bytes(values[name]))
            reasons[row["id"]] = (
                f"it takes {size:,} bytes as JSON, of which {longest!r} {_n_bytes(values[longest]):,}, and"
                f" Milvus holds {MAX_ROW_BYTES:,}; shorten that, or keep the collection in a directory or in"
                " PostgreSQL"
            )
    return reasons


def _n_bytes(value: Any) -> int:
    # As the client sends it.
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


__all__ = ["MilvusStore", "binary_table", "key_of"]
