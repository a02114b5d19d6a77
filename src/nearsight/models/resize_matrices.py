"""Pillow's resizing as products of matrices, for devices that multiply faster than they resize.

Pillow resizes in two passes, columns first, and rounds each of them to whole levels. Each pass is a product
of the image with a matrix of filter coefficients, which Pillow holds in fixed point. The same coefficients
give the same levels; only the rounding of a sum in float32 can move a level by one.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nearsight.models.onnx_graph import make_node, serialize
from nearsight.models.preprocess import crop_region, source_span
from nearsight.models.spec import Interpolation, ModelSpec

# Pillow's coefficients have this many bits after the point (PRECISION_BITS in its Resample.c).
_BITS = 22
_SUPPORT_PX = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
_CUBIC = -0.5
# By EXIF orientation; 5 to 8 also swap the axes.
_MIRRORED_COLUMNS, _MIRRORED_ROWS = (2, 3, 6, 7), (3, 4, 7, 8)
# Names of the graphs' values.
IMAGE, FIRST, SECOND, RESIZED, LEVELS, PIXELS = "image", "first", "second", "resized", "levels", "pixels"


@dataclass(frozen=True)
class ResizeMatrices:
    """How one image becomes another: two products, in the order in which they are computed.

    Attributes
    ----------
    first : ndarray of float32, shape (out_width, columns)
        Computes the columns of the upright image; its axis 1 is the axis of the stored image that shows as
        columns.
    second : ndarray of float32, shape (out_height, rows)
        Computes the rows of the upright image, likewise.
    transposed : bool
        Whether the columns of the upright image are the rows of the stored one.
    """

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    transposed: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return len(self.second), len(self.first)


def can_resize(spec: ModelSpec) -> bool:
    """Whether `resize_matrices` knows the rules of a model."""
    return spec.resize_mode != "shrink" and spec.interpolation in _SUPPORT_PX


@lru_cache(maxsize=256)
def resize_matrices(width: int, height: int, orientation: int, spec: ModelSpec) -> ResizeMatrices:
    """Return how `preprocess.resize_and_crop` computes an image.

    Parameters
    ----------
    width, height : int
        Of the stored image, before it is turned upright.
    orientation : int
        EXIF orientation, 1 to 8.
    spec : ModelSpec
        Rules for which `can_resize` is true.
    """
    size = (height, width) if orientation >= 5 else (width, height)
    out_height, out_width = spec.input_px
    (left, right), (top, bottom) = crop_region(size, spec)
    columns = _matrix(size[0], left, right, out_width, spec.interpolation)
    rows = _matrix(size[1], top, bottom, out_height, spec.interpolation)
    return _turned(columns, rows, orientation)


@lru_cache(maxsize=256)
def reduction_matrices(width: int, height: int, orientation: int, block_px: int) -> ResizeMatrices:
    """Return how an image is reduced to the means of its blocks, as Pillow's ``Image.reduce`` does.

    Parameters
    ----------
    width, height, orientation
        As for `resize_matrices`.
    block_px : int
        Side of a block in pixels.
    """
    size = (height, width) if orientation >= 5 else (width, height)
    columns, rows = (_means(n, block_px) for n in size)
    return _turned(columns, rows, orientation)


def resize_graph(*, transposed: bool, rounded_between: bool = True) -> bytes:
    """Return the network that computes a `ResizeMatrices`.

    Its inputs are ``image``, uint8 (height, width, 3), ``first`` and ``second``; its output is ``resized``,
    uint8 of the same layout.

    Parameters
    ----------
    transposed : bool
        See `ResizeMatrices`.
    rounded_between : bool
        Whether the first product is rounded to whole levels, as by a filter in two passes.
    """
    nodes = [make_node("Cast", [IMAGE], "floats", to=1)]
    weights: dict[str, NDArray[np.generic]] = {
        "half": np.float32(0.5).reshape(()),
        "lowest": np.float32(0).reshape(()),
        "highest": np.float32(255).reshape(()),
        "two-dimensional": np.array([0, -1]),
        "three-channels": np.array([0, -1, 3]),
    }

    def rounded(value: str, name: str) -> str:
        nodes.append(make_node("Add", [value, "half"], f"{name}.raised"))
        nodes.append(make_node("Floor", [f"{name}.raised"], f"{name}.whole"))
        nodes.append(make_node("Clip", [f"{name}.whole", "lowest", "highest"], name))
        return name

    def along_rows(value: str, matrix: str, name: str) -> str:
        """Multiply along axis 0 of (rows, columns, 3); the result has the same layout."""
        nodes.append(make_node("Reshape", [value, "two-dimensional"], f"{name}.flat"))
        nodes.append(make_node("MatMul", [matrix, f"{name}.flat"], f"{name}.product"))
        shape = "three-channels"
        nodes.append(make_node("Reshape", [f"{name}.product", shape], name))
        return name

    def along_columns(value: str, matrix: str, name: str) -> str:
        """Multiply along axis 1 of (rows, columns, 3); the result is (rows, 3, columns)."""
        nodes.append(make_node("Transpose", [value], f"{name}.planes", perm=[0, 2, 1]))
        nodes.append(make_node("Transpose", [matrix], f"{name}.matrix", perm=[1, 0]))
        nodes.append(make_node("MatMul", [f"{name}.planes", f"{name}.matrix"], name))
        return name

    if transposed:
        columns = along_rows("floats", FIRST, "columns")
        columns = rounded(columns, "columns.levels") if rounded_between else columns
        # (columns, 3, rows) of the upright image.
        both = rounded(along_columns(columns, SECOND, "both"), "both.levels")
        perm = [2, 0, 1]
    else:
        planes = along_columns("floats", FIRST, "columns")
        planes = rounded(planes, "columns.levels") if rounded_between else planes
        nodes.append(make_node("Transpose", [planes], "columns.last", perm=[0, 2, 1]))
        both = rounded(along_rows("columns.last", SECOND, "both"), "both.levels")
        perm = [0, 1, 2]
    nodes.append(make_node("Transpose", [both], "upright", perm=perm))
    nodes.append(make_node("Cast", ["upright"], RESIZED, to=2))
    return serialize(
        "resize",
        nodes,
        weights,
        inputs={IMAGE: ["h", "w", 3], FIRST: ["x", "i"], SECOND: ["y", "j"]},
        outputs={RESIZED: ["oh", "ow", 3]},
        levels=(IMAGE, RESIZED),
    )


def normalize_graph(spec: ModelSpec, *, half: bool = False) -> bytes:
    """Return the network that computes `preprocess.normalize` for a batch.

    Its input is ``levels``, uint8 (n, height, width, 3); its output is ``pixels`` (n, 3, height, width), in
    float32, or float16 if `half` is true.
    """
    mean, std = (np.asarray(values, np.float64) for values in (spec.mean, spec.std))
    weights: dict[str, NDArray[np.generic]] = {
        "factor": (1 / (255 * std)).astype(np.float32),
        "offset": (mean / std).astype(np.float32),
    }
    last = "pixels32" if half else PIXELS
    nodes = [
        make_node("Cast", [LEVELS], "floats", to=1),
        make_node("Mul", ["floats", "factor"], "scaled"),
        make_node("Sub", ["scaled", "offset"], "normalized"),
        make_node("Transpose", ["normalized"], last, perm=[0, 3, 1, 2]),
    ]
    if half:
        nodes.append(make_node("Cast", [last], PIXELS, to=10))
    height, width = spec.input_px
    return serialize(
        "normalize",
        nodes,
        weights,
        inputs={LEVELS: ["n", height, width, 3]},
        outputs={PIXELS: ["n", 3, height, width]},
        levels=(LEVELS,),
        halves=(PIXELS,) if half else (),
    )


def _turned(columns: NDArray[np.float32], rows: NDArray[np.float32], orientation: int) -> ResizeMatrices:
    """Return the products for a stored image whose upright form has these columns and rows."""
    if orientation in _MIRRORED_COLUMNS:
        columns = columns[:, ::-1]
    if orientation in _MIRRORED_ROWS:
        rows = rows[:, ::-1]
    return ResizeMatrices(np.ascontiguousarray(columns), np.ascontiguousarray(rows), orientation >= 5)


def _means(n_px: int, block_px: int) -> NDArray[np.float32]:
    n_blocks = -(-n_px // block_px)
    matrix = np.zeros((n_blocks, n_px), np.float32)
    for block in range(n_blocks):
        start, stop = block * block_px, min((block + 1) * block_px, n_px)
        matrix[block, start:stop] = 1 / (stop - start)
    return matrix


def _matrix(
    in_px: int, start: float, stop: float, out_px: int, interpolation: Interpolation
) -> NDArray[np.float32]:
    """Return Pillow's coefficients for resizing `start`..`stop` of `in_px` to `out_px`, (out_px, in_px)."""
    first, last = source_span(start, stop, out_px, in_px)
    # The arithmetic of Pillow's precompute_coeffs, which gets the region in single precision.
    left, right = (float(np.float32(edge - first)) for edge in (start, stop))
    scale = float(np.float32(right - left)) / out_px
    shrink = max(scale, 1.0)
    reach = _SUPPORT_PX[interpolation] * shrink
    matrix = np.zeros((out_px, in_px), np.float32)
    for row in range(out_px):
        center = left + (row + 0.5) * scale
        low = max(int(center - reach + 0.5), 0)
        high = min(int(center + reach + 0.5), last - first)
        weights = _weights(
            (np.arange(low, high, dtype=np.float64) - center + 0.5) * (1 / shrink), interpolation
        )
        total = weights.sum()
        weights = weights / total if total != 0 else weights
        fixed = np.trunc(weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5))
        matrix[row, first + low : first + high] = fixed / (1 << _BITS)
    return matrix


def _weights(x: NDArray[np.float64], interpolation: Interpolation) -> NDArray[np.float64]:
    """Return the filter's value at each distance."""
    x = np.abs(x)
    if interpolation == "bilinear":
        return np.where(x < 1, 1 - x, 0)
    if interpolation == "lanczos":
        return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _CUBIC
    return np.where(x < 1, near, np.where(x < 2, far, 0))
