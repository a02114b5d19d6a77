"""Looks for faces in an image of any size: at one scale where that is enough, in tiles where it is not.

*Method*: a detector sees faces down to some size in its own pixels. So the smallest face that is wanted says
at which scale the image must be looked at. If it is then larger than a tile, it is looked at in overlapping
tiles, and once as a whole for faces larger than the overlap. One look at a small copy within a frame finds
faces that fill the image. Each face found is looked at again, enlarged or reduced to one size, which makes
its landmarks more precise. Doubles are dropped by non-maximum suppression.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import InvalidParameterError
from nearsight.faces.models.alignment import chip
from nearsight.faces.models.base import Candidates, FaceDetector, FoundFace

#: Part of the fingerprint of a face's vector: raise it with every change that moves landmarks.
SCAN_VERSION = 1

# Side of the smallest face that is found reliably, in pixels of the detector's input: CenterFace notices 9 in
# 10 of this size, if faintly, and 6 in 10 of 14 pixels.
_SEEN_PX = 16
# What is this likely to be a face gets a closer look, which decides.
_NOTICED = 0.3
# Faces smaller than this part of the image's longer side are looked for only when asked to.
_SMALLEST_PART = 1 / 64
# Smaller ones are found, but no recognizer makes much of them.
_SMALLEST_PX = 20
_TILE_PX = 1024
_OVERLAP_PX = 160
# A face that fills the image is seen better with something around it.
_MARGIN_PART = 0.15
_FRAMED_PX = 192
# The second look: a raster of this side, with the face over this part of it.
_CLOSE_PX = 128
_CLOSE_PART = 0.5
# From this tilt on (radians), it is turned upright for another look, and at most so often.
_UPRIGHT = 0.35
_MOST_TURNS = 3
_MOST_OVERLAP = 0.4


def detect(
    detector: FaceDetector,
    image: Image.Image,
    *,
    min_confidence: float = 0.5,
    smallest_px: float | None = None,
) -> list[FoundFace]:
    """Find the faces in an image, the largest first.

    Parameters
    ----------
    detector : FaceDetector
    image : PIL.Image.Image
        Upright RGB image.
    min_confidence : float, default 0.5
        In 0..1.
    smallest_px : float, optional
        Side of the smallest face that is wanted, in pixels of the image; by default a 64th of its longer
        side, and at least 20. Halving it takes up to four times as long.

    Returns
    -------
    list of FoundFace

    Raises
    ------
    InvalidParameterError
        A number is outside its range.
    """
    if not 0 < min_confidence <= 1:
        raise InvalidParameterError(f"min_confidence is {min_confidence}; it must be above 0 and at most 1")
    if smallest_px is not None and not smallest_px >= 1:
        raise InvalidParameterError(f"smallest_px is {smallest_px}; it must be at least 1 pixel")
    smallest_px = smallest_px or max(_SMALLEST_PX, _SMALLEST_PART * max(image.size))
    found = Candidates.joined(list(_looks(detector, image, smallest_px)))
    found = found.take(found.scores >= min(_NOTICED, min_confidence))
    found = found.take(suppressed(found))
    closer = [_closer(detector, image, found.take(np.array([i]))) for i in range(len(found))]
    found = Candidates.joined(closer)
    found = found.take(found.scores >= min_confidence)
    found = found.take(suppressed(found))
    faces = [_face(found, i, image.size) for i in range(len(found))]
    return sorted((face for face in faces if face.side_px > 0), key=lambda face: -face.side_px)


def _looks(detector: FaceDetector, image: Image.Image, smallest_px: float) -> Iterator[Candidates]:
    """Yield what is seen in the image at the scale for small faces, and in a small one for large faces."""
    height, width = detector.input_px or (_TILE_PX, _TILE_PX)
    most = min(width / image.width, height / image.height)
    framed = _FRAMED_PX / ((1 + 2 * _MARGIN_PART) * max(image.size))
    wanted = _SEEN_PX / smallest_px
    yield _look(detector, image, framed, _MARGIN_PART)
    if wanted <= framed:
        return
    yield _look(detector, image, min(wanted, most), 0)
    if wanted > most:
        yield from _tiles(detector, image, min(wanted, 1.0), (width, height))


def _look(detector: FaceDetector, image: Image.Image, scale: float, margin_part: float) -> Candidates:
    small = image.resize(_scaled(image.size, scale), Image.Resampling.BILINEAR)
    margin = round(margin_part * max(small.size))
    framed = Image.new("RGB", (small.width + 2 * margin, small.height + 2 * margin))
    framed.paste(small, (margin, margin))
    found = detector.find(_raster(framed, detector.input_px))
    by = image.width / small.width, image.height / small.height
    return found.moved((1, 1), (-margin, -margin)).moved(by, (0, 0))


def _tiles(
    detector: FaceDetector, image: Image.Image, scale: float, size: tuple[int, int]
) -> Iterator[Candidates]:
    """Yield what is seen in overlapping tiles of (width, height) `size`."""
    width, height = size
    scaled = image.resize(_scaled(image.size, scale), Image.Resampling.BILINEAR)
    by = image.width / scaled.width, image.height / scaled.height
    for left in _starts(scaled.width, width):
        for top in _starts(scaled.height, height):
            tile = scaled.crop((left, top, min(left + width, scaled.width), min(top + height, scaled.height)))
            found = detector.find(_raster(tile, detector.input_px)).moved((1, 1), (left, top))
            # What is cut by the edge of a tile is whole in the next one, or in the look at the whole.
            yield found.take(_is_inside(found, left, top, tile.size, scaled.size)).moved(by, (0, 0))


def _closer(detector: FaceDetector, image: Image.Image, face: Candidates) -> Candidates:
    """Return the same face seen at the size that suits the detector best and, where it is tilted, upright."""
    seen = _seen_closer(detector, image, face, 0.0)
    for _ in range(_MOST_TURNS):
        tilt = _tilt(seen.landmarks[0])
        turned = _seen_closer(detector, image, seen, tilt) if abs(tilt) > _UPRIGHT else None
        if turned is None:
            break
        seen, before = turned, tilt
        if abs(_tilt(seen.landmarks[0]) - before) < _UPRIGHT / 2:
            break
    return seen


def _seen_closer(detector: FaceDetector, image: Image.Image, face: Candidates, tilt: float) -> Candidates:
    """Return a face as it is seen when it fills half the raster, turned back by `tilt` (radians)."""
    left, top, right, bottom = map(float, face.boxes[0])
    height, width = detector.input_px or (_CLOSE_PX, _CLOSE_PX)
    scale = min(width, height) * _CLOSE_PART / max(right - left, bottom - top, 1.0)
    turn = scale * np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    middle = np.array([width, height]) / 2
    shift = middle - turn @ [(left + right) / 2, (top + bottom) / 2]
    found = detector.find(chip(image, np.column_stack([turn, shift]), (height, width)))
    half = scale * np.array([right - left, bottom - top]) / 2
    expected = np.concatenate([middle - half, middle + half])[None].astype(np.float32)
    overlap = overlaps(expected, found.boxes)[0]
    # Turned, a box covers something else of the same face.
    likely = np.where(overlap >= (0.3 if tilt else 0.5), found.scores, -1)
    if not len(found) or likely.max() < 0:
        return face
    best = int(likely.argmax())
    landmarks = (found.landmarks[best] - shift) @ np.linalg.inv(turn).T
    boxes = face.boxes if tilt else found.boxes[[best]] / scale - np.tile(shift, 2) / scale
    # It was found in the image as a whole: that is how sure one can be of it.
    scores = np.maximum(face.scores, found.scores[best])
    return Candidates(boxes.astype(np.float32), landmarks[None].astype(np.float32), scores)


def _tilt(landmarks: NDArray[np.float32]) -> float:
    """Return how far the line between the eyes is turned, in radians."""
    across = landmarks[1] - landmarks[0]
    return float(np.arctan2(across[1], across[0]))


def _raster(image: Image.Image, input_px: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return pixels with black to the right and below, up to what the detector takes."""
    height, width = input_px or (-(-image.height // 32) * 32, -(-image.width // 32) * 32)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: image.height, : image.width] = np.asarray(image)[:height, :width]
    return pixels


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _starts(length: int, tile: int) -> list[int]:
    """Return where tiles start so that they cover a length, overlapping by as much as it takes."""
    if length <= tile:
        return [0]
    n_tiles = -(-(length - _OVERLAP_PX) // (tile - _OVERLAP_PX))
    return [round(i * (length - tile) / (n_tiles - 1)) for i in range(n_tiles)]


def _is_inside(
    found: Candidates, left: int, top: int, tile: tuple[int, int], whole: tuple[int, int]
) -> NDArray[np.bool_]:
    """Tell which boxes keep off the edges of a tile, other than those of the image."""
    x0, y0, x1, y1 = found.boxes.T
    inside: NDArray[np.bool_] = (
        ((x0 > left + 2) | (left == 0))
        & ((y0 > top + 2) | (top == 0))
        & ((x1 < left + tile[0] - 2) | (left + tile[0] >= whole[0]))
        & ((y1 < top + tile[1] - 2) | (top + tile[1] >= whole[1]))
    )
    return inside


def _face(found: Candidates, i: int, size: tuple[int, int]) -> FoundFace:
    left, top, right, bottom = map(float, found.boxes[i])
    width, height = size
    box = max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)
    return FoundFace(box, found.landmarks[i], float(min(1.0, found.scores[i])))


def overlaps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (n, m) intersections over unions of boxes of shape (n, 4) and (m, 4)."""
    starts = np.maximum(a[:, None, :2], b[None, :, :2])
    ends = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(ends - starts, 0, None).prod(2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (a, b)]
    total = areas[0][:, None] + areas[1][None, :] - shared
    ratio: NDArray[np.float32] = np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
    return ratio


def suppressed(found: Candidates) -> NDArray[np.int64]:
    """Return the rows that no surer one overlaps by more than 40 %, the surest first."""
    order = np.argsort(-found.scores, kind="stable")
    kept: list[int] = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(int(first))
        overlap = overlaps(found.boxes[[first]], found.boxes[order])[0]
        order = order[overlap <= _MOST_OVERLAP]
    return np.array(kept, np.int64)
