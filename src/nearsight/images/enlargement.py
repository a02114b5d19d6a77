"""Whether the larger of two images of one content has detail of its own, or may be an enlargement."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.images.compression import unexplained_energy

Floats = NDArray[np.float32]

# Side of the part that is compared, in pixels of the image that is predicted, and the least one.
_SIDE_PX, _MIN_SIDE_PX = 256, 64
# Places along each axis where that part may lie; the one with most structure is taken.
_N_PLACES = 3
# Pixels around one from which it is predicted, and the radii of the blurs that stand for those farther away.
_REACH_PX, _BLURS_PX = 2, (4, 8)
# Side of the small images by which a turn is recognized.
_LOOK_PX = 32
_MARGIN_PX = _REACH_PX + max(_BLURS_PX)
# Pixels that the coefficients are fitted on.
_N_FITTED = 12_000
# Blocks with most and with least structure: what noise adds is in both.
_BUSY_SHARE = 0.25


_Box = tuple[float, float, float, float]
_Filter = Callable[[Image.Image, tuple[int, int], _Box], Image.Image]


def _resized(how: Image.Resampling) -> _Filter:
    return lambda image, size, box: image.resize(size, how, box=box)


def _interpolated(image: Image.Image, size: tuple[int, int], box: _Box) -> Image.Image:
    """Reduce an image without smoothing it first, as some programs do."""
    left, top, right, bottom = box
    matrix = ((right - left) / size[0], 0, left, 0, (bottom - top) / size[1], top)
    return image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


_ENLARGING = tuple(
    map(
        _resized,
        (
            Image.Resampling.BICUBIC,
            Image.Resampling.BILINEAR,
            Image.Resampling.LANCZOS,
            Image.Resampling.NEAREST,
        ),
    )
)
_REDUCING = (
    *map(_resized, (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)),
    _interpolated,
)


@dataclass(frozen=True, slots=True)
class AddedDetail:
    """What each of two images has that no filter makes from the other, as shares of its details' energy.

    Attributes
    ----------
    in_large : float
        Of the larger image: 0 if it can be an enlargement of the smaller one. NaN where nothing follows.
    in_small : float
        Of the smaller image: 0 if it can be a reduction of the larger one.
    """

    in_large: float = float("nan")
    in_small: float = float("nan")


def added_detail(
    large: NDArray[np.uint8], small: NDArray[np.uint8], large_compression: float, small_compression: float
) -> AddedDetail:
    """Compare the details of two images of one content and frame that differ in size; one may be turned.

    *Method*: one image is resampled to the size of the other by each of several filters, and the best linear
    filter of the result predicts that other image; so it does not matter by which filter an image was
    enlarged, nor whether it was sharpened or blurred afterwards. What differs by more than JPEG compression
    explains is detail of its own, or noise. Noise is as strong in plain parts, so their share is taken off.

    Parameters
    ----------
    large, small : ndarray of shape (height, width), uint8
        Lightness.
    large_compression, small_compression : float
        See `ImageQuality.compression`.
    """
    if min(*large.shape, *small.shape) < _MIN_SIDE_PX:
        return AddedDetail()
    small = _turned_like(large, small)
    return AddedDetail(
        _unpredicted(large, small, large_compression, _ENLARGING),
        _unpredicted(small, large, small_compression, _REDUCING),
    )


def _turned_like(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the other image turned by quarters and mirrored as the first one is."""
    size = (_LOOK_PX, _LOOK_PX)
    look, seen = (
        np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BOX), float) for one in (image, other)
    )
    turns = [(n, is_mirrored) for n in range(4) for is_mirrored in (False, True)]

    def turned(pixels: NDArray[Any], n: int, is_mirrored: bool) -> NDArray[Any]:
        return np.rot90(pixels[:, ::-1] if is_mirrored else pixels, n)

    best = min(turns, key=lambda turn: float(np.abs(turned(seen, *turn) - look).mean()))
    return np.ascontiguousarray(turned(other, *best))


def _unpredicted(
    target: NDArray[np.uint8],
    source: NDArray[np.uint8],
    compression: float,
    filters: tuple[_Filter, ...],
) -> float:
    """Return the share of a target's detail energy that is not predicted from a source."""
    top, left, height, width = _busiest_part(target)
    part = target[top : top + height, left : left + width].astype(np.float32)
    scale_y, scale_x = source.shape[0] / target.shape[0], source.shape[1] / target.shape[1]
    box = (left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y)
    image = Image.fromarray(source).convert("F")
    inside = (slice(_MARGIN_PX, height - _MARGIN_PX), slice(_MARGIN_PX, width - _MARGIN_PX))
    predictions = (
        _Prediction(part[inside], np.asarray(resize(image, (width, height), box), np.float32))
        for resize in filters
    )
    predicted = min(predictions, key=lambda prediction: prediction.error).image()
    # Blocks of JPEG begin at multiples of eight of the whole image.
    y, x = (-(top + _MARGIN_PX)) % 8, (-(left + _MARGIN_PX)) % 8
    missing, structure = unexplained_energy(predicted[y:, x:], part[inside][y:, x:], compression)
    order, n = np.argsort(structure), max(1, round(_BUSY_SHARE * len(structure)))
    busy, plain = order[-n:], order[:n]
    energy = float(structure[busy].mean())
    return max(0.0, float(missing[busy].mean() - missing[plain].mean())) / energy if energy > 1 else np.nan


def _busiest_part(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the part with the largest spread, of several."""
    height, width = (min(_SIDE_PX, length) for length in pixels.shape)
    tops, lefts = (
        np.unique(np.linspace(0, length - side, _N_PLACES).astype(int)).tolist()
        for length, side in zip(pixels.shape, (height, width), strict=True)
    )
    top, left = max(
        ((y, x) for y in tops for x in lefts),
        key=lambda at: float(pixels[at[0] : at[0] + height, at[1] : at[1] + width].std()),
    )
    return top, left, height, width


class _Prediction:
    """The least-squares prediction of a target from the pixels around each place of a base."""

    def __init__(self, target: Floats, base: Floats) -> None:
        views = list(_neighborhoods(base))
        # Other tones are no detail: powers of the gray level follow a curve.
        gray = views[(len(views) - len(_BLURS_PX)) // 2] / np.float32(255)
        self._columns = [*views, 255 * gray**2, 255 * gray**3]
        # Every pixel is as likely, whatever the period of the resampling.
        n = min(target.size, _N_FITTED)
        rows = np.unravel_index(np.random.default_rng(0).choice(target.size, n, replace=False), target.shape)
        X = np.stack([*(column[rows] for column in self._columns), np.ones(n, np.float32)], axis=1)
        X, y = X.astype(np.float64), target[rows].astype(np.float64)
        # Neighbors of an enlarged image are nearly equal: a little ridge keeps the coefficients small.
        ridge = 0.5 * np.eye(X.shape[1])
        self._coefficients = np.linalg.solve(X.T @ X + ridge, X.T @ y)
        self.error = float(np.square(y - X @ self._coefficients).mean())

    def image(self) -> Floats:
        """Return the whole prediction."""
        *coefficients, offset = self._coefficients.astype(np.float32)
        predicted = np.full(self._columns[0].shape, offset, np.float32)
        for coefficient, column in zip(coefficients, self._columns, strict=True):
            predicted += coefficient * column
        return predicted


def _neighborhoods(base: Floats) -> Iterator[Floats]:
    """Yield the base shifted by each offset within reach, and blurred, without the margin."""
    height, width = (length - 2 * _MARGIN_PX for length in base.shape)
    offsets = range(_MARGIN_PX - _REACH_PX, _MARGIN_PX + _REACH_PX + 1)
    yield from (base[y : y + height, x : x + width] for y in offsets for x in offsets)
    sums = np.pad(base.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    for radius in _BLURS_PX:
        near, far = _MARGIN_PX - radius, _MARGIN_PX + radius + 1
        box = (
            sums[far : far + height, far : far + width]
            - sums[near : near + height, far : far + width]
            - sums[far : far + height, near : near + width]
            + sums[near : near + height, near : near + width]
        )
        yield (box / (2 * radius + 1) ** 2).astype(np.float32)
