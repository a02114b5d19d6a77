"""What `Collection.add` passes over, and what becomes of images that are excluded later."""

import unicodedata
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.collection.schema import ESTIMATED_KEY
from nearsight.errors import InvalidParameterError
from nearsight.images import FileSource, Stat
from nearsight.images.limits import stamp_of

from fake import FakeBackend


def save(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGB", (16, 16), (number * 20, 99, len(name))).save(root / name)
        else:
            (root / name).write_bytes(b"x")


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.create(tmp_path / "collection", model=FakeBackend())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    save(folder, "a.png", "b.cr2", "sub/c.png", "sub/d_small.png", "sub/e.psd", ".f.png", "@eaDir/g.png")
    return folder


def names(collection: Collection, root: Path) -> list[str]:
    return sorted(Path(item.path).relative_to(root).as_posix() for item in collection.items())


def test_what_is_passed_over_is_in_the_report(collection: Collection, photos: Path) -> None:
    report = collection.add(photos, exclude=["*_small.png"])
    assert report.skipped == {"excluded": 2, ".cr2": 1, ".psd": 1, "hidden": 1}
    assert next(iter(report.skipped)) == "excluded"
    assert names(collection, photos) == ["a.png", "sub/c.png"]
    assert collection.add(photos, include_hidden=True).added == 2


def test_images_that_are_excluded_now_are_removed_with_their_root(
    collection: Collection, photos: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    save(other, "x_small.png", "y.png")
    collection.add([photos, other])
    assert len(collection) == 5
    # Their root is not added again: they stay.
    report = collection.add(other / "y.png", exclude=["*_small.png"])
    assert (report.removed, report.excluded) == (0, [])
    assert collection.add(photos / "sub", exclude=["/c.png"]).excluded == [str(photos / "sub/c.png")]
    report = collection.add(photos, exclude=["*_small.png", "/sub/c.png"])
    assert report.removed == 1
    assert report.excluded == [str(photos / "sub/d_small.png")]
    assert names(collection, tmp_path) == ["other/x_small.png", "other/y.png", "photos/a.png"]
    # Nothing is lost: without the pattern they come back.
    assert collection.add(photos).added == 2


def test_an_excluded_copy_leaves_the_other_file(collection: Collection, photos: Path) -> None:
    (photos / "copy").mkdir()
    (photos / "copy" / "a.png").write_bytes((photos / "a.png").read_bytes())
    collection.add(photos)
    report = collection.add(photos, exclude=["copy/"])
    assert report.excluded == [str(photos / "copy/a.png")]
    [item] = [item for item in collection.items() if item.path == str(photos / "a.png")]
    assert item.paths == [str(photos / "a.png")]


def test_hidden_and_named_images_stay(collection: Collection, photos: Path) -> None:
    """Not to include is not to exclude; and what was named by itself is no part of the walk."""
    collection.add(photos, include_hidden=True)
    report = collection.add(photos)
    assert (report.removed, report.excluded, report.vanished) == (0, [], [])
    assert ".f.png" in names(collection, photos)


def test_an_ignore_file_counts_from_then_on(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    (photos / ".nearsightignore").write_text("sub/\n")
    assert collection.add(photos).removed == 2
    assert names(collection, photos) == ["a.png"]
    (photos / "sub" / ".nomedia").touch()
    (photos / ".nearsightignore").unlink()
    assert collection.add(photos).added == 0


def test_nothing_is_removed_where_nothing_is_left(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    with pytest.warns(UserWarning, match="there is no image in .*photos: skipped: .* excluded"):
        report = collection.add(photos, exclude=["*"])
    assert (report.removed, len(report.excluded), len(collection)) == (0, 3, 3)


def test_a_bad_pattern_is_refused_before_anything_is_written(collection: Collection, photos: Path) -> None:
    with pytest.raises(InvalidParameterError, match="gitignore"):
        collection.add(photos, exclude=["[z-a]"])
    assert len(collection) == 0


def test_two_files_whose_names_differ_in_form_only_stay_two(collection: Collection, tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "été.png") for form in ("NFC", "NFD")]
    (tmp_path / "in").mkdir()
    for number, name in enumerate(forms):
        Image.new("RGB", (16, 16), (number * 200, 9, 9)).save(tmp_path / "in" / name)
    if len(list((tmp_path / "in").iterdir())) < 2:
        pytest.skip("this file system takes the two names for one")
    assert collection.add(tmp_path / "in").added == 2
    assert collection.add(tmp_path / "in").unchanged == 2
    assert {Path(item.path).name for item in collection.items()} == set(forms)
    for name in forms:
        # Either form finds both in a filter; the path itself is exact.
        assert collection.count(f"path LIKE '%{name}'") == 2
        [best, *_] = collection.search(tmp_path / "in" / name, k=1)
        assert Path(best.path).name == name


def test_a_time_that_a_wrong_clock_has_set_stops_no_run(
    collection: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not every file system has such times.
    monkeypatch.setattr(FileSource, "stat", lambda source: Stat(9, stamp_of(2**80), 2.0**80))
    n_images = collection.add(photos).added
    assert n_images > 1
    assert [item.modified for item in collection.items()] == [None] * n_images
    assert collection.add(photos).unchanged == n_images


def test_an_estimated_vector_is_computed_once_its_file_is_there_again(
    collection: Collection, photos: Path
) -> None:
    collection.add(photos)
    [(id, path)] = [(item.id, item.path) for item in collection.items() if item.path.endswith("a.png")]
    [right] = collection.vectors([id])
    kind = collection._store.schema.field("vector")
    row = pa.table(
        {"id": [id], "vector": pa.array([(-right).tolist()], kind.type)},
        schema=pa.schema([collection._store.schema.field("id"), kind]),
    )

    def estimate() -> None:
        collection._store.update(row)
        collection.update_metadata([id], [{ESTIMATED_KEY: True, "color": "red"}])

    estimate()
    report = collection.add(photos)
    assert (report.embedded, report.unchanged) == (1, 3)
    assert collection.vectors([id])[0] == pytest.approx(right, abs=1e-6)
    assert collection.get(id).metadata == {"color": "red"}
    assert collection.add(photos).embedded == 0
    # A file that was moved, and an image in memory, do as well.
    estimate()
    Path(path).rename(photos / "moved.png")
    assert collection.add(photos).embedded == 1
    estimate()
    assert collection.add((photos / "moved.png").read_bytes()).embedded == 1
    assert collection.vectors([id])[0] == pytest.approx(right, abs=1e-6)
