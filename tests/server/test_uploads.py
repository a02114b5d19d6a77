import pytest

from nearsight import Collection
from nearsight.errors import MetadataError
from nearsight.server.uploads import UploadedImage, add_uploads, file_name, remove_unlisted

from fake import FakeBackend


@pytest.fixture
def collection(tmp_path):
    return Collection.create(tmp_path / "collection", model=FakeBackend())


def test_each_image_has_a_result(collection, tmp_path, jpeg):
    folder = tmp_path / "uploads"
    first = [UploadedImage("a.jpg", jpeg(1), {"stars": 3.0}), UploadedImage("b.jpg", b"Dear diary", {})]
    results = add_uploads(collection, folder, first)
    assert [each["status"] for each in results] == ["added", "failed"]
    assert "reason" in results[1]
    item = collection.get(results[0]["id"])
    assert item.metadata == {"stars": 3.0}
    assert item.path.endswith("a.jpg")
    again = [UploadedImage("c.jpg", jpeg(1), {"stars": 4.0}), UploadedImage("d.jpg", jpeg(2), {})]
    assert [each["status"] for each in add_uploads(collection, folder, again)] == ["exists", "added"]
    assert collection.get(item.id).metadata == {"stars": 4.0}
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2


def test_the_same_content_twice_in_one_request(collection, tmp_path, jpeg):
    twice = [UploadedImage(name, jpeg(1), {}) for name in ("a.jpg", "b.jpg")]
    results = add_uploads(collection, tmp_path / "uploads", twice)
    assert [each["status"] for each in results] == ["added", "added"]
    assert len(collection) == 1


def test_files_that_no_row_belongs_to_are_removed(collection, tmp_path, jpeg):
    folder = tmp_path / "uploads"
    add_uploads(collection, folder, [UploadedImage("a.jpg", jpeg(1), {})])
    [listed] = [path for path in folder.rglob("*") if path.is_file()]
    torn = folder / "ab" / "0123456789" / "b.jpg"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(jpeg(2))
    assert remove_unlisted(collection, folder, before_s=torn.stat().st_mtime) == 0
    assert torn.exists()
    assert remove_unlisted(collection, folder, before_s=torn.stat().st_mtime + 1, but=[torn]) == 0
    assert remove_unlisted(collection, folder, before_s=torn.stat().st_mtime + 1) == 1
    assert not torn.exists()
    # Wherever its row says the image lies.
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "c.jpg").write_bytes(jpeg(1))
    collection.add(moved, progress=False)
    assert remove_unlisted(collection, folder, before_s=listed.stat().st_mtime + 1) == 0
    assert listed.exists()


def test_metadata_that_does_not_fit_adds_nothing(collection, tmp_path, jpeg):
    with pytest.raises(MetadataError):
        add_uploads(collection, tmp_path / "uploads", [UploadedImage("a.jpg", jpeg(1), {"bad key!": 1})])
    assert len(collection) == 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/cron.d/x.jpg", "x.jpg"),
        ("C:\\a\\b.PNG", "b.PNG"),
        ("..", "image.jpg"),
        ("", "image.jpg"),
        ("x.html", "x.html.jpg"),
        ("a\0b\n.jpg", "a_b_.jpg"),
        ("café.jpg", "café.jpg"),
    ],
)
def test_names_are_safe(name, expected):
    assert file_name(name, b"\xff\xd8\xff") == expected


def test_long_names_are_cut():
    assert len(file_name("x" * 500 + ".jpg", b"")) == 100
    assert len(file_name("写" * 200 + ".jpg", b"").encode()) <= 100
    assert file_name("写" * 200 + ".jpg", b"").endswith("写写.jpg")
