"""Cut images into overlapping tiles of a network's input size, and stitch the tiles' maps together."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from nearsight.models.preprocess import resize_and_crop
from nearsight.models.spec import ModelSpec

# Standard deviation of the smoothing, as a share of a tile's side (Roth et al. 2022, section 3.3).
_SMOOTHING = 4 / 224

# Tiles share an eighth of their side with each neighbor, because a network sees less at a tile's edge.
_OVERLAP = 8


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of one image.

    Attributes
    ----------
    image_px, tile_px : tuple of int
        Height and width of the image and of a tile.
    n_rows, n_cols : int
        Number of tiles down and across.
    """

    image_px: tuple[int, int]
    tile_px: tuple[int, int]
    n_rows: int
    n_cols: int

    @property
    def canvas_px(self) -> tuple[int, int]:
        """Height and width to which the image is scaled, so that the tiles cover it exactly."""
        height, width = (
            n * side - (n - 1) * (side // _OVERLAP)
            for n, side in zip((self.n_rows, self.n_cols), self.tile_px, strict=True)
        )
        return height, width

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top and left of each tile on the canvas, row by row."""
        down, across = (side - side // _OVERLAP for side in self.tile_px)
        return [(row * down, col * across) for row in range(self.n_rows) for col in range(self.n_cols)]


def plan_tiles(image_px: tuple[int, int], tile_px: tuple[int, int], max_tiles: int) -> TileGrid:
    """Plan the tiles of an image: at its own resolution if `max_tiles` are enough, else reduced.

    Parameters
    ----------
    image_px, tile_px : tuple of int
        Height and width.
    max_tiles : int
        At least 1. An image that needs more is reduced, both sides by the same factor up to whole tiles.

    Examples
    --------
    >>> [(g.n_rows, g.n_cols) for g in (plan_tiles(px, (224, 224), 16) for px in
    ...     ((200, 200), (250, 250), (100, 2000), (3000, 4000)))]
    [(1, 1), (2, 2), (1, 11), (3, 5)]
    """

    def tiles(share: float) -> tuple[int, int]:
        n_rows, n_cols = (
            max(1, math.ceil((share * px - side // _OVERLAP) / (side - side // _OVERLAP) - 1e-9))
            for px, side in zip(image_px, tile_px, strict=True)
        )
        return n_rows, n_cols

    low, high = 0.0, 1.0
    if math.prod(tiles(1.0)) > max_tiles:
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if math.prod(tiles(middle)) <= max_tiles else (low, middle)
        high = low
    return TileGrid(image_px, tile_px, *tiles(high))


def cut_tiles(image: Image.Image, spec: ModelSpec, grid: TileGrid) -> list[NDArray[np.uint8]]:
    """Return the tiles of an image, (H, W, 3) uint8 each, row by row.

    The image is stretched to the canvas, as ``resize_mode="squash"`` stretches it to a model's input.
    """
    canvas = resize_and_crop(image, replace(spec, resize_mode="squash", input_px=grid.canvas_px))
    height, width = grid.tile_px
    return [canvas[top : top + height, left : left + width] for top, left in grid.corners]


def stitch_maps(maps: Iterable[NDArray[np.float32]], grid: TileGrid) -> NDArray[np.float32]:
    """Stitch the maps of tiles together to a map of the whole canvas.

    Parameters
    ----------
    maps : iterable of ndarray of shape (h, w), float32
        One for each tile, of any resolution. Where tiles overlap, each counts more towards its center.

    Returns
    -------
    ndarray of shape `grid.canvas_px`, float32
        Bilinear, then smoothed a little. `resize_map` brings it to the image's size.
    """
    total, weights = (np.zeros(grid.canvas_px, np.float32) for _ in range(2))
    height, width = grid.tile_px
    ramp = np.outer(_ramp(height), _ramp(width))
    for tile_map, (top, left) in zip(maps, grid.corners, strict=True):
        tile = (slice(top, top + height), slice(left, left + width))
        total[tile] += ramp * resize_map(tile_map, grid.tile_px)
        weights[tile] += ramp
    smoothing = [_SMOOTHING * side for side in grid.tile_px]
    return np.asarray(gaussian_filter(total / weights, smoothing, mode="nearest"), np.float32)


def resize_map(values: NDArray[np.float32], size_px: tuple[int, int]) -> NDArray[np.float32]:
    """Return a map of numbers at another size (height, width), bilinear."""
    height, width = size_px
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


def _ramp(side_px: int) -> NDArray[np.float32]:
    """Return weights that rise over the part shared with a neighbor, and are 1 in between."""
    steps = np.arange(side_px, dtype=np.float32) + 0.5
    shared = max(1, side_px // _OVERLAP)
    return np.asarray(np.minimum(1, np.minimum(steps, steps[::-1]) / shared), np.float32)
