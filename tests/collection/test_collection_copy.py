"""A collection is copied whole, or is no collection yet."""

import os
import pickle
import time

import numpy as np
import pyarrow as pa
import pytest
from preloaded import Piped

from nearsight import Collection
from nearsight.collection import collection_copy, copy_collection, copy_comparison
from nearsight.errors import CollectionNotFoundError, CopyDifferenceError, NotACollectionError, StorageError
from nearsight.store import open_store
from nearsight.store.lance.location import DirectoryLocation
from nearsight.store.lance.store import LanceStore

from fake import FakeBackend


@pytest.fixture(scope="module")
def original(tmp_path_factory, photos):
    """Six images, with metadata and a saved map; nobody may change it."""
    place = tmp_path_factory.mktemp("original") / "collection"
    collection = Collection.create(place, model=FakeBackend())
    collection.add(photos, metadata={"shelf": "top", "price": 9.5})
    (place / "map.npz").write_bytes(b"a map")
    (place / "faces").mkdir()
    (place / "faces/names.json").write_bytes(b"{}")
    return place


def rows_of(place):
    """All rows by id, with everything."""
    store = open_store(place / "store")
    found = [row for batch in store.scan(store.schema.names) for row in batch.to_pylist()]
    return {row["id"]: row for row in found}


def test_everything_is_copied(original, tmp_path):
    report = copy_collection(original, tmp_path / "copy", verify=True)
    assert report == collection_copy.CopyReport(6, 6, 2, True)
    assert rows_of(tmp_path / "copy") == rows_of(original)
    names = {path.name for path in (tmp_path / "copy").iterdir()} - {"write.lock"}
    assert names == {"collection.json", "store", "map.npz", "faces"}
    assert (tmp_path / "copy/map.npz").read_bytes() == b"a map"
    one, two = (Collection.open(place, model=FakeBackend()) for place in (original, tmp_path / "copy"))
    assert (two.fingerprint, two.created, two.storage) == (one.fingerprint, one.created, one.storage)
    query = np.array(next(iter(rows_of(original).values()))["vector"], np.float32)
    assert [match.id for match in one.search_vectors(query[None])[0]] == [
        match.id for match in two.search_vectors(query[None])[0]
    ]


def test_what_is_there_is_neither_replaced_nor_added_to(original, tmp_path):
    copy_collection(original, tmp_path / "copy")
    before = rows_of(tmp_path / "copy")
    with pytest.raises(NotACollectionError, match="is a collection already"):
        copy_collection(original, tmp_path / "copy")
    assert copy_collection(original, tmp_path / "copy", verify=True).n_copied == 0
    assert rows_of(tmp_path / "copy") == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("mine")
    with pytest.raises(NotACollectionError, match="is not empty"):
        copy_collection(original, tmp_path / "notes")
    with pytest.raises(CollectionNotFoundError):
        copy_collection(tmp_path / "nothing", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_float16_halves_the_numbers_and_is_verified(original, tmp_path):
    copy_collection(original, tmp_path / "half", storage="float16", verify=True)
    copied = rows_of(tmp_path / "half")
    for id, row in rows_of(original).items():
        expected = np.array(row["vector"], np.float32).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(copied[id]["vector"], expected)
    assert Collection.open(tmp_path / "half").storage == "float16"


def interrupt(monkeypatch, after):
    """Let the copy end at its write number `after`."""
    append, n_writes = LanceStore.append, iter(range(1000))

    def failing(store, rows):
        if next(n_writes) == after:
            raise KeyboardInterrupt
        append(store, rows)

    monkeypatch.setattr(collection_copy, "_ROWS_PER_WRITE", 1)
    monkeypatch.setattr(LanceStore, "append", failing)
    scan = LanceStore.scan

    def one_by_one(*arguments, **options):
        for batch in scan(*arguments, **options):
            yield from (batch.slice(row, 1) for row in range(len(batch)))

    monkeypatch.setattr(LanceStore, "scan", one_by_one)


def test_an_interrupted_copy_goes_on(original, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt(patched, 4)
        with pytest.raises(KeyboardInterrupt):
            copy_collection(original, tmp_path / "copy")
    for call in (Collection.open, lambda place: Collection.create(place, model=FakeBackend())):
        with pytest.raises(NotACollectionError, match="unfinished copy"):
            call(tmp_path / "copy")
    assert copy_collection(original, tmp_path / "copy", verify=True).n_copied == 2
    assert rows_of(tmp_path / "copy") == rows_of(original)


def test_a_whole_copy_is_not_begun_anew(original, tmp_path, monkeypatch, photos):
    delete = DirectoryLocation.delete_document

    def killed(place, name):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        # After the manifest was written, and before the mark of an unfinished copy is gone.
        patched.setattr(DirectoryLocation, "delete_document", killed)
        with pytest.raises(KeyboardInterrupt):
            copy_collection(original, tmp_path / "copy")
    assert delete is DirectoryLocation.delete_document
    used = Collection.open(tmp_path / "copy", model=FakeBackend())
    used.add(np.full((20, 30, 3), 7, np.uint8))
    used.remove([next(iter(rows_of(original)))])
    before = rows_of(tmp_path / "copy")
    assert copy_collection(original, tmp_path / "copy").n_copied == 0
    assert rows_of(tmp_path / "copy") == before
    assert (tmp_path / "copy/map.npz").read_bytes() == b"a map"
    with pytest.raises(NotACollectionError, match="is a collection already"):
        copy_collection(original, tmp_path / "copy")


def test_an_unfinished_copy_of_something_else_is_kept_until_asked(original, tmp_path, monkeypatch, photos):
    other = Collection.create(tmp_path / "other", model=FakeBackend())
    other.add(photos / "1.png")
    with monkeypatch.context() as patched:
        interrupt(patched, 4)
        with pytest.raises(KeyboardInterrupt):
            copy_collection(original, tmp_path / "copy")
    before = rows_of(tmp_path / "copy")
    with pytest.raises(NotACollectionError, match=f"unfinished copy of {original}: .*--start-over"):
        copy_collection(other.directory, tmp_path / "copy")
    assert rows_of(tmp_path / "copy") == before
    assert copy_collection(other.directory, tmp_path / "copy", start_over=True, verify=True).n_copied == 1
    assert rows_of(tmp_path / "copy") == rows_of(other.directory)


def test_a_copy_goes_on_after_the_original_was_changed(original, tmp_path, monkeypatch):
    copy_collection(original, tmp_path / "source")
    source = Collection.open(tmp_path / "source", model=FakeBackend())
    with monkeypatch.context() as patched:
        interrupt(patched, 4)
        with pytest.raises(KeyboardInterrupt):
            copy_collection(source.directory, tmp_path / "copy")
    copied = list(rows_of(tmp_path / "copy"))
    source.remove([copied[0]])
    source.update_metadata([copied[1]], {"shelf": "low", "new": 1})
    source.add(np.full((20, 30, 3), 7, np.uint8))
    with monkeypatch.context() as patched:
        # Interrupted once more before all rows were compared.
        interrupt(patched, 1)
        with pytest.raises(KeyboardInterrupt):
            copy_collection(source.directory, tmp_path / "copy")
    # At most the one that changed, the two that were never copied, and the new one.
    assert 3 <= copy_collection(source.directory, tmp_path / "copy", verify=True).n_copied <= 4
    assert rows_of(tmp_path / "copy") == rows_of(source.directory)


def test_a_collection_that_changes_meanwhile_is_not_called_copied(original, tmp_path, monkeypatch):
    copy_collection(original, tmp_path / "source")
    source = Collection.open(tmp_path / "source")
    append = LanceStore.append

    def and_tag(store, rows):
        append(store, rows)
        source._store.update(pa.table({"id": [rows["id"][0].as_py()], "meta_shelf": ["low"]}))

    with monkeypatch.context() as patched:
        patched.setattr(LanceStore, "append", and_tag)
        with pytest.raises(StorageError, match="was changed while it was copied"):
            copy_collection(tmp_path / "source", tmp_path / "copy")
    copy_collection(tmp_path / "source", tmp_path / "copy", verify=True)
    assert rows_of(tmp_path / "copy") == rows_of(tmp_path / "source")


@pytest.mark.parametrize(
    ("column", "value"),
    [("meta_price", 9.0), ("thumbnail", b"x"), ("width", 1), ("paths", ["elsewhere"]), ("vector", None)],
)
def test_verify_names_what_differs(original, tmp_path, column, value):
    copy_collection(original, tmp_path / "copy")
    store = open_store(tmp_path / "copy/store")
    [row, *_] = rows_of(original).values()
    field = store.schema.field(column)
    if column == "vector":
        value = np.roll(row["vector"], 1).tolist()
    store.update(pa.table({"id": [row["id"]], column: pa.array([value], field.type)}))
    with pytest.raises(CopyDifferenceError, match="1 image different"):
        copy_collection(original, tmp_path / "copy", verify=True)
    store.delete([row["id"]])
    Collection.open(tmp_path / "copy", model=FakeBackend()).add(np.full((20, 30, 3), 7, np.uint8))
    [added] = rows_of(tmp_path / "copy").keys() - rows_of(original).keys()
    with pytest.raises(CopyDifferenceError, match="1 image missing, 1 image not in the original") as error:
        copy_collection(original, tmp_path / "copy", verify=True)
    assert pickle.loads(pickle.dumps(error.value)).differences == {
        "missing": 1, "different": 0, "surplus": 1,
        "first": [f"{row['id']} is missing", f"{added} is not in the original"],
    }  # fmt: skip


def test_verify_counts_all_differences_and_names_twenty(tmp_path):
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), 2))])
    stores = [LanceStore.create(tmp_path / name, schema) for name in "ab"]
    rows = pa.table({"id": [f"{i:02}" for i in range(50)], "vector": [[1.0, i] for i in range(50)]}, schema)
    stores[0].append(rows)
    changed = [[1.0, i if i < 20 else i * (1 + 2.0**-10)] for i in range(50)]
    stores[1].append(rows.set_column(1, "vector", pa.array(changed, schema.field(1).type)).slice(5))
    found = copy_comparison.differences([rows.slice(0, 30), rows.slice(30)], *stores, "float16")
    assert (found.n_missing, found.n_different, found.n_surplus, len(found.named)) == (5, 30, 0, 20)
    assert found.named[4:6] == ["04 is missing", "20 differs in vector"]
    changed = [[1.0, i * (1 + 2.0**-12)] for i in range(50)]
    stores[1].update(rows.set_column(1, "vector", pa.array(changed, schema.field(1).type)))
    found = copy_comparison.differences([rows], *stores, "float16")
    assert (found.n_missing, found.n_different) == (5, 0)
    assert copy_comparison.differences([rows], *stores, "float32").n_different == 45


def test_the_projection_of_a_collection_goes_with_it(indexed, tmp_path, photos, cache):
    Collection.open(indexed.collection).reduce_dim(2, tmp_path / "short")
    copy_collection(tmp_path / "short", tmp_path / "copy", verify=True)
    copied = Collection.open(tmp_path / "copy", cache_dir=cache)
    assert copied.model_name == f"pca:{tmp_path / 'copy' / 'projection.npz'}"
    assert copied.search(photos / "3.png")[0].path.endswith("3.png")


@pytest.mark.slow
def test_a_killed_copy_goes_on(tmp_path):
    source = Collection.create(tmp_path / "source", model=FakeBackend())
    schema, n = source._store.schema, 6000
    dim = schema.field("vector").type.list_size
    X = np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32)
    columns = {
        "id": [f"{i:05}" for i in range(n)],
        "thumbnail": [os.urandom(2000) for _ in range(n)],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), dim),
    }
    for field in schema:
        if not field.nullable and field.name not in columns:
            empty = [] if pa.types.is_list(field.type) else "x" if pa.types.is_string(field.type) else 0
            columns[field.name] = pa.array([empty] * n, field.type)
    source._store.append(pa.table(columns))
    code = (
        "import sys; from nearsight.collection import collection_copy as c; c._ROWS_PER_WRITE = 64;"
        "c.copy_collection(sys.argv[1], sys.argv[2])"
    )
    rng, n_killed = np.random.default_rng(1), 0
    for _ in range(4):
        with Piped(code, tmp_path / "source", tmp_path / "copy") as process:
            # Once it writes rows, at any moment; how far it comes depends on the machine.
            while process.poll() is None and not (tmp_path / "copy/store").exists():
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
            if process.poll() is None:
                process.kill()
                n_killed += 1
    assert n_killed
    if not (tmp_path / "copy/collection.json").exists():
        assert copy_collection(tmp_path / "source", tmp_path / "copy").n_images == n
    assert copy_collection(tmp_path / "source", tmp_path / "copy", verify=True).n_images == n
