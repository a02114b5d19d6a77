"""What the first version wrote still opens: collections, clusters, maps, classifiers and projections."""

import shutil
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearsight import Clustering, Collection
from nearsight.errors import FilterError
from nearsight.images import FileSource
from nearsight.images.color import ON_BLACK

from fake import FakeBackend
from sample_images import encoded, scene

ARCHIVE = Path(__file__).parent / "data" / "collection-0.1.zip"


@pytest.fixture
def old(tmp_path):
    shutil.unpack_archive(ARCHIVE, tmp_path)
    return tmp_path


def test_a_collection(old):
    collection = Collection.open(old / "collection", model=FakeBackend())
    assert collection.info()["written_by"] == "0.1.0"
    assert {item.path for item in collection.items()} == {f"images/{i}.jpg" for i in range(6)}
    assert collection.count("stars >= 4 AND name IN ('4', '5')") == 2
    ids = [item.id for item in collection.items()]
    np.testing.assert_allclose(np.linalg.norm(collection.vectors(ids), axis=1), 1, atol=1e-6)
    assert len(collection.thumbnails(ids)) == 6
    assert collection.search(id=ids[0], k=5)[0].similarity < 1
    assert collection.update_metadata(ids, {"checked": True}) == 6
    assert collection.remove(ids[:1]) == 1


def test_compacting_a_collection_moves_its_thumbnails(old):
    collection = Collection.open(old / "collection", model=FakeBackend())
    ids = [item.id for item in collection.items()]
    thumbnails, vectors = collection.thumbnails(ids), collection.vectors(ids)
    rows = old / "collection" / "store" / "pictures.lance" / "data"
    assert any(thumbnails[ids[0]] in file.read_bytes() for file in rows.iterdir())
    collection.compact()
    assert not any(thumbnails[ids[0]] in file.read_bytes() for file in rows.iterdir())
    for again in (collection, Collection.open(old / "collection", model=FakeBackend())):
        assert again.thumbnails(ids) == thumbnails
        assert np.array_equal(again.vectors(ids), vectors)
        assert [item.id for item in again.items()] == ids
    assert collection.remove(ids[:2]) == 2
    assert sorted(collection.thumbnails(ids[2:])) == sorted(ids[2:])


def test_what_was_fitted_on_it(old):
    collection = Collection.open(old / "collection", model=FakeBackend())
    clustering = Clustering.load(old / "clusters.npz")
    clusters = collection.predict_clusters(clustering).clusters
    assert [len(cluster.ids) for cluster in clusters] == [
        collection.count(f"kind = {cluster.id}") for cluster in clusters
    ]
    assert collection.save_clusters(clustering, "kind") == 0
    layout = collection.layout_2d()
    assert (layout.n_new, layout.method, len(layout.ids)) == (0, "pca", 6)
    assert {prediction.label for prediction in collection.classify()} <= {"a", "b"}


def test_a_projected_collection(old):
    collection = Collection.open(old / "projected")
    assert collection.spec.dim == 4
    assert collection.model_name == f"pca:{old / 'projected' / 'projection.npz'}"
    assert collection.search(vector=np.ones(4), k=6)[-1].similarity < 1


def test_exif_fields_appear_with_the_next_run(old, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = exif_photo()
    folder = tmp_path / "new"
    folder.mkdir()
    collection = Collection.open(old / "collection", model=FakeBackend())
    assert {item.orientation for item in collection.items()} == {None}
    with pytest.raises(FilterError, match="nearsight index PATH"):
        collection.count("taken > '2000-01-01'")
    (folder / "a.jpg").write_bytes(photo)
    collection.add(folder)
    assert collection.count("taken > '2000-01-01' AND lat IS NULL") == 1
    assert collection.count("orientation IS NULL") == 6


@pytest.fixture
def earlier(monkeypatch):
    """Return a context in which collections are written as by the first version."""

    @contextmanager
    def context():
        with monkeypatch.context() as patched:
            for name, value in (
                ("schema.EXIF_COLUMNS", ()),
                ("schema._EXIF_NAMES", ()),
                ("schema.exif_row", lambda exif: {}),
                ("file_index.FileIndex.is_outdated", lambda self, id: False),
                ("file_index.FileIndex.COLUMNS", ("id", "keys", "stamps", "size_bytes")),
            ):
                patched.setattr(f"nearsight.collection.{name}", value)
            patched.setattr("nearsight.images.color._MIN_CONTRAST", 0)
            yield

    return context


def test_rows_of_an_earlier_version_are_read_again_once(tmp_path, monkeypatch, earlier):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(exif_photo())
    with earlier():
        collection = Collection.create(tmp_path / "c", model=FakeBackend())
        assert "taken" not in collection._store.schema.names
        collection.add(tmp_path / "photos")
    assert [item.camera for item in collection.items()] == [None]
    before = collection.vectors([item.id for item in collection.items()])
    report = collection.add(tmp_path / "photos", progress=False)
    assert (report.added, report.updated, report.unchanged, report.embedded) == (0, 0, 1, 0)
    [item] = collection.items()
    assert (item.camera, item.taken, item.orientation) == ("Canon R6", datetime(2020, 1, 2, 3, 4, 5), 1)
    np.testing.assert_array_equal(before, collection.vectors([item.id]))

    def refuse(*_):
        raise AssertionError("read twice")

    monkeypatch.setattr(FileSource, "read", refuse)
    assert collection.add(tmp_path / "photos").unchanged == 1


def test_only_images_of_which_the_decoder_shows_more_are_embedded_again(tmp_path, earlier):
    folder = tmp_path / "drawings"
    folder.mkdir()
    for name, ink in (("white", 249), ("black", 0)):
        drawing = Image.new("LA", (64, 48), (ink, 0))
        drawing.paste((ink, 255), (8, 8, 40, 30))
        (folder / f"{name}.png").write_bytes(encoded(drawing, "PNG"))
    with earlier():
        collection = Collection.create(tmp_path / "c", model=FakeBackend())
        collection.add(folder)
    ids = {Path(item.path).stem: item.id for item in collection.items()}
    before = {name: (collection.vectors([id]), collection.thumbnails([id])[id]) for name, id in ids.items()}
    collection.update_metadata(ids["white"], {"checked": True})
    report = collection.add(folder)
    assert (report.added, report.unchanged, report.embedded) == (0, 2, 1)
    assert report.notes == {ON_BLACK: 1}
    assert np.array_equal(collection.vectors([ids["black"]]), before["black"][0])
    assert not np.allclose(collection.vectors([ids["white"]]), before["white"][0])
    assert collection.thumbnails([ids["white"]])[ids["white"]] != before["white"][1]
    assert collection.get(ids["white"]).metadata == {"checked": True}
    again = collection.add(folder)
    assert (again.unchanged, again.embedded) == (2, 0)


def exif_photo():
    exif = Image.Exif()
    exif.update({0x010F: "Canon", 0x0110: "R6"})
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return encoded(scene(), "JPEG", exif=exif)
