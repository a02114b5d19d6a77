"""What the service keeps for a collection is not found by another one that gets its name."""

import json
import os
import shutil

import pytest

from nearsight import Collection
from nearsight.server.collection_folders import CollectionFolders

from fake import FakeBackend


@pytest.fixture
def collections(tmp_path):
    return [Collection.create(tmp_path / name, model=FakeBackend()) for name in ("a", "b")]


def test_each_collection_has_its_own(tmp_path, collections):
    folders = CollectionFolders(tmp_path / "results")
    places = [folders.of("shop", each) for each in collections]
    assert len(set(places)) == 2
    assert folders.names() == []
    for place in places:
        place.mkdir(parents=True)
    assert folders.names() == ["shop"]
    moved = shutil.move(tmp_path / "a", tmp_path / "c")
    assert folders.of("shop", Collection.open(moved, model=FakeBackend())) == places[0]
    folders.remove("shop", collections[0])
    assert [place.exists() for place in places] == [False, True]


def test_a_directory_of_an_earlier_version_goes_to_the_collection_it_is_of(tmp_path, collections):
    folders = CollectionFolders(tmp_path / "results")
    (folders.base / "shop").mkdir(parents=True)
    assert folders.of("shop", collections[0]) == folders.base / "shop"
    assert folders.of("shop", collections[1]) != folders.base / "shop"
    assert folders.of("shop", collections[0]) == folders.base / "shop"
    # Of a collection that was deleted before this one was made.
    (folders.base / "older").mkdir()
    os.utime(folders.base / "older", (1.0, 1.0))
    assert folders.of("older", collections[0]) != folders.base / "older"


def test_a_collection_that_gets_the_name_of_another_has_no_results_uploads_and_detectors(
    serve, tmp_path, collections, jpeg
):
    """Also if the first one is still there: then nothing of it is lost."""
    found = {}
    for letter, n_images in (("a", 2), ("b", 0), ("a", 2)):
        client = serve(mount=(f"shop={tmp_path / letter}",), data=str(tmp_path / "data"))
        service, route = client.service, "/v1/collections/shop"
        if n_images and not found:
            files = [("image", (f"{n}.jpg", jpeg(n))) for n in range(n_images)]
            assert client.post(f"{route}/items", files=files).status_code == 200
            for kind in ("duplicates", "clusters", "audit"):
                service.catalog.write_result(
                    "shop", kind, {"groups": [], "issues": [], "counts": {}, "clusters": []}
                )
            service.catalog.detectors("shop").mkdir(parents=True)
            service.catalog.table_file("shop", "t").write_text("id\n")
        service.catalog.remove_unlisted_uploads("shop", 2**40)
        assert client.get(route).json()["images"] == n_images
        assert len(client.get(f"{route}/items").json()["items"]) == n_images
        for kind in ("duplicates", "clusters", "audit"):
            assert service.catalog.result_file("shop", kind).exists() == bool(n_images)
        assert client.get(f"{route}/audit").status_code == (200 if n_images else 404)
        assert service.catalog.detectors("shop").exists() == bool(n_images)
        uploads = [path for path in service.catalog.uploads("shop").rglob("*.jpg") if path.is_file()]
        assert len(uploads) == n_images
        found.setdefault(letter, uploads)
        assert uploads == found[letter]


def test_a_collection_that_is_made_anew_has_no_results_of_the_former(serve):
    client = serve()
    route, catalog = "/v1/collections/photos", client.service.catalog
    for _ in range(2):
        assert client.post("/v1/collections", json={"name": "photos"}).status_code == 201
        assert client.get(f"{route}/duplicates").status_code == 404
        late = catalog.result_file("photos", "duplicates")
        assert client.delete(route).status_code == 204
        assert not late.parent.exists()
        # A job that was running writes its result after all.
        late.parent.mkdir(parents=True)
        late.write_text(json.dumps({"groups": []}))
