"""Which image of a group is kept, end to end: files, collection, result."""

import io
import os
from types import SimpleNamespace

import pytest
from PIL import Image, ImageEnhance

from nearsight import Collection
from nearsight.analyses import kept_image
from nearsight.analyses.image_difference import Candidate
from nearsight.collection import Item
from nearsight.images import content_id

from fake import FakeBackend
from sample_images import encoded, exif_block, photograph


@pytest.fixture
def found(tmp_path):
    """Index files, given as images or bytes, a minute apart, and return the only group."""

    def find(**files):
        (tmp_path / "images").mkdir()
        for age, (name, content) in enumerate(files.items()):
            path = tmp_path / "images" / name.replace("_", ".")
            path.write_bytes(content if isinstance(content, bytes) else encoded(content, "PNG"))
            os.utime(path, (1_700_000_000 + 60 * age,) * 2)
        collection = Collection.create(tmp_path / "collection", model=FakeBackend())
        collection.add(tmp_path / "images")
        [group] = collection.find_duplicates(min_similarity=-1).groups
        return group

    return find


def names(paths):
    return [os.path.basename(path) for path in paths]


def test_color_is_kept_although_the_gray_copy_is_older_and_has_more_bytes(found):
    color = photograph()
    gray = encoded(color.convert("L").convert("RGB"), "BMP")
    group = found(a_bmp=gray, z_png=color)
    assert (names([group.keep.path]), names(group.redundant), group.why) == (["z.png"], ["a.bmp"], "in color")


def test_what_was_compressed_before_is_not_kept_although_its_file_is_larger(found):
    worse = encoded(Image.open(io.BytesIO(encoded(photograph(), "JPEG", quality=15))), "BMP")
    group = found(a_bmp=worse, z_png=photograph())
    assert (names([group.keep.path]), names(group.redundant)) == (["z.png"], ["a.bmp"])
    assert (group.why, group.certain) == ("less compressed", True)


def test_other_colors_need_a_look(found):
    image = photograph()
    group = found(a_png=image, b_png=ImageEnhance.Color(image).enhance(2.5))
    assert (group.redundant, len(group.review), group.certain) == ([], 1, False)


def test_the_same_pixels_by_another_orientation_are_redundant(found):
    image = photograph()
    turned = encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif_block(6))
    group = found(a_png=image, b_png=turned)
    assert (names([group.keep.path]), names(group.redundant)) == (["a.png"], ["b.png"])


def test_a_file_that_changed_since_it_was_indexed_is_not_measured(tmp_path):
    image = photograph()
    image.save(tmp_path / "a.png")
    image.resize((160, 128)).save(tmp_path / "b.png")
    collection = Collection.create(tmp_path / "collection", model=FakeBackend())
    collection.add(tmp_path)
    (tmp_path / "b.png").write_bytes(b"another file")
    [group] = collection.find_duplicates(min_similarity=-1).groups
    assert group.doubts == ["a file could not be read to measure what it lost"]


def test_a_drawing_is_drawn_once_for_the_pairs_it_is_compared_in(tmp_path, monkeypatch):
    (tmp_path / "a.svg").write_bytes(b"<svg/>")
    photograph().save(tmp_path / "b.png")
    drawn = []

    def decode(data, **options):
        drawn.append(data)
        return SimpleNamespace(image=photograph())

    monkeypatch.setattr(kept_image, "decode", decode)
    qualities = [
        SimpleNamespace(image_format=name, has_known_loss=True, compression=0) for name in ("SVG", "PNG")
    ]
    drawing, photo = (
        Candidate(Item(content_id(path.read_bytes()), str(path), [str(path)]), quality)
        for path, quality in zip((tmp_path / "a.svg", tmp_path / "b.png"), qualities, strict=True)
    )
    for _ in range(3):
        kept_image._added_detail(drawing, photo)
    assert [data == b"<svg/>" for data in drawn].count(True) == 1


def test_an_image_to_keep_in_a_bin_needs_a_look(tmp_path):
    (tmp_path / "images/Trash").mkdir(parents=True)
    photograph().save(tmp_path / "images/Trash/a.png")
    photograph().resize((160, 128)).save(tmp_path / "images/b.png")
    collection = Collection.create(tmp_path / "collection", model=FakeBackend())
    collection.add([tmp_path / "images/b.png", tmp_path / "images/Trash/a.png"])
    [group] = collection.find_duplicates(min_similarity=-1).groups
    assert (names([group.keep.path]), group.doubts) == (["a.png"], ["the image to keep lies in Trash"])
