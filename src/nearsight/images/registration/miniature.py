"""Small grey pictures that are compared, and what can be seen on a picture by itself."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.fft import dctn

from nearsight.images.registration.warp import Floats, shrunk

#: Pixels of a miniature's side. Each costs this number squared in bytes.
SIDE_PX = 96

# Grey levels that pass for black after JPEG, and the share of a picture that matters.
_BLACK, _SOME_BLACK = 8, 0.02

# Waves along each side that a look consists of, and grey levels below which a wave is none.
_WAVES, _NO_WAVE = 8, 1e-2
# Places along each side that edges are told of.
_EDGES = 16
# Miniatures that are transformed together.
_AT_ONCE = 1024

Pixels = NDArray[np.uint8]


def miniature(picture: bytes | Image.Image) -> Pixels:
    """Return a picture as `register` compares it: grey, and square whatever its shape.

    Parameters
    ----------
    picture : bytes or PIL.Image.Image
        A thumbnail (JPEG), or a decoded upright picture.

    Returns
    -------
    ndarray of shape (96, 96), uint8
    """
    image = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
    image.draft("L", (2 * SIDE_PX, 2 * SIDE_PX))
    grey = image.convert("L").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(grey)


def looks(small: Pixels) -> Floats:
    """Return how miniatures look from far, and how their mirror images do: 63 signs each.

    *Method*: the signs of the lowest waves of a discrete cosine transform, a perceptual hash (Zauner 2010,
    "Implementation and benchmarking of perceptual image hash functions", section 3.2.1; signs stand in place
    of more or less than the median). Other colours, sizes, a re-encoding or a mark change few of them.
    Mirroring turns the signs of the waves that are odd from left to right.

    Parameters
    ----------
    small : ndarray of shape (n, 96, 96), uint8

    Returns
    -------
    ndarray of shape (2, n, 63), float32
        -1, 1, or 0 where there is no such wave; nothing but 0 for a plain colour.
    """
    found = np.empty((2, len(small), _WAVES**2 - 1), np.float32)
    mirrored = np.where(np.arange(_WAVES) % 2, -1, 1)
    for at in range(0, len(small), _AT_ONCE):
        waves = dctn(shrunk(small[at : at + _AT_ONCE], 3), axes=(1, 2), norm="ortho")[:, :_WAVES, :_WAVES]
        signs = np.sign(waves) * (np.abs(waves) > _NO_WAVE)
        both = np.stack([signs, signs * mirrored])
        found[:, at : at + _AT_ONCE] = both.reshape(2, len(signs), -1)[:, :, 1:]
    return found


def edges(thumbnail: bytes) -> Floats:
    """Return how strong a thumbnail's edges are, in grey levels, in each of 16 × 16 places."""
    grey = np.asarray(Image.open(io.BytesIO(thumbnail)).convert("L"), np.float32)
    strength = Image.fromarray(np.abs(ndimage.laplace(grey, mode="nearest")))
    return np.asarray(strength.resize((_EDGES, _EDGES), Image.Resampling.BOX))


def black_corners(small: Pixels) -> float:
    """Return which share of a miniature is black and hangs on a corner: what turning leaves behind.

    0 where that is less than 1 in 50.
    """
    patches, _ = ndimage.label(small <= _BLACK)
    at_corners = set(patches[:: SIDE_PX - 1, :: SIDE_PX - 1].ravel().tolist()) - {0}
    share = float(np.isin(patches, list(at_corners)).mean())
    return share if share >= _SOME_BLACK else 0.0
