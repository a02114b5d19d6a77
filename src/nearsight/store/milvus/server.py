"""The connection to a Milvus server: the only module that imports its client."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from nearsight.errors import MissingExtraError, NearsightError, StorageError, VectorError
from nearsight.store.milvus.address import MilvusAddress
from nearsight.store.milvus.entry import ROUGH_ROWS

try:
    from grpc import RpcError
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
#: Of a text or a JSON value.
MAX_TEXT_BYTES = 65_535
# Given with each call: without it, the client waits and tries again for minutes when a query node has died.
_TIMEOUT_S = 60.0
# A server that builds indexes on few cores is late for minutes: so often, what may be repeated is tried.
_N_TRIES_OF_LATE = 5
_HNSW = {"M": 16, "efConstruction": 200}
_IVF = {"nlist": 1024}
# Bytes of the vectors of one answer.
_PAGE_BYTES, _MAX_PAGE = 2**24, 4096
# How widely an index is searched: at least, for each neighbor, and how many times as widely with a filter,
# whose rows are a thinned-out graph. By 40,000 vectors without clusters, for a recall of 0.99.
_LEAST_EF, _EF_OF_NEIGHBOR, _FILTERED, _MAX_EF, _N_PROBES = 1000, 8, 4, 32_768, 256
# Seconds between two looks at an index that is being built, and until it is left to the server.
_LOOK_S, _MAX_WAIT_S = (0.2, 0.5, 1.0, 2.0, 5.0), 600.0
_STACK_TRACE = re.compile(r"stack trace:.*?runtime\.goexit:?\s*", re.DOTALL)
# What a server says that was restarted: a table is not loaded, or a part of the server is not there yet.
_STARTING = ("not loaded", "no available")
# What it says where a table is loaded another number of times, and where there are too few query nodes.
_LOADED_OTHERWISE = "replica number"
_TOO_FEW_NODES = re.compile(r"nodes? not enough|resource insufficient", re.IGNORECASE)
# What it says of an answer of more than 100 MB.
_TOO_LARGE = re.compile(r"exceed the (limit size|maxOutputSize)|message larger than max")
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
                    message = str(error.message)
                    if not any(words in message for words in _STARTING) or pause is None:
                        raise
                time.sleep(pause)
                if _STARTING[0] in message:
                    self._load(client, table)
        raise AssertionError

    def _load(self, client: Any, table: str) -> None:
        try:
            client.load_collection(table, replica_number=self.address.replicas)
        except MilvusException as error:
            # Loaded by somebody else meanwhile, or with the other collections whose documents it holds.
            if _LOADED_OTHERWISE not in str(error.message):
                raise

    @contextmanager
    def _translated(self) -> Iterator[Any]:
        try:
            yield self._client
        except NearsightError:
            raise
        except MilvusException as error:
            raise self._storage_error(str(error.message)) from error
        except RpcError as error:
            # As the client passes on, among others, that a call took too long.
            details = getattr(error, "details", None)
            raise self._storage_error(str(details() if details else error)) from error

    def _storage_error(self, message: str) -> NearsightError:
        message = _STACK_TRACE.sub("", message)
        shown, text = self.address.shown, " ".join(message.split())[:300].rstrip(".")
        lowered = text.lower()
        if "exceed" in lowered and "length" in lowered:
            return VectorError(
                f"{shown} does not take these rows: {text}. In Milvus, the metadata of an image may have"
                f" {MAX_TEXT_BYTES:,} bytes, and so may its thumbnail"
            )
        if _TOO_FEW_NODES.search(text) and self.address.replicas > 1:
            return StorageError(
                f"{shown}: the server answers {text!r} to replicas={self.address.replicas}, as each replica"
                " is loaded by query nodes of its own. Start as many query nodes, or write fewer replicas"
                " into the URI"
            )
        if "auth" in lowered or "permission" in lowered:
            return StorageError(f"{shown}: the server refuses: {text}. Check user, password and rights")
        if "deadline" in lowered:
            return StorageError(
                f"{shown}: the server is late or away: {text}. Check host and port; if it builds an index,"
                " wait for it, and run the same command again; rows that were saved are intact"
            )
        if any(part in lowered for part in ("connect", "unavailable", "timeout")):
            # gRPC does not say of what it failed.
            trust = ", and that GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names a certificate of your own"
            is_encrypted = self.address.url.startswith("https")
            return StorageError(
                f"{shown}: the server is away: {text}. Start it, check host and port"
                f"{trust if is_encrypted else ''}, and run the same command again; rows that were saved are"
                " intact"
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
                    schema.add_field(name, DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
            parameters = _HNSW if index == "HNSW" else _IVF if index.startswith("IVF") else {}
            prepared = client.prepare_index_params()
            prepared.add_index("vector", index_type=index, metric_type="IP", params=parameters)
            client.create_collection(
                table, schema=schema, num_shards=self.address.shards, consistency_level="Strong"
            )
            client.create_index(table, prepared, sync=False)
            self._load(client, table)

    def drop(self, table: str) -> None:
        """Delete a table, if there is one."""
        with self._translated() as client:
            client.drop_collection(table)

    def write(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows, or replace those of the same keys."""
        with self._translated() as client:
            for start in range(0, len(rows), BATCH):
                _patiently(
                    partial(client.upsert, table, list(rows[start : start + BATCH]), timeout=_TIMEOUT_S)
                )

    def delete(self, table: str, expression: str) -> None:
        """Delete rows."""
        with self._translated() as client:
            _patiently(partial(client.delete, table, filter=expression, timeout=_TIMEOUT_S))

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
                    timeout=_TIMEOUT_S,
                )
            ),
        )

    def pages(
        self, table: str, expression: str, fields: Sequence[str], dim: int = 0
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows that match, in the order of their keys.

        Each page evaluates the filter on all rows anew, so pages are as long as memory and the server
        bear. `dim` is the length of the vectors, if they are among the fields.
        """
        n_rows, last = min(_MAX_PAGE, max(BATCH, _PAGE_BYTES // (4 * dim))) if dim else _MAX_PAGE, ""
        while True:
            after = f'key > "{last}"'
            both = f"{after} and {expression}" if expression else after
            try:
                page = self.read(table, both, ["key", *fields], n_rows)
            except StorageError as error:
                if n_rows == 1 or not _TOO_LARGE.search(str(error)):
                    raise
                n_rows //= 2
                continue
            if page:
                yield page
                last = max(row["key"] for row in page)
            if len(page) < n_rows:
                return

    def count(self, table: str, expression: str, *, patiently: bool = False) -> int:
        """Return the number of rows that match; `patiently` for who writes, and rather waits than fails."""

        def work(client: Any) -> Any:
            call = partial(
                client.query,
                table,
                filter=expression,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=_TIMEOUT_S,
            )
            return _patiently(call) if patiently else call()

        [row] = self._loaded(table, work)
        return int(row["count(*)"])

    def search(
        self, table: str, queries: Any, k: int, expression: str, index: str, fields: Sequence[str]
    ) -> list[list[dict[str, Any]]]:
        """Return for each query the rows with the greatest products; each has ``score`` and the fields."""
        times = _FILTERED if expression else 1
        parameters: dict[str, Any] = {}
        if index in ("HNSW", "DISKANN"):
            width = min(times * max(_LEAST_EF, _EF_OF_NEIGHBOR * k), _MAX_EF)
            parameters = {"ef" if index == "HNSW" else "search_list": width}
        elif index.startswith("IVF"):
            # Of all lists with a filter: those nearest to the query may hold none of its rows.
            parameters = {"nprobe": _IVF["nlist"] if expression else _N_PROBES}
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
                timeout=_TIMEOUT_S,
            ),
        )
        return [[{**hit["entity"], "score": hit["distance"]} for hit in hits] for hits in found]

    def version(self) -> str:
        """Return the version of the server."""
        with self._translated() as client:
            return str(client.get_server_version())

    def count_replicas(self, table: str) -> int:
        """Return how many times a table is loaded; while a query node is away, a server may refuse to say."""
        with self._translated() as client:
            return len(client.describe_replica(table))

    def index_state(self, table: str) -> tuple[str, int]:
        """Return the type of a table's index, and how many sealed rows are not searched by it yet."""
        with self._translated() as client:
            facts = client.describe_index(table, "vector") or {}
            kind = str(facts.get("index_type", ""))
            if kind == "FLAT":
                return kind, 0
            # "pending_index_rows" counts rows that were merged, too. What is indexed is not loaded at once;
            # for few rows, no index is built.
            n_rows, n_indexed = (int(facts.get(name, 0)) for name in ("total_rows", "indexed_rows"))
            n_loaded = sum(
                part.num_rows
                for part in client.list_loaded_segments(table)
                if part.index_name or part.num_rows < ROUGH_ROWS
            )
            return kind, max(0, n_rows - min(n_indexed, n_loaded))

    def wait_for_index(self, table: str) -> bool:
        """Wait until all sealed rows are searched by the index; whether they are."""
        started, n_looks = time.monotonic(), 0
        while self.index_state(table)[1]:
            if time.monotonic() - started > _MAX_WAIT_S:
                return False
            time.sleep(_LOOK_S[min(n_looks, len(_LOOK_S) - 1)])
            n_looks += 1
        return True

    def flush(self, table: str, *, patiently: bool = True) -> bool:
        """Seal what was written to a table; whether the server did, which refuses to do so often."""
        with self._translated() as client:
            for pause in (*(_PAUSES_S if patiently else ()), None):
                try:
                    client.flush(table)
                    return True
                except MilvusException as error:  # noqa: PERF203 - a few times, with pauses between
                    if "rate" not in str(error).lower() or (patiently and pause is None):
                        raise
                    time.sleep(pause or 0.0)
        return False


def _patiently(call: Callable[[], T]) -> T:
    """Return what a call returns that may be repeated, and is repeated where the server is late."""
    for _ in range(_N_TRIES_OF_LATE - 1):
        try:
            return call()
        except RpcError as error:  # noqa: PERF203 - a few times
            details = getattr(error, "details", None)
            if not details or "deadline" not in str(details()).lower():
                raise
    return call()
