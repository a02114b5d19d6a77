"""A store in Qdrant: a `nearsight.store.VectorStore`."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from qdrant_client import models

from nearsight.errors import CollectionNotFoundError, FilterError, MetadataError, VectorError
from nearsight.store.base import Hit, check_queries, check_rows
from nearsight.store.filters.arrow import matching_rows
from nearsight.store.filters.ast import Filter
from nearsight.store.filters.conditions import columns_of
from nearsight.store.json_columns import (
    LENGTH,
    arrow_column,
    directions,
    json_key,
    json_rows,
    vector_column,
    vector_matrix,
)
from nearsight_qdrant.conditions import QdrantConditions
from nearsight_qdrant.points import key_of
from nearsight_qdrant.server import Address, client_of, thread_lock, translated

if TYPE_CHECKING:
    from nearsight_qdrant.location import QdrantLocation

_BATCH = 512
_LEAST_EF = 200


def entry_of(name: str) -> str:
    """Return the name of the document that describes a store."""
    return f"store {name}"


class QdrantStore:
    """A VectorStore in one collection of Qdrant. `QdrantLocation` opens and creates it.

    A row is a point; its payload holds the columns, and the length of its vector, for Qdrant gets directions.
    A call that changes many rows sends them in parts: a process that is killed may leave some of them, and
    none of those was acknowledged.

    Parameters
    ----------
    location : QdrantLocation
    address : Address
    name : str
    """

    def __init__(self, location: "QdrantLocation", address: Address, name: str) -> None:
        self._location = location
        self._address = address
        self._name = name
        self._table = f"{address.collection}.{name}"

    # --- reading ------------------------------------------------------------------------------

    @staticmethod
    def entry(schema: pa.Schema, version: int, incarnation: str) -> bytes:
        """Return the document that describes a store."""
        arrow_schema = base64.b64encode(schema.serialize().to_pybytes()).decode()
        return json.dumps({"schema": arrow_schema, "version": version, "incarnation": incarnation}).encode()

    def _read_entry(self) -> tuple[pa.Schema, int, str]:
        content = self._location.read_document(entry_of(self._name))
        if content is None:
            raise CollectionNotFoundError(f"{self._address.shown}: the collection was deleted; open it again")
        found = json.loads(content)
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(found["schema"])))
        return schema, found["version"], found["incarnation"]

    @property
    def stored_schema(self) -> pa.Schema:
        """The current columns, with the vector as it is stored."""
        return self._read_entry()[0]

    @property
    def schema(self) -> pa.Schema:
        """The current columns, with the vector in float32 whatever is stored."""
        stored = self.stored_schema
        vector = stored.field("vector")
        public = vector.with_type(pa.list_(pa.float32(), vector.type.list_size))
        return stored.set(stored.get_field_index("vector"), public)

    @property
    def version(self) -> int:
        """Grows with every change by any process."""
        return self._read_entry()[1]

    @property
    def revision(self) -> str:
        """Names the current version; see VectorStore."""
        _, version, incarnation = self._read_entry()
        return f"{version}-{incarnation}"

    @property
    def _client(self) -> Any:
        return client_of(self._address)

    def count(self, where: Filter | None = None) -> int:
        """Return the number of rows."""
        condition, is_exact = QdrantConditions().write(where) if where else (None, True)
        if not is_exact:
            return sum(len(batch) for batch in self.scan(["id"], where))
        with translated(self._address):
            return int(self._client.count(self._table, count_filter=_filter(condition), exact=True).count)

    def scan(
        self, columns: Sequence[str], where: Filter | None = None, *, ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Stream `columns`; see VectorStore."""
        schema = self.schema
        fields = [schema.field(name) for name in columns]
        condition, is_exact = QdrantConditions().write(where) if where else (None, True)
        # Rows that are looked up by their ids are compared here.
        checked = where if ids is not None or not is_exact else None
        needed = {json_key(name) for name in {*columns, *(columns_of(checked) if checked else ())}}
        needed |= {LENGTH} if "vector" in columns else set()
        how = {"with_payload": sorted(needed - {"vector"}) or False, "with_vectors": "vector" in columns}
        for points in self._scroll(condition, how) if ids is None else self._retrieve(ids, how):
            payloads = [point.payload or {} for point in points]
            arrays = [
                vector_column([point.vector for point in points], payloads, field.type.list_size)
                if field.name == "vector"
                else arrow_column(payloads, field)
                for field in fields
            ]
            batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
            batch = batch.filter(pa.array(_matching(checked, payloads, schema))) if checked else batch
            if len(batch):
                yield batch

    def _retrieve(self, ids: Sequence[str], how: dict[str, Any]) -> Iterator[list[Any]]:
        keys = [key_of(id) for id in dict.fromkeys(ids)]
        for start in range(0, len(keys), _BATCH):
            with translated(self._address):
                points = self._client.retrieve(self._table, keys[start : start + _BATCH], **how)
            if points:
                yield points

    def _scroll(self, condition: Any, how: dict[str, Any]) -> Iterator[list[Any]]:
        offset = None
        while True:
            with translated(self._address):
                points, offset = self._client.scroll(
                    self._table, _filter(condition), limit=_BATCH, offset=offset, **how
                )
            if points:
                yield points
            if offset is None:
                return

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
        schema = self.schema
        queries, _ = directions(check_queries(vectors, k, schema.field("vector").type.list_size))
        condition, is_exact = QdrantConditions().write(where) if where else (None, True)
        if not is_exact:
            ids = [id for batch in self.scan(["id"], where) for id in batch.column(0).to_pylist()]
            condition = models.Filter(must=[models.HasIdCondition(has_id=[key_of(id) for id in ids])])
        wanted = list(dict.fromkeys(["id", *columns]))
        payload = [json_key(name) for name in wanted if name != "vector"]
        payload += [LENGTH] if "vector" in wanted else []
        found = self._nearest(queries, k, condition, payload, "vector" in wanted, exact=exact)
        if not exact and any(len(points) < k for points in found):
            # The graph may miss rows of a narrow filter.
            with translated(self._address):
                n_matching = self._client.count(
                    self._table, count_filter=_filter(condition), exact=True
                ).count
            if any(len(points) < min(k, n_matching) for points in found):
                found = self._nearest(queries, k, condition, payload, "vector" in wanted, exact=True)
        return [_hits(points, [schema.field(name) for name in wanted]) for points in found]

    def _nearest(
        self, queries: Any, k: int, condition: Any, payload: list[str], with_vectors: bool, *, exact: bool
    ) -> list[list[Any]]:
        # The local mode compares with every row, and warns of settings that mean nothing to it.
        params = None
        if self._address.directory is None:
            params = models.SearchParams(exact=exact, hnsw_ef=max(4 * k, _LEAST_EF))
        requests = [
            models.QueryRequest(
                query=query.tolist(), limit=k, filter=_filter(condition), params=params,
                with_payload=payload, with_vector=with_vectors,
            )
            for query in queries
        ]  # fmt: skip
        with translated(self._address):
            answers = self._client.query_batch_points(self._table, requests) if requests else []
        return [answer.points for answer in answers]

    # --- writing ------------------------------------------------------------------------------

    def _write(self, work: Callable[[], Any]) -> Any:
        """Return what `work` returns; the version grows before it, for who reads meanwhile, and after it."""
        with thread_lock(self._address), translated(self._address):
            self._count_up()
            try:
                return work()
            finally:
                self._count_up()

    def _count_up(self, schema: pa.Schema | None = None) -> None:
        stored, version, incarnation = self._read_entry()
        entry = self.entry(stored if schema is None else schema, version + 1, incarnation)
        self._location.write_document(entry_of(self._name), entry)

    def append(self, rows: pa.Table) -> None:
        """Add rows; one with the id of a new row is replaced. See VectorStore."""
        stored = self.stored_schema
        rows = check_rows(rows, self.schema)
        if "vector" not in rows.column_names:
            raise VectorError("the rows have no column 'vector'.")
        X = vector_matrix(rows["vector"], stored.field("vector").type.list_size)
        units, lengths = directions(X)
        keys = [key_of(id) for id in rows["id"].to_pylist()]
        payloads = json_rows(rows)

        def add() -> None:
            for start in range(0, len(keys), _BATCH):
                points = [
                    models.PointStruct(
                        id=keys[i],
                        vector=units[i].tolist(),
                        payload={**payloads[i], LENGTH: float(lengths[i])},
                    )
                    for i in range(start, min(start + _BATCH, len(keys)))
                ]
                self._client.upsert(self._table, points, wait=True)

        if keys:
            self._write(add)

    def update(self, rows: pa.Table) -> None:
        """Overwrite the given columns of some rows; see VectorStore."""
        rows = check_rows(rows, self.schema)
        if not rows.num_rows or rows.num_columns == 1:
            return
        X = units = lengths = None
        if "vector" in rows.column_names:
            X = vector_matrix(rows["vector"], rows.schema.field("vector").type.list_size)
            units, lengths = directions(X)
        ids = rows["id"].to_pylist()
        payloads = json_rows(rows, with_nulls=True)

        def change() -> None:
            known = {id for batch in self.scan(["id"], ids=ids) for id in batch.column(0).to_pylist()}
            for start in range(0, len(ids), _BATCH):
                operations: list[Any] = []
                for i in range(start, min(start + _BATCH, len(ids))):
                    if ids[i] in known:
                        own = payloads[i] if lengths is None else {**payloads[i], LENGTH: float(lengths[i])}
                        operations += _changes(key_of(ids[i]), own, None if units is None else units[i])
                if operations:
                    self._client.batch_update_points(self._table, operations, wait=True)

        self._write(change)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows; return how many there were."""
        if not ids:
            return 0

        def remove() -> int:
            found = [id for batch in self.scan(["id"], ids=ids) for id in batch.column(0).to_pylist()]
            if found:
                self._client.delete(self._table, [key_of(id) for id in found], wait=True)
            return len(found)

        return int(self._write(remove))

    def add_columns(self, columns: Sequence[pa.Field]) -> None:
        """Add nullable columns; those that exist with the same type already are left alone."""
        with thread_lock(self._address):
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
        """Do nothing: a server indexes and compacts by itself."""

    def optimize(self) -> None:
        """Do nothing: a server indexes and compacts by itself."""


def _filter(condition: Any) -> models.Filter | None:
    """Return a condition as what Qdrant's calls take."""
    return (
        condition
        if condition is None or isinstance(condition, models.Filter)
        else models.Filter(must=[condition])
    )


def _changes(key: str, payload: dict[str, Any], vector: Any) -> list[Any]:
    payload = {name: value for name, value in payload.items() if name != "id"}
    changes: list[Any] = []
    if payload:
        changes.append(
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, points=[key]))
        )
    if vector is not None:
        point = models.PointVectors(id=key, vector=vector.tolist())
        changes.append(models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=[point])))
    return changes


def _hits(points: list[Any], fields: list[pa.Field]) -> list[Hit]:
    payloads = [point.payload for point in points]
    columns = {
        field.name: (
            vector_column([point.vector for point in points], payloads, field.type.list_size)
            if field.name == "vector"
            else arrow_column(payloads, field)
        ).to_pylist()
        for field in fields
    }
    return [
        Hit(
            columns["id"][i],
            float(np.clip(point.score, -1, 1)),
            {name: values[i] for name, values in columns.items() if name != "id"},
        )
        for i, point in enumerate(points)
    ]


def _matching(where: Filter, payloads: list[dict[str, Any]], schema: pa.Schema) -> NDArray[np.bool_]:
    fields = [schema.field(name) for name in columns_of(where)]
    table = pa.Table.from_arrays(
        [arrow_column(payloads, field) for field in fields], schema=pa.schema(fields)
    )
    mask = matching_rows(where, table)
    if mask is None:
        raise FilterError("this filter compares columns of types that the store in Qdrant cannot compare.")
    return mask
