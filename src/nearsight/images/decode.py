"""Decode bytes of any format to an upright sRGB image, or raise one clear error."""

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from PIL import Image

from nearsight.errors import ImageError
from nearsight.images.color import DEEP_MODES, convert, to_rgb, with_low_bytes
from nearsight.images.formats import Opened, Opener, identify
from nearsight.images.in_memory import InMemoryImage
from nearsight.images.limits import Limits
from nearsight.images.metadata import NO_EXIF, Exif
from nearsight.images.orientation import upright
from nearsight.images.sources import ImageSource, too_large
from nearsight.images.strict_decoding import DecodingError, check_pixels

_DEFAULT_LIMITS: Final = Limits()
FIRST_FRAME: Final = "only the first frame or page is read"
_BIG_PX: Final = 50_000_000
# One big image at a time bounds the memory of any number of threads.
_big_image_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image.

    Attributes
    ----------
    image : PIL.Image.Image
        Mode RGB, sRGB, upright, without metadata. A JPEG may be smaller than `width` × `height`.
    width, height : int
        Size of the full image in pixels, upright.
    exif : Exif
        When, where and with what the image was taken.
    notes : tuple of str
        What of the file is not in the image, or was decided so that something is left to see.
    rules_version : int
        The first version of `DECODER_RULES` that gives these pixels.
    """

    image: Image.Image
    width: int
    height: int
    exif: Exif = NO_EXIF
    notes: tuple[str, ...] = ()
    rules_version: int = 1


def decode(
    source: ImageSource | bytes,
    *,
    path: str = "",
    min_side_px: int | None = None,
    limits: Limits = _DEFAULT_LIMITS,
) -> DecodedImage:
    """Decode one image.

    The EXIF orientation is applied, colors are converted to sRGB by the embedded ICC profile, depths beyond
    8 bits are scaled (see `nearsight.images.gray_levels`), transparency is blended over white (over black
    where nothing would be left on white), and of an animation only the first frame is decoded.

    Parameters
    ----------
    source : ImageSource or bytes
        From `find`, or an encoded image, or the result of `ImageSource.read`.
    path : str
        Name for errors; by default that of the source.
    min_side_px : int or None
        Side that is needed afterwards, in pixels. A JPEG may then be decoded at 1/2, 1/4 or 1/8 of its size,
        with a shorter side of at least ``DRAFT_FACTOR * min_side_px``. None decodes at full size.
    limits : Limits
        Pixels, bytes and seconds that the image may cost.

    Returns
    -------
    DecodedImage
        The image and its full size.

    Raises
    ------
    ImageError
        The image cannot be decoded, or exceeds a limit. No other exception is raised.

    Notes
    -----
    Threads may call this at the same time: Pillow releases the interpreter lock while it decodes. Images of
    more than 50 megapixels are decoded one at a time.

    The time limit is checked whenever a decoder asks for more bytes. WebP, AVIF, HEIF and compressed TIFF are
    decoded in a single call that cannot be interrupted.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (640, 480), "red").save(file, "JPEG")
    >>> image = decode(file.getvalue())
    >>> image.image.size, image.image.mode
    ((640, 480), 'RGB')
    >>> decode(b"Dear diary", path="diary.jpg")
    Traceback (most recent call last):
        ...
    nearsight.errors.ImageError: diary.jpg: is not an image in a known format
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, path = source if isinstance(source, bytes) else bytes(source), path or "<image>"
    else:
        path = path or source.path
        data = source.read(limits)
    if isinstance(data, InMemoryImage):
        return DecodedImage(data.image(), *data.size)
    if not data:
        raise ImageError(path, "is empty: 0 bytes")
    if len(data) > limits.max_bytes:
        raise ImageError(path, too_large(len(data), limits))
    with _told_as_image_errors(path, data) as (_, opener):
        opened = opener(data, time.monotonic() + limits.max_seconds, min_side_px, limits)
        return _finish(opened, limits)


def open_encoded(data: bytes, *, limits: Limits = _DEFAULT_LIMITS) -> tuple[str, Opened]:
    """Return the format of an encoded image, and the image as its reader opens it: its pixels may wait.

    Raises
    ------
    ImageError
        The image cannot be opened. No other exception is raised.
    """
    with _told_as_image_errors("<image>", data) as (name, opener):
        return name, opener(data, time.monotonic() + limits.max_seconds, None, limits)


@contextmanager
def _told_as_image_errors(path: str, data: bytes) -> Iterator[tuple[str, Opener]]:
    """Give the format and the reader of an image; what the block raises is told as an error of the image."""
    known = identify(data)
    if known is None:
        raise ImageError(path, "is not an image in a known format")
    name, _ = known
    try:
        yield known
    except DecodingError as error:
        raise ImageError(path, str(error)) from None
    except MemoryError:
        raise ImageError(
            path,
            f"there is not enough memory to decode this {name}; lower Limits.max_pixels to skip such images",
        ) from None
    except Exception as error:  # decoders raise exceptions of many types
        raise ImageError(path, f"is not a readable {name}: {error or type(error).__name__}") from error


def _finish(opened: Opened, limits: Limits) -> DecodedImage:
    check_pixels(opened.width, opened.height, opened.n_pixels, limits)
    with _big_image_lock if opened.n_pixels > _BIG_PX else nullcontext():
        image = opened.image
        image.load()
        whole = image if opened.low_bytes is None else with_low_bytes(image, opened.low_bytes)
        converted = convert(whole, opened.icc, opened.scale)
        is_new = whole is not image or image.mode in DEEP_MODES or bool(opened.notes or converted.notes)
        image = upright(converted.image, opened.orientation)
        # Without its metadata, so that nobody applies the orientation again.
        bare = image._new(image.im)
        bare.info = {}
    width, height = opened.width, opened.height
    if opened.orientation >= 5:
        width, height = height, width
    notes = (*((FIRST_FRAME,) if opened.has_more_frames else ()), *opened.notes, *converted.notes)
    return DecodedImage(bare, width, height, opened.exif, notes, 2 if is_new else 1)


def exif_of(data: bytes, *, limits: Limits = _DEFAULT_LIMITS) -> Exif:
    """Return what the EXIF block of an encoded image says, without decoding the pixels.

    Parameters
    ----------
    data : bytes
        The result of `ImageSource.read`.
    limits : Limits
        The pixels are not decoded, but some formats reserve memory for them.

    Returns
    -------
    Exif
        All None where the image cannot be read; no exception is raised.
    """
    known = None if isinstance(data, InMemoryImage) else identify(data)
    if known is None:
        return NO_EXIF
    try:
        return known[1](data, time.monotonic() + limits.max_seconds, None, limits).exif
    except Exception:  # readers raise exceptions of many types
        return NO_EXIF


def may_show_more(data: bytes) -> bool:
    """Return whether an image may be of a kind of which earlier versions of the decoder showed less."""
    known = None if isinstance(data, InMemoryImage) else identify(data)
    return known is not None and known[0] != "JPEG"


def content_id(data: bytes) -> str:
    """Return the id of an image's content.

    Parameters
    ----------
    data : bytes
        The result of `ImageSource.read`.

    Returns
    -------
    str
        32 hex digits: the first half of the SHA-256.

    Examples
    --------
    >>> content_id(b"")
    'e3b0c44298fc1c149afbf4c8996fb924'
    """
    return hashlib.sha256(data).hexdigest()[:32]


def thumbnail(image: Image.Image, side_px: int = 256) -> bytes:
    """Return a small JPEG of an image.

    *Method*: averages whole blocks of pixels, which takes a third of the time of a filter for an exact size.

    Parameters
    ----------
    image : PIL.Image.Image
        A decoded image.
    side_px : int
        Approximate longest side, in pixels: that of the result is 2/3 to 3/2 of it. A smaller image is not
        enlarged.

    Returns
    -------
    bytes
        JPEG, quality 80.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> Image.open(io.BytesIO(thumbnail(Image.new("RGB", (1000, 750))))).size
    (250, 188)
    """
    if side_px < 1:
        raise ValueError(f"side_px={side_px}; it must be at least 1")
    if image.mode != "RGB":
        image = to_rgb(image)
    block_px = int(max(image.size) / side_px + 0.5)
    if block_px > 1:
        image = image.reduce(block_px)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()
