"""A store in Milvus: a `VectorStore` whose rows a cluster keeps."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.errors import CollectionNotFoundError, FilterError, MetadataError, StorageError, VectorError
from nearsight.store.base import Hit, check_queries, check_rows
from nearsight.store.filters.arrow import matching_rows
from nearsight.store.filters.ast import Filter
from nearsight.store.filters.conditions import columns_of
from nearsight.store.json_columns import (
    LENGTH,
    arrow_column,
    directions,
    json_rows,
    vector_column,
    vector_matrix,
)
from nearsight.store.milvus.address import INDEXES, MilvusAddress
from nearsight.store.milvus.expressions import COLUMNS, MilvusExpressions, among
from nearsight.store.milvus.server import BATCH, MAX_HITS, Server

if TYPE_CHECKING:
    from nearsight.store.milvus.location import MilvusLocation

_NO_VECTOR = [1.0, 0.0]
# Up to this many matching rows are compared one by one: Milvus's index loses some of so few.
_MAX_COMPARED = 2000


def entry_of(name: str) -> str:
    """Return the name of the document that describes a store."""
    return f"store {name}"


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
        self._writing = threading.RLock()

    # --- reading ------------------------------------------------------------------------------

    @staticmethod
    def entry(schema: pa.Schema, version: int, incarnation: str, index: str) -> bytes:
        """Return the document that describes a store."""
        arrow_schema = base64.b64encode(schema.serialize().to_pybytes()).decode()
        facts = {"schema": arrow_schema, "version": version, "incarnation": incarnation, "index": index}
        return json.dumps(facts).encode()

    def _read_entry(self) -> tuple[pa.Schema, int, str, str]:
        content = self._location.read_document(entry_of(self._name))
        if content is None:
            raise CollectionNotFoundError(f"{self._address.shown}: the collection was deleted; open it again")
        facts = json.loads(content)
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(facts["schema"])))
        return schema, facts["version"], facts["incarnation"], facts["index"]

    @property
    def stored_schema(self) -> pa.Schema:
        """The current columns, with the vector of the type that was asked for."""
        return self._read_entry()[0]

    @property
    def schema(self) -> pa.Schema:
        """The current columns, with the vector in float32."""
        return _public(self.stored_schema)

    @property
    def version(self) -> int:
        """Grows with every change by any process."""
        return self._read_entry()[1]

    @property
    def revision(self) -> str:
        """Names the current version; see VectorStore."""
        _, version, incarnation, _ = self._read_entry()
        return f"{version}-{incarnation}"

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
        for page in self._pages(expression, asked, ids):
            rows = [row[COLUMNS] for row in page]
            kept = _matching(checked, rows, schema) if checked else [True] * len(page)
            page = [row for row, keep in zip(page, kept, strict=True) if keep]
            if not page:
                continue
            rows = [row[COLUMNS] for row in page]
            values = self._binary_values([row["key"] for row in page], binary)
            arrays = [
                vector_column([row["vector"] for row in page], rows, field.type.list_size)
                if field.name == "vector"
                else arrow_column(values if field in binary else rows, field)
                for field in fields
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    def _pages(
        self, expression: str, fields: Sequence[str], ids: Sequence[str] | None
    ) -> Iterator[list[dict[str, Any]]]:
        if ids is None:
            yield from self._server.pages(self._table, expression, fields)
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
        stored, _, _, index = self._read_entry()
        schema = _public(stored)
        queries, _ = directions(check_queries(vectors, k, schema.field("vector").type.list_size))
        expression, is_exact = MilvusExpressions().write(where) if where else ("", True)
        n_fetched = k * INDEXES[index]
        n_matching = self._server.count(self._table, expression) if where and is_exact else None
        is_narrow = n_matching is not None and n_matching <= _MAX_COMPARED
        if exact or not is_exact or is_narrow or n_fetched > MAX_HITS:
            found = self._compared(queries, k, where)
        else:
            # The graph of a filter is as if thinned out: it is searched as much more widely.
            width = 1.0 if n_matching is None else self._server.count(self._table, "") / n_matching
            found = self._indexed(queries, k, expression, index, width)
            if any(len(hits) < k for hits in found):
                n_matching = self._server.count(self._table, expression)
                if any(len(hits) < min(k, n_matching) for hits in found):
                    found = self._compared(queries, k, where)
        return self._hits(found, [schema.field(name) for name in dict.fromkeys(columns) if name != "id"])

    def _indexed(
        self, queries: NDArray[np.float32], k: int, expression: str, index: str, width: float
    ) -> list[list[tuple[float, str]]]:
        """Return (similarity, id) by the index; where it rounds vectors, more are fetched and compared."""
        is_rounded = INDEXES[index] > 1
        fields = [COLUMNS, "vector"] if is_rounded else [COLUMNS]
        n_fetched = k * INDEXES[index]
        found = self._server.search(self._table, queries, n_fetched, expression, index, fields, width)
        results = []
        for query, hits in zip(queries, found, strict=True):
            if is_rounded and hits:
                scores = np.array([hit["vector"] for hit in hits], np.float32) @ query
            else:
                scores = np.array([hit["score"] for hit in hits], np.float32)
            best = np.argsort(-scores, kind="stable")[:k]
            results.append([(float(scores[i]), hits[i][COLUMNS]["id"]) for i in best])
        return results

    def _compared(
        self, queries: NDArray[np.float32], k: int, where: Filter | None
    ) -> list[list[tuple[float, str]]]:
        """Return (similarity, id) by comparing all rows that match, a part at a time."""
        best: list[list[tuple[float, str]]] = [[] for _ in queries]
        for batch in self.scan(["id", "vector"], where):
            ids = batch.column("id").to_pylist()
            X, _ = directions(np.asarray(batch.column("vector").flatten(), np.float32).reshape(len(ids), -1))
            for own, scores in zip(best, queries @ X.T, strict=True):
                own += [(float(score), id) for score, id in zip(scores, ids, strict=True)]
                own.sort(key=lambda pair: -pair[0])
                del own[k:]
        return best

    def _hits(self, found: list[list[tuple[float, str]]], fields: list[pa.Field]) -> list[list[Hit]]:
        names = [field.name for field in fields]
        rows: dict[str, dict[str, Any]] = {}
        if names:
            ids = list({id for hits in found for _, id in hits})
            batches = self.scan(["id", *names], ids=ids)
            rows = {row.pop("id"): row for batch in batches for row in batch.to_pylist()}
        empty = dict.fromkeys(names)
        return [
            [Hit(id, float(np.clip(score, -1, 1)), rows.get(id, empty)) for score, id in hits]
            for hits in found
        ]

    # --- writing ------------------------------------------------------------------------------

    def _write(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns; the version grows before it, for who reads meanwhile, and after it."""
        with self._writing:
            self._count_up()
            try:
                return work()
            finally:
                self._count_up()

    def _count_up(self, schema: pa.Schema | None = None) -> None:
        stored, version, incarnation, index = self._read_entry()
        entry = self.entry(stored if schema is None else schema, version + 1, incarnation, index)
        self._location.write_document(entry_of(self._name), entry)

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
        values = json_rows(rows.select(binary)) if binary else [{} for _ in keys]

        def add() -> None:
            self._write_binary(keys, values)
            self._server.write(
                self._table,
                [
                    {"key": key, COLUMNS: {**row, LENGTH: float(length)}, "vector": unit.tolist()}
                    for key, row, length, unit in zip(keys, narrow, lengths, units, strict=True)
                ],
            )
            for start in range(0, len(keys), BATCH):
                own = keys[start : start + BATCH]
                n_there = self._server.count(self._table, among(own))
                if n_there != len(own):
                    raise StorageError(
                        f"{self._address.shown}: {len(own):,} rows were written and {n_there:,} are there;"
                        " check the server's log, and run the same command again"
                    )

        self._write(add)

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

        def change() -> None:
            keys = list(places)
            for start in range(0, len(keys), BATCH):
                own = among(keys[start : start + BATCH])
                there = self._server.read(self._table, own, ["key", COLUMNS, "vector"])
                for row in there:
                    place = places[row["key"]]
                    if units is not None and lengths is not None:
                        row["vector"] = units[place].tolist()
                        row[COLUMNS][LENGTH] = float(lengths[place])
                    merged = {**row[COLUMNS], **narrow[place]}
                    row[COLUMNS] = {name: value for name, value in merged.items() if value is not None}
                    row["vector"] = np.asarray(row["vector"], np.float32).tolist()
                if there:
                    self._server.write(self._table, there)
                if there and values is not None:
                    self._change_binary([row["key"] for row in there], places, values)

        self._write(change)

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

        def remove() -> int:
            keys, n_found = [key_of(id) for id in dict.fromkeys(ids)], 0
            for start in range(0, len(keys), BATCH):
                own = among(keys[start : start + BATCH])
                n_found += self._server.count(self._table, own)
                self._server.delete(self._table, own)
                if self._find_binary():
                    self._server.delete(self._binary, own)
            return n_found

        return int(self._write(remove))

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
                self._count_up(pa.schema([*stored, *new]))

    # --- maintenance --------------------------------------------------------------------------

    def maintain(self) -> None:
        """Do nothing: the server indexes and compacts by itself."""

    def optimize(self) -> None:
        """Let the server seal and index what was written last; see VectorStore."""
        self._server.flush(self._table)


def _public(stored: pa.Schema) -> pa.Schema:
    vector = stored.field("vector")
    public = vector.with_type(pa.list_(pa.float32(), vector.type.list_size))
    return stored.set(stored.get_field_index("vector"), public)


def _matching(where: Filter, rows: list[dict[str, Any]], schema: pa.Schema) -> list[bool]:
    fields = [schema.field(name) for name in columns_of(where)]
    table = pa.Table.from_arrays([arrow_column(rows, field) for field in fields], schema=pa.schema(fields))
    mask = matching_rows(where, table)
    if mask is None:
        raise FilterError("this filter compares columns of types that a store in Milvus cannot compare.")
    found: list[bool] = mask.tolist()
    return found


__all__ = ["MilvusStore", "binary_table", "entry_of", "key_of"]
