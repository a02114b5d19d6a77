"""The binary columns of a store's rows, in a table of their own.

Thumbnails take ten times the room of everything else in a row. Apart from it, they are not rewritten when
other columns are, and the rows stay small.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearsight.store.lance.table import Addresses, LanceTables, SharedTable, in_chunks

TABLE = "thumbnails"
# Rows whose values are in memory at a time.
BATCH_ROWS = 256
_IDS_PER_BATCH = 4096

Writing = Callable[[], AbstractContextManager[None]]


def binary_names(schema: pa.Schema) -> list[str]:
    """Return the names of the binary columns."""
    return [field.name for field in schema if pa.types.is_binary(field.type)]


class BinaryColumns:
    """Reads and writes the binary columns; whoever writes holds the store's write lock.

    Values are written before their row, and removed after it. So a crash leaves values without a row, which
    `remove_orphans` removes, and never a row without its values. If an id has several rows here, the last one
    counts.

    The table of rows has these columns, too. A write of few rows keeps its values there, since a second
    transaction would double its cost, and `take_out` moves them here when such rows are merged. An earlier
    version kept all values there. A row of this table counts more than that.

    Parameters
    ----------
    tables : LanceTables
        Of the store.
    """

    def __init__(self, tables: LanceTables) -> None:
        self._tables = tables
        self._table: SharedTable | None = None

    @property
    def table(self) -> SharedTable | None:
        """The table, or None before the first value."""
        if self._table is None:
            self._table = self._tables.open(TABLE)
        return self._table

    @property
    def version(self) -> int:
        """Grows with every change."""
        table = self.table
        return table.version if table else 0

    def append(self, rows: pa.Table) -> int:
        """Write the values of new rows; return how many rows have any."""
        names = binary_names(rows.schema)
        rows = _with_values(rows.select(["id", *names]), names)
        if rows.num_rows:
            self._made(rows.schema).add(rows)
        return int(rows.num_rows)

    def update(self, rows: pa.Table) -> None:
        """Write new values, null among them, of rows that exist."""
        table = self._made(rows.schema)
        missing = [name for name in table.schema.names if name not in rows.column_names]
        if missing:
            nulls = [pa.nulls(rows.num_rows, pa.binary()) for _ in missing]
            before = pa.Table.from_arrays([rows["id"], *nulls], names=["id", *missing])
            for name, column in zip(
                missing, self.filled(before.combine_chunks().to_batches()[0]).columns[1:], strict=True
            ):
                rows = rows.append_column(name, column)
        rows = rows.select(table.schema.names)
        table.merge(lambda: rows, "updating rows", insert=True)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove the values of rows that were removed."""
        if self.table is not None:
            self.table.delete(ids)

    def filled(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows, ids among their columns, with their values in the binary columns."""
        table = self.table
        names = binary_names(batch.schema)
        if table is None or not names or not len(batch):
            return batch
        ids = batch.column("id").to_pylist()
        values = table.take(table.addresses_of(list(dict.fromkeys(ids))), ["id", *names]).combine_chunks()
        if not values.num_rows:
            return batch
        # The last row of an id overwrites earlier ones.
        positions = {id: len(batch) + position for position, id in enumerate(values["id"].to_pylist())}
        sources = pa.array([positions.get(id, position) for position, id in enumerate(ids)])
        for name in names:
            both = pa.chunked_array([batch.column(name), *values[name].chunks]).combine_chunks()
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, batch.schema.field(at), both.take(sources))
        return batch

    # --- maintenance --------------------------------------------------------------------------

    def remove_orphans(self, rows: SharedTable, writing: Writing) -> int:
        """Remove values whose row is gone, and all but the last of an id; return how many rows that were."""
        table = self.table
        if table is None:
            return 0
        orphans, repeated = self._suspects(table, rows)
        n_removed = 0
        for start in range(0, len(orphans), BATCH_ROWS):
            with writing():
                # A row may have been written since.
                ids = orphans[start : start + BATCH_ROWS]
                known = set(rows.take(rows.addresses_of(ids), ["id"])["id"].to_pylist())
                n_removed += table.delete([id for id in ids if id not in known])
        for start in range(0, len(repeated), BATCH_ROWS):
            with writing():
                addresses = table.addresses_of(repeated[start : start + BATCH_ROWS])
                ids = table.take(addresses, ["id"])["id"].to_pylist()
                last = dict(zip(ids, addresses.tolist(), strict=True))
                earlier = [last[id] != address for id, address in zip(ids, addresses.tolist(), strict=True)]
                for address in addresses[earlier]:
                    table.delete_at(np.array([address]))
                n_removed += sum(earlier)
        return n_removed

    def _suspects(self, table: SharedTable, rows: SharedTable) -> tuple[list[str], list[str]]:
        """Return ids without a row, and ids of several rows here, by hashes of 8 bytes each."""
        # First the values, since a row comes after its values.
        here, there = _hashes(table), _hashes(rows)
        addresses = table.addresses()
        if len(addresses) != len(here):  # others write: the next time will do
            return [], []
        is_orphan = ~np.isin(here, there)
        order = np.argsort(here, kind="stable")
        is_repeated = np.zeros(len(here), bool)
        is_repeated[order[1:]] = here[order[1:]] == here[order[:-1]]

        def ids(mask: np.ndarray) -> list[str]:
            parts = in_chunks(addresses[mask], _IDS_PER_BATCH)
            return [id for part in parts for id in table.take(part, ["id"])["id"].to_pylist()]

        return ids(is_orphan), list(dict.fromkeys(ids(is_repeated & ~is_orphan)))

    def take_out(self, rows: SharedTable, addresses: Addresses) -> None:
        """Move rows to a new fragment, and the values that they hold to this table.

        The values are copied first. After a crash in between they are in both tables.
        """
        names = binary_names(rows.schema)
        parts = [
            part[_has_value(rows.take(part, names), names).to_numpy(zero_copy_only=False)]
            for part in in_chunks(addresses, BATCH_ROWS)
        ]
        self._copy_from(rows, np.concatenate(parts), names)
        rows.merge(partial(_without_values, rows, addresses, names), "maintenance")

    def move_from(
        self, rows: SharedTable, writing: Writing, n_at_a_time: int, check_room: Callable[[int], None]
    ) -> Iterator[int]:
        """Move the values that an earlier version kept in the rows themselves; yield how many rows had any.

        `check_room` is called with the number of rows that will move. Values are copied before the rows are
        rewritten without them. After a crash, the next call goes on.
        """
        names = binary_names(rows.schema)
        condition = " OR ".join(f"`{name}` IS NOT NULL" for name in names)
        n_rows = len(rows.addresses(condition=condition)) if names else 0
        if n_rows:
            check_room(n_rows)
        while n_rows:
            with writing():
                addresses = rows.addresses(condition=condition, first=n_at_a_time)
                if not len(addresses):
                    return
                self._copy_from(rows, addresses, names)
                rows.merge(partial(_without_values, rows, addresses, names), "moving thumbnails")
            yield len(addresses)

    def _copy_from(self, rows: SharedTable, addresses: Addresses, names: list[str]) -> None:
        """Copy values into one fragment, except those that are here already."""
        if not len(addresses):
            return
        ids = rows.take(addresses, ["id"])["id"].to_pylist()
        known: set[str] = set()
        if self.table is not None:
            known.update(self.table.take(self.table.addresses_of(ids), ["id"])["id"].to_pylist())
        is_new = np.array([id not in known for id in ids], bool)
        if is_new.any():
            reader = rows.take_batches(addresses[is_new], ["id", *names], BATCH_ROWS)
            self._made(reader.schema).add(reader, "moving thumbnails")

    def _made(self, schema: pa.Schema) -> SharedTable:
        table = self.table
        if table is None:
            others = [schema.field(name) for name in schema.names if name != "id"]
            fields = [pa.field("id", pa.string(), nullable=False), *others]
            table = self._table = self._tables.make(TABLE, pa.schema(fields))
        return table


def _with_values(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    return rows.filter(_has_value(rows, names))


def _has_value(rows: pa.Table, names: Sequence[str]) -> pa.ChunkedArray:
    has_value = pa.chunked_array([pa.array([False] * rows.num_rows, pa.bool_())])
    for name in names:
        has_value = pc.or_(has_value, rows[name].is_valid())
    return has_value


def _without_values(rows: SharedTable, addresses: Addresses, names: Sequence[str]) -> pa.Table:
    schema = rows.schema
    table = rows.take(addresses, [name for name in schema.names if name not in names])
    columns = [
        pa.nulls(table.num_rows, field.type) if field.name in names else table[field.name] for field in schema
    ]
    # As one batch, since the engine works on several in parallel and loses their order.
    return pa.table(columns, schema=schema).combine_chunks()


def _hashes(table: SharedTable) -> np.ndarray:
    parts = [
        np.fromiter(map(hash, batch.column("id").to_pylist()), np.int64, len(batch))
        for batch in table.stream(["id"], None, _IDS_PER_BATCH)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
