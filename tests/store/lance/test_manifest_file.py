"""Manifests that other versions of Lance write."""

import pyarrow as pa
import pytest

from nearsight.store import create_store
from nearsight.store.lance.manifest_file import UnknownLayoutError, read_manifest

# Keys of the fields 21 and 23, numbers: where the transaction stands in LanceDB 0.40, and in pylance 14.
OLD, NEW = b"\xa8\x01", b"\xb8\x01"


@pytest.fixture
def manifest(tmp_path) -> bytes:
    schema = pa.schema(
        [pa.field("id", pa.string(), nullable=False), pa.field("vector", pa.list_(pa.float32(), 4))]
    )
    store = create_store(tmp_path / "store", schema)
    store.append(pa.table({"id": ["a"], "vector": pa.array([[1.0, 0, 0, 0]], pa.list_(pa.float32(), 4))}))
    newest = min((tmp_path / "store").glob("*/_versions/*.manifest"))
    data = newest.read_bytes()
    assert data.count(OLD) == 1
    return data


def test_the_transaction_of_pylance_is_known(manifest: bytes) -> None:
    before = read_manifest(manifest, "old")
    assert before.n_rows == 1
    assert read_manifest(manifest.replace(OLD, NEW), "new") == before


def test_a_field_that_leads_elsewhere_is_refused(manifest: bytes) -> None:
    at = manifest.index(OLD) + len(OLD)
    moved = manifest[:at] + bytes([manifest[at] ^ 1]) + manifest[at + 1 :]
    read_manifest(moved, "nobody follows the old one")
    with pytest.raises(UnknownLayoutError):
        read_manifest(moved.replace(OLD, NEW), "new")
