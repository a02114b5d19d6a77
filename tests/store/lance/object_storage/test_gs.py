"""Collections and jobs at ``gs://``: the driver, the requests and their conditions are not those of S3."""

from itertools import count

import pytest
from gs_server import GsServer, is_installed

from nearsight.distributed.job_files import BucketFiles
from nearsight.errors import StorageError
from nearsight.object_storage.bucket import Bucket
from nearsight.object_storage.lease import Lease
from nearsight.store import create_store, open_store
from nearsight.testing import LocationTests
from nearsight.testing.stores import SCHEMA, fetch, ids_of, rows, vectors_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_installed(), reason="gcsfs and fake-gcs-server are not installed"),
    # Google's driver leaves its connections to the end of the process.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


_NUMBERS = count()


@pytest.fixture(scope="module")
def google():
    server = GsServer()
    server.make_bucket("photos")
    yield server
    server.stop()


@pytest.fixture
def server(google, monkeypatch, tmp_path):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.url)
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "files"))
    return google


def test_collections_and_jobs_are_kept_at_google_cloud_storage(server):
    store = create_store("gs://photos/shop", SCHEMA)
    for i in range(4):
        store.append(rows([f"{i}"], vectors_of(i), thumbnail=[b"t" * 100]))
    store.update(rows(["1"], vectors_of(10)))
    store.delete(["2"])
    before = fetch(store, ["thumbnail", "vector"])
    store.optimize()
    again = open_store("gs://photos/shop")
    assert ids_of(again) == ["0", "1", "3"]
    assert fetch(again, ["thumbnail", "vector"]) == before
    assert ids_of(create_store("gs://photos/shop", SCHEMA)) == ["0", "1", "3"]

    files = BucketFiles("gs://photos/jobs/1")
    files.prepare()
    assert [files.put_if_absent("units/a", content) for content in (b"1", b"2")] == [True, False]
    with files.created("units/rows") as file:
        file.write(b"whole")
    with files.local("units/rows") as path:
        assert path.read_bytes() == b"whole"
    assert sorted(name for name, _ in files.names("units/")) == ["a", "rows"]
    files.touch("units/a")
    assert 0 <= files.now_s() - files.modified_s("units/a") < 60
    with pytest.raises(FileNotFoundError):
        files.read("units/none")
    with files.lock("commit.lock"):
        assert Lease(Bucket(files.uri), "commit.lock")._last() == 1

    with pytest.raises(StorageError, match="gs://none/1 at .*: writing .* the bucket does not exist"):
        BucketFiles("gs://none/1").prepare()


class TestGsLocation(LocationTests):
    @pytest.fixture(autouse=True)
    def _bucket(self, server, monkeypatch):
        self.folder, self.patch = f"gs://photos/{next(_NUMBERS)}", monkeypatch
        # So soon a killed process is taken for dead.
        monkeypatch.setattr("nearsight.object_storage.lease.TTL_S", 2.0)

    def uri(self, directory):
        return f"{self.folder}/{directory.name}"

    def unreachable_uri(self, directory):
        # So soon one that never answered is given up.
        self.patch.setattr("nearsight.object_storage.bucket.FIRST_ANSWER_S", 1.0)
        self.patch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
        return f"gs://photos/{directory.name}"
