"""The connection to a Milvus server: the only module that imports its client."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from nearsight.errors import MissingExtraError, NearsightError, StorageError, VectorError
from nearsight.store.milvus.address import MilvusAddress

try:
    from pymilvus import DataType, MilvusClient
    from pymilvus.exceptions import MilvusException
except ImportError as error:
    raise MissingExtraError(
        f"collections in Milvus need pymilvus ({error}); pip install 'nearsight[milvus]'"
    ) from error

# It logs each error that it raises.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

#: Rows of one call, and the most that Milvus returns of a search.
BATCH, MAX_HITS = 512, 16_384
_MAX_BYTES = 65_535  # of a text or a JSON value
_TIMEOUT_S = 60.0
_HNSW = {"M": 16, "efConstruction": 200}
_IVF = {"nlist": 1024}
_LEAST_EF, _MAX_EF, _N_PROBES = 200, 32_768, 64
# Seconds to wait before each further try.
_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 4.0)

T = TypeVar("T")

_CLIENTS: dict[tuple[str, str, str], Any] = {}
_MUTEX = threading.Lock()


class Server:
    """A Milvus server, for the tables of one collection.

    A table has a key, values of its own, and a vector. What a call writes, the next call reads, whoever made
    it ("Strong" consistency): so a read waits for the server's clock, which ticks every 200 ms by default.

    Parameters
    ----------
    address : MilvusAddress
    """

    def __init__(self, address: MilvusAddress) -> None:
        self.address = address

    @property
    def _client(self) -> Any:
        key = (self.address.url, self.address.database, self.address.token)
        with _MUTEX:
            if key not in _CLIENTS:
                url, database, token = key
                _CLIENTS[key] = MilvusClient(uri=url, token=token, db_name=database, timeout=_TIMEOUT_S)
            return _CLIENTS[key]

    def _loaded(self, table: str, work: Callable[[Any], T]) -> T:
        """Return ``work(client)``; a server that was restarted loads its tables first."""
        for pause in (*_PAUSES_S, None):
            with self._translated() as client:
                try:
                    return work(client)
                except MilvusException as error:
                    if "not loaded" not in str(error.message) or pause is None:
                        raise
                time.sleep(pause)
                client.load_collection(table, replica_number=self.address.replicas)
        raise AssertionError

    @contextmanager
    def _translated(self) -> Iterator[Any]:
        try:
            yield self._client
        except NearsightError:
            raise
        except MilvusException as error:
            raise self._storage_error(error) from error

    def _storage_error(self, error: "MilvusException") -> NearsightError:
        shown, text = self.address.shown, " ".join(str(error.message).split())[:300].rstrip(".")
        lowered = text.lower()
        if "exceed" in lowered and "length" in lowered:
            return VectorError(
                f"{shown} does not take these rows: {text}. In Milvus, the metadata of an image may have"
                f" {_MAX_BYTES:,} bytes, and so may its thumbnail"
            )
        if "auth" in lowered or "permission" in lowered:
            return StorageError(f"{shown}: the server refuses: {text}. Check user, password and rights")
        if any(part in lowered for part in ("connect", "unavailable", "deadline", "timeout")):
            return StorageError(
                f"{shown}: the server is away: {text}. Start it, check host and port, and run the same"
                " command again; rows that were saved are intact"
            )
        return StorageError(f"{shown}: the server reports: {text}")

    def has(self, table: str) -> bool:
        """Whether there is a table."""
        with self._translated() as client:
            return bool(client.has_collection(table))

    def create(self, table: str, values: dict[str, str], dim: int, index: str = "FLAT") -> None:
        """Create an empty table, and load it.

        Parameters
        ----------
        table : str
        values : dict of str to str
            The type of each value by its name: "json" or "text".
        dim : int
            Of the vector.
        index : str
            See `INDEXES`.
        """
        with self._translated() as client:
            schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
            for name, kind in values.items():
                if kind == "json":
                    schema.add_field(name, DataType.JSON)
                else:
                    schema.add_field(name, DataType.VARCHAR, max_length=_MAX_BYTES)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
            parameters = _HNSW if index == "HNSW" else _IVF if index.startswith("IVF") else {}
            prepared = client.prepare_index_params()
            prepared.add_index("vector", index_type=index, metric_type="IP", params=parameters)
            client.create_collection(
                table, schema=schema, num_shards=self.address.shards, consistency_level="Strong"
            )
            client.create_index(table, prepared, sync=False)
            client.load_collection(table, replica_number=self.address.replicas)

    def drop(self, table: str) -> None:
        """Delete a table, if there is one."""
        with self._translated() as client:
            client.drop_collection(table)

    def write(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows, or replace those of the same keys."""
        with self._translated() as client:
            for start in range(0, len(rows), BATCH):
                client.upsert(table, list(rows[start : start + BATCH]))

    def delete(self, table: str, expression: str) -> None:
        """Delete rows."""
        with self._translated() as client:
            client.delete(table, filter=expression)

    def read(
        self, table: str, expression: str, fields: Sequence[str], limit: int = BATCH
    ) -> list[dict[str, Any]]:
        """Return rows that match, at most `limit`; those with the least keys."""
        return self._loaded(
            table,
            lambda client: list(
                client.query(
                    table,
                    filter=expression,
                    output_fields=list(fields),
                    limit=limit,
                    consistency_level="Strong",
                )
            ),
        )

    def pages(self, table: str, expression: str, fields: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows that match, in the order of their keys."""
        last = ""
        while True:
            after = f'key > "{last}"'
            page = self.read(table, f"{after} and {expression}" if expression else after, ["key", *fields])
            if page:
                yield page
                last = max(row["key"] for row in page)
            if len(page) < BATCH:
                return

    def count(self, table: str, expression: str) -> int:
        """Return the number of rows that match."""
        [row] = self._loaded(
            table,
            lambda client: client.query(
                table, filter=expression, output_fields=["count(*)"], consistency_level="Strong"
            ),
        )
        return int(row["count(*)"])

    def search(
        self,
        table: str,
        queries: Any,
        k: int,
        expression: str,
        index: str,
        fields: Sequence[str],
        width: float = 1.0,
    ) -> list[list[dict[str, Any]]]:
        """Return for each query the rows with the greatest products; each has ``score`` and the fields.

        `width` is how many times more widely than usual the index is searched.
        """
        parameters: dict[str, Any] = {}
        if index == "HNSW":
            parameters = {"ef": min(max(_LEAST_EF, 4 * k, round(4 * k * width)), _MAX_EF)}
        elif index.startswith("IVF"):
            parameters = {"nprobe": min(round(_N_PROBES * width), _IVF["nlist"])}
        elif index == "DISKANN":
            parameters = {"search_list": min(max(_LEAST_EF, 2 * k, round(2 * k * width)), _MAX_EF)}
        found = self._loaded(
            table,
            lambda client: client.search(
                table,
                data=list(queries),
                anns_field="vector",
                limit=k,
                filter=expression,
                output_fields=list(fields),
                search_params={"metric_type": "IP", "params": parameters},
                consistency_level="Strong",
            ),
        )
        return [[{**hit["entity"], "score": hit["distance"]} for hit in hits] for hits in found]

    def version(self) -> str:
        """Return the version of the server."""
        with self._translated() as client:
            return str(client.get_server_version())

    def index_state(self, table: str) -> tuple[str, int]:
        """Return the type of a table's index, and how many rows still wait for it."""
        with self._translated() as client:
            facts = client.describe_index(table, "vector") or {}
            return str(facts.get("index_type", "")), int(facts.get("pending_index_rows", 0))

    def flush(self, table: str) -> None:
        """Seal what was written, so that it is indexed; a server refuses to do so often."""
        with self._translated() as client:
            for pause in (*_PAUSES_S, None):
                try:
                    client.flush(table)
                    return
                except MilvusException as error:  # noqa: PERF203 - a few times, with pauses between
                    if "rate" not in str(error).lower() or pause is None:
                        raise
                    time.sleep(pause)
