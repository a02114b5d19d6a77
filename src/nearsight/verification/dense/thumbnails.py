"""Small gray images to compare, and properties of a single image."""

import io

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from nearsight.verification.dense.affine import Floats

#: Pixels of a gray thumbnail's side. Each thumbnail takes this number squared in bytes.
SIDE_PX = 96

# Gray levels that count as black after JPEG, and the least share of black corners that is reported.
_BLACK, _LEAST_BLACK_SHARE = 8, 0.02

#: Cells along each side in which edges are measured.
EDGE_CELLS = 16

Pixels = NDArray[np.uint8]


def gray_thumbnail(image: bytes | Image.Image) -> Pixels:
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


def edge_strengths(thumbnail: bytes | Image.Image) -> Floats:
    """Return the mean strength of the edges of a thumbnail (JPEG), in gray levels, in 16 × 16 cells."""
    image = Image.open(io.BytesIO(thumbnail)) if isinstance(thumbnail, bytes) else thumbnail
    gray = np.pad(np.asarray(image.convert("L"), np.int16), 1, mode="edge")
    # The Laplace operator in whole numbers.
    here = gray[1:-1, 1:-1]
    laplace = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * here
    strength = Image.fromarray(np.abs(laplace).astype(np.float32))
    return np.asarray(strength.resize((EDGE_CELLS, EDGE_CELLS), Image.Resampling.BOX))


def black_corner_share(pixels: Pixels) -> float:
    """Return the share of a gray thumbnail that is black and joined to a corner, as turning leaves it.

    0 where that is less than 0.02.
    """
    share = float(black_corners(pixels).mean())
    return share if share >= _LEAST_BLACK_SHARE else 0.0


def black_corners(pixels: Pixels) -> NDArray[np.bool_]:
    """Return which pixels of a gray image are black and joined to a corner."""
    patches, _ = scipy.ndimage.label(pixels <= _BLACK)
    height, width = pixels.shape
    corner_patches = set(patches[:: height - 1, :: width - 1].ravel().tolist()) - {0}
    return np.isin(patches, list(corner_patches))
