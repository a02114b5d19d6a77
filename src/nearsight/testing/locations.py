"""What every `Location` must do, whatever the engine."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nearsight.errors import CollectionNotFoundError, StorageError
from nearsight.store import CheckedLocation, Location, locate
from nearsight.testing.stores import DIM, SCHEMA, ids_of, rows

_HOLDER = """
import sys
from nearsight.store import locate
with locate(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.readline()
"""
_NAME = "collection.json"
_SCHEMA_2 = SCHEMA.set(SCHEMA.get_field_index("vector"), pa.field("vector", pa.list_(pa.float32(), 2 * DIM)))


class LocationTests:
    """The tests of a location: give `uri` and `unreachable_uri`.

    Attributes
    ----------
    says_size : bool
        Whether the storage says how many bytes a collection takes.

    Examples
    --------
    A test module of an engine::

        from nearsight.testing import LocationTests

        class TestMyLocation(LocationTests):
            def uri(self, directory):
                return f"myengine://localhost?collection={directory.name}"

            def unreachable_uri(self, directory):
                return "myengine://localhost:1?collection=photos"
    """

    says_size = True

    def uri(self, directory: Path) -> str:
        """Return the URI of a collection, the same for the same `directory`; nothing is there yet."""
        raise NotImplementedError

    def unreachable_uri(self, directory: Path) -> str:
        """Return the URI of a collection in a storage that does not answer, or refuses everything."""
        raise NotImplementedError

    @pytest.fixture
    def location(self, tmp_path: Path) -> Location:
        return locate(self.uri(tmp_path / "one"))

    @pytest.fixture
    def other(self, tmp_path: Path) -> Location:
        """Return the same collection, as another process has it."""
        return locate(self.uri(tmp_path / "one"))

    @pytest.fixture
    def neighbor(self, tmp_path: Path) -> Location:
        """Return another collection, whose name begins as that of the first."""
        return locate(self.uri(tmp_path / "one2"))

    def test_it_is_a_location(self, location: Location, other: Location, neighbor: Location) -> None:
        assert isinstance(location, Location)
        assert location.default_storage in ("float32", "float16")
        assert isinstance(location.is_searched_in_memory, bool)
        assert (location.uri, location.files) == (other.uri, other.files)
        assert location.uri != neighbor.uri
        assert location.files != neighbor.files

    def test_nothing_is_there_at_first(self, location: Location) -> None:
        assert location.read_document(_NAME) is None
        with pytest.raises(CollectionNotFoundError):
            location.open_store("store")
        assert location.size_bytes() == 0
        if isinstance(location, CheckedLocation):
            assert list(location.store_checks("store")) == []
        with location.lock():
            location.delete_document(_NAME)
            location.delete_store("store")

    def test_a_document_is_read_as_it_was_written_last(self, location: Location, other: Location) -> None:
        with location.lock():
            location.write_document("upgrade.json", b"another")
            for content in (b"{}", bytes(range(256)) * 1200, b"", b"short\r\n"):
                location.write_document(_NAME, content)
                assert location.read_document(_NAME) == content
                assert other.read_document(_NAME) == content
            for _ in range(2):
                location.delete_document(_NAME)
            assert other.read_document(_NAME) is None
        assert other.read_document("upgrade.json") == b"another"

    def test_a_document_is_whole_while_it_is_replaced(self, location: Location, other: Location) -> None:
        contents = [b"1" * 200_000, b"2" * 300_000]
        seen: list[bytes | None] = []
        is_over = threading.Event()

        def read() -> None:
            while not is_over.is_set():
                seen.append(other.read_document(_NAME))

        with location.lock():
            location.write_document(_NAME, contents[1])
            reader = threading.Thread(target=read)
            reader.start()
            deadline = time.monotonic() + 30
            try:
                while len(seen) < 30 and time.monotonic() < deadline:
                    for content in contents:
                        location.write_document(_NAME, content)
            finally:
                is_over.set()
                reader.join()
        assert len(seen) >= 2
        assert all(content in contents for content in seen)

    def test_the_lock_is_entered_any_number_of_times(self, location: Location) -> None:
        lock = location.lock()
        for _ in range(3):
            with lock, lock:
                pass

    def test_a_lock_is_left_when_its_block_fails(self, location: Location, other: Location) -> None:
        with pytest.raises(ZeroDivisionError), location.lock():
            raise ZeroDivisionError
        assert _enters(other).wait(30)

    def test_one_thread_of_many_holds_the_lock(self, location: Location, other: Location) -> None:
        # Threads of a service share what `lock` returned; others have one of their own, as processes do.
        shared = location.lock()
        inside: list[int] = []
        most: list[int] = []

        def take_turns(lock: Any, number: int) -> None:
            for _ in range(3):
                with lock, lock:
                    inside.append(number)
                    most.append(len(inside))
                    time.sleep(0.01)
                    inside.remove(number)

        locks = [shared, shared, location.lock(), other.lock()]
        threads = [
            threading.Thread(target=take_turns, args=(lock, number)) for number, lock in enumerate(locks)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1] * 12

    def test_another_process_holds_the_lock_until_it_is_killed(
        self, location: Location, neighbor: Location, tmp_path: Path
    ) -> None:
        command = [sys.executable, "-c", _HOLDER, self.uri(tmp_path / "one")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "held\n"
                entered = _enters(location)
                assert not entered.wait(0.3)
                # That of another collection is free.
                assert _enters(neighbor).wait(30)
                assert not entered.is_set()
            finally:
                holder.kill()
        assert entered.wait(60)

    def test_a_writer_enters_the_lock_for_each_write(self, location: Location, other: Location) -> None:
        with location.lock():
            store = location.create_store("store", SCHEMA)
        lock = location.lock()
        for number in range(3):
            with lock:
                store.append(rows([f"{number}"]))
                location.write_document(_NAME, b"%d" % number)
        assert ids_of(other.open_store("store")) == ["0", "1", "2"]
        assert other.read_document(_NAME) == b"2"

    def test_a_store_is_made_once(self, location: Location, other: Location) -> None:
        with location.lock():
            location.create_store("store", SCHEMA).append(rows(["a"]))
        with other.lock():
            assert ids_of(other.create_store("store", SCHEMA)) == ["a"]
            with pytest.raises(StorageError):
                other.create_store("store", _SCHEMA_2)
        assert ids_of(location.open_store("store")) == ["a"]
        if isinstance(location, CheckedLocation):
            found = [*location.checks(), *location.store_checks("store")]
            assert [check for check in found if check.status == "fail"] == []

    def test_a_second_store_is_deleted_beside_the_first(self, location: Location, other: Location) -> None:
        with location.lock():
            location.create_store("store", SCHEMA).append(rows(["a"]))
            second = location.create_store("store_2", _SCHEMA_2)
            revision = second.revision
            assert (second.count(), second.schema.field("vector").type.list_size) == (0, 2 * DIM)
            for _ in range(2):
                location.delete_store("store_2")
            with pytest.raises(CollectionNotFoundError):
                other.open_store("store_2")
            assert ids_of(other.open_store("store")) == ["a"]
            again = location.create_store("store_2", SCHEMA)
            assert again.count() == 0
            assert again.revision != revision
            location.delete_store("store")
        assert other.open_store("store_2").count() == 0
        with pytest.raises(CollectionNotFoundError):
            other.open_store("store")

    def test_collections_side_by_side_share_nothing(self, location: Location, neighbor: Location) -> None:
        for place, name in ((location, "a"), (neighbor, "b")):
            with place.lock():
                place.create_store("store", SCHEMA).append(rows([name]))
                place.write_document(_NAME, name.encode())
        with location.lock():
            location.delete_document(_NAME)
            location.delete_store("store")
        assert neighbor.read_document(_NAME) == b"b"
        assert ids_of(neighbor.open_store("store")) == ["b"]

    def test_the_size_grows_with_the_rows(self, location: Location, neighbor: Location) -> None:
        with location.lock():
            store = location.create_store("store", SCHEMA)
            before = location.size_bytes()
            # As large as thumbnails are; some engines take no larger ones.
            store.append(
                rows([f"{i:02}" for i in range(20)], thumbnail=[_noise(15_000, i) for i in range(20)])
            )
        grown = location.size_bytes() - before
        assert (300_000 <= grown < 1_000_000) if self.says_size else grown == 0
        assert neighbor.size_bytes() == 0

    def test_a_storage_that_is_away_is_not_an_empty_one(self, tmp_path: Path) -> None:
        calls: list[Callable[[Location], Any]] = [
            lambda location: location.read_document(_NAME),
            lambda location: location.write_document(_NAME, b"{}"),
            lambda location: location.open_store("store"),
            lambda location: location.create_store("store", SCHEMA),
        ]
        uri = self.unreachable_uri(tmp_path)

        def error_of(call: Callable[[Location], Any]) -> BaseException | None:
            with pytest.raises(StorageError) as caught:
                call(locate(uri))
            return caught.value

        # At once, as each waits a while for the storage.
        with ThreadPoolExecutor(len(calls)) as threads:
            for error in threads.map(error_of, calls):
                assert not isinstance(error, CollectionNotFoundError)
                assert locate(uri).uri in str(error)


def _enters(location: Location) -> threading.Event:
    """Return what is set once another thread has entered the lock, and left it."""
    entered = threading.Event()

    def enter() -> None:
        with location.lock():
            pass
        entered.set()

    threading.Thread(target=enter, daemon=True).start()
    return entered


def _noise(n_bytes: int, seed: int) -> bytes:
    # What no storage makes smaller.
    return np.random.default_rng(seed).bytes(n_bytes)
