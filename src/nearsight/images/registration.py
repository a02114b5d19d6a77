"""Whether two pictures are one: laid over each other, their details coincide.

A check that knows nothing of vectors: it looks at pixels only, and at details rather than at large shapes, so
that two white shirts photographed alike do not count as one.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from nearsight.errors import InvalidParameterError

#: Pixels of a miniature's side. Each costs this number squared in bytes.
SIDE_PX = 96

#: Agreement above which two photographs are one; benchmarks/duplicates.py measures it.
SAME = 0.65
#: Agreement that pictures which are not the same never reached there.
SURE = 0.8

# Widths, in pixels of the miniature, of what is taken for a detail: at first coarse, which finds the way from
# far, then fine, which tells like from same. With each, by how much the miniature is shrunk, and how many
# steps are taken.
_STAGES = ((6.0, 4, 12), (4.0, 2, 6), (1.5, 1, 5))
# Where the first and the second stage leave less agreement than this, the last would not help.
_HOPELESS = (0.3, 0.4)
# Of the eight ways a square can lie, so many are tried.
_POSES = 2
# Contrast, in grey levels, below which a detail is taken for noise.
_NOISE = 4.0
# Less in common than this share of the picture is no ground to stand on.
_LEAST_OVERLAP = 0.4
# A step that moves the picture's corner by more than a quarter of its side comes of a singular equation.
_LONGEST_STEP = 0.5
# Fits in a processor's cache.
_PAIRS_AT_ONCE = 64

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Registration:
    """How well pairs of pictures coincide, once laid over each other.

    Attributes
    ----------
    agreement : ndarray of shape (n,), float32
        In -1..1, higher is surer: the correlation of details. Not to be had, and 0, where one of the two has
        none (a plain colour).
    transforms : ndarray of shape (n, 2, 3), float32
        Where a place (x, y, 1) of the first lies in the second; both run from -1 to 1.
    """

    agreement: Floats
    transforms: Floats

    @property
    def mirrored(self) -> NDArray[np.bool_]:
        """Which of the second pictures are mirror images."""
        mirrored: NDArray[np.bool_] = np.linalg.det(self.transforms[:, :, :2]) < 0
        return mirrored


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


def sharpness(thumbnail: bytes) -> float:
    """Return how crisp a thumbnail is: the median strength of its edges, in grey levels.

    The median over blocks, so that a mark laid over the picture does not pass for crispness.
    """
    grey = np.asarray(Image.open(io.BytesIO(thumbnail)).convert("L"), np.float32)
    edges = np.abs(ndimage.laplace(grey, mode="nearest"))
    blocks = ndimage.uniform_filter(edges, 8, mode="nearest")[4::8, 4::8]
    return float(np.median(blocks)) if blocks.size else float(edges.mean())


def register(here: Pixels, there: Pixels) -> Registration:
    """Lay pictures over each other, pair by pair, and tell how well their details coincide.

    *Method*: inverse compositional alignment (Baker and Matthews 2004,
    https://doi.org/10.1023/B:VISI.0000011205.11775.fd, section 3.2) for an affine transform, from coarse to
    fine, on details: pixels less their surroundings, over the local contrast. What is made smallest is the
    difference of images of zero mean and unit length, whose correlation over the common area is the agreement
    (compare Evangelidis and Psarakis 2008, https://doi.org/10.1109/TPAMI.2008.113). It starts from the best
    two of the eight ways to turn and mirror a square.

    Parameters
    ----------
    here, there : ndarray of shape (n, 96, 96), uint8
        From `miniature`; row i of one is compared with row i of the other.

    Returns
    -------
    Registration
        Found are re-encoding, other sizes, crops down to some 80 % of a side, turns by up to some 10 degrees
        and by quarters, mirror images, other colours, and marks laid over.

    Raises
    ------
    InvalidParameterError
        The shapes are others.

    Notes
    -----
    A pair costs about a millisecond, or four where it is promising.
    """
    if here.shape != there.shape or here.shape[1:] != (SIDE_PX, SIDE_PX):
        raise InvalidParameterError(
            f"here has shape {here.shape} and there {there.shape}; both must be (n, {SIDE_PX}, {SIDE_PX}),"
            " as `miniature` gives them"
        )
    agreement = np.zeros(len(here), np.float32)
    transforms = np.zeros((len(here), 2, 3), np.float32)
    for at in range(0, len(here), _PAIRS_AT_ONCE):
        part = slice(at, at + _PAIRS_AT_ONCE)
        agreement[part], transforms[part] = _register(
            here[part].astype(np.float32), there[part].astype(np.float32)
        )
    return Registration(agreement, transforms)


def _register(here: Floats, there: Floats) -> tuple[Floats, Floats]:
    width, factor, n_steps = _STAGES[0]
    a, b = _details(here, width, factor), _details(there, width, factor)
    starts = _poses(here, there)
    found = [_align(a, b, starts[:, k], n_steps) for k in range(starts.shape[1])]
    scores = np.stack([score for score, _ in found])
    best, rows = scores.argmax(axis=0), np.arange(len(here))
    score, transform = scores[best, rows], np.stack([t for _, t in found])[best, rows]
    alive = rows
    for (width, factor, n_steps), hopeless in zip(_STAGES[1:], _HOPELESS, strict=True):
        # What falls out keeps a part of its score, so that it stays below what was looked at closely.
        alive, lost = alive[score[alive] >= hopeless], alive[score[alive] < hopeless]
        score[lost] = np.minimum(score[lost], 0.0)
        if not len(alive):
            break
        a, b = _details(here[alive], width, factor), _details(there[alive], width, factor)
        score[alive], transform[alive] = _align(a, b, transform[alive], n_steps)
    return score, transform


def _details(images: Floats, width: float, factor: int) -> Floats:
    """Return what differs from its surroundings, relative to the local contrast."""
    small, width = _shrunk(images, factor), width / factor
    differences = small - ndimage.gaussian_filter(small, (0, width, width), mode="nearest")
    power = ndimage.gaussian_filter(differences**2, (0, 2 * width, 2 * width), mode="nearest")
    details: Floats = differences / (np.sqrt(power) + _NOISE)
    return details


def _shrunk(images: Floats, factor: int) -> Floats:
    n, side, _ = images.shape
    small: Floats = images.reshape(n, side // factor, factor, side // factor, factor).mean((2, 4))
    return small


def _poses(here: Floats, there: Floats) -> Floats:
    """Return the (n, 2, 2, 3) ways to turn or mirror the second picture that look best from far."""
    a, b = (ndimage.gaussian_filter(_shrunk(images, 8), (0, 1, 1)) for images in (here, there))
    everywhere = np.ones((len(a), a[0].size), np.float32)
    a_flat = _unit(a.reshape(len(a), -1), everywhere)
    scores = [
        np.einsum("nk,nk->n", a_flat, _unit(_warped(b, pose[None].repeat(len(b), 0))[0], everywhere))
        for pose in _SQUARE
    ]
    chosen = np.argsort(-np.stack(scores, axis=1), axis=1, kind="stable")[:, :_POSES]
    starts: Floats = _SQUARE[chosen]
    return starts


def _square() -> Floats:
    quarter, mirror = np.array([[0, -1], [1, 0]]), np.diag([-1, 1])
    turns = [np.linalg.matrix_power(quarter, k) for k in range(4)]
    ways = np.array(turns + [turn @ mirror for turn in turns], np.float32)
    return np.concatenate([ways, np.zeros((8, 2, 1), np.float32)], axis=2)


_SQUARE = _square()


def _grid(side: int) -> Floats:
    """Return the (3, side²) places (x, y, 1) of pixels."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side, np.float32)])


def _warped(images: Floats, transforms: Floats) -> tuple[Floats, Floats]:
    """Return each image as its transform shows it, (n, side²), and where it shows it at all."""
    n, side, _ = images.shape
    places = transforms @ _grid(side)
    places += 1
    places *= side / 2
    places -= 0.5
    inside = ((places >= 0) & (places <= side - 1)).all(axis=1)
    np.clip(places, 0, side - 1.001, out=places)
    whole = places.astype(np.int32)
    fx, fy = (places - whole).transpose(1, 0, 2)
    corner = whole[:, 1] * side + whole[:, 0] + (np.arange(n, dtype=np.int32) * side**2)[:, None]
    flat = images.ravel()
    top = flat[corner]
    top += (flat[corner + 1] - top) * fx
    corner += side
    bottom = flat[corner]
    bottom += (flat[corner + 1] - bottom) * fx
    top += (bottom - top) * fy
    return top, inside.astype(np.float32)


def _unit(values: Floats, weight: Floats) -> Floats:
    """Return (n, k) values of zero mean and unit length where there is weight; nothing stays nothing."""
    values = values * weight
    values -= values.sum(1, keepdims=True) / np.maximum(weight.sum(1, keepdims=True), 1) * weight
    lengths = np.sqrt(np.einsum("nk,nk->n", values, values))
    unit: Floats = values / np.maximum(lengths, 1e-6)[:, None]
    return unit


def _align(here: Floats, there: Floats, start: Floats, n_steps: int) -> tuple[Floats, Floats]:
    """Return the best agreement that is met on the way from `start`, and where."""
    n = len(here)
    flat, slopes = here.reshape(n, -1), _slopes(here)
    transform, best, best_transform = start, np.full(n, -1.0, np.float32), start.copy()
    for step in range(n_steps + 1):
        seen, weight = _warped(there, transform)
        a, b = _unit(flat, weight), _unit(seen, weight)
        score = np.einsum("nk,nk->n", a, b)
        score[weight.mean(axis=1) < _LEAST_OVERLAP] = -1
        better = score > best
        best[better], best_transform[better] = score[better], transform[better]
        if step < n_steps:
            transform = _stepped(transform, slopes, flat, b - a, weight)
    return best, best_transform


def _slopes(images: Floats) -> Floats:
    """Return how each pixel changes with each of the six numbers of a transform, (n, 6, side²)."""
    n, side, _ = images.shape
    x, y, _ = _grid(side)
    along_y, along_x = (g.reshape(n, -1) * np.float32(side / 2) for g in np.gradient(images, axis=(1, 2)))
    return np.stack([along_x * x, along_x * y, along_x, along_y * x, along_y * y, along_y], axis=1)


def _stepped(transform: Floats, slopes: Floats, flat: Floats, residual: Floats, weight: Floats) -> Floats:
    """Return the transform after one Gauss-Newton step, taken on the side of the first picture."""
    area = np.maximum(weight.sum(axis=1), 1)
    mean = np.einsum("nk,nk->n", flat, weight) / area
    length = np.sqrt(np.einsum("nk,nk->n", (flat - mean[:, None]) ** 2, weight))
    # Outside the common area the residual is 0, and within it sums to 0: only the matrix needs the weight.
    towards = np.matmul(slopes, (residual * length[:, None])[:, :, None])
    weighted = slopes * weight[:, None, :]
    centre = weighted.sum(axis=2)
    matrix = np.matmul(weighted, slopes.transpose(0, 2, 1))
    matrix -= centre[:, :, None] * centre[:, None, :] / area[:, None, None]
    damping = 1e-3 * np.trace(matrix, axis1=1, axis2=2) / 6 + 1e-6
    matrix += damping[:, None, None] * np.eye(6, dtype=np.float32)
    delta = np.linalg.solve(matrix, towards)[:, :, 0]
    delta[np.abs(delta).max(axis=1) > _LONGEST_STEP] = 0
    step = np.tile(np.eye(3, dtype=np.float32), (len(delta), 1, 1))
    step[:, :2] += delta.reshape(-1, 2, 3)
    back = np.linalg.inv(step)
    moved: Floats = transform @ back
    return moved
