"""A collection in PostgreSQL: the conformance suites, on a real server."""

import pyarrow as pa
import pytest

from nearsight.store import create_store, open_store
from nearsight.testing import LocationTests, StoreTests
from nearsight.testing.stores import DIM, SCHEMA

FLOAT16 = SCHEMA.set(SCHEMA.get_field_index("vector"), pa.field("vector", pa.list_(pa.float16(), DIM)))


@pytest.mark.slow
class TestPostgres(StoreTests):
    # Eleven significant bits.
    atol = 5e-4
    largest = 6e4
    columns = FLOAT16

    @pytest.fixture(autouse=True)
    def _server(self, uri):
        self.uri = uri

    def place(self, directory):
        return f"{self.uri}-{directory.name}"

    def make(self, directory):
        return create_store(self.place(directory), self.columns)

    def reopen(self, directory):
        return open_store(self.place(directory))


class TestPostgresFloat32(TestPostgres):
    atol = 1e-5
    largest = 1e30
    columns = SCHEMA


@pytest.mark.slow
class TestPostgresLocation(LocationTests):
    @pytest.fixture(autouse=True)
    def _server(self, uri, server, monkeypatch):
        self.base, self.port, self.patch = uri, server.port, monkeypatch

    def uri(self, directory):
        return f"{self.base}-{directory.name}"

    def unreachable_uri(self, directory):
        self.patch.setattr("nearsight.store.postgres.connection.PAUSES_S", (0.1, 0.2))
        return self.base.replace(f":{self.port}/", ":1/")
