"""The document of a store in Milvus; it needs no server."""

import json

import pytest

from nearsight.testing.stores import SCHEMA


def test_an_entry_of_an_earlier_version_is_taken_as_not_indexed():
    pytest.importorskip("pymilvus")
    from nearsight.store.milvus.entry import StoreEntry

    entry = StoreEntry(SCHEMA, 7, "a", "HNSW", n_unsealed=3, n_flushes=2, n_indexed=1)
    assert StoreEntry.decode(entry.encode()) == entry
    before = {
        name: json.loads(entry.encode())[name] for name in ("schema", "version", "incarnation", "index")
    }
    old = StoreEntry.decode(json.dumps(before).encode())
    assert (old.schema, old.version, old.has_many_unsealed) == (SCHEMA, 7, True)
    assert not entry.has_many_unsealed
