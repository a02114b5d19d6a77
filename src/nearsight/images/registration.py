"""Whether two pictures are one: laid over each other, their details coincide.

A check that knows nothing of vectors: it looks at pixels only, and at details rather than at large shapes, so
that two white shirts photographed alike do not count as one.
"""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import ndimage

from nearsight.errors import InvalidParameterError

#: Pixels of a miniature's side. Each costs this number squared in bytes.
SIDE_PX = 96

#: Agreement above which two photographs are one; benchmarks/duplicates.py measures it.
SAME = 0.65
#: Agreement that pictures which are not the same never reached there.
SURE = 0.7

# Widths, in pixels of the miniature, of what is taken for a detail: at first coarse, which finds the way from
# far, then fine, which tells like from same. With each, by how much the miniature is shrunk, and how many
# steps are taken.
_STAGES = ((6.0, 4, 12), (4.0, 2, 6), (1.5, 1, 5))
# What agrees less than this before a stage, at first as seen from far, is left: copies agree more by then.
_HOPELESS = (0.15, 0.3, 0.4)
# Ways to lay one picture over the other that are looked at from far: turned by every 15 degrees, mirrored,
# shrunk and enlarged. The best are tried.
_ANGLES, _SCALES, _TRIED = 24, (0.64, 0.8, 1.0, 1.25, 1.56), 2
# From far, a picture lies in a canvas of so many pixels, so that turns keep its shape; wide ones shrink.
_CANVAS_PX, _WIDEST = 12, 1.78
# Contrast, in grey levels, below which a detail is taken for noise.
_NOISE = 4.0
# Less in common than this share of the picture is no ground to stand on.
_LEAST_OVERLAP = 0.4
# A step that moves the picture's corner by more than a quarter of its side comes of a singular equation.
_LONGEST_STEP = 0.5
# Grey levels that pass for black after JPEG, and the share of a picture that matters.
_BLACK, _SOME_BLACK = 8, 0.02
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


def black_corners(small: Pixels) -> float:
    """Return which share of a miniature is black and hangs on a corner: what turning leaves behind.

    0 where that is less than 1 in 50.
    """
    patches, _ = ndimage.label(small <= _BLACK)
    at_corners = set(patches[:: SIDE_PX - 1, :: SIDE_PX - 1].ravel().tolist()) - {0}
    share = float(np.isin(patches, list(at_corners)).mean())
    return share if share >= _SOME_BLACK else 0.0


def register(here: Pixels, there: Pixels, aspects: ArrayLike | None = None) -> Registration:
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
    aspects : array of shape (n, 2), float, optional
        Width over height of the two pictures of each pair, so that any turn is found; default 1.

    Returns
    -------
    Registration
        Found are re-encoding, other sizes, crops down to some 80 % of a side, turns by any angle, mirror
        images, other colours, and marks laid over.

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
    shapes = np.ones((len(here), 2), np.float32) if aspects is None else np.asarray(aspects, np.float32)
    if shapes.shape != (len(here), 2) or not (shapes > 0).all():
        raise InvalidParameterError(
            f"aspects has shape {shapes.shape}; it must be width over height of both, ({len(here)}, 2)"
        )
    agreement = np.zeros(len(here), np.float32)
    transforms = np.zeros((len(here), 2, 3), np.float32)
    for at in range(0, len(here), _PAIRS_AT_ONCE):
        part = slice(at, at + _PAIRS_AT_ONCE)
        agreement[part], transforms[part] = _register(
            here[part].astype(np.float32), there[part].astype(np.float32), shapes[part]
        )
    return Registration(agreement, transforms)


def _register(here: Floats, there: Floats, aspects: Floats) -> tuple[Floats, Floats]:
    starts, score = _poses(here, there, aspects)
    transform = starts[:, 0]
    alive = np.arange(len(here))
    for (width, factor, n_steps), hopeless in zip(_STAGES, _HOPELESS, strict=True):
        # What falls out must not pass for what was looked at closely.
        lost = alive[score[alive] < hopeless]
        score[lost] = np.minimum(score[lost], 0)
        alive = alive[score[alive] >= hopeless]
        if not len(alive):
            break
        a, b = _details(here[alive], width, factor), _details(there[alive], width, factor)
        tries = starts[alive].swapaxes(0, 1) if factor == _STAGES[0][1] else transform[alive][None]
        found = [_align(a, b, start, n_steps) for start in tries]
        scores = np.stack([reached for reached, _ in found])
        best, rows = scores.argmax(axis=0), np.arange(len(alive))
        score[alive], transform[alive] = scores[best, rows], np.stack([t for _, t in found])[best, rows]
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


def _poses(here: Floats, there: Floats, aspects: Floats) -> tuple[Floats, Floats]:
    """Return the (n, 2, 2, 3) transforms that look best from far, and the (n,) agreement of the best.

    The correlation over the common area for each way of turning, mirroring and scaling: sums of products of
    the first picture with what `_turns` makes of the second.
    """
    shapes = np.sqrt(np.clip(aspects, 1 / _WIDEST, _WIDEST)).astype(np.float32)
    a, in_a = _on_canvas(here, shapes[:, 0])
    b, in_b = _on_canvas(there, shapes[:, 1])
    turns, ways = _turns()
    n = len(here)

    def turned(values: Floats) -> Floats:
        done: Floats = (values @ turns).reshape(n, len(ways), -1)
        return done

    def summed(left: Floats, right: Floats) -> Floats:
        total: Floats = np.matmul(right, left[:, :, None])[:, :, 0]
        return total

    tb, tb2, t_in = turned(b), turned(b * b), turned(in_b)
    area = np.maximum(summed(in_a, t_in), 1e-3)
    sum_a, sum_b = summed(a, t_in), summed(in_a, tb)
    covariance = summed(a, tb) - sum_a * sum_b / area
    of_a = np.maximum(summed(a * a, t_in) - sum_a**2 / area, 1e-3)
    of_b = np.maximum(summed(in_a, tb2) - sum_b**2 / area, 1e-3)
    # A small common area agrees by chance.
    share = np.minimum(area / (0.5 * in_a.sum(axis=1, keepdims=True)), 1)
    score = covariance / np.sqrt(of_a * of_b) * np.sqrt(share)
    chosen = ways[np.argsort(-score, axis=1, kind="stable")[:, :_TRIED]]
    # Back from the canvas to the squares that the pictures are.
    chosen *= np.stack([shapes[:, 0], 1 / shapes[:, 0]], axis=1)[:, None, None, :]
    chosen *= np.stack([1 / shapes[:, 1], shapes[:, 1]], axis=1)[:, None, :, None]
    starts = np.concatenate([chosen, np.zeros((*chosen.shape[:3], 1), np.float32)], axis=3)
    return starts, score.max(axis=1)


def _on_canvas(images: Floats, shapes: Floats) -> tuple[Floats, Floats]:
    """Return pictures as they are, less their means, on canvases (n, pixels), and where they lie on it."""
    small = _shrunk(images, SIDE_PX // _CANVAS_PX)
    small -= small.mean(axis=(1, 2), keepdims=True)
    reach = _WIDEST**0.5
    transforms = np.zeros((len(images), 2, 3), np.float32)
    transforms[:, 0, 0], transforms[:, 1, 1] = reach / shapes, reach * shapes
    places = np.abs(transforms[:, :, :2] @ _grid(_CANVAS_PX)[:2])
    inside = (places <= 1).all(axis=1).astype(np.float32)
    return _warped(small, transforms)[0] * inside, inside


@cache
def _turns() -> tuple[Floats, Floats]:
    """Return the (pixels, ways * pixels) matrix that lays a canvas in each of the (ways, 2, 2) ways."""
    angles = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
    turn = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    ways = np.concatenate([s * t for s in _SCALES for t in (turn, turn @ np.diag([-1, 1]))]).astype(
        np.float32
    )
    transforms = np.concatenate([ways, np.zeros((len(ways), 2, 1), np.float32)], axis=2)
    pixels = _CANVAS_PX**2
    matrix = np.empty((pixels, len(ways), pixels), np.float32)
    dots = np.eye(pixels, dtype=np.float32).reshape(pixels, _CANVAS_PX, _CANVAS_PX)
    for at, transform in enumerate(transforms):
        values, inside = _warped(dots, transform[None].repeat(pixels, 0))
        matrix[:, at] = values * inside
    return matrix.reshape(pixels, -1), ways


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
