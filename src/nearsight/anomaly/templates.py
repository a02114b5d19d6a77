"""Compare images with the template of their part: a defect-free image in the same pose."""

from pathlib import Path, PurePath

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image

from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.images import Limits, decode, find
from nearsight.verification.dense import gray_thumbnail, register

# The longer side at which an image and its template are compared, in pixels, and the positions of the result.
_SIDE_PX, _POSITIONS = 800, 128
# Edges may lie this far from those of the template, in pixels, and the alignment may correct as much.
_TOLERANCE_PX, _MOST_SHIFT_PX = 2, 24
# The pose may differ by this share of a side and of unity; below this agreement the pose is left alone.
_MOST_TURN, _LEAST_AGREEMENT = 0.15, 0.4

Floats = NDArray[np.float32]


class Templates:
    """The templates of parts: one for all images, or one of the same name for each.

    Parameters
    ----------
    path : path
        An image, or a folder. In a folder, the template of ``board7.jpg`` is the image of that name, whatever
        its extension.
    limits : Limits
        Of the images.

    Attributes
    ----------
    image : PIL.Image.Image or None
        The one template of all images.

    Raises
    ------
    InvalidParameterError
        There is no image at the path, or a folder has two of one name.
    ImageError
        The one template cannot be decoded.
    """

    def __init__(self, path: str | Path, limits: Limits) -> None:
        sources = [source for source in find([str(path)]) if not isinstance(source, ImageFailure)]
        if not sources:
            raise InvalidParameterError(
                f"there is no template at {path}; name an image, or a folder of images"
            )
        self._sources = {PurePath(source.path).stem: source for source in sources}
        if len(self._sources) < len(sources):
            raise InvalidParameterError(
                f"{path} has several templates of one name; give each part's template the name of its images"
            )
        self._path, self._limits = str(path), limits
        self.image = None if Path(path).is_dir() else decode(sources[0], limits=limits).image

    @classmethod
    def of_pixels(cls, pixels: NDArray[np.uint8]) -> "Templates":
        """Return the one template of all images, from its gray pixels (H, W)."""
        templates = cls.__new__(cls)
        templates.image = Image.fromarray(pixels).convert("RGB")
        return templates

    def pixels(self) -> NDArray[np.uint8] | None:
        """Return the one template as it is compared, gray, (H, W); None if each image has its own."""
        return None if self.image is None else np.asarray(self.image.convert("L"))

    def of(self, path: str) -> Image.Image:
        """Return the template of an image.

        Raises
        ------
        ImageError
            There is none of its name, or it cannot be decoded.
        """
        if self.image is not None:
            return self.image
        stem = PurePath(path).stem
        if stem not in self._sources:
            raise ImageError(path, f"has no template: no image named {stem} is in {self._path}")
        return decode(self._sources[stem], limits=self._limits).image


def template_difference(image: Image.Image, template: Image.Image) -> Floats:
    """Return how far an image differs from its template, place by place.

    *Method*: the template is aligned (an affine registration of thumbnails, then phase correlation, Kuglin
    and Hines 1975, at full resolution), and its brightness is fitted. A pixel differs by as much as it lies
    outside of what the other image shows within two pixels, the larger of both directions; so edges may be
    rough, and a thin line that is missing or added still counts. Differences are smoothed a little, and each
    place gets the largest one in it.

    Parameters
    ----------
    image, template : PIL.Image.Image
        Mode RGB. The template is brought to the size of the image.

    Returns
    -------
    ndarray of shape (h, w, 1), float32
        At least 0, in gray levels; at most 128 places a side.
    """
    factor = min(1.0, _SIDE_PX / max(image.size))
    size = (max(8, round(factor * image.width)), max(8, round(factor * image.height)))
    seen, expected = (
        np.asarray(one.convert("L").resize(size, Image.Resampling.BILINEAR), np.float32)
        for one in (image, _posed(template, image).resize(size, Image.Resampling.BILINEAR))
    )
    expected = _shifted(expected, *_shift(seen, expected))
    expected = _fitted(expected, seen)
    difference = np.maximum(_outside(seen, expected), _outside(expected, seen))
    return _largest(scipy.ndimage.gaussian_filter(difference, 1.0, mode="nearest"))[..., None]


def _posed(template: Image.Image, image: Image.Image) -> Image.Image:
    """Return the template, gray, in the pose of the image, if both show the same at low resolution."""
    gray = template.convert("L")
    result = register(np.stack([gray_thumbnail(image), gray_thumbnail(gray)]), [(0, 1)])
    change = result.transforms[0] - np.eye(2, 3, dtype=np.float32)
    # Half a pixel is left to what follows: interpolation would blur the template.
    is_needed = np.abs(change).sum(1).max() * max(image.size) / 2 > 0.5
    if not is_needed or result.agreement[0] < _LEAST_AGREEMENT or np.abs(change).max() > _MOST_TURN:
        return gray
    # From -1..1 to pixels, at their corners.
    half = np.array([gray.width / 2, gray.height / 2])
    linear = result.transforms[0][:, :2] * half[:, None] / half
    offset = (result.transforms[0][:, 2] + 1) * half - linear @ half
    coefficients = [*linear[0], offset[0], *linear[1], offset[1]]
    posed = gray.transform(gray.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    inside = Image.new("L", gray.size, 255).transform(gray.size, Image.Transform.AFFINE, coefficients)
    # What the template does not show is taken from where it lay.
    return Image.composite(posed, gray, inside)


def _shift(seen: Floats, expected: Floats) -> tuple[int, int]:
    """Return by how many rows and columns the template must move, from its phase correlation."""
    window = np.outer(np.hanning(seen.shape[0]), np.hanning(seen.shape[1]))
    first, second = (scipy.fft.rfft2((one - one.mean()) * window) for one in (seen, expected))
    product = first * np.conj(second)
    correlation = scipy.fft.irfft2(product / np.maximum(np.abs(product), 1e-6), seen.shape)
    most = [min(_MOST_SHIFT_PX, side // 4) for side in seen.shape]
    rows, columns = (np.r_[0 : n + 1, -n:0] for n in most)
    near = correlation[np.ix_(rows, columns)]
    y, x = np.unravel_index(near.argmax(), near.shape)
    return int(rows[y]), int(columns[x])


def _shifted(values: Floats, down: int, right: int) -> Floats:
    padded = np.pad(values, ((max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0))), "edge")
    return padded[max(-down, 0) :, max(-right, 0) :][: values.shape[0], : values.shape[1]]


def _fitted(values: Floats, reference: Floats) -> Floats:
    """Return values with the brightness and contrast of a reference, by the line of medians and spreads."""
    (low, middle, high), (low_there, middle_there, high_there) = (
        np.percentile(one, (5, 50, 95)) for one in (values, reference)
    )
    gain = (high_there - low_there) / (high - low) if high - low > 1 else 1.0
    if not 0.5 < gain < 2:
        gain = 1.0
    return np.asarray((values - middle) * gain + middle_there, np.float32)


def _outside(values: Floats, reference: Floats) -> Floats:
    """Return how far values lie outside of what a reference shows nearby."""
    size = 2 * _TOLERANCE_PX + 1
    above = values - scipy.ndimage.maximum_filter(reference, size, mode="nearest")
    below = scipy.ndimage.minimum_filter(reference, size, mode="nearest") - values
    return np.asarray(np.maximum(np.maximum(above, below), 0), np.float32)


def _largest(values: Floats) -> Floats:
    """Return the largest value in each of at most 128 places a side."""
    for axis in (0, 1):
        starts = np.unique(np.arange(min(_POSITIONS, values.shape[axis])) * values.shape[axis] // _POSITIONS)
        if values.shape[axis] > _POSITIONS:
            values = np.maximum.reduceat(values, starts, axis=axis)
    return values
