"""Care of a collection of a service."""

import time
from dataclasses import replace

import numpy as np
import pytest

from coroutines import run_coroutine
from fake import FakeBackend

pytest.importorskip("fastapi")

from nearsight import AsyncClient, Collection
from nearsight.collection import CopyReport
from nearsight.errors import CopyDifferenceError, ServiceError
from nearsight.models.pca import Projection, fit_center
from nearsight.server.catalog import CollectionCatalog
from nearsight.server.errors import Problem
from nearsight.services.server_settings import ServerSettings

pytestmark = pytest.mark.cluster


def test_a_collection_is_compacted(work, many, stored):
    ids = [item.id for item in stored.items()][::60]
    vectors = stored.vectors(ids)
    many.update_metadata(ids[0], {"odd": True})
    assert many.compact() is None
    job = work.jobs()[0]
    info = many.info()
    assert (job["kind"], job["result"]["images"], job["result"]["size_bytes"]) == (
        "compact",
        240,
        info["size_bytes"],
    )
    assert (many.vectors(ids) == vectors).all()


def test_a_collection_is_copied_and_the_copy_verified(work, many, stored, place):
    report = many.copy("backup", storage="float16", verify=True)
    assert report == CopyReport(240, 240, report.n_files, is_verified=True)
    copy = work.collection("backup")
    assert (len(copy), copy.info()["storage"]) == (240, "float16")
    [id, *_] = (item.id for item in copy.items())
    np.testing.assert_allclose(copy.vectors([id]), stored.vectors([id]), atol=1e-3)
    with pytest.raises(ServiceError, match="there is a collection 'backup' already"):
        many.copy("backup")
    assert many.copy("backup", verify=True).n_copied == 0
    copy.remove([id])
    with pytest.raises(CopyDifferenceError) as error:
        many.copy("backup", verify=True)
    assert error.value.differences["missing"] == 1
    assert id in error.value.differences["first"][0]
    for name, reason in (("many", "to itself"), ("../many", "letters, digits")):
        with pytest.raises(ServiceError, match=reason):
            many.copy(name)


def test_an_unfinished_copy_is_no_collection_goes_on_and_can_be_deleted(work, many, place):
    folder = place / "collections" / "half"
    folder.mkdir()
    (folder / "copy.json").write_text('{"source": "another", "revision": "1", "storage": "float32"}')
    assert "half" not in {each["name"] for each in work.collections()}
    for attempt in (lambda: work.create_collection("half"), lambda: many.center("half")):
        with pytest.raises(ServiceError, match="'half' is an unfinished copy"):
            attempt()
    with pytest.raises(ServiceError, match="copy of another collection") as error:
        many.copy("half")
    assert str(place) not in str(error.value)
    assert many.copy("half", start_over=True).n_copied == 240
    work.delete_collection("half")
    folder.mkdir()
    (folder / "copy.json").write_text("{}")
    work.delete_collection("half")
    assert not folder.exists()


def test_collections_of_shorter_and_centered_vectors(work, many, stored, place):
    projection = many.reduce_dim(8, "short", storage="float16")
    expected = stored.reduce_dim(8, place / "own", storage="float16")
    assert (projection.dim, projection.sha256) == (8, expected.sha256)
    assert (projection.base, projection.variance_kept) == (expected.base, expected.variance_kept)
    assert work.jobs(kind="reduce_dim")[0]["result"]["images"] == 240
    short, own = work.collection("short"), Collection.open(place / "own")
    ids = [item.id for item in own.items()][:3]
    np.testing.assert_allclose(short.vectors(ids), own.vectors(ids), atol=1e-3)
    centered = run_coroutine(center(work.url, "centered"))
    assert (centered.dim, centered.components, centered.base) == (64, None, expected.base)
    assert len(work.collection("centered")) == 240
    with pytest.raises(ServiceError, match="there is a collection 'short' already"):
        many.center("short")
    with pytest.raises(ServiceError, match="dim is 64"):
        many.reduce_dim(64, "other")
    assert "other" not in {each["name"] for each in work.collections()}


def test_uploads_stay_as_long_as_a_copy_shows_them(work, place):
    first, other = (work.create_collection(name) for name in ("first", "other"))
    first.add(sorted(map(str, (place / "images" / "known").glob("*.png")))[:6])
    ids = [item.id for item in first.items()]
    first.copy("second", verify=True)
    work.collection("second").copy("third")
    work.collection("second").reduce_dim(2, "flat")
    [uploads] = (place / "uploads").glob("first@*")
    # What is copied image by image is its own.
    assert other.copy_from("second", ids[:1]) == 1
    first.remove(ids[:1])
    report = first.move_to_trash(ids[1:2])
    assert report["entry"] is None
    assert "a copy of this collection shows it" in report["refused"][0]["reason"]
    # What a start of the service clears away.
    work.service.catalog.remove_unlisted_uploads("first", time.time() + 60)
    for name in ("first", "second", "third"):
        work.delete_collection(name)
        assert all(work.collection("flat").original(id) for id in ids)
    work.delete_collection("flat")
    assert not uploads.exists()
    assert other.original(ids[0])
    work.delete_collection("other")


async def center(url, to):
    async with AsyncClient(url) as client:
        return await client.collection("many").center(to)


def test_the_projection_of_a_collection_names_no_folder(work, place):
    import httpx2

    collection = Collection.open(place / "collections" / "many", model=FakeBackend())
    spec = replace(collection.spec, id=f"onnx:{place}/secret.onnx", identity="onnx:content")
    X = collection.vectors([item.id for item in collection.items()][:60])
    collection.copy_projected(place / "collections" / "from-a-file", fit_center(X, spec))
    answer = httpx2.get(f"{work.url}/v1/collections/from-a-file/projection")
    projection = Projection.from_bytes(answer.content, "it")
    assert projection.base.id == "onnx:content"
    assert projection.base.fingerprint == spec.fingerprint
    assert b"secret" not in answer.content
    refused = httpx2.get(f"{work.url}/v1/collections/many/projection")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "no_projection")


def test_a_mount_that_holds_nothing_gets_a_copy(place, tmp_path):
    settings = ServerSettings(data=str(place), mount=(f"disk={tmp_path / 'disk'}",))
    catalog = CollectionCatalog(settings, None)
    assert catalog.target("disk", is_copy=True) == str(tmp_path / "disk")
    Collection.create(tmp_path / "disk", model=FakeBackend())
    with pytest.raises(Problem, match="there is a collection 'disk' already"):
        catalog.target("disk", is_copy=True)
