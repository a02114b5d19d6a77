"""The embedded engine: the conformance suite, and what is its own duty."""

import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from preloaded import Piped, run

from nearsight.errors import CollectionNotFoundError, StorageError, UnsupportedMachineError, VectorError
from nearsight.store import parse
from nearsight.store.lance import maintenance
from nearsight.store.lance.old_versions import newest_version
from nearsight.store.lance.platform_checks import check_machine
from nearsight.store.lance.store import LanceStore
from nearsight.testing import StoreTests
from nearsight.testing.stores import DIM, FIELDS, SCHEMA, fetch, ids_of, rows, vector_array, vectors_of

WRITER = Path(__file__).with_name("crashing_writer.py")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def store(directory):
    return LanceStore.create(directory, SCHEMA)


def disk_bytes(directory):
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


@pytest.mark.slow
class TestLance(StoreTests):
    def make(self, directory):
        return LanceStore.create(directory, SCHEMA)

    def reopen(self, directory):
        return LanceStore.open(directory)


@pytest.mark.slow
class TestLanceFloat16(StoreTests):
    # Eleven significant bits.
    atol = 5e-4
    largest = 6e4
    # The calls are those of float32: only what a vector holds is another.
    n_examples = 5

    def make(self, directory):
        at = SCHEMA.get_field_index("vector")
        return LanceStore.create(directory, SCHEMA.set(at, pa.field("vector", pa.list_(pa.float16(), DIM))))

    def reopen(self, directory):
        return LanceStore.open(directory)

    def test_it_takes_half_the_room(self, store):
        store.append(rows(["a"]))
        assert store._rows.schema.field("vector").type == pa.list_(pa.float16(), DIM)

    def test_numbers_beyond_float16_are_refused(self, store):
        with pytest.raises(VectorError, match="beyond 65,504"):
            store.append(rows(["a"], np.full((1, DIM), 1e5)))
        assert store.count() == 0


# --- opening ----------------------------------------------------------------------------------


def test_opening_nothing(tmp_path):
    with pytest.raises(CollectionNotFoundError, match="there is no collection"):
        LanceStore.open(tmp_path / "missing")
    (tmp_path / "half" / "pictures.lance" / "data").mkdir(parents=True)
    with pytest.raises(CollectionNotFoundError, match="never finished"):
        LanceStore.open(tmp_path / "half")
    assert LanceStore.create(tmp_path / "half", SCHEMA).count() == 0


def test_opening_something_damaged(store, directory):
    store.append(rows(["a"]))
    for manifest in (directory / "pictures.lance" / "_versions").glob("*.manifest"):
        manifest.write_bytes(b"garbage")
    with pytest.raises(StorageError, match="opening the collection failed"):
        LanceStore.open(directory)


def test_creating_twice_keeps_the_rows(store, directory):
    store.append(rows(["a"]))
    assert LanceStore.create(directory, SCHEMA).count() == 1
    with pytest.raises(StorageError, match="table with other columns"):
        LanceStore.create(directory, SCHEMA.append(pa.field("new", pa.int64())))


@pytest.mark.parametrize(
    "fields", [[("id", pa.string())], [("id", pa.string()), ("vector", pa.list_(pa.float32()))]]
)
def test_a_schema_needs_ids_and_vectors(tmp_path, fields):
    with pytest.raises(ValueError, match="a table needs columns"):
        LanceStore.create(tmp_path, pa.schema(fields))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc/cpuinfo")
def test_a_processor_without_avx2_is_told_before_it_crashes(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu sse4_2 avx avx512f\nprocessor\t: 1\n")
    with pytest.raises(UnsupportedMachineError, match="no AVX2 instructions"):
        check_machine(info)
    info.write_text("flags\t\t: fpu avx avx2\n")
    check_machine(info)
    check_machine(tmp_path / "missing")
    info.write_text("Features\t: fp asimd\n")
    check_machine(info)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    info.write_text("flags\t\t: fpu\n")
    check_machine(info)


def complaint(use):
    try:
        use()
    except StorageError as error:
        return str(error)
    return "no error"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told_to_spawn(store, directory):
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lancedb's own, about forking
        child = os.fork()
    if child == 0:
        try:
            sender.send([complaint(store.count), complaint(lambda: LanceStore.open(directory))])
        finally:
            os._exit(0)
    assert receiver.poll(20)
    messages = receiver.recv()
    os.waitpid(child, 0)
    assert all("'spawn'" in message for message in messages), messages
    assert store.count() == 0


# --- a disk that refuses ----------------------------------------------------------------------


def fill_the_disk(directory):
    """Append in a process whose files may not grow, as if the disk were full; return what it said."""
    program = f"""
import resource, signal, sys
import pyarrow as pa, numpy as np
from pathlib import Path
from nearsight.errors import StorageError
from nearsight.store.lance.store import LanceStore
store = LanceStore.open(Path({str(directory)!r}))
def add(name, size):
    vector = pa.FixedSizeListArray.from_arrays(pa.array(np.ones({DIM}, np.float32)), {DIM})
    image = pa.array([bytes(size)], pa.binary())
    store.append(pa.table({{"id": [name], "thumbnail": image, "vector": vector}}))
add("small", 10)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    add("large", 1_000_000)
except StorageError as error:
    print(error)
add("after", 10)
"""
    done = run(program)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_write_that_the_disk_refuses(store, directory):
    said = fill_the_disk(directory)
    assert "run the same command again; rows already saved are intact" in said
    assert ids_of(store) == ["after", "small"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB, where this user may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
def test_a_full_disk(small_disk):
    store = LanceStore.create(small_disk / "store", SCHEMA)
    saved = []

    def fill():
        for number in range(10_000):
            store.append(rows([f"{number:05}"], thumbnail=[os.urandom(20_000)]))
            saved.append(f"{number:05}")

    with pytest.raises(
        StorageError, match="the disk is full. Free some space and run the same command again"
    ):
        fill()
    assert len(saved) > 20
    assert ids_of(store) == saved
    assert store.search(vectors_of(0), 1)[0][0].similarity == pytest.approx(1, abs=1e-5)
    assert ids_of(LanceStore.open(small_disk / "store")) == saved
    store.optimize()  # deletes old versions first, which needs no room
    store.append(rows(["more"]))
    assert ids_of(store) == [*saved, "more"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs tmpfs")
def test_a_read_only_disk_can_be_searched(small_disk):
    LanceStore.create(small_disk / "store", SCHEMA).append(rows(["a"]))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = LanceStore.open(small_disk / "store")
    assert store.search(vectors_of(0), 1)[0][0].id == "a"
    store.maintain()
    with pytest.raises(StorageError, match="the file system is read-only"):
        store.append(rows(["b"]))
    with pytest.raises(StorageError, match="the file system is read-only"):
        store.delete(["a"])


def test_a_directory_that_vanished(store, directory):
    store.append(rows(["a"]))
    (directory / "pictures.lance").rename(directory / "elsewhere")
    with pytest.raises(StorageError, match="a file is gone"):
        store.count()


# --- crashes ----------------------------------------------------------------------------------


def kill_a_writer(directory, *arguments, after):
    """Run a writer, kill it when it has saved `after` rows and a little more; return the ids it reported."""
    with Piped(WRITER.read_text(), directory, *arguments) as writer:
        reported = [writer.stdout.readline().strip() for _ in range(after)]
        time.sleep(0.001 * (after % 7))
        writer.kill()
        reported += writer.stdout.read().split()
    return [name for name in reported if len(name) == 8]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("arguments", [(), ("optimize",)])
def test_no_acknowledged_row_is_lost_by_kill(store, directory, arguments):
    acknowledged = []
    for after in (3, 6, 11):
        acknowledged += kill_a_writer(directory, *arguments, after=after)
        found = ids_of(store)
        assert set(acknowledged) <= set(found)
        assert len(found) == len(set(found))
        # One row at most was saved without its word having come through.
        assert len(found) <= len(acknowledged) + 3
        thumbnails = fetch(store, ["thumbnail"])
        assert all(row["thumbnail"] == bytes(5000) for row in thumbnails), "a row without its thumbnail"
    store.append(rows(["afterwards"]))
    store.optimize()
    assert set(ids_of(LanceStore.open(directory))) == {*found, "afterwards"}


# --- maintenance ------------------------------------------------------------------------------


def n_fragments(table):
    return len(newest_version(table.root).fragments)


def live_bytes(store):
    return sum(table.row_bytes() * table.n_rows() for table in (store._rows, store._binary.table) if table)


@pytest.mark.slow
def test_single_appends_leave_few_fragments_and_lose_nothing(store, directory):
    for number in range(100):
        store.append(rows([f"{number:03}"], vectors_of(number), width=[number]))
    assert n_fragments(store._rows) <= 7
    another = LanceStore.open(directory)  # knows nothing of what came before
    for number in range(100, 120):
        another.append(rows([f"{number:03}"], vectors_of(number), width=[number]))
    assert n_fragments(store._rows) <= 7
    assert [row["width"] for row in fetch(store, ["width"])] == list(range(120))
    assert store.search(vectors_of(42), 1)[0][0].id == "042"


def test_large_appends_are_not_rewritten(store, directory):
    n_rows = maintenance.LARGE_FRAGMENT_ROWS
    for number in range(8):
        table = rows([f"{number}-{n}" for n in range(n_rows)], thumbnail=[os.urandom(500)] * n_rows)
        store.append(table)
    assert n_fragments(store._rows) == 8
    assert disk_bytes(directory) < 1.5 * live_bytes(store)


def test_optimizing_brings_the_disk_down_to_the_data(store, directory):
    for number in range(60):
        store.append(rows([f"{number:03}"], thumbnail=[os.urandom(20_000)]))
    before = disk_bytes(directory)
    store.delete([f"{number:03}" for number in range(30)])
    store.optimize()
    assert before > 60 * 20_000 * 1.5
    assert disk_bytes(directory) < 30 * 20_000 * 1.2
    assert len(ids_of(store)) == 30


@pytest.mark.slow
def test_maintenance_frees_old_versions_by_itself(store, directory, monkeypatch):
    monkeypatch.setattr(maintenance, "_MIN_OLD_BYTES", 100_000)
    sizes = []
    for number in range(150):
        store.append(rows([f"{number:03}"], thumbnail=[os.urandom(3_000)]))
        store.maintain()
        sizes.append(disk_bytes(directory))
    assert min(np.diff(sizes)) < -100_000
    assert max(sizes) < 5 * 150 * 3_000
    assert store.count() == 150


@pytest.mark.slow
def test_a_reader_elsewhere_survives_compaction_and_cleanup(store, directory):
    for number in range(30):
        store.append(rows([f"{number:02}-{n}" for n in range(300)], thumbnail=[os.urandom(2000)] * 300))
    program = f"""
import sys
from pathlib import Path
from nearsight.store.lance.store import LanceStore
store = LanceStore.open(Path({str(directory)!r}))
batches = store.scan(["id", "thumbnail"])
n = next(batches).num_rows
print("reading", flush=True)
sys.stdin.readline()
print(n + sum(batch.num_rows for batch in batches), store.count(), flush=True)
"""
    reader = Piped(program)
    assert reader.stdout.readline() == "reading\n"
    store.optimize()
    kept = disk_bytes(directory)
    out, _ = reader.communicate("go on\n", timeout=60)
    assert out.split() == ["9000", "9000"]
    store.optimize()  # now that nobody reads, the old files go
    assert disk_bytes(directory) < 0.6 * kept


def test_a_scan_in_this_process_survives_as_well(store):
    for number in range(20):
        store.append(rows([f"{number:02}-{n}" for n in range(300)], thumbnail=[os.urandom(500)] * 300))
    batches = store.scan(["id", "thumbnail"])
    n_rows = next(batches).num_rows
    store.optimize()
    assert n_rows + sum(batch.num_rows for batch in batches) == 6000


@pytest.mark.slow
def test_two_processes_tidy_and_write_at_once(store, directory):
    store.append(rows(["seed"]))
    program = f"""
from pathlib import Path
from nearsight.store.lance.store import LanceStore
store = LanceStore.open(Path({str(directory)!r}))
for _ in range(15):
    store.optimize()
"""
    others = [Piped(program) for _ in range(2)]
    written = ["seed"]
    while any(other.poll() is None for other in others):
        written.append(f"{len(written):05}")
        store.append(rows([written[-1]]))
        store.update(pa.table({"id": [written[-1]], "width": pa.array([len(written)], pa.int32())}))
    for other in others:
        other.communicate()
    assert [other.returncode for other in others] == [0, 0]
    assert ids_of(store) == sorted(written)
    assert all(row["width"] == int(row["id"]) + 1 for row in fetch(store, ["width"]) if row["id"] != "seed")


# --- indexes ----------------------------------------------------------------------------------

N, WIDE = 4000, 32
WIDE_SCHEMA = pa.schema(
    [("id", pa.string()), ("width", pa.int32()), ("vector", pa.list_(pa.float32(), WIDE))]
)


def clustered(n, seed):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).standard_normal((40, WIDE))
    drawn = (centers[rng.integers(0, 40, n)] + rng.standard_normal((n, WIDE))).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def wide_rows(start, vectors):
    return pa.table(
        {
            "id": [f"{number:05}" for number in range(start, start + len(vectors))],
            "width": pa.array(range(start, start + len(vectors)), pa.int32()),
            "vector": vector_array(vectors),
        }
    )


@pytest.fixture
def low_thresholds(monkeypatch):
    monkeypatch.setattr(maintenance, "MIN_INDEXED_ROWS", 1000)
    monkeypatch.setattr(maintenance, "MIN_KEYED_ROWS", 1000)


@pytest.fixture
def indexed(low_thresholds, directory):
    store = LanceStore.create(directory, WIDE_SCHEMA)
    store.append(wide_rows(0, clustered(N, 1)))
    store.optimize()
    assert indexes(store) == {"vector": 0, "id": 0}
    return store


def indexes(store):
    with store._rows.use("testing") as table:
        return {index.columns[0]: index.num_unindexed_rows for index in table.list_indices()}


def recall(store, queries, **how):
    found = store.search(queries, 10, **how)
    exact = store.search(queries, 10, exact=True, where=how.get("where"))
    return np.mean(
        [len({h.id for h in a} & {h.id for h in b}) / len(b) for a, b in zip(found, exact, strict=True)]
    )


def test_the_index_finds_what_exact_search_finds(indexed):
    queries = clustered(100, 2)
    assert recall(indexed, queries) >= 0.99
    stored = clustered(N, 1)
    for query, hits in zip(queries, indexed.search(queries, 10, exact=True), strict=True):
        assert [int(hit.id) for hit in hits] == np.argsort(-(stored @ query), kind="stable")[:10].tolist()
    one_by_one = [indexed.search(query[None], 10)[0] for query in queries[:5]]
    assert [[h.id for h in hits] for hits in one_by_one] == [
        [h.id for h in hits] for hits in indexed.search(queries[:5], 10)
    ]


@pytest.mark.parametrize(
    ("condition", "n_matching"), [("width < 5", 5), ("width >= 3900", 100), ("width != 7", N - 1)]
)
def test_filters_come_before_the_index(indexed, condition, n_matching):
    where = parse(condition, FIELDS)
    queries = clustered(30, 3)
    assert [len(hits) for hits in indexed.search(queries, 10, where=where)] == [min(10, n_matching)] * 30
    assert recall(indexed, queries, where=where) >= 0.99


def test_rows_after_the_index_are_found(indexed):
    new = clustered(20, 4)
    indexed.append(wide_rows(N, new))
    found = indexed.search(new, 1)
    assert [hits[0].id for hits in found] == [f"{N + n:05}" for n in range(20)]


def test_rows_deleted_after_the_index_are_gone(indexed):
    queries = clustered(N, 1)[:20]
    assert [hits[0].id for hits in indexed.search(queries, 1)] == [f"{n:05}" for n in range(20)]
    indexed.delete([f"{n:05}" for n in range(20)])
    assert all(int(hit.id) >= 20 for hits in indexed.search(queries, 10) for hit in hits)


@pytest.mark.parametrize("n_updated", [3, 3000])
def test_rows_updated_after_the_index_stay_searchable(indexed, n_updated):
    names = [f"{n:05}" for n in range(n_updated)]
    indexed.update(pa.table({"id": names, "width": pa.array([-1] * n_updated, pa.int32())}))
    stored = clustered(N, 1)
    for hits in indexed.search(stored[:3], 1, columns=["width"]):
        assert hits[0].similarity > 0.999
        assert hits[0].row == {"width": -1}
    moved = clustered(3, 9)
    indexed.update(pa.table({"id": names[:3], "vector": vector_array(moved)}))
    assert [hits[0].id for hits in indexed.search(moved, 1)] == names[:3]
    assert all(hits[0].similarity < 0.999 for hits in indexed.search(stored[:3], 1))
    assert recall(indexed, clustered(50, 5)) >= 0.99


def test_the_index_is_built_when_it_is_due(low_thresholds, directory):
    store = LanceStore.create(directory, WIDE_SCHEMA)
    store.append(wide_rows(0, clustered(900, 1)))
    store.maintain()
    assert indexes(store) == {}
    for start in range(900, 10_900, 1000):
        store.append(wide_rows(start, clustered(1000, start)))
    store.maintain()
    assert indexes(store)["vector"] == 0
    assert indexes(store)["id"] <= 1000
    store.append(wide_rows(20_000, clustered(300, 7)))
    store.maintain()
    assert indexes(store)["vector"] == 300


@pytest.mark.slow
def test_whoever_writes_much_leaves_few_rows_out_of_the_index(low_thresholds, directory, monkeypatch):
    monkeypatch.setattr(maintenance, "_MIN_ROWS_TO_INDEX", 300)
    store = LanceStore.create(directory, WIDE_SCHEMA)
    store.append(wide_rows(0, clustered(5000, 1)))
    store.optimize()
    # Too few to build it in between.
    store.append(wide_rows(5000, clustered(400, 2)))
    assert indexes(store)["vector"] == 400
    store.maintain()
    assert indexes(store)["vector"] == 0
    # Another process, which has written a sixteenth.
    other = LanceStore.open(directory)
    other.append(wide_rows(5400, clustered(350, 3)))
    other.maintain()
    assert indexes(other)["vector"] == 350


@pytest.mark.slow
def test_compact_leaves_the_index_alone_for_a_few_new_rows(low_thresholds, directory, monkeypatch):
    monkeypatch.setattr(maintenance, "_MIN_ROWS_TO_INDEX", 300)
    store = LanceStore.create(directory, WIDE_SCHEMA)
    store.append(wide_rows(0, clustered(5000, 1)))
    store.optimize()
    assert indexes(store)["vector"] == 0
    for start in (5000, 5100):
        new = clustered(100, start)
        store.append(wide_rows(start, new))
        before = set(directory.rglob("_indices/*/auxiliary.idx"))
        store.optimize()
        assert set(directory.rglob("_indices/*/auxiliary.idx")) == before
        assert indexes(store)["vector"] == start + 100 - 5000
        assert [hits[0].id for hits in store.search(new, 1)] == [f"{start + n:05}" for n in range(100)]
        assert recall(store, clustered(100, 2)) >= 0.99
    store.append(wide_rows(5200, clustered(150, 9)))
    store.optimize()
    assert indexes(store)["vector"] == 0
    assert set(directory.rglob("_indices/*/auxiliary.idx")).isdisjoint(before)
    assert recall(store, clustered(100, 2)) >= 0.99


@pytest.mark.slow
def test_many_fragments_of_an_indexed_table_become_few(low_thresholds, directory):
    store = LanceStore.create(directory, WIDE_SCHEMA)
    vectors = clustered(70 * 256, 1)
    for start in range(0, len(vectors), 256):
        store.append(wide_rows(start, vectors[start : start + 256]))
    assert n_fragments(store._rows) == 70
    queries = clustered(200, 2)
    before = [[hit.id for hit in hits] for hits in store.search(queries, 10, exact=True)]
    store.maintain()
    assert n_fragments(store._rows) < 10
    assert indexes(store)["vector"] == 0
    assert recall(store, queries) >= 0.99
    assert [[hit.id for hit in hits] for hits in store.search(queries, 10, exact=True)] == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_scanning_takes_bounded_memory(store, directory):
    for number in range(40):
        store.append(rows([f"{number}-{n}" for n in range(500)], thumbnail=[os.urandom(20_000)] * 500))
    program = f"""
import resource
from pathlib import Path
from nearsight.store.lance.store import LanceStore
store = LanceStore.open(Path({str(directory)!r}))
store.count()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = sum(batch.nbytes for batch in store.scan(["thumbnail"]))
print(total, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    total, grown = map(int, done.stdout.split())
    assert total > 400_000_000
    assert grown < 0.6 * total
