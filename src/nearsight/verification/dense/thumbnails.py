"""Small gray images that are compared, and what can be seen on an image by itself."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nearsight.verification.dense.affine import Floats

#: Pixels of a miniature's side. Each costs this number squared in bytes.
SIDE_PX = 96

# Gray levels that pass for black after JPEG, and the share of an image that matters.
_BLACK, _SOME_BLACK = 8, 0.02

# Places along each side that edges are told of.
_EDGES = 16

Pixels = NDArray[np.uint8]


def miniature(image: bytes | Image.Image) -> Pixels:
    """Return an image as `register` compares it: gray, and square whatever its shape.

    Parameters
    ----------
    image : bytes or PIL.Image.Image
        A thumbnail (JPEG), or a decoded upright image.

    Returns
    -------
    ndarray of shape (96, 96), uint8
    """
    source = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
    source.draft("L", (2 * SIDE_PX, 2 * SIDE_PX))
    gray = source.convert("L").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(gray)


def edges(thumbnail: bytes) -> Floats:
    """Return how strong a thumbnail's edges are, in gray levels, in each of 16 × 16 places."""
    gray = np.asarray(Image.open(io.BytesIO(thumbnail)).convert("L"), np.float32)
    strength = Image.fromarray(np.abs(ndimage.laplace(gray, mode="nearest")))
    return np.asarray(strength.resize((_EDGES, _EDGES), Image.Resampling.BOX))


def black_corners(small: Pixels) -> float:
    """Return which share of a miniature is black and hangs on a corner: what turning leaves behind.

    0 where that is less than 1 in 50.
    """
    patches, _ = ndimage.label(small <= _BLACK)
    at_corners = set(patches[:: SIDE_PX - 1, :: SIDE_PX - 1].ravel().tolist()) - {0}
    share = float(np.isin(patches, list(at_corners)).mean())
    return share if share >= _SOME_BLACK else 0.0
