"""Cut faces out of their images, for people to look at."""

import io
from collections.abc import Sequence

from PIL import Image

from nearsight.errors import ImageError, ImageFailure
from nearsight.faces.pipeline import FaceReader
from nearsight.faces.schema import BankedFace
from nearsight.images import decode, find
from nearsight.parallel import ordered_map

# Of the longer side of the box, added on each side: hair and chin help to recognize a person.
_MARGIN = 0.3


def face_crops(
    faces: Sequence[BankedFace], reader: FaceReader, *, side_px: int = 148, allow_remote: bool = False
) -> dict[str, bytes]:
    """Return a square JPEG of each face, by the face's id.

    Faces whose image cannot be read any more are left out. Each image is decoded once.

    Parameters
    ----------
    faces : sequence of BankedFace
    reader : FaceReader
        Its limits on an image and its number of threads are used.
    side_px : int, default 148
        Side of the square.
    allow_remote : bool, default False
        Whether http and https addresses may be fetched.
    """
    faces_of_image: dict[str, list[BankedFace]] = {}
    for face in faces:
        faces_of_image.setdefault(face.path, []).append(face)

    def crops_of(path: str) -> dict[str, bytes]:
        try:
            source = next(iter(find([path], allow_remote=allow_remote)), None)
            if source is None or isinstance(source, ImageFailure):
                return {}
            image = decode(source, limits=reader.limits).image
        except ImageError:
            return {}
        return {face.id: _crop(image, face.box, side_px) for face in faces_of_image[path]}

    crops: dict[str, bytes] = {}
    for crops_of_image in ordered_map(crops_of, faces_of_image, n_threads=reader.n_threads):
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
