"""Quality of a face's image for recognition: size, sharpness, pose, exposure, contrast.

These are simple measures of the image that can be checked by eye. They say nothing about the person.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# For each measure, the values of the quality 0 and of the quality 1.
_SIZE_PX = (16.0, 80.0)
_SHARPNESS = (0.01, 0.06)
_TURN = (0.9, 0.3)
_NOD = (0.6, 0.2)
_CONTRAST = (8.0, 30.0)
_DARK, _OVEREXPOSED = (20.0, 60.0), (245.0, 215.0)
# Mean difference of the color channels, in 0..255: compression leaves a little of it in a gray image.
_GRAY_SPREAD = 3.0
#: Quality below which a face should not be enrolled.
POOR = 0.35

# Height of the nose between the line of the eyes (0) and the mouth (1), seen from the front.
_NOSE_HEIGHT = 0.56


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """Quality of a face's image.

    Attributes
    ----------
    score : float
        The lowest quality of all measures, in 0..1; below `POOR` the image is poor.
    size_px : float
        Side of the face in the image, in pixels.
    sharpness : float
        Share of fine detail in the contrast, in 0..1.
    turn, nod : float
        Pose to the side, and up or down: 0 from the front, about 1 in profile. Positive is towards the right
        and the bottom of the image.
    tilt_deg : float
        Angle of the line between the eyes, in degrees.
    brightness, contrast : float
        Mean and standard deviation of the gray values, in 0..255.
    problems : tuple of str
        Measures below `POOR`, in words.
    is_gray : bool
        Whether the face has no color; that is no problem by itself.
    """

    score: float
    size_px: float
    sharpness: float
    turn: float
    nod: float
    tilt_deg: float
    brightness: float
    contrast: float
    problems: tuple[str, ...] = ()
    is_gray: bool = False


def assess_quality(chip: NDArray[np.uint8], landmarks: NDArray[np.floating], size_px: float) -> FaceQuality:
    """Assess a face by its aligned image and its landmarks.

    Parameters
    ----------
    chip : ndarray of uint8, shape (H, W, 3)
        Aligned, RGB.
    landmarks : ndarray of shape (5, 2)
        In pixels of the image.
    size_px : float
        Side of the face in the image.
    """
    height, width = chip.shape[:2]
    # Without hair and background.
    inner = chip[height // 5 : -height // 5 or None, width // 5 : -width // 5 or None]
    gray: NDArray[np.float32] = inner.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    brightness, contrast = float(gray.mean()), float(gray.std())
    sharpness = _sharpness(gray, contrast)
    turn, nod, tilt = _pose(np.asarray(landmarks, np.float64))
    parts = {
        "small": _quality(size_px, _SIZE_PX),
        "blurred": _quality(sharpness, _SHARPNESS),
        "turned away": min(_quality(abs(turn), _TURN), _quality(abs(nod), _NOD)),
        "dark": _quality(brightness, _DARK),
        "overexposed": _quality(brightness, _OVEREXPOSED),
        "without contrast": _quality(contrast, _CONTRAST),
    }
    problems = tuple(name for name, value in parts.items() if value < POOR)
    score = min(parts.values())
    is_gray = float(np.ptp(inner, axis=2).mean()) < _GRAY_SPREAD
    return FaceQuality(score, size_px, sharpness, turn, nod, tilt, brightness, contrast, problems, is_gray)


def _quality(value: float, ends: tuple[float, float]) -> float:
    """Return the position of a value between the worst and the best, clipped to 0..1."""
    worst, best = ends
    return float(np.clip((value - worst) / (best - worst), 0, 1))


def _sharpness(gray: NDArray[np.float32], contrast: float) -> float:
    """Return the mean absolute Laplacian as a share of the contrast, with which it grows."""
    if min(gray.shape) < 3 or contrast < 1e-3:
        return 0.0
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float(min(1.0, np.abs(gray[1:-1, 1:-1] - around / 4).mean() / contrast))


def _pose(points: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return turn, nod and tilt from the position of the nose between eyes and mouth."""
    left, right, nose = points[:3]
    across = right - left
    between, mouth = (left + right) / 2, points[3:].mean(0)
    reach = float(np.hypot(*across))
    if not np.isfinite(points).all() or reach < 1e-6:
        return 1.0, 1.0, 0.0
    along = across / reach
    down = np.array([-along[1], along[0]])
    length = float((mouth - between) @ down)
    # In profile the eyes are close together, and the nose lies to one side of them.
    turn = 2 * float((nose - between) @ along) / reach
    nod = 2 * (float((nose - between) @ down) / length - _NOSE_HEIGHT) if abs(length) > 1e-6 else 1.0
    tilt = float(np.degrees(np.arctan2(across[1], across[0])))
    return float(np.clip(turn, -2, 2)), float(np.clip(nod, -2, 2)), tilt
