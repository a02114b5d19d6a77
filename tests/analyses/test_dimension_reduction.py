"""A collection of shorter vectors out of another."""

import shutil

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.collection import create, manifest
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, NotACollectionError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(14):
        pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC).save(folder / f"{seed:02}.png")
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory, photos):
    made = Collection.create(tmp_path_factory.mktemp("full") / "c")
    made.add(photos, metadata=lambda path: {"number": int(path[-6:-4])})
    return made


def test_everything_else_comes_along(collection, tmp_path, monkeypatch):
    # More than one write.
    monkeypatch.setattr(create, "_ROWS_PER_APPEND", 5)
    projection = collection.reduce_dim(6, tmp_path / "short")
    short = Collection.open(tmp_path / "short")
    assert [*short.items()] == [*collection.items()]
    ids = [item.id for item in short.items()]
    assert short.thumbnails(ids) == collection.thumbnails(ids)
    np.testing.assert_allclose(short.vectors(ids), projection.apply(collection.vectors(ids)), atol=1e-6)
    assert short.info()["dim"] == 6


def test_new_images_are_embedded_and_projected(collection, photos, tmp_path):
    collection.reduce_dim(6, tmp_path / "short")
    # Moved: it holds its projection itself.
    shutil.move(tmp_path / "short", tmp_path / "moved")
    short = Collection.open(tmp_path / "moved")
    assert short.add(photos).unchanged == 14
    best, *_ = short.search(photos / "03.png", k=2)
    assert best.path == str(photos / "03.png")
    assert best.similarity == pytest.approx(1, abs=1e-5)
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "new.png")
    assert short.add(tmp_path / "new.png").added == 1
    assert short.search(tmp_path / "new.png", k=1)[0].path == str(tmp_path / "new.png")


@pytest.mark.slow
def test_a_place_that_is_taken(collection, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "letter.txt").write_text("dear")
    with pytest.raises(NotACollectionError, match="is not empty"):
        collection.reduce_dim(6, tmp_path / "x")
    collection.reduce_dim(6, tmp_path / "short")
    with pytest.raises(NotACollectionError, match="is a collection already"):
        collection.reduce_dim(6, tmp_path / "short")
    with pytest.raises(InvalidParameterError, match="is this collection"):
        collection.reduce_dim(6, collection.directory)


@pytest.mark.slow
def test_what_a_crash_left_is_no_hindrance(collection, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            manifest.CollectionManifest, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            collection.reduce_dim(6, tmp_path / "short")
    collection.reduce_dim(5, tmp_path / "short")
    assert Collection.open(tmp_path / "short").info()["dim"] == 5


def test_not_twice(collection, tmp_path):
    collection.reduce_dim(6, tmp_path / "short")
    with pytest.raises(InvalidParameterError, match="reduced or centered vectors already"):
        Collection.open(tmp_path / "short").reduce_dim(3, tmp_path / "shorter")


def test_a_lost_projection_is_told(collection, photos, tmp_path):
    collection.reduce_dim(6, tmp_path / "short")
    (tmp_path / "short" / manifest.PROJECTION).unlink()
    short = Collection.open(tmp_path / "short")
    # What is there can still be compared with itself.
    assert len(short.search(id=next(short.items()).id, k=3)) == 3
    with pytest.raises(FingerprintMismatchError, match="projection.npz is gone"):
        short.search(photos / "03.png")


def test_too_few_images(collection, tmp_path):
    with pytest.raises(InvalidParameterError, match="15 are needed"):
        collection.reduce_dim(14, tmp_path / "short")
    assert not (tmp_path / "short").exists()
