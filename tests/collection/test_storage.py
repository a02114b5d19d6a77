"""What vectors are kept as: read as float32 everywhere, near to .9999999."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearsight import Collection
from nearsight.collection import manifest
from nearsight.collection.arrays import read_vectors, sample_vectors
from nearsight.errors import InvalidParameterError

from fake import DIM, FakeBackend

IDS = [f"{i:032x}" for i in range(200)]


@pytest.fixture(scope="module")
def X():
    made = np.random.default_rng(0).standard_normal((200, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def collection(tmp_path_factory, X):
    made = Collection.create(tmp_path_factory.mktemp("half") / "c", model=FakeBackend(), storage="float16")
    made.add_vectors(X, ids=IDS, fingerprint=made.fingerprint)
    return made


def test_every_way_of_reading_gives_float32(collection, X, tmp_path):
    rows = read_vectors(collection)
    collection.export(tmp_path / "x.npz")
    collection.export(tmp_path / "x.parquet")
    with np.load(tmp_path / "x.npz") as archive:
        exported = archive["vectors"]
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), DIM)
    for found in (rows.X, collection.vectors(IDS), exported, np.stack(table["vector"].to_numpy())):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, X, atol=2e-4)
    assert sample_vectors(collection, 20).X.dtype == np.float32
    [batch, *_] = collection.iter_batches(["vector"])
    assert batch.schema.field("vector").type.value_type == pa.float32()


def test_is_near_enough_to_be_no_other_fingerprint(collection, X):
    found = collection.vectors(IDS)
    cosines = (found * X).sum(1) / np.linalg.norm(found, axis=1)
    assert cosines.min() > 0.999999
    assert collection.fingerprint == FakeBackend().spec.fingerprint


def test_search_finds_what_it_finds_in_float32(collection, X):
    for query in X[:20]:
        wanted = np.argsort(-(X @ query), kind="stable")[:10]
        found = collection.search(vector=query, k=10)
        assert len({match.id for match in found} & {IDS[i] for i in wanted}) >= 9
        assert found[0].similarity == pytest.approx(1, abs=1e-3)


def test_info_says_what_a_vector_takes(collection, tmp_path):
    assert collection.info()["storage"] == "float16"
    assert collection.info()["bytes_per_vector"] == 2 * DIM
    other = Collection.create(tmp_path / "c", model=FakeBackend())
    assert other.info()["storage"] == "float32"
    assert other.info()["bytes_per_vector"] == 4 * DIM


def test_goes_on_as_it_was_made(collection, X, tmp_path):
    again = Collection.open(collection.directory, model=FakeBackend())
    assert again.info()["storage"] == "float16"
    np.testing.assert_allclose(again.vectors(IDS[:3]), X[:3], atol=2e-4)


def test_a_manifest_older_than_the_choice_means_float32(tmp_path):
    Collection.create(tmp_path / "c", model=FakeBackend())
    file = tmp_path / "c" / manifest.FILENAME
    data = json.loads(file.read_text())
    del data["storage"]
    file.write_text(json.dumps(data))
    assert Collection.open(tmp_path / "c").info()["storage"] == "float32"


@pytest.mark.parametrize(("given", "kept"), [(None, "float16"), ("float32", "float32")])
def test_a_projection_keeps_it_or_is_told(collection, tmp_path, given, kept):
    collection.reduce_dim(8, tmp_path / "short", storage=given)
    made = Collection.open(tmp_path / "short")
    assert made.info()["storage"] == kept
    assert made.vectors(IDS).shape == (200, 8)


@pytest.mark.parametrize("storage", ["int8", "binary", "float64"])
def test_what_cannot_be_searched_is_refused(tmp_path, storage):
    with pytest.raises(
        InvalidParameterError, match=f"storage is '{storage}'; .*float32 or float16.*--dim 256"
    ):
        Collection.create(tmp_path / "c", model=FakeBackend(), storage=storage)
    assert not (tmp_path / "c").exists()
