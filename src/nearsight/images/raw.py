"""Raw photographs: the preview that the camera embedded, or half the resolution of the sensor.

rawpy (LibRaw) reads them; it is imported here only.
"""

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from nearsight.images.limits import Limits
from nearsight.images.optional_formats import missing
from nearsight.images.strict_decoding import DamagedError, TimedReader, check_pixels
from nearsight.images.tiff_tags import Tag, TagDirectory

# TIFF tags: what the pixels mean, the pages inside, the mark of a DNG.
_PHOTOMETRIC, _PAGES, _DNG = 262, 330, 50706
_COLOR_FILTER_ARRAY, _LINEAR_RAW = 32803, 34892
_SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM")
_MAX_TAGS, _MAX_PAGES = 4096, 16
# A smaller preview is for the camera's display, and shows less than the sensor saw.
_MIN_PREVIEW_PX = 512
# LibRaw's turn of the sensor to the orientation of EXIF.
_ORIENTATIONS = {3: 3, 5: 8, 6: 6}


@dataclass(frozen=True, slots=True)
class RawPhotograph:
    """A raw photograph: either `jpeg` or `image`.

    Attributes
    ----------
    jpeg : bytes or None
        The embedded preview.
    image : PIL.Image.Image or None
        Computed from the sensor's values, upright.
    orientation : int
        Turn that the preview needs, by EXIF's numbers.
    width, height : int
        Of the sensor in pixels, upright.
    """

    jpeg: bytes | None
    image: Image.Image | None
    orientation: int
    width: int
    height: int


def is_raw(data: bytes) -> bool:
    """Return whether the bytes are a raw photograph. Most are TIFFs whose first page is a small preview."""
    if data.startswith(_SIGNATURES) or data[4:12] == b"ftypcrx " or data[8:10] == b"CR":
        return True
    directory = TagDirectory.first(data) if data[2:4] in (b"*\0", b"\0*") else None
    return directory is not None and _has_raw_page(directory)


def _has_raw_page(directory: TagDirectory) -> bool:
    if directory.n_tags > _MAX_TAGS:
        return False
    tags: dict[int, Tag] = {}
    for tag in directory.tags():
        tags.setdefault(tag.number, tag)
    if _DNG in tags or _is_raw_page(tags):
        return True
    pages = directory.pages(tags[_PAGES])[:_MAX_PAGES] if _PAGES in tags else []
    return any(
        page.n_tags <= _MAX_TAGS and _is_raw_page({tag.number: tag for tag in page.tags()}) for page in pages
    )


def _is_raw_page(tags: dict[int, Tag]) -> bool:
    tag = tags.get(_PHOTOMETRIC)
    return tag is not None and tag.integer in (_COLOR_FILTER_ARRAY, _LINEAR_RAW)


def read_raw(data: bytes, deadline: float, limits: Limits) -> RawPhotograph:
    """Read the preview of a raw photograph, or compute it where there is none that is large enough."""
    try:
        import rawpy
    except ImportError:
        raise missing("a raw photograph") from None
    try:
        with rawpy.imread(TimedReader(data, deadline)) as raw:
            width, height = raw.sizes.width, raw.sizes.height
            turned = _ORIENTATIONS.get(raw.sizes.flip, 1)
            jpeg = _preview(raw)
            if jpeg is not None:
                turned = _remaining_turn(jpeg, turned, width, height)
            if raw.sizes.flip in (5, 6):
                width, height = height, width
            if jpeg is not None:
                return RawPhotograph(jpeg, None, turned, width, height)
            check_pixels(width, height, width * height, limits)
            pixels = raw.postprocess(half_size=True, use_camera_wb=True, output_bps=8)
            return RawPhotograph(None, Image.fromarray(pixels), 1, width, height)
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else type(error).__name__
        reason = reason.decode("ascii", "replace") if isinstance(reason, bytes) else str(reason)
        raise DamagedError(f"the raw photograph cannot be read: {reason}") from None


def _preview(raw: Any) -> bytes | None:
    """Return the embedded JPEG, if it is large enough."""
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if thumbnail.format != rawpy.ThumbFormat.JPEG:
        return None
    jpeg = bytes(thumbnail.data)
    try:
        size = JpegImageFile(io.BytesIO(jpeg)).size
    except Exception:  # a damaged preview; the sensor's values are there
        return None
    return jpeg if max(size) >= min(_MIN_PREVIEW_PX, raw.sizes.width, raw.sizes.height) else None


def _remaining_turn(jpeg: bytes, turned: int, width: int, height: int) -> int:
    """Return the turn that the preview needs: some cameras turn it themselves."""
    size = JpegImageFile(io.BytesIO(jpeg)).size
    is_turned = (size[0] < size[1]) != (width < height)
    return 1 if is_turned and turned in (6, 8) else turned
