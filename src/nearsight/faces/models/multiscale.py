"""Detect faces in an image of any size: at one scale where that is enough, else in tiles.

*Method*: a detector finds faces down to some size in its own pixels. So the smallest face that is wanted sets
the scale of the image. If the image is then larger than a tile, the detector runs on overlapping tiles, and
once on the whole image for faces larger than the overlap. It also runs once on a small image within a margin,
for faces that fill the image. Each detected face is then refined: the detector runs again on the face at one
size, which makes its landmarks more precise. Non-maximum suppression drops repeated detections.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import InvalidParameterError
from nearsight.faces.models.alignment import chip
from nearsight.faces.models.base import Candidates, DetectedFace, FaceDetector

#: Part of the fingerprint of a face's vector: raise it with every change that moves landmarks.
SCAN_VERSION = 1

# Side of the smallest face that is detected reliably, in pixels of the detector's input: CenterFace detects 9
# in 10 of this size, some at low confidence, and 6 in 10 of 14 pixels.
_DETECTABLE_PX = 16
# Confidence from which on a detection is refined; its confidence afterwards decides.
_MIN_REFINED_CONFIDENCE = 0.3
# Default size of the smallest face: this share of the image's longer side, and at least so many pixels.
# Smaller faces are detected, but not recognized well.
#: Detections of less confidence are left out by default.
MIN_CONFIDENCE = 0.5
_SMALLEST_SHARE = 1 / 64
_SMALLEST_PX = 20
_TILE_PX = 1024
_OVERLAP_PX = 160
# A face that fills the image is detected better with a margin around it.
_MARGIN_SHARE = 0.15
_WITH_MARGIN_PX = 192
# The refinement: a raster of this side, with the face over this share of it.
_REFINED_PX = 128
_REFINED_SHARE = 0.5
# A face of this tilt (radians) or more is turned upright and refined again, at most so often.
_MAX_TILT = 0.35
_MAX_TURNS = 3
_MAX_OVERLAP = 0.4


def detect(
    detector: FaceDetector,
    image: Image.Image,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    smallest_px: float | None = None,
) -> list[DetectedFace]:
    """Find the faces in an image, the largest first.

    Parameters
    ----------
    detector : FaceDetector
    image : PIL.Image.Image
        Upright RGB image.
    min_confidence : float, default 0.5
        In 0..1.
    smallest_px : float, optional
        Side of the smallest face to detect, in pixels of the image; by default a 64th of its longer side, and
        at least 20. Half of that takes up to four times as long.

    Returns
    -------
    list of DetectedFace

    Raises
    ------
    InvalidParameterError
        A parameter is out of its range.
    """
    if not 0 < min_confidence <= 1:
        raise InvalidParameterError(f"min_confidence is {min_confidence}; it must be above 0 and at most 1")
    if smallest_px is not None and not smallest_px >= 1:
        raise InvalidParameterError(f"smallest_px is {smallest_px}; it must be at least 1 pixel")
    smallest_px = smallest_px or max(_SMALLEST_PX, _SMALLEST_SHARE * max(image.size))
    candidates = Candidates.joined(list(_all_scales(detector, image, smallest_px)))
    candidates = candidates.take(candidates.scores >= min(_MIN_REFINED_CONFIDENCE, min_confidence))
    candidates = candidates.take(non_maximum_suppression(candidates))
    refined = [_refine(detector, image, candidates.take(np.array([i]))) for i in range(len(candidates))]
    candidates = Candidates.joined(refined)
    candidates = candidates.take(candidates.scores >= min_confidence)
    candidates = candidates.take(non_maximum_suppression(candidates))
    faces = [_detected_face(candidates, i, image.size) for i in range(len(candidates))]
    return sorted((face for face in faces if face.side_px > 0), key=lambda face: -face.side_px)


def _all_scales(detector: FaceDetector, image: Image.Image, smallest_px: float) -> Iterator[Candidates]:
    """Yield the detections at a small scale for large faces, and at the scale for the smallest faces."""
    height, width = detector.input_px or (_TILE_PX, _TILE_PX)
    largest_scale = min(width / image.width, height / image.height)
    margin_scale = _WITH_MARGIN_PX / ((1 + 2 * _MARGIN_SHARE) * max(image.size))
    scale = _DETECTABLE_PX / smallest_px
    yield _at_scale(detector, image, margin_scale, _MARGIN_SHARE)
    if scale <= margin_scale:
        return
    yield _at_scale(detector, image, min(scale, largest_scale), 0)
    if scale > largest_scale:
        yield from _in_tiles(detector, image, min(scale, 1.0), (width, height))


def _at_scale(detector: FaceDetector, image: Image.Image, scale: float, margin_share: float) -> Candidates:
    small = image.resize(_scaled(image.size, scale), Image.Resampling.BILINEAR)
    margin = round(margin_share * max(small.size))
    framed = Image.new("RGB", (small.width + 2 * margin, small.height + 2 * margin))
    framed.paste(small, (margin, margin))
    candidates = detector.find(_raster(framed, detector.input_px))
    to_image = image.width / small.width, image.height / small.height
    return candidates.moved((1, 1), (-margin, -margin)).moved(to_image, (0, 0))


def _in_tiles(
    detector: FaceDetector, image: Image.Image, scale: float, size: tuple[int, int]
) -> Iterator[Candidates]:
    """Yield the detections in overlapping tiles of (width, height) `size`."""
    width, height = size
    scaled = image.resize(_scaled(image.size, scale), Image.Resampling.BILINEAR)
    to_image = image.width / scaled.width, image.height / scaled.height
    for left in _starts(scaled.width, width):
        for top in _starts(scaled.height, height):
            tile = scaled.crop((left, top, min(left + width, scaled.width), min(top + height, scaled.height)))
            candidates = detector.find(_raster(tile, detector.input_px)).moved((1, 1), (left, top))
            # A face cut by the edge of a tile is whole in the next tile, or in the whole image.
            inside = _is_inside(candidates, left, top, tile.size, scaled.size)
            yield candidates.take(inside).moved(to_image, (0, 0))


def _refine(detector: FaceDetector, image: Image.Image, face: Candidates) -> Candidates:
    """Detect a face again at the size that suits the detector best and, if it is tilted, upright."""
    refined = _refine_turned(detector, image, face, 0.0)
    for _ in range(_MAX_TURNS):
        tilt = _tilt(refined.landmarks[0])
        if abs(tilt) <= _MAX_TILT:
            break
        refined = _refine_turned(detector, image, refined, tilt)
        if abs(_tilt(refined.landmarks[0]) - tilt) < _MAX_TILT / 2:
            break
    return refined


def _refine_turned(detector: FaceDetector, image: Image.Image, face: Candidates, tilt: float) -> Candidates:
    """Detect a face again, filling half the raster and turned back by `tilt` (radians)."""
    left, top, right, bottom = map(float, face.boxes[0])
    height, width = detector.input_px or (_REFINED_PX, _REFINED_PX)
    scale = min(width, height) * _REFINED_SHARE / max(right - left, bottom - top, 1.0)
    turn = scale * np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    middle = np.array([width, height]) / 2
    shift = middle - turn @ [(left + right) / 2, (top + bottom) / 2]
    candidates = detector.find(chip(image, np.column_stack([turn, shift]), (height, width)))
    half = scale * np.array([right - left, bottom - top]) / 2
    expected = np.concatenate([middle - half, middle + half])[None].astype(np.float32)
    overlap = overlaps(expected, candidates.boxes)[0]
    # The box of a turned face covers another part of it.
    scores = np.where(overlap >= (0.3 if tilt else 0.5), candidates.scores, -1)
    if not len(candidates) or scores.max() < 0:
        return face
    best = int(scores.argmax())
    landmarks = (candidates.landmarks[best] - shift) @ np.linalg.inv(turn).T
    boxes = face.boxes if tilt else candidates.boxes[[best]] / scale - np.tile(shift, 2) / scale
    # The detection in the whole image counts as well.
    scores = np.maximum(face.scores, candidates.scores[best])
    return Candidates(boxes.astype(np.float32), landmarks[None].astype(np.float32), scores)


def _tilt(landmarks: NDArray[np.float32]) -> float:
    """Return the angle of the line between the eyes, in radians."""
    across = landmarks[1] - landmarks[0]
    return float(np.arctan2(across[1], across[0]))


def _raster(image: Image.Image, input_px: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Return pixels, padded with black to the right and below to a size that the detector takes."""
    height, width = input_px or (-(-image.height // 32) * 32, -(-image.width // 32) * 32)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: image.height, : image.width] = np.asarray(image)[:height, :width]
    return pixels


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _starts(length: int, tile: int) -> list[int]:
    """Return the starts of tiles that cover a length and overlap by at least `_OVERLAP_PX`."""
    if length <= tile:
        return [0]
    n_tiles = -(-(length - _OVERLAP_PX) // (tile - _OVERLAP_PX))
    return [round(i * (length - tile) / (n_tiles - 1)) for i in range(n_tiles)]


def _is_inside(
    candidates: Candidates, left: int, top: int, tile: tuple[int, int], whole: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return which boxes do not touch an edge of the tile that is not an edge of the image."""
    x0, y0, x1, y1 = candidates.boxes.T
    inside: NDArray[np.bool_] = (
        ((x0 > left + 2) | (left == 0))
        & ((y0 > top + 2) | (top == 0))
        & ((x1 < left + tile[0] - 2) | (left + tile[0] >= whole[0]))
        & ((y1 < top + tile[1] - 2) | (top + tile[1] >= whole[1]))
    )
    return inside


def _detected_face(candidates: Candidates, i: int, size: tuple[int, int]) -> DetectedFace:
    left, top, right, bottom = map(float, candidates.boxes[i])
    width, height = size
    box = max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)
    return DetectedFace(box, candidates.landmarks[i], float(min(1.0, candidates.scores[i])))


def overlaps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (n, m) intersections over unions of boxes of shape (n, 4) and (m, 4)."""
    starts = np.maximum(a[:, None, :2], b[None, :, :2])
    ends = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(ends - starts, 0, None).prod(2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (a, b)]
    total = areas[0][:, None] + areas[1][None, :] - shared
    ratio: NDArray[np.float32] = np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
    return ratio


def non_maximum_suppression(candidates: Candidates) -> NDArray[np.int64]:
    """Return the rows that no row of a higher score overlaps by more than 40 %, highest score first."""
    order = np.argsort(-candidates.scores, kind="stable")
    rows: list[int] = []
    while len(order):
        first, order = order[0], order[1:]
        rows.append(int(first))
        overlap = overlaps(candidates.boxes[[first]], candidates.boxes[order])[0]
        order = order[overlap <= _MAX_OVERLAP]
    return np.array(rows, np.int64)
