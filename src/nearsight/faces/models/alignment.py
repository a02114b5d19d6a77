"""Align faces: cut them out of an image with the landmarks where a recognizer expects them.

*Method*: the similarity transform (rotation, scale, translation) that maps the landmarks nearest to a
template in the least-squares sense; Umeyama 1991, equations 40-43.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def similarity_transform(
    points: NDArray[np.floating],
    template: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Return the 2×3 similarity transform that maps points nearest to a template.

    Parameters
    ----------
    points, template : ndarray of shape (n, 2)
        Corresponding x and y, at least two different points.
    weights : ndarray of shape (n,), optional
        Weight of each point; all the same by default.

    Returns
    -------
    ndarray of shape (2, 3), float64
        ``matrix @ (x, y, 1)`` is the mapped point. All NaN if all points are the same, or one is not finite.

    Examples
    --------
    >>> square = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
    >>> (similarity_transform(square, 2 * square + 5).round(6) + 0.0).tolist()
    [[2.0, 0.0, 5.0], [0.0, 2.0, 5.0]]
    """
    share = np.full(len(points), 1.0) if weights is None else np.asarray(weights, np.float64)
    share = share[:, None] / share.sum()
    center, target = (share * points).sum(0), (share * template).sum(0)
    a, b = points - center, template - target
    spread = float((share * a**2).sum())
    if not np.isfinite(spread) or spread < 1e-12:
        return np.full((2, 3), np.nan)
    # In the plane, rotation and scale are one complex number, so no decomposition is needed.
    cos = float((share * a * b).sum()) / spread
    sin = float((share[:, 0] * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])).sum()) / spread
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, target - turn @ center])


def chip(image: Image.Image, matrix: NDArray[np.float64], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an aligned face as RGB pixels.

    Parameters
    ----------
    image : PIL.Image.Image
        Upright RGB image.
    matrix : ndarray of shape (2, 3)
        Maps pixels of the image to the result; from `similarity_transform`.
    size_px : tuple of int
        Height and width of the result.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Black outside the image. If the face is larger than the result, pixels are averaged first, so that
        none are skipped.
    """
    height, width = size_px
    full = np.vstack([matrix, [0, 0, 1]])
    if not np.isfinite(full).all():
        return np.zeros((height, width, 3), np.uint8)
    back = np.linalg.inv(full)
    corners = back @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    block_px = max(1, int(np.hypot(back[0, 0], back[1, 0])))
    # Only the area of the face is averaged, and a margin for the filter.
    margin = 2 * block_px + 2
    left, top = np.floor(corners[:2].min(1)).astype(int) - margin
    right, bottom = np.ceil(corners[:2].max(1)).astype(int) + margin
    left, top = max(0, min(left, image.width - 1)), max(0, min(top, image.height - 1))
    right, bottom = max(left + 1, min(right, image.width)), max(top + 1, min(bottom, image.height))
    part = image.crop((left, top, right, bottom))
    if block_px > 1:
        part = part.reduce(block_px)
    shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, block_px]]) @ back
    coefficients = tuple((shift[:2] / block_px).ravel())
    aligned = part.transform(
        (width, height), Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BILINEAR
    )
    return np.asarray(aligned, np.uint8)
