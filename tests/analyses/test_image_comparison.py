"""Which of two duplicates lost less, and what is in doubt."""

import io
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nearsight.analyses.image_comparison import differences
from nearsight.analyses.image_difference import Candidate, Framing
from nearsight.collection import Item
from nearsight.images.enlargement import AddedDetail
from nearsight.images.quality import measure_quality

from sample_images import encoded, photograph

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def photo():
    return photograph()


def candidate(image, image_format="PNG", *, data=None, has_overlay=False, **facts):
    data = data or encoded(image, image_format)
    quality = measure_quality(data)
    facts = {
        "modified": NOON,
        "width": quality.width,
        "height": quality.height,
        "size_bytes": len(data),
    } | facts
    return Candidate(Item("", "", [], **facts), quality, has_overlay)


def verdict(first, second, framing=None, **options):
    """Return the sign, what decided, and the doubts about deleting the second."""
    found = differences(first, second, framing or Framing(), **options)
    decisive = next(one for one in found if one.sign)
    return decisive.sign, decisive.advantage, [one.doubt for one in found if one.sign < 1 and one.doubt]


def compressed(image, quality):
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality))).convert("RGB")


def noisy(image, deviation):
    noise = np.random.default_rng(1).normal(0, deviation, (*image.size[::-1], 1))
    return Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))


def enlarged(image, factor):
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda image: image.convert("L").convert("RGB"), "in color"),
        (lambda image: image.quantize(200).convert("RGB"), "more colors"),
        (lambda image: compressed(image, 20), "less compressed"),
        (lambda image: image.filter(ImageFilter.GaussianBlur(1.5)), "the next is blurred"),
        (lambda image: enlarged(image, 2), "the next seems enlarged"),
        (
            lambda image: enlarged(image, 1.5).filter(ImageFilter.UnsharpMask(2, 150, 0)),
            "the next seems enlarged",
        ),
        (lambda image: image.resize((960, 768), Image.Resampling.NEAREST), "the next seems enlarged"),
        (lambda image: noisy(image, 12), "less noise"),
    ],
)
def test_an_edit_stored_without_loss_is_not_kept(photo, edit, reason):
    original, edited = candidate(photo), candidate(edit(photo), "BMP")
    sign, advantage, _ = verdict(original, edited)
    assert (sign, reason in advantage) == (1, True), advantage
    mirrored_sign, _, doubts = verdict(edited, original)
    assert mirrored_sign == -1
    # The original is never redundant for certain.
    assert doubts


@pytest.mark.parametrize("edit", [lambda i: i.convert("L").convert("RGB"), lambda i: compressed(i, 20)])
@pytest.mark.parametrize("quality", [None, 70])
@pytest.mark.parametrize("edited_format", ["PNG", "JPEG"])
def test_plain_losses_are_certain(photo, edit, quality, edited_format):
    data = encoded(photo, "JPEG", quality=quality) if quality else encoded(photo, "PNG")
    edited = edit(Image.open(io.BytesIO(data)).convert("RGB"))
    options = {"quality": 98} if edited_format == "JPEG" else {}
    worse = candidate(None, data=encoded(edited, edited_format, **options))
    assert verdict(candidate(None, data=data), worse)[::2] == (1, [])


@pytest.mark.parametrize("factor", [0.5, 0.8])
def test_a_smaller_copy_is_redundant_unless_the_larger_file_is_newer(photo, factor):
    data = encoded(enlarged(photo, factor), "JPEG", quality=85)
    original, small = candidate(photo), candidate(None, data=data)
    sign, advantage, doubts = verdict(original, small)
    assert (sign, doubts) == (1, [])
    assert advantage.startswith("higher effective resolution: 320 × 256, ")
    newer = candidate(photo, modified=NOON + timedelta(hours=1))
    assert verdict(newer, small)[2] == ["the larger file is newer, and does not say its camera"]
    of_camera = candidate(photo, modified=NOON + timedelta(hours=1), camera="Canon EOS R6")
    assert verdict(of_camera, small)[2] == []


def test_whether_a_soft_image_was_enlarged_only_its_age_can_tell(photo):
    small = photo.filter(ImageFilter.GaussianBlur(1))
    enlargement = enlarged(small, 2)
    doubt = "the larger image may be enlarged"
    assert doubt in verdict(candidate(enlargement), candidate(small))[2]
    older = candidate(enlargement, modified=NOON - timedelta(seconds=1))
    assert doubt not in verdict(older, candidate(small))[2]


def test_a_soft_original_is_kept_over_a_crisp_copy_if_it_has_detail_of_its_own(photo):
    soft = photo.resize((640, 512), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
    small = photo.filter(ImageFilter.UnsharpMask(1, 100, 0))
    pair = candidate(soft, "JPEG"), candidate(small, "JPEG")
    own, none = AddedDetail(0.3, 0.01), AddedDetail(0.05, 0.01)
    assert verdict(*pair)[:2] == (-1, "higher effective resolution: 320 × 256, the next seems enlarged")
    assert verdict(*pair, added_detail=lambda: none)[0] == -1
    sign, reason, doubts = verdict(*pair, added_detail=lambda: own)
    assert (sign, reason) == (1, "higher effective resolution: 640 × 512, 4 times the pixels of the next")
    # The two measures disagree.
    assert "the larger image may be enlarged" in doubts
    camera = candidate(soft, "JPEG", camera="Canon R6"), pair[1]
    assert "the larger image may be enlarged" not in verdict(*camera, added_detail=lambda: own)[2]
    # Another frame has other details.
    framing = Framing(outside=(0.1, 0))
    assert verdict(*pair, framing, added_detail=lambda: own)[0] == -1
    # What the smaller image has alone was clipped in the larger one.
    assert verdict(*pair, added_detail=lambda: AddedDetail(0.3, 0.045))[0] == -1


def test_pixels_are_compared_only_where_spectra_leave_a_doubt(photo):
    small = candidate(photo.resize((160, 128), Image.Resampling.LANCZOS), "JPEG")

    def fail():
        raise AssertionError("the files were decoded again")

    assert verdict(candidate(photo, "JPEG"), small, added_detail=fail)[0] == 1


def test_editing_adds_no_camera(photo):
    mirrored = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = Framing(is_turned=True)
    pair = [encoded(photo, "JPEG", quality=97), encoded(mirrored, "JPEG", quality=75)]
    assert verdict(candidate(photo, data=pair[0]), candidate(photo, data=pair[1]), turned)[0] == -1
    original = candidate(photo, data=pair[0], camera="Canon R6")
    assert verdict(original, candidate(photo, data=pair[1]), turned)[:2] == (1, "its file says the camera")


def test_of_equal_pixels_the_first_file_is_kept(photo):
    data = encoded(photo, "JPEG", quality=80)
    pixels = Image.open(io.BytesIO(data)).convert("RGB")
    original, again = candidate(None, data=data), candidate(pixels)
    assert verdict(original, again) == (1, "the others were stored again", [])
    assert verdict(again, original)[0] == -1


def test_another_compression_adds_to_an_earlier_one(photo):
    original = candidate(compressed(photo, 90))  # as some lossless originals are
    again = candidate(None, data=encoded(compressed(photo, 90), "JPEG", quality=95))
    assert verdict(original, again)[:2] == (1, "stored without loss")
    assert verdict(again, original)[2] == ["the other image is stored without loss"]


def test_more_bytes_count_if_nothing_else_differs_and_the_file_is_older(photo):
    few, many = (candidate(None, data=encoded(photo, "JPEG", quality=quality)) for quality in (97, 99))
    doubt = "which of the files was stored first is unknown"
    assert verdict(many, few)[0] == 1
    assert verdict(many, few)[1].startswith("more bytes in the same format: ")
    assert verdict(many, few)[2] == [doubt]
    older = candidate(None, data=encoded(photo, "JPEG", quality=99), modified=NOON - timedelta(hours=1))
    assert verdict(older, few)[2] == []


def test_metadata_decides_between_equal_pixels_and_is_never_lost(photo):
    plain, dated = candidate(photo, "BMP"), candidate(photo, taken=datetime(2020, 1, 1), camera="A")
    assert verdict(dated, plain) == (1, "its file says when it was taken", [])
    better = candidate(photo)
    worse = candidate(compressed(photo, 20), taken=datetime(2020, 1, 1))
    assert verdict(better, worse) == (1, "less compressed", ["only the other file says when it was taken"])


def test_the_earliest_is_kept_and_another_moment_is_another_photograph(photo):
    first, later = (
        candidate(photo, kind, taken=datetime(2020, 1, day)) for kind, day in (("BMP", 1), ("PNG", 2))
    )
    assert verdict(first, later) == (1, "taken first", ["the images were taken at different times"])


def test_other_colors_are_in_doubt(photo):
    looks = np.full((16, 16, 3), 100.0), np.full((16, 16, 3), (100.0, 120.0, 100.0))
    doubt = "colors or tones differ, or something was drawn over"
    original, copy = candidate(photo), candidate(compressed(photo, 50))
    assert doubt in verdict(original, copy, looks=looks)[2]
    assert verdict(original, copy, looks=(looks[0], looks[0]))[2] == []


@pytest.mark.parametrize(("detail", "sign"), [(1.0, -1), (0.1, 1)])
def test_more_of_the_scene_is_kept_and_a_border_is_not(photo, detail, sign):
    inner, outer = candidate(photo), candidate(noisy(photo, 3))
    framing = Framing(0.7, (0.0, 0.3), (0.0, detail))
    assert verdict(inner, outer, framing)[0] == sign
    assert "the images show different parts" in verdict(inner, outer, framing)[2]
    assert verdict(outer, inner, framing.swapped())[0] == -sign


def test_files_that_cannot_be_measured_are_in_doubt(photo):
    known = candidate(photo)
    unknown = Candidate(Item("", "", [], width=640, height=512), None)
    sign, advantage, doubts = verdict(unknown, known)
    assert (sign, advantage) == (1, "larger: 640 × 512, 4 times the pixels of the next")
    assert doubts == ["a file could not be read to measure what it lost"]


def test_a_tint_is_no_color(photo):
    gray = photo.convert("L").convert("RGB")
    tint = np.asarray(gray, np.float32) * (1.07, 0.95, 0.75)
    tinted = Image.fromarray(np.clip(tint, 0, 255).astype(np.uint8))
    found = differences(candidate(tinted), candidate(gray), Framing())
    assert "in color" not in [one.advantage for one in found]
    assert any(one.sign == 0 and one.doubt for one in found)
