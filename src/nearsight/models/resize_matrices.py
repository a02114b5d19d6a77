"""Pillow's resizing as products of matrices, for devices that multiply faster than they resize.

Pillow resizes in two passes, columns first, and rounds each of them to whole levels. Each pass is a product
of the image with a matrix of filter coefficients, which Pillow holds in fixed point. The same coefficients
give the same levels; only the rounding of a sum in float32 can move a level by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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
IMAGE, FIRST, SECOND = "image", "first", "second"
RESIZED, CORNERS, REDUCED = "resized", "corners", "reduced"
LEVELS, PIXELS = "levels", "pixels"
#: Rows and columns of a corner.
CORNER_PX = 4
_CONSTANTS: dict[str, NDArray[Any]] = {
    "half": np.array(0.5, np.float32),
    "lowest": np.array(0, np.float32),
    "highest": np.array(255, np.float32),
    "two-dimensional": np.array([0, -1]),
    "three-channels": np.array([0, -1, 3]),
    "zero": np.array([0]),
    "rows-and-columns": np.array([0, 1]),
    "corner": np.array([-CORNER_PX, -CORNER_PX]),
    "end": np.array([1 << 31, 1 << 31]),
}


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


@lru_cache(maxsize=8)
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


@lru_cache(maxsize=8)
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


def resize_graph(*, transposed: bool, n_images: int = 1) -> bytes:
    """Return the network that resizes images, by `resize_matrices`.

    Its inputs are, for each of `n_images`, ``image0``, uint8 (height, width, 3), ``first0`` and ``second0``;
    images may differ in size. Its outputs are ``resized``, uint8 (n, out height, out width, 3), and
    ``corners``, the last `CORNER_PX` rows and columns of the images as stored.

    Parameters
    ----------
    transposed : bool
        See `ResizeMatrices`; the same for all images.
    n_images : int
    """
    graph = _ProductGraph()
    resized, corners = [], []
    for i in range(n_images):
        image, upright = f"{IMAGE}{i}", graph.products(i, transposed=transposed, rounded_between=True)
        resized.append(graph.node("Unsqueeze", [upright, "zero"], f"{upright}.one"))
        ends = ["corner", "end", "rows-and-columns"]
        corner = graph.node("Slice", [image, *ends], f"{image}.corner")
        corners.append(graph.node("Unsqueeze", [corner, "zero"], f"{corner}.one"))
    graph.node("Concat", resized, RESIZED, axis=0)
    graph.node("Concat", corners, CORNERS, axis=0)
    outputs: dict[str, Sequence[str | int]] = {
        RESIZED: [n_images, "oh", "ow", 3],
        CORNERS: [n_images, CORNER_PX, CORNER_PX, 3],
    }
    return graph.serialize("resize", n_images, outputs)


def reduction_graph(*, transposed: bool, n_images: int = 1) -> bytes:
    """Return the network that reduces images to blocks, by `reduction_matrices`.

    Inputs as for `resize_graph`; for each image, there is an output ``reduced0``, uint8 (out height, out
    width, 3).
    """
    graph = _ProductGraph()
    outputs: dict[str, Sequence[str | int]] = {}
    for i in range(n_images):
        reduced = graph.products(i, transposed=transposed, rounded_between=False)
        graph.node("Identity", [reduced], f"{REDUCED}{i}")
        outputs[f"{REDUCED}{i}"] = [f"oh{i}", f"ow{i}", 3]
    return graph.serialize("reduce", n_images, outputs)


class _ProductGraph:
    """Nodes for products of images with matrices."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self._nodes.append(make_node(kind, inputs, name, **attributes))
        return name

    def products(self, i: int, *, transposed: bool, rounded_between: bool) -> str:
        """Return the name of an upright image in whole levels."""
        columns, both = f"columns{i}", f"both{i}"
        first, second = f"{FIRST}{i}", f"{SECOND}{i}"
        floats = self.node("Cast", [f"{IMAGE}{i}"], f"floats{i}", to=1)
        if transposed:
            between = self._along_rows(floats, first, columns)
            between = self._rounded(between) if rounded_between else between
            # (columns, 3, rows) of the upright image.
            levels, perm = self._rounded(self._along_columns(between, second, both)), [2, 0, 1]
        else:
            between = self._along_columns(floats, first, columns)
            between = self._rounded(between) if rounded_between else between
            between = self.node("Transpose", [between], f"{columns}.pixels", perm=[0, 2, 1])
            levels, perm = self._rounded(self._along_rows(between, second, both)), [0, 1, 2]
        upright = self.node("Transpose", [levels], f"upright{i}.floats", perm=perm)
        return self.node("Cast", [upright], f"upright{i}", to=2)

    def serialize(self, name: str, n_images: int, outputs: Mapping[str, Sequence[str | int]]) -> bytes:
        inputs: dict[str, Sequence[str | int]] = {}
        for i in range(n_images):
            inputs[f"{IMAGE}{i}"] = [f"h{i}", f"w{i}", 3]
            inputs[f"{FIRST}{i}"], inputs[f"{SECOND}{i}"] = [f"x{i}", f"i{i}"], [f"y{i}", f"j{i}"]
        levels = [*(f"{IMAGE}{i}" for i in range(n_images)), *outputs]
        return serialize(name, self._nodes, _CONSTANTS, inputs=inputs, outputs=outputs, levels=levels)

    def _rounded(self, value: str) -> str:
        raised = self.node("Add", [value, "half"], f"{value}.raised")
        whole = self.node("Floor", [raised], f"{value}.whole")
        return self.node("Clip", [whole, "lowest", "highest"], f"{value}.levels")

    def _along_rows(self, value: str, matrix: str, name: str) -> str:
        """Multiply along axis 0 of (rows, columns, 3); the result has the same layout."""
        flat = self.node("Reshape", [value, "two-dimensional"], f"{name}.flat")
        product = self.node("MatMul", [matrix, flat], f"{name}.product")
        return self.node("Reshape", [product, "three-channels"], name)

    def _along_columns(self, value: str, matrix: str, name: str) -> str:
        """Multiply along axis 1 of (rows, columns, 3); the result is (rows, 3, columns)."""
        planes = self.node("Transpose", [value], f"{name}.planes", perm=[0, 2, 1])
        upright = self.node("Transpose", [matrix], f"{name}.matrix", perm=[1, 0])
        return self.node("MatMul", [planes, upright], name)


def normalize_graph(spec: ModelSpec, *, half: bool = False) -> bytes:
    """Return the network that computes `preprocess.normalize` for a batch.

    Its input is ``levels``, uint8 (n, height, width, 3); its output is ``pixels`` (n, 3, height, width), in
    float32, or float16 if `half` is true.
    """
    mean, std = (np.asarray(values, np.float64) for values in (spec.mean, spec.std))
    weights: dict[str, NDArray[Any]] = {
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
    block = np.arange(n_px) // block_px
    matrix = np.zeros((block[-1] + 1, n_px), np.float32)
    matrix[block, np.arange(n_px)] = (1 / np.bincount(block))[block]
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
    center = left + (np.arange(out_px) + 0.5) * scale
    low = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    high = np.minimum((center + reach + 0.5).astype(np.int64), last - first)
    at = low[:, None] + np.arange((high - low).max())
    is_used = at < high[:, None]
    weights = _weights((at - center[:, None] + 0.5) * (1 / shrink), interpolation) * is_used
    total = weights.sum(1, keepdims=True)
    weights = np.divide(weights, total, out=weights, where=total != 0)
    fixed = np.trunc(weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5)) / (1 << _BITS)
    matrix = np.zeros((out_px, in_px), np.float32)
    rows = np.broadcast_to(np.arange(out_px)[:, None], at.shape)
    matrix[rows[is_used], first + at[is_used]] = fixed[is_used]
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
