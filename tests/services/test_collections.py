import pytest

from nearsight import Collection
from nearsight.errors import (
    FingerprintMismatchError,
    InvalidParameterError,
    NotACollectionError,
    UnknownIdError,
)
from nearsight.services.collections import add_images, image_ids, open_or_create


def test_a_collection_is_created_once(tmp_path, cache):
    uri = str(tmp_path / "collection")
    created = open_or_create(uri, storage="float16", cache_dir=cache)
    assert (created.spec.id, created.info()["storage"]) == ("efficientnet-lite0", "float16")
    assert open_or_create(uri, cache_dir=cache).fingerprint == created.fingerprint


def test_another_number_type_or_model_is_refused(tmp_path, cache):
    uri = str(tmp_path / "collection")
    open_or_create(uri, cache_dir=cache)
    with pytest.raises(InvalidParameterError, match="float32, not float16"):
        open_or_create(uri, storage="float16", cache_dir=cache)
    with pytest.raises(FingerprintMismatchError):
        open_or_create(uri, model="efficientnet-lite0#layer=block9.add", cache_dir=cache)


def test_a_folder_of_other_files_is_left_alone(tmp_path, cache):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(NotACollectionError):
        open_or_create(str(tmp_path), cache_dir=cache)


@pytest.mark.slow
def test_images_are_added_with_fewer_dimensions(tmp_path, cache, photos):
    uri = str(tmp_path / "collection")
    report = add_images(uri, lambda collection: collection.add([photos]), dim=3, cache_dir=cache)
    assert report.added == 6
    assert Collection.open(uri).spec.dim == 3


def test_names_of_images(indexed, photos):
    collection = Collection.open(indexed.collection)
    items = {item.path: item.id for item in collection.items()}
    id = items[str(photos / "3.png")]
    assert image_ids(collection, [id, id[:8], str(photos / "3.png"), "3.png", "3"]) == [id] * 5
    with pytest.raises(UnknownIdError, match="nowhere"):
        image_ids(collection, ["nowhere.png"])
