"""Cut faces out of their images, for people to look at."""

import io
from collections.abc import Sequence

from PIL import Image

from nearsight.errors import ImageError, ImageFailure
from nearsight.faces.schema import BankedFace
from nearsight.images import Limits, content_id, decode, find
from nearsight.parallel import ordered_map

# Of the longer side of the box, added on each side: hair and chin help to recognize a person.
_MARGIN = 0.3


def face_crops(
    faces: Sequence[BankedFace],
    *,
    limits: Limits | None = None,
    n_threads: int = 1,
    side_px: int = 148,
    allow_remote: bool = False,
) -> dict[str, bytes]:
    """Return a square JPEG of each face, by the face's id.

    Faces whose image cannot be read any more, or has changed, are left out. Each image is decoded once.

    Parameters
    ----------
    faces : sequence of BankedFace
    limits : Limits, optional
        What one image may cost.
    n_threads : int, default 1
    side_px : int, default 148
        Side of the square.
    allow_remote : bool, default False
        Whether http and https addresses may be fetched.
    """
    faces_of_image: dict[tuple[str, str], list[BankedFace]] = {}
    for face in faces:
        faces_of_image.setdefault((face.path, face.image), []).append(face)
    limits = limits or Limits()

    def crops_of(key: tuple[str, str]) -> dict[str, bytes]:
        path, id = key
        try:
            source = next(iter(find([path], allow_remote=allow_remote)), None)
            if source is None or isinstance(source, ImageFailure):
                return {}
            data = source.read(limits)
            if content_id(data) != id:
                return {}
            image = decode(data, path=path, limits=limits).image
        except ImageError:
            return {}
        return {face.id: _crop(image, face.box, side_px) for face in faces_of_image[key]}

    crops: dict[str, bytes] = {}
    for crops_of_image in ordered_map(crops_of, faces_of_image, n_threads=n_threads):
        crops |= crops_of_image
    return crops


def _crop(image: Image.Image, box: tuple[float, float, float, float], side_px: int) -> bytes:
    """Return the square around a box, moved into the image where it reaches outside."""
    left, top, right, bottom = box
    side = min(max(right - left, bottom - top, 1) * (1 + 2 * _MARGIN), *image.size)
    x = min(max((left + right - side) / 2, 0), image.width - side)
    y = min(max((top + bottom - side) / 2, 0), image.height - side)
    square = image.resize(
        (side_px, side_px), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side), reducing_gap=2
    )
    file = io.BytesIO()
    square.save(file, "JPEG", quality=82)
    return file.getvalue()
