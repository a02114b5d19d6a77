"""The decoder as a whole: every format, every kind of damage, every limit."""

import io
import struct
import threading
import time

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from nearsight.errors import ImageError
from nearsight.images import DRAFT_FACTOR, Limits, content_id, decode, thumbnail
from nearsight.images import decode as decode_function
from nearsight.images.decode import FIRST_FRAME

from sample_images import encoded, exif_block, png_bomb, samples, scene, turned

NAMES = sorted(samples())


def pixels(data, **options):
    return np.asarray(decode(data, **options).image).astype(int)


def decoded_or_none(data):
    try:
        return pixels(data)
    except ImageError:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_every_format_gives_bare_upright_rgb(name):
    image = decode(samples()[name])
    assert (image.width, image.height) == image.image.size == (64, 48)
    assert image.image.mode == "RGB"
    assert type(image.image) is Image.Image
    assert image.image.info == {}


@pytest.mark.parametrize(
    "name", ["jpeg", "jpeg-progressive", "png", "webp", "tiff-lzw", "bmp", "ppm", "jpeg2000"]
)
def test_pixels_are_those_of_pillow(name):
    with Image.open(io.BytesIO(samples()[name])) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.array_equal(pixels(samples()[name]), expected)


@pytest.mark.parametrize("name", ["avif", "heif", "webp", "jpeg", "tiff-jpeg"])
def test_lossy_formats_show_the_scene(name):
    difference = np.abs(pixels(samples()[name]) - np.asarray(scene(64, 48)).astype(int))
    assert difference.mean() < 12


@pytest.mark.parametrize("name", ["gif", "apng", "webp-animated", "tiff-pages"])
def test_of_several_frames_the_first_is_taken(name):
    got = pixels(samples()[name])
    first, second = (np.asarray(scene(64, 48, seed)).astype(int) for seed in (1, 2))
    assert np.abs(got - first).mean() < 15
    assert np.abs(got - second).mean() > 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_each_orientation_is_turned_upright(image_format, orientation):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(image_format, {})
    image = decode(turned(orientation, image_format, **options))
    assert (image.width, image.height) == image.image.size == scene().size
    difference = np.abs(np.asarray(image.image).astype(int) - np.asarray(scene()).astype(int))
    assert difference.max() <= (40 if image_format == "JPEG" else 0)
    assert difference.mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_agrees_with_pillow_for_every_container(orientation):
    for image_format in ("JPEG", "PNG", "WEBP", "AVIF"):
        data = turned(orientation, image_format)
        with Image.open(io.BytesIO(data)) as image:
            expected = ImageOps.exif_transpose(image).convert("RGB")
        assert np.array_equal(pixels(data), np.asarray(expected).astype(int)), image_format


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heif_is_turned_once_and_not_twice(orientation):
    data = turned(orientation, "HEIF", quality=90)
    assert np.abs(pixels(data) - np.asarray(scene()).astype(int)).mean() < 6


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        exif_block(99),
        exif_block(6)[:20],
        b"Exif\0\0" + bytes(range(256)),
    ],
)
def test_damaged_exif_neither_fails_nor_warns(image_format, block):
    if image_format == "PNG":
        block = block.removeprefix(b"Exif\0\0") or b"x"
    data = encoded(scene(), image_format, exif=block)
    assert np.array_equal(pixels(data), pixels(encoded(scene(), image_format)))


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF"])
def test_damaged_exif_in_a_container(image_format):
    exif = Image.Exif()
    exif[305] = "software" * 8
    data = encoded(scene(), image_format, exif=exif.tobytes())
    at = data.index(b"software") - 18  # a list of one entry and its end stand before the text
    assert struct.unpack_from(">HH", data, at) == (1, 0x0131)
    damaged = data[:at] + b"\xff" * 18 + data[at + 18 :]
    assert np.array_equal(pixels(damaged), pixels(data))


def test_the_image_cannot_be_turned_again_by_its_metadata():
    upright = decode(turned(6)).image
    assert ImageOps.exif_transpose(upright).size == upright.size == scene().size


# -- damage ------------------------------------------------------------------------------------------------

# Formats whose every byte is needed, down to the last one.
WHOLE = [name for name in NAMES if name not in ("gif", "tiff-pages")]


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_cut_anywhere_is_an_error(name):
    data = samples()[name]
    for end in {*range(0, len(data), max(1, len(data) // 120)), len(data) - 1, len(data) - 2, len(data) - 5}:
        with pytest.raises(ImageError):
            decode(data[:end], path="cut.jpg")


@pytest.mark.parametrize("name", ["gif", "tiff-pages"])
def test_a_cut_behind_the_first_frame_leaves_it_whole(name):
    data, whole = samples()[name], pixels(samples()[name])
    outcomes = [decoded_or_none(data[:end]) for end in range(1, len(data), len(data) // 60)]
    survivors = [got for got in outcomes if got is not None]
    assert 0 < len(survivors) < len(outcomes)
    assert all(np.array_equal(got, whole) for got in survivors)


@pytest.mark.parametrize("name", WHOLE)
def test_a_cut_is_an_error_even_where_the_host_asked_pillow_to_pad(name, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = samples()[name]
    decode(data)
    for end in range(1, len(data), max(1, len(data) // 40)):
        with pytest.raises(ImageError):
            decode(data[:end])


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("min_side_px", [None, 40])
def test_a_cut_photo_is_an_error_reduced_or_not(progressive, min_side_px):
    data = encoded(scene(640, 480), "JPEG", quality=90, progressive=progressive)
    assert decode(data, min_side_px=min_side_px).image.size == ((160, 120) if min_side_px else (640, 480))
    for end in range(700, len(data), len(data) // 25):
        with pytest.raises(ImageError):
            decode(data[:end], min_side_px=min_side_px)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty: 0 bytes"),
        (b"Dear diary, today I saw a cat.\n", "is not an image in a known format"),
        (b"\xff\xd8\xff", "JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not an image in a known format"),
        (b"GIF89a", "cut off"),
        (b"P6\n0 0\n255\n", "PPM"),
        (b"P5\n-4 4\n255\n" + bytes(16), "PPM"),
    ],
)
def test_what_is_no_image_says_so(data, reason):
    with pytest.raises(ImageError, match="^holiday.jpg: ") as caught:
        decode(data, path="holiday.jpg")
    assert reason in caught.value.reason


# -- limits ------------------------------------------------------------------------------------------------


def test_a_bomb_is_refused_before_it_goes_off():
    data = png_bomb()
    assert len(data) < 200_000
    start = time.process_time()
    with pytest.raises(ImageError, match=r"30000×30000 = 900,000,000 pixels"):
        decode(data)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", NAMES)
def test_the_pixel_limit_holds_for_every_format(name):
    data = samples()[name]
    assert decode(data, limits=Limits(max_pixels=64 * 48)).image.size == (64, 48)
    with pytest.raises(ImageError, match="max_pixels"):
        decode(data, limits=Limits(max_pixels=64 * 48 - 1))


def test_a_huge_photo_passes_when_its_reduction_fits():
    data = encoded(scene(1600, 1200), "JPEG")
    limits = Limits(max_pixels=500_000)
    with pytest.raises(ImageError, match="max_pixels"):
        decode(data, limits=limits)
    image = decode(data, min_side_px=100, limits=limits)
    assert (image.width, image.height) == (1600, 1200)
    assert image.image.size == (400, 300)


def test_a_huge_progressive_photo_does_not_since_it_is_held_whole():
    data = encoded(scene(1600, 1200), "JPEG", progressive=True)
    with pytest.raises(ImageError, match="1600×1200"):
        decode(data, min_side_px=100, limits=Limits(max_pixels=500_000))


def test_sizes_beyond_pillows_own_limit_are_ours_to_decide(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # warns above 100, raises above 200
    for name in ("jpeg", "png", "gif", "tiff", "tiff-lzw", "bmp", "jpeg2000", "avif", "heif", "ppm"):
        assert decode(samples()[name]).image.size == (64, 48), name


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "GIF"])
def test_extreme_shapes(size, image_format):
    image = decode(encoded(Image.new("RGB", size, (200, 30, 30)), image_format), min_side_px=256)
    assert image.image.size == size
    red, green, _ = np.asarray(image.image)[0, 0]
    assert red > 190
    assert green < 45


@pytest.mark.parametrize("min_side_px", [1, 30, 59, 60, 61, 100, 119, 120, 121, 240, 1000])
@pytest.mark.parametrize("size", [(640, 480), (479, 641), (961, 485)])
def test_reduction_never_goes_below_its_floor(size, min_side_px):
    image = decode(encoded(scene(*size), "JPEG"), min_side_px=min_side_px)
    assert (image.width, image.height) == size
    shorter = min(image.image.size)
    assert shorter >= min(DRAFT_FACTOR * min_side_px, min(size))
    # and takes the largest step that the floor allows
    assert shorter - 1 < 2 * DRAFT_FACTOR * min_side_px or shorter <= -(-min(size) // 8)


def test_reduced_pixels_are_close_to_resized_ones():
    data = encoded(scene(1280, 960), "JPEG", quality=95)
    small = decode(data, min_side_px=120).image
    assert small.size == (320, 240)
    full = decode(data).image.resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(full)).mean() < 1.5


def test_too_many_bytes_are_refused():
    data = samples()["png"]
    with pytest.raises(ImageError, match="max_bytes"):
        decode(data, limits=Limits(max_bytes=len(data) - 1))


@pytest.mark.parametrize(
    "name", ["jpeg", "png", "gif", "tiff", "bmp", "ppm", "webp", "avif", "heif", "jpeg2000"]
)
def test_time_runs_out(name):
    with pytest.raises(ImageError, match="too long"):
        decode(samples()[name], limits=Limits(max_seconds=-1))


def test_threads_decode_the_same_image_alike():
    everything = list(samples().values()) * 3
    expected = [pixels(data) for data in everything]
    wrong = []

    def work(step):
        mine = range(step, len(everything), 4)
        wrong.extend(i for i in mine if not np.array_equal(pixels(everything[i]), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_huge_images_wait_for_one_another(monkeypatch):
    module = __import__(decode_function.__module__, fromlist=["decode"])
    monkeypatch.setattr(module, "_BIG_PX", 1000)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (decode(samples()["png"]), done.set()), daemon=True)
    with module._big_image_lock:
        thread.start()
        assert not done.wait(0.2)
        decode(encoded(Image.new("RGB", (10, 10)), "PNG"))  # a small one does not wait
    assert done.wait(10)


# -- what is made of an image -----------------------------------------------------------------------------


def test_content_id_is_the_hash_of_the_bytes():
    assert content_id(b"abc") == "ba7816bf8f01cfea414140de5dae2223"
    assert content_id(b"abd") != content_id(b"abc")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 750), (250, 188)),
        ((480, 640), (160, 214)),
        ((100, 50), (100, 50)),
        ((300, 200), (300, 200)),
        ((1, 5000), (1, 250)),
    ],
)
def test_thumbnails_fit_and_are_not_enlarged(size, expected):
    image = scene(*size) if min(size) > 1 else Image.new("RGB", size)
    with Image.open(io.BytesIO(thumbnail(image))) as small:
        assert small.format == "JPEG"
        assert small.size == expected
        difference = np.asarray(small).astype(int) - np.asarray(image.resize(expected, Image.Resampling.BOX))
    assert np.abs(difference).mean() < 5


def test_a_thumbnail_of_no_size_is_refused():
    with pytest.raises(ValueError, match="side_px=0"):
        thumbnail(scene(), 0)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "AVIF", "TIFF", "HEIF"])
def test_the_first_of_several_frames_is_said(image_format):
    frames = [scene(64, 48, seed) for seed in (1, 2, 3)]
    if image_format == "HEIF":
        heif = pillow_heif.from_pillow(frames[0])
        heif.add_from_pillow(frames[1])
        file = io.BytesIO()
        heif.save(file)
        several = file.getvalue()
    else:
        several = encoded(frames[0], image_format, save_all=True, append_images=frames[1:])
    assert decode(several).notes == (FIRST_FRAME,)
    assert decode(encoded(frames[0], image_format)).notes == ()


def test_a_smaller_version_in_a_tiff_is_no_second_page():
    file = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(file, new=True) as writer:
        scene(64, 48).save(writer, "TIFF")
        writer.newFrame()
        scene(32, 24).save(writer, "TIFF", tiffinfo={254: 1})
    assert decode(file.getvalue()).notes == ()
