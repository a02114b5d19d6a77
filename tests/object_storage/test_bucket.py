"""Objects: the first of a name stays, and time is the storage's."""

import logging
import socket
import time
from itertools import count

import pytest

from nearsight.errors import MissingExtraError, StorageError
from nearsight.object_storage import bucket as bucket_module
from nearsight.object_storage import clock as clock_module
from nearsight.object_storage import driver
from nearsight.object_storage.bucket import Bucket
from nearsight.object_storage.clock import StorageClock

_NUMBERS = count()


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(f"memory://bucket{next(_NUMBERS)}")


def test_objects_are_written_listed_and_deleted(bucket) -> None:
    assert bucket.create("a/one", b"1")
    bucket.write("a/b/two", b"22")
    assert {name: size for name, (size, _) in bucket.entries("a").items()} == {"one": 1, "b/two": 2}
    assert list(bucket.entries("a", is_deep=False)) == ["one"]
    assert (bucket.read("a/one"), bucket.read("a/none"), bucket.written_s("a/none")) == (b"1", None, None)
    assert bucket.entries("none") == {}
    bucket.delete("a/one", "a/none")
    bucket.delete_folder("a")
    assert bucket.entries() == {}


def test_an_answer_that_was_lost_is_not_taken_for_another_process(bucket, monkeypatch) -> None:
    assert bucket.create("record", b"by this process")
    # What the driver does when no answer has come.
    assert bucket.create("record", b"by this process")
    assert not bucket.create("record", b"by another")

    def refuse(*args, **kwargs):
        raise OSError("ConditionalRequestConflict")

    # Two at the same moment; the driver calls that by another name.
    monkeypatch.setattr(bucket._fs, "pipe_file", refuse)
    assert not bucket.create("record", b"by another")
    assert not bucket.create("none", b"by this process")


def test_now_is_the_time_of_the_storage(bucket, monkeypatch) -> None:
    bucket.write("a", b"1")
    written_s = bucket.written_s("a")
    hour_ahead = time.time() + 3600
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: hour_ahead)
        assert 0 <= bucket.now_s() - written_s < 60
    assert bucket.entries() == {"a": (1, written_s)}


def test_the_clock_looks_again_and_bears_being_refused(monkeypatch) -> None:
    answers = iter([1000.0, 5000.0])

    def look() -> float:
        for answer in answers:
            return answer
        raise StorageError("access is denied")

    clock = StorageClock(look)
    assert [clock.now_s() // 100 for _ in range(2)] == [10, 10]
    # A machine that slept.
    monkeypatch.setattr(clock_module, "_LOOK_S", -1.0)
    assert clock.now_s() // 100 == 50
    assert clock.now_s() == pytest.approx(time.time(), abs=60)


def test_a_driver_that_is_missing_is_named(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise ImportError("no gcsfs")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(MissingExtraError, match=r"gs:// needs an extra: pip install 'nearsight\[gcs\]'"):
        driver.url_to_fs("gs://photos/a")


def test_missing_credentials_for_google_are_told(bucket, monkeypatch) -> None:
    def refuse(*_, **options):
        raise OSError("Anonymous caller does not have storage.objects.get access")

    monkeypatch.setattr(bucket._fs, "cat_file", refuse)
    with pytest.raises(StorageError, match="there are no credentials.*GOOGLE_APPLICATION"):
        bucket.read("manifest.json")


def test_what_a_driver_logs_is_not_printed_above_our_error(monkeypatch, capsys) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as where nobody has set up logging
    logging.getLogger("gcsfs").error("a traceback")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_server_that_never_answered_is_given_up_soon(scheme, monkeypatch) -> None:
    pytest.importorskip({"gs": "gcsfs", "s3": "s3fs"}[scheme])
    monkeypatch.setattr(bucket_module, "FIRST_ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        options = {"endpoint_url": address, "key": "a", "secret": "b"} if scheme == "s3" else {}
        bucket = Bucket(f"{scheme}://photos/{scheme}", **options)
        if scheme == "s3":
            bucket._fs.connect()  # on a busy machine, to make the client alone takes longer
        for call in (lambda: bucket.read("a"), lambda: bucket.create("a", b""), lambda: bucket.entries()):
            with pytest.raises(StorageError, match=f"{scheme}://photos.* at {address}.*Check the endpoint"):
                call()


def test_a_server_that_has_answered_is_waited_for(bucket, monkeypatch) -> None:
    limits = []

    def cat(path, **options):
        limits.append(options.get("timeout"))
        raise FileNotFoundError(path)

    monkeypatch.setattr(bucket._fs, "cat_file", cat)
    monkeypatch.setattr(bucket, "_is_known", False)
    assert [bucket.read("a") for _ in range(3)] == [None] * 3
    assert limits == [bucket_module.FIRST_ANSWER_S, None, None]
