"""Collections in a bucket: several writers, killed ones, a server that is away, and what errors say."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image
from preloaded import Piped

from nearsight import Collection
from nearsight.collection import copy_collection
from nearsight.errors import CollectionNotFoundError, InvalidParameterError, StorageError
from nearsight.object_storage.bucket import Bucket
from nearsight.object_storage.lease import Lease
from nearsight.store import create_store, locate, open_store
from nearsight.store.lance.object_storage.address import open_bucket, parse_address
from nearsight.testing.stores import SCHEMA, fetch, ids_of, rows, vectors_of

from fake import FakeBackend
from s3_server import VARIABLES, S3Server

WRITER = Path(__file__).with_name("adding_writer.py")


@pytest.fixture
def bucket(uri):
    return open_bucket(parse_address(uri))


@pytest.fixture
def folders(tmp_path):
    """Two folders of six images each, of which two are in both."""
    for folder, seeds in (("one", range(6)), ("two", range(4, 10))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{seed}.png")
    return tmp_path / "one", tmp_path / "two"


def started(uri, folder):
    return Piped(WRITER.read_text(), uri, folder)


@pytest.mark.slow
def test_two_processes_write_and_one_is_killed(uri, folders, monkeypatch):
    # Both begin at once, so both may try to create the collection.
    writers = [started(uri, folder) for folder in folders]
    for writer in writers:
        with writer:
            writer.communicate()
        assert writer.returncode == 0
    collection = Collection.open(uri, model=FakeBackend())
    items = list(collection.items())
    assert len({item.id for item in items}) == len(items) == 10
    files = Counter(path for item in items for path in item.paths)
    assert files == Counter(str(file) for folder in folders for file in folder.iterdir())

    # A killed writer leaves its lock, which the next one takes after some time; no acknowledged row is lost.
    other = f"{uri.partition('?')[0]}-killed?{uri.partition('?')[2]}"
    with started(other, folders[0]) as writer:
        acknowledged = [writer.stdout.readline().strip() for _ in range(2)]
        writer.kill()
    monkeypatch.setattr("nearsight.object_storage.lease.TTL_S", 2.0)
    collection = Collection.open(other, model=FakeBackend())
    assert {Path(path).name for item in collection.items() for path in item.paths} >= set(acknowledged)
    report = collection.add(folders[0])
    assert report.added + report.unchanged == 6
    assert collection.count() == 6


@pytest.mark.slow
def test_whoever_does_not_wait_is_told_that_the_lock_is_held(uri):
    # Each has a bucket of its own, as processes do.
    one, other = (Lease(open_bucket(parse_address(uri))) for _ in range(2))
    with one.hold(), pytest.raises(filelock.Timeout), other.hold(blocking=False):
        pass


@pytest.mark.slow
def test_a_collection_is_searched_changed_and_copied(uri, folders, tmp_path):
    collection = Collection.create(uri, model=FakeBackend())
    collection.add(folders[0], metadata={"shelf": "top", "price": 9.5})
    query = next(iter(collection.items())).id
    # The second search loads the rows into memory, where another process's rows arrive, too.
    before = [collection.search(id=query, k=3) for _ in range(3)]
    assert before[0] == before[2]
    other = Collection.open(uri, model=FakeBackend())
    other.add(folders[1], metadata={"shelf": "low"})
    assert len(collection.search(id=query, k=20, where="shelf IS NOT NULL")) == 9
    assert copy_collection(uri, tmp_path / "copy", verify=True).n_copied == 10
    there, here = (
        {item.id: item for item in Collection.open(place).items()} for place in (uri, tmp_path / "copy")
    )
    assert there == here
    assert collection.remove([query]) == 1
    assert other.count() == 9
    assert locate(uri).size_bytes() > 0


@pytest.mark.slow
def test_old_versions_are_deleted_and_nothing_that_is_read(uri, bucket, monkeypatch):
    store = create_store(uri, SCHEMA)
    for i in range(8):
        store.append(rows([f"{i}"], vectors_of(i), thumbnail=[b"t" * 100]))
    store.update(rows(["3"], vectors_of(30)))
    store.delete(["5"])
    before, n_objects = fetch(store, ["thumbnail", "vector"]), len(bucket.entries("store"))
    store.optimize()
    # Younger than an hour: others may be reading them.
    assert len([name for name in bucket.entries("store") if name.endswith(".manifest")]) > 10
    with monkeypatch.context() as patch:
        # A machine whose clock is wrong deletes nothing that others may be reading.
        patch.setattr(time, "time", lambda now=time.time: now() + 7200)
        store.optimize()
        assert len([name for name in bucket.entries("store") if name.endswith(".manifest")]) > 10
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "now_s", lambda self, now=time.time: now() + 7200)
        store.optimize()
    again = [name for name in bucket.entries("store") if name.endswith(".manifest")]
    assert len(again) <= 4
    assert len(bucket.entries("store")) < n_objects / 2
    for reader in (store, open_store(uri)):
        assert fetch(reader, ["thumbnail", "vector"]) == before


@pytest.mark.slow
def test_errors_name_the_place_and_the_remedy(uri, server, monkeypatch):
    with pytest.raises(CollectionNotFoundError, match=r"no collection at s3://photos/.*Collection\.create"):
        Collection.open(uri)
    missing = uri.replace("//photos", "//nobucket")
    with pytest.raises(StorageError, match=r"s3://nobucket/.* at http://127.*the bucket does not exist"):
        Collection.create(missing, model=FakeBackend())
    # One that is away is asked again for some seconds else.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    own = S3Server()
    own.make_bucket("photos")
    away = uri.replace(server.url, own.url)
    create_store(away, SCHEMA).append(rows(["a"]))
    store = open_store(away)
    own.stop()

    def error_of(call):
        with pytest.raises(StorageError) as caught:
            call()
        return str(caught.value)

    calls = [store.count, lambda: open_store(away), lambda: locate(away).read_document("collection.json")]
    # At once, as each waits a while for the server.
    with ThreadPoolExecutor(len(calls)) as threads:
        for error in threads.map(error_of, calls):
            assert "s3://photos/" in error
            assert VARIABLES["AWS_SECRET_ACCESS_KEY"] not in error
    assert ids_of(create_store(uri, SCHEMA)) == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://photos", "names no folder"),
        ("s3://photos/a/../b", "names no folder"),
        ("s3:///a", "names no bucket"),
        ("s3://key:secret@photos/a", "hold no credentials"),
        ("s3://photos/a?color=red", r"unknown options \['color'\]; there are \['endpoint', 'region'\]"),
        ("s3://photos/a?endpoint=ftp://x", "must be a URL such as"),
        ("gs://photos/a?endpoint=http://x", "unknown options"),
    ],
)
def test_incomplete_uris_are_refused(uri, message):
    with pytest.raises(InvalidParameterError, match=message) as caught:
        parse_address(uri)
    assert "secret" not in str(caught.value)


def test_the_environment_names_the_endpoint(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")
    address = parse_address("s3://photos/a/b/")
    assert (address.endpoint, address.region, address.path) == (
        "http://127.0.0.1:9000",
        "us-east-1",
        "photos/a/b",
    )
    # What is shown opens the same collection elsewhere.
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert parse_address(address.shown) == address
    assert parse_address("gs://photos/a").shown == "gs://photos/a"
