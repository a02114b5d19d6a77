"""Copies in a collection: what is found, what is kept, and that it stays among the chosen."""

import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from nearsight import Collection
from nearsight.analyses.duplicate_groups import N_STEPS
from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.progress import told_to

from fake import FakeBackend
from sample_images import page, rescanned, texture


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight photographs in train/, copies of four of them in test/."""
    root = tmp_path_factory.mktemp("photos")
    for folder in ("train", "test"):
        (root / folder).mkdir()
    for seed in range(8):
        texture(400, 300, seed).save(root / f"train/{seed}.png")
    shutil.copy(root / "train/0.png", root / "test/same.png")
    texture(400, 300, 1).resize((200, 150), Image.Resampling.LANCZOS).save(root / "test/small.png")
    texture(400, 300, 2).filter(ImageFilter.GaussianBlur(2)).save(root / "test/blurred.png")
    texture(400, 300, 3).save(root / "test/worse.webp", quality=30)
    texture(400, 300, 20).save(root / "test/alone.png")
    return root


@pytest.fixture(scope="module")
def collection(photos, tmp_path_factory):
    made = Collection.create(tmp_path_factory.mktemp("c") / "c", model=FakeBackend())
    made.add([photos / "train", photos / "test"])
    return made


def names(paths):
    return [os.path.basename(path) for path in paths]


@pytest.mark.slow
def test_groups_name_the_kept_image_and_why(collection):
    found = collection.find_duplicates()
    groups = {names(group.keep.paths)[0]: group for group in found.groups}
    assert {keep: (names(group.redundant), names(group.review)) for keep, group in groups.items()} == {
        "0.png": (["same.png"], []),
        "1.png": (["small.png"], []),
        "2.png": ([], ["blurred.png"]),
        "3.png": ([], ["worse.webp"]),
    }
    assert groups["0.png"].why == "the oldest of identical files"
    assert groups["1.png"].why == "higher effective resolution: 400 × 300, 4 times the pixels of the next"
    assert groups["2.png"].why == "higher effective resolution: 400 × 300, the next is blurred"
    assert groups["2.png"].doubts == ["the pixels differ by more than compression explains"]
    assert found.groups[-1] is groups["0.png"]  # the weakest first
    assert (groups["0.png"].similarity, groups["0.png"].agreement) == (1.0, 1.0)
    assert all(group.agreement > found.threshold for group in found.groups)
    assert found.n_images == 12
    assert found.leaks == []
    page = found._repr_html_()
    assert page.count("data:image/jpeg;base64,/9j/") == 7
    assert "<p>agreement 1.00, keep the first: the oldest of identical files</p>" in page
    assert pickle.loads(pickle.dumps(found)) == found


def test_what_each_was_verified_against(collection, monkeypatch):
    """An image that shares nothing with the kept one is verified against the duplicate that agrees most."""
    where = "path LIKE '%/train/%'"
    order = [item.id for item in collection.items(where)]
    kept, unlike = 0, 3

    def verify(self, left, right):
        both = np.sort(np.stack([left, right]), axis=0)
        alone = (both[0] == kept) & (both[1] == unlike)
        return np.where(alone, 0.1, 0.8 + both.sum(0) / 100).astype(np.float32)

    # All pairs are proposed, whatever their hashes.
    monkeypatch.setattr("nearsight.analyses.duplicates._MIN_HASH_SIMILARITY", -1.0)
    monkeypatch.setattr("nearsight.analyses.duplicates.PairVerification.__call__", verify)
    monkeypatch.setattr(
        "nearsight.analyses.kept_image.KeptImageChoice.__call__",
        lambda self, rows, pairs: -rows.astype(float),
    )
    monkeypatch.setattr(
        "nearsight.analyses.kept_image.KeptImageChoice.reason", lambda self, kept, others: "first"
    )
    group = collection.find_duplicates(where=where, min_similarity=-1).groups[0]
    assert [item.id for item in group.items] == order
    assert dict(zip(order[1:], group.verified_against, strict=True)) == {
        id: order[7] if at == unlike else order[kept] for at, id in enumerate(order) if at
    }
    assert group.agreements[unlike - 1] == pytest.approx(0.9)
    assert group.agreement > 0.8


def test_only_among_those_that_match(collection):
    found = collection.find_duplicates(where="path LIKE '%/train/%'")
    # Files of the same bytes are one image wherever they lie.
    assert [names(group.keep.paths) for group in found.groups] == [["0.png", "same.png"]]
    assert found.n_images == 8


def test_leaks_between_two_folders(collection):
    found = collection.find_leaks("path LIKE '%/train/%'", "path LIKE '%/test/%'")
    leaks = {(names([leak.first.path])[0], names(leak.second.paths)[-1]) for leak in found.leaks}
    assert leaks == {
        ("0.png", "same.png"),
        ("1.png", "small.png"),
        ("2.png", "blurred.png"),
        ("3.png", "worse.webp"),
    }
    assert found.leaks[0].first is found.leaks[0].second
    assert len(found.groups) == 4
    turned = collection.find_leaks("path LIKE '%/test/%'", "path LIKE '%/train/%'")
    assert {(leak.second.id, leak.first.id) for leak in turned.leaks} == {
        (leak.first.id, leak.second.id) for leak in found.leaks
    }


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (("width = 400", "path LIKE '%/train/%'"), "is in both sets, like 6 more"),
        (("width = 400", "width = 5"), "no image is in the second set, 'width = 5'"),
    ],
)
def test_sets_that_cannot_be_compared(collection, sets, message):
    with pytest.raises(InvalidParameterError, match=message):
        collection.find_leaks(*sets)


def test_a_rate_that_few_images_cannot_promise(collection):
    with pytest.raises(CalibrationError, match="needs at least 99 good examples; there are 6"):
        collection.find_duplicates(false_alarm_rate=0.01)


def test_a_rate_that_they_can(collection):
    found = collection.find_duplicates(false_alarm_rate=0.2)
    assert found.calibration.false_alarm_rate == 0.2
    assert found.calibration.n_examples == 6
    assert {names(group.keep.paths)[0] for group in found.groups} >= {"0.png", "1.png", "2.png", "3.png"}


def test_a_rate_learned_on_images_said_to_be_distinct(collection):
    found = collection.find_duplicates(false_alarm_rate=0.4, distinct_where="path LIKE '%/train/%'")
    # Eight of twelve: two comparisons are one question.
    assert (found.calibration.source, found.calibration.n_examples) == ("background", 8)
    # None of the eight looks like another: the default threshold stays.
    assert (found.threshold, found.expected_rate) == (0.65, 0.0)
    assert {names(group.keep.paths)[0] for group in found.groups} >= {"0.png", "1.png", "2.png", "3.png"}
    with pytest.raises(InvalidParameterError, match="none of the compared images matches distinct_where"):
        collection.find_duplicates(false_alarm_rate=0.4, distinct_where="width = 5")


def test_an_empty_collection_and_one_of_one(tmp_path):
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    assert made.find_duplicates().groups == []
    texture(100, 80).save(tmp_path / "one.png")
    made.add(tmp_path / "one.png")
    assert made.find_duplicates().groups == []
    assert made.find_duplicates().n_images == 1


def test_without_a_thumbnail_there_is_nothing_to_confirm(tmp_path):
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    vector = np.full(64, 1 / 8, np.float32)
    made.add_vectors([vector, vector], ids=["0" * 32, "1" * 32], fingerprint=made.fingerprint)
    found = made.find_duplicates()
    assert found.groups == []
    assert found.n_without_thumbnail == 2


@pytest.mark.slow
def test_progress_is_told_where_somebody_watches(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("nearsight.analyses.duplicates._MIN_HASH_SIMILARITY", -1.0)
    for seed in range(60):
        texture(60, 40, seed).save(tmp_path / f"{seed}.png")
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add(tmp_path)
    made.find_duplicates(min_similarity=-1, n_neighbors=59, progress=True)
    assert "comparing" in capsys.readouterr().err
    made.find_duplicates(min_similarity=-1, n_neighbors=59, progress=False)
    assert capsys.readouterr().err == ""
    told = []
    with told_to(lambda description, *_: told.append(description)):
        made.find_duplicates()
    assert [text.split(":")[0] for text in dict.fromkeys(told)] == [
        f"step {step} of {N_STEPS}" for step in range(1, N_STEPS + 1)
    ]


def test_black_corners_do_not_count_as_pixels(tmp_path):
    image = texture(400, 300, 5).point(lambda v: 40 + v * 0.8)
    image.save(tmp_path / "whole.png")
    image.rotate(8, Image.Resampling.BICUBIC, expand=True).save(tmp_path / "turned.png")
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add(tmp_path)
    [group] = made.find_duplicates(min_similarity=-1).groups
    assert (names(group.redundant), names(group.review)) == ([], ["turned.png"])
    assert group.doubts == ["one of the images is turned"]


def test_a_link_is_no_copy(tmp_path):
    """To keep a link and delete the file it leads to would lose the image."""
    (tmp_path / "a").mkdir()
    (tmp_path / "real").mkdir()
    texture(400, 300, 1).save(tmp_path / "real/large.png")
    texture(400, 300, 1).resize((200, 150)).save(tmp_path / "real/small.png")
    texture(400, 300, 2).save(tmp_path / "real/linked.png")
    texture(400, 300, 3).save(tmp_path / "real/several.png")
    shutil.copy(tmp_path / "real/several.png", tmp_path / "real/again.png")
    for name in ("large", "linked", "several"):
        (tmp_path / f"a/{name}_link.png").symlink_to(f"../real/{name}.png")
    (tmp_path / "b").symlink_to("real")
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    # By name, since a folder that is a link is not walked into.
    made.add([tmp_path / "a", tmp_path / "b/linked.png", tmp_path / "real"])
    groups = {os.path.basename(group.keep.path): group for group in made.find_duplicates().groups}
    assert {keep: names(group.redundant) for keep, group in groups.items()} == {
        "large.png": ["small.png"],
        # The one that a link leads to.
        "several.png": ["again.png"],
    }


def test_copies_are_found_where_vectors_tell_nothing(photos, collection):
    # No vectors but equal ones are that near: what is found here is found by its look.
    found = collection.find_duplicates(min_similarity=1)
    copies = {frozenset(names(path for item in group.items for path in item.paths)) for group in found.groups}
    assert {frozenset({"1.png", "small.png"}), frozenset({"3.png", "worse.webp"})} <= copies
    assert not any("alone.png" in group for group in copies)


def test_turned_and_mirrored_images_are_found_whatever_their_vectors(tmp_path):
    images = [texture(160, 120, seed) for seed in (30, 31)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}_original.png")
        for turn in Image.Transpose:
            image.transpose(turn).save(tmp_path / f"{number}_{turn.name}.png")
        for orientation in (2, 3, 6, 7):
            exif = Image.Exif()
            exif[0x0112] = orientation
            image.save(tmp_path / f"{number}_exif_{orientation}.jpg", exif=exif, quality=90)
    # The vectors say nothing: they are random numbers.
    collection = Collection.create(tmp_path / "c", model=FakeBackend())
    collection.add(tmp_path)
    groups = collection.find_duplicates(min_similarity=1).groups
    found = [names(path for item in group.items for path in item.paths) for group in groups]
    assert sorted(map(len, found)) == [12, 12]
    assert [len({name[0] for name in group}) for group in found] == [1, 1]


def test_pages_of_different_text_are_no_duplicates_and_rescans_are(tmp_path):
    for seed in range(6):
        page(seed).save(tmp_path / f"{seed}_original.png")
    for seed in (1, 4):
        rescanned(page(seed)).save(tmp_path / f"{seed}_rescan.png")
    collection = Collection.create(tmp_path / "c", model=FakeBackend())
    collection.add(tmp_path)
    groups = collection.find_duplicates(min_similarity=-1).groups
    found = [sorted(names(path for item in group.items for path in item.paths)) for group in groups]
    assert sorted(found) == [[f"{seed}_original.png", f"{seed}_rescan.png"] for seed in (1, 4)]


@pytest.mark.parametrize("n_copies", [1, 3])
def test_a_mark_does_not_pass_for_crispness_or_bytes(tmp_path, n_copies):
    image = texture(400, 300, 4).filter(ImageFilter.GaussianBlur(1))
    for number in range(n_copies):
        image.save(tmp_path / f"plain{number}.jpg", quality=88 + number)
    layer = Image.new("RGBA", image.size)
    for y in (40, 130):
        font = ImageFont.load_default(size=30)
        ImageDraw.Draw(layer).text((20, y), "© EXAMPLE 2026", fill=(255, 255, 255, 140), font=font)
    marked = Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")
    marked.save(tmp_path / "marked.jpg", quality=95)
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    made.add(tmp_path)
    [group] = made.find_duplicates().groups
    assert len(group.items) == n_copies + 1
    assert names(group.keep.paths)[0] == f"plain{n_copies - 1}.jpg"
    assert n_copies > 1 or group.why == "no overlay"


@pytest.mark.slow
def test_what_grows_by_kilobytes_an_image_is_where_large_arrays_go(collection, monkeypatch):
    shapes = []

    def recorded(shape, dtype):
        shapes.append(shape)
        return np.zeros(shape, dtype)

    for module in ("duplicates", "gray_thumbnails", "kept_image"):
        monkeypatch.setattr(f"nearsight.analyses.{module}.scratch_array", recorded)
    groups = collection.find_duplicates().groups
    n, n_grouped = len(collection), sum(len(group.items) for group in groups if len(group.items) > 1)
    # Vectors, thumbnails, hashes; edges and colors of images with a duplicate.
    assert shapes[:3] == [(n, 64), (n, 96, 96), (38, n, 63)]
    assert shapes[3:] == [(n_grouped, 16, 16), (n_grouped, 64, 64, 3)]
