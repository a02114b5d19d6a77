"""The store in a bucket: the conformance suite, on a server that speaks S3."""

import pytest

from nearsight.store import create_store, open_store
from nearsight.testing import StoreTests
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
