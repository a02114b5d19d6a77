"""The thing a user owns: add, search, account for every file, refuse what does not belong."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.collection import manifest
from nearsight.errors import (
    CollectionNotFoundError,
    FilterError,
    FingerprintMismatchError,
    ImageError,
    InvalidParameterError,
    MetadataError,
    NewerFormatError,
    NotACollectionError,
    UnknownIdError,
)

from fake import FakeBackend


def paint(path: Path, seed: int) -> Path:
    """Write a small image, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(6):
        paint(tmp_path / "photos" / f"{seed}.png", seed)
    return tmp_path / "photos"


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.create(tmp_path / "collection", model=FakeBackend())


def by_path(collection: Collection) -> dict[str, str]:
    return {Path(path).name: item.id for item in collection.items() for path in item.paths}


def test_first_run_adds_and_second_costs_nothing(collection: Collection, photos: Path) -> None:
    first = collection.add(photos)
    assert (first.added, first.embedded, first.failed) == (6, 6, [])
    again = collection.add(photos)
    assert (again.added, again.updated, again.unchanged, again.embedded) == (0, 0, 6, 0)
    assert len(collection) == 6


def test_unchanged_files_are_not_even_opened(
    collection: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add(photos)

    def refuse(*_: object) -> bytes:
        raise AssertionError("an unchanged file was read")

    source = next(iter(__import__("nearsight.images", fromlist=["find"]).find(photos)))
    monkeypatch.setattr(type(source), "read", refuse)
    assert collection.add(photos).unchanged == 6


def test_changed_file_is_embedded_again_and_keeps_its_metadata(collection: Collection, photos: Path) -> None:
    collection.add(photos, metadata={"album": "summer"})
    old = by_path(collection)["3.png"]
    paint(photos / "3.png", 99)
    report = collection.add(photos)
    assert (report.added, report.updated, report.unchanged, report.embedded) == (0, 1, 5, 1)
    new = by_path(collection)["3.png"]
    assert new != old
    assert collection.get(new).metadata == {"album": "summer"}
    with pytest.raises(UnknownIdError):
        collection.get(old)


def test_touched_moved_and_copied_files_cost_a_hash(collection: Collection, photos: Path) -> None:
    collection.add(photos, metadata={"album": "summer"})
    before = by_path(collection)
    os.utime(photos / "0.png", ns=(1, 1))
    (photos / "1.png").rename(photos / "moved.png")
    shutil.copyfile(photos / "2.png", photos / "copy.png")
    report = collection.add(photos)
    assert (report.embedded, report.updated, report.added, report.unchanged) == (0, 1, 1, 5)
    assert report.vanished == []
    after = by_path(collection)
    assert after["moved.png"] == before["1.png"]
    assert "1.png" not in after
    assert after["copy.png"] == after["2.png"] == before["2.png"]
    assert len(collection) == 6
    assert collection.get(after["moved.png"]).metadata == {"album": "summer"}
    assert collection.add(photos).unchanged == 7


def test_removing_one_of_two_copies_keeps_the_image(collection: Collection, photos: Path) -> None:
    shutil.copyfile(photos / "2.png", photos / "a-copy.png")
    report = collection.add(photos)
    assert (report.added, report.embedded) == (7, 6)
    (photos / "2.png").unlink()
    report = collection.add(photos, prune=True)
    assert (report.removed, report.vanished) == (1, [str(photos / "2.png")])
    assert by_path(collection).keys() == {"a-copy.png", "0.png", "1.png", "3.png", "4.png", "5.png"}


def test_vanished_files_are_reported_then_pruned(
    collection: Collection, photos: Path, tmp_path: Path
) -> None:
    elsewhere = paint(tmp_path / "elsewhere" / "kept.png", 50)
    collection.add([photos, elsewhere])
    (photos / "4.png").unlink()
    elsewhere.unlink()
    report = collection.add(photos)
    assert (report.vanished, report.removed, len(collection)) == ([str(photos / "4.png")], 0, 7)
    report = collection.add(photos, prune=True)
    assert (report.removed, len(collection)) == (1, 6)
    assert "kept.png" in by_path(collection), "a file outside the inputs was pruned"


def test_an_empty_folder_prunes_nothing(collection: Collection, photos: Path) -> None:
    """An unmounted disk is an empty directory."""
    collection.add(photos)
    for file in photos.iterdir():
        file.unlink()
    with pytest.warns(
        UserWarning, match=r"there is no image in .*photos\. Of a folder, files count that end"
    ):
        report = collection.add(photos, prune=True)
    assert (report.removed, len(report.vanished), len(collection)) == (0, 6, 6)


@pytest.mark.parametrize("inputs", [[], iter([])])
def test_adding_nothing_is_warned_of(collection: Collection, inputs) -> None:
    with pytest.warns(UserWarning, match="there is no image in the inputs"):
        assert collection.add(inputs).added == 0


def test_a_bad_image_is_recorded_and_the_rest_goes_on(collection: Collection, photos: Path) -> None:
    (photos / "bad.jpg").write_text("no image")
    report = collection.add(photos)
    assert report.added == 6
    [failure] = report.failed
    assert failure.path == str(photos / "bad.jpg")
    assert failure.reason


def test_a_file_that_went_bad_keeps_its_old_row(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    (photos / "5.png").write_bytes(b"")
    report = collection.add(photos, prune=True)
    assert (len(report.failed), report.removed, len(collection)) == (1, 0, 6)


def test_raising_keeps_what_was_finished(collection: Collection, photos: Path) -> None:
    (photos / "zz.jpg").write_text("no image")
    with pytest.raises(ImageError, match="zz.jpg"):
        collection.add(photos, on_error="raise", n_threads=1)
    assert len(collection) == 6


def test_search_by_image_id_and_vector_agree(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    by_image = collection.search(photos / "2.png", k=3)
    id = by_path(collection)["2.png"]
    assert by_image[0].id == id
    assert by_image[0].similarity == pytest.approx(1, abs=1e-5)
    similarities = [match.similarity for match in by_image]
    assert similarities == sorted(similarities, reverse=True)
    by_id = collection.search(id=id[:8], k=2)
    assert [m.id for m in by_id] == [m.id for m in by_image[1:]]
    [vector] = collection.vectors([id])
    assert collection.search(vector=vector, k=3) == by_image
    assert collection.search(Image.open(photos / "2.png"), k=1)[0].id == id
    assert collection.search((photos / "2.png").read_bytes(), k=1)[0].id == id


def test_queries_that_are_refused(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    with pytest.raises(InvalidParameterError, match="name what to search for"):
        collection.search()
    with pytest.raises(InvalidParameterError, match="folder"):
        collection.search(photos)
    with pytest.raises(InvalidParameterError, match="holds 6"):
        collection.search(f"{photos}/*.png")
    with pytest.raises(ImageError, match="allow_remote"):
        collection.search("http://127.0.0.1:9/x.jpg")
    with pytest.raises(UnknownIdError, match="hex"):
        collection.search(id="../x")
    with pytest.raises(UnknownIdError, match="no images have ids that start"):
        collection.search(id="0123456789abcdef")
    with pytest.raises(ImageError, match="nothing.png"):
        collection.search(photos / "nothing.png")


def test_vectors_are_those_of_the_embedder(collection: Collection, photos: Path) -> None:
    from nearsight import Embedder

    collection.add(photos)
    direct = Embedder(FakeBackend()).embed(photos)
    assert np.array_equal(collection.vectors(direct.ids), direct.vectors)


def test_filters_on_facts_and_metadata(collection: Collection, photos: Path) -> None:
    collection.add(
        photos, metadata=lambda path: {"number": int(Path(path).stem), "even": Path(path).stem in "024"}
    )
    names = lambda where: sorted(Path(i.path).stem for i in collection.items(where))  # noqa: E731
    assert names("number >= 3 AND even = true") == ["4"]
    assert names("metadata.number IN (1, 5)") == ["1", "5"]
    assert names("path LIKE '%/2.png'") == ["2"]
    assert names("width = 64 AND height < 49 AND added > '2020-01-01'") == list("012345")
    assert [Path(m.path).stem for m in collection.search(photos / "1.png", where="number = 4")] == ["4"]
    with pytest.raises(FilterError, match="number"):
        list(collection.items("nmber = 3"))


def test_metadata_of_unchanged_images_is_brought_up_to_date(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    report = collection.add(photos, metadata={"album": "winter", "stars": 4})
    assert (report.updated, report.unchanged, report.embedded) == (6, 0, 0)
    assert all(item.metadata == {"album": "winter", "stars": 4} for item in collection.items())
    assert collection.add(photos, metadata={"album": "winter"}).unchanged == 6


def test_metadata_of_many_images_in_one_write(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    ids = [item.id for item in collection.items()]
    version = collection._store.version
    assert collection.update_metadata(ids, {"kind": "photo"}) == 6
    assert collection._store.version <= version + 2  # the new column and the values
    assert collection.update_metadata(ids, [{"number": n} for n in range(6)]) == 6
    assert [item.metadata for item in collection.items(ids=ids[2:4])] == [
        {"kind": "photo", "number": n} for n in (2, 3)
    ]
    assert collection.update_metadata(ids, {"kind": "photo"}) == 0
    with pytest.raises(InvalidParameterError, match="6 ids and 1 mappings"):
        collection.update_metadata(ids, [{"kind": "x"}])
    missing = "0" * 32
    with pytest.raises(UnknownIdError, match=missing):
        collection.update_metadata([ids[0], missing], {"kind": "x"})
    assert collection.count("kind = 'x'") == 0
    assert collection.update_metadata([ids[0], missing], {"kind": "x"}, missing_ok=True) == 1
    assert collection.metadata_types() == {"kind": "string", "number": "double"}
    assert collection.update_metadata([], {"kind": "x"}) == 0


def test_batches_of_some_images(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    ids = [item.id for item in collection.items()]
    batches = list(collection.iter_batches(["id", "width"], "width = 160", ids=[*ids[:5], "0" * 32]))
    expected = {item.id for item in collection.items(ids=ids[:5]) if item.width == 160}
    assert {id for batch in batches for id in batch.column("id").to_pylist()} == expected
    assert list(collection.items(ids=[])) == []


def test_metadata_of_one_image(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    id = by_path(collection)["0.png"]
    collection.update_metadata(id[:6], {"stars": 5})
    collection.update_metadata(id, {"note": 'it\'s "good"\n'})
    assert collection.get(id).metadata == {"stars": 5, "note": 'it\'s "good"\n'}
    collection.update_metadata(id, {"note": None})
    assert collection.get(id).metadata == {"stars": 5}
    assert [item.id for item in collection.items("stars > 4.5")] == [id]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"bad key": 1}, "bad key"),
        ({"x": [1]}, "list"),
        ({"x": float("nan")}, "nan"),
        ({"x": 2**60}, "2\\^53"),
        ({"stars": "five"}, "a number"),
    ],
)
def test_bad_metadata_is_refused_before_any_work(
    collection: Collection, photos: Path, metadata: dict, message: str
) -> None:
    collection.add(photos / "0.png", metadata={"stars": 1})
    with pytest.raises(MetadataError, match=message):
        collection.add(photos, metadata=metadata)
    assert len(collection) == 1


def test_bad_metadata_of_one_image_is_a_record(collection: Collection, photos: Path) -> None:
    report = collection.add(photos, metadata=lambda path: {"n": "one" if path.endswith("1.png") else 1})
    assert report.added == 5
    assert "number" in report.failed[0].reason


def test_images_that_are_no_files(collection: Collection) -> None:
    array = np.full((30, 40, 3), 7, np.uint8)
    assert collection.add([array, Image.fromarray(array + 90)]).added == 2
    assert collection.add([array]).unchanged == 1
    assert [(item.path, item.paths) for item in collection.items()] == [("", []), ("", [])]


def test_remove(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    ids = by_path(collection)
    with pytest.raises(UnknownIdError):
        collection.remove([ids["0.png"], "ffffffffffff"])
    assert len(collection) == 6
    assert collection.remove([ids["0.png"][:10], ids["0.png"]]) == 1
    assert collection.remove(where="path LIKE '%/1.png' OR path LIKE '%/2.png'") == 2
    assert len(collection) == 3
    assert (photos / "0.png").exists()
    assert collection.add(photos).added == 3


def test_vectors_of_another_fingerprint_are_refused(
    collection: Collection, photos: Path, tmp_path: Path
) -> None:
    other = FakeBackend(seed=1)
    assert other.spec.fingerprint != collection.fingerprint
    with pytest.raises(FingerprintMismatchError, match=other.spec.fingerprint.digest):
        Collection.open(collection.directory, model=other)
    with pytest.raises(FingerprintMismatchError):
        Collection.create(collection.directory, model=other)
    vectors = np.eye(2, collection.spec.dim, dtype=np.float32)
    with pytest.raises(FingerprintMismatchError, match="weights"):
        collection.add_vectors(vectors, ids=["0" * 32, "1" * 32], fingerprint=other.spec.fingerprint)
    assert collection.add_vectors(vectors, ids=["0" * 32, "1" * 32], fingerprint=collection.fingerprint) == 2
    assert collection.add_vectors(vectors, ids=["0" * 32, "1" * 32], fingerprint=collection.fingerprint) == 0
    assert collection.search(vector=vectors[1], k=1)[0].id == "1" * 32


def test_thumbnails(collection: Collection, photos: Path) -> None:
    from io import BytesIO

    collection.add(photos)
    ids = list(by_path(collection).values())
    small = collection.thumbnails(ids)
    assert small.keys() == set(ids)
    assert Image.open(BytesIO(small[ids[0]])).size == (64, 48), "a small image is not enlarged"


def test_export(collection: Collection, photos: Path, tmp_path: Path) -> None:
    collection.add(photos, metadata={"album": "summer"})
    assert collection.export(tmp_path / "x.npz") == 6
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert archive["vectors"].dtype == np.float32
        assert np.array_equal(archive["vectors"], collection.vectors(archive["ids"].tolist()))
        assert sorted(archive["paths"]) == sorted(i.path for i in collection.items())
        assert archive["fingerprint"] == collection.fingerprint.digest
    assert collection.export(tmp_path / "x.parquet", where="path LIKE '%/1.png'") == 1
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column("metadata.album").to_pylist() == ["summer"]
    assert table.schema.metadata[b"nearsight.fingerprint"].decode() == collection.fingerprint.digest
    with pytest.raises(InvalidParameterError, match=r"\.parquet, \.npz or \.csv"):
        collection.export(tmp_path / "x.json")
    assert {p.name for p in tmp_path.iterdir()} == {"photos", "collection", "x.npz", "x.parquet"}


def test_a_table_of_the_images(collection: Collection, photos: Path) -> None:
    collection.add(photos, metadata=lambda path: {"number": int(Path(path).stem)})
    items = list(collection.items())
    # A changed row may move in the store.
    collection.update_metadata(items[0].id, {"season": "winter"})
    table = collection.to_arrow()
    for name in ("id", "path", "paths", "width", "added", "taken"):
        assert table.column(name).to_pylist() == [getattr(item, name) for item in items]
    assert table.column("metadata.number").to_pylist() == [item.metadata["number"] for item in items]
    assert table.column("metadata.season").to_pylist() == ["winter"] + [None] * 5
    assert not {"vector", "thumbnail", "keys"} & set(table.column_names)
    winter = collection.to_arrow(["vector", "season", "metadata.season"], "season = 'winter'")
    assert winter.column_names == ["vector", "season", "metadata.season"]
    assert winter.column("season").to_pylist() == winter.column("metadata.season").to_pylist() == ["winter"]
    [vector] = winter.column("vector").to_pylist()
    np.testing.assert_array_equal(np.float32(vector), collection.vectors([items[0].id])[0])
    assert collection.to_arrow(where="number > 9").num_rows == 0
    with pytest.raises(InvalidParameterError, match="there is no column 'seasons'.*season"):
        collection.to_arrow(["seasons"])


def test_a_key_that_no_image_has_is_not_listed(collection: Collection, photos: Path) -> None:
    collection.add(photos, metadata={"season": "winter", "year": 2024})
    assert collection.info()["metadata"] == {"season": "string", "year": "double"}
    [first, *others] = [item.id for item in collection.items()]
    collection.update_metadata(others, {"season": None})
    assert "season" in collection.info()["metadata"]
    collection.update_metadata(first, {"season": None})
    assert collection.info()["metadata"] == {"year": "double"}
    assert "metadata.season" not in collection.to_arrow().column_names
    # A filter that somebody saved goes on.
    assert collection.count("season = 'winter'") == 0


def test_an_empty_collection_answers(collection: Collection, tmp_path: Path) -> None:
    assert len(collection) == 0
    assert collection.search(np.zeros((8, 8, 3), np.uint8)) == []
    assert list(collection.items()) == []
    assert collection.to_arrow(["id", "vector"]).to_pylist() == []
    assert collection.export(tmp_path / "x.npz") == 0
    assert collection.info()["images"] == 0
    collection.compact()


def test_what_is_not_a_collection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CollectionNotFoundError) as missing:
        Collection.open(tmp_path / "nothing")
    place = str(tmp_path / "nothing")
    assert str(missing.value).endswith(
        f"no collection at {place}; create one with Collection.create({place!r})"
    )
    assert pickle.loads(pickle.dumps(missing.value)).uri == place
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(CollectionNotFoundError):
        Collection.open(other)
    (other / "letter.txt").write_text("dear")
    for attempt in (Collection.open, lambda d: Collection.create(d, model=FakeBackend())):
        with pytest.raises(NotACollectionError, match="not a nearsight collection"):
            attempt(other)
        with pytest.raises(NotACollectionError, match="is a file"):
            attempt(other / "letter.txt")
    assert [p.name for p in other.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "1"}', '{"format": 1}', "\x00\xff"])
def test_a_damaged_manifest_is_said_so(collection: Collection, text: str) -> None:
    (collection.directory / manifest.FILENAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(NotACollectionError, match=manifest.FILENAME):
        Collection.open(collection.directory)


def test_a_newer_format_is_refused(collection: Collection) -> None:
    path = collection.directory / manifest.FILENAME
    data = json.loads(path.read_text()) | {"format": manifest.FORMAT + 1, "nearsight": "9.0"}
    path.write_text(json.dumps(data))
    with pytest.raises(NewerFormatError, match=r"9\.0.*pip install --upgrade"):
        Collection.open(collection.directory)


def test_a_crash_while_making_one_leaves_room_for_the_next_try(tmp_path: Path, photos: Path) -> None:
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    (made.directory / manifest.FILENAME).unlink()
    again = Collection.create(tmp_path / "c", model=FakeBackend())
    assert again.add(photos).added == 6


def test_a_file_named_by_two_rows_is_mended(collection: Collection, photos: Path) -> None:
    """The state a crash leaves between writing a changed file's new row and unlinking its old one."""
    from nearsight.collection import writer

    collection.add(photos)
    old = by_path(collection)["3.png"]
    paint(photos / "3.png", 99)
    relink = writer.Writer._update_files
    try:
        writer.Writer._update_files = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            collection.add(photos)
    finally:
        writer.Writer._update_files = relink
    assert len(collection) == 7
    report = collection.add(photos)
    assert (report.embedded, report.unchanged) == (0, 6)
    assert len(collection) == 6
    assert by_path(collection)["3.png"] != old


def test_images_are_listed_in_the_order_they_came_in(collection: Collection, tmp_path: Path) -> None:
    for number in range(12):
        folder = tmp_path / f"{(number * 7) % 12:02}"
        folder.mkdir()
        Image.new("RGB", (16, 16), (number * 20, 0, 0)).save(folder / "a.png")
        collection.add(folder)
    order = [item.id for item in collection.items()]
    assert [item.added for item in collection.items()] == sorted(item.added for item in collection.items())
    for position in (7, 2, 11):
        collection.update_metadata(order[position], {"n": position})
        assert [item.id for item in collection.items()] == order
    collection.update_metadata([order[0], order[5]], {"n": 99})
    collection.compact()
    assert [item.id for item in collection.items()] == order
    assert [item.id for item in collection.items("n > 5")] == [order[i] for i in (0, 5, 7, 11)]
    assert {item.id for item in collection.items(ids=order[3:5])} == set(order[3:5])


def test_pickling_a_collection_is_refused_with_what_to_do(collection):
    with pytest.raises(TypeError, match=r"cannot be pickled or copied; .* Collection\.open\("):
        pickle.dumps(collection)
