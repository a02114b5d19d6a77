"""A collection in a bucket: the conformance suites, on a server that speaks S3."""

import pytest

from nearsight.store import create_store, open_store
from nearsight.testing import LocationTests, StoreTests
from nearsight.testing.stores import SCHEMA


@pytest.mark.slow
class TestObjectStorage(StoreTests):
    # Each call is several requests.
    n_examples = 4

    @pytest.fixture(autouse=True)
    def _uri(self, uri):
        self.uri = uri

    def place(self, directory):
        return self.uri.replace("?", f"/{directory.name}?")

    def make(self, directory):
        return create_store(self.place(directory), SCHEMA)

    def reopen(self, directory):
        return open_store(self.place(directory))


@pytest.mark.slow
class TestObjectLocation(LocationTests):
    @pytest.fixture(autouse=True)
    def _bucket(self, uri, monkeypatch):
        self.folder, _, self.endpoint = uri.partition("?")
        self.patch = monkeypatch
        # So soon a killed process is taken for dead.
        monkeypatch.setattr("nearsight.object_storage.lease.TTL_S", 2.0)

    def uri(self, directory):
        return f"{self.folder}/{directory.name}?{self.endpoint}"

    def unreachable_uri(self, directory):
        # So soon one that never answered is given up.
        self.patch.setattr("nearsight.object_storage.bucket.FIRST_ANSWER_S", 1.0)
        return f"{self.folder}?endpoint=http://127.0.0.1:1"
