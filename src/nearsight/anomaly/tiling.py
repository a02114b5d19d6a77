"""Cut images into overlapping tiles of a network's input size, and join the tiles' feature maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.models.preprocess import resize_and_crop
from nearsight.models.spec import ModelSpec

# Tiles share a seventh of their side with each neighbor, because a network sees less at a tile's edge: 32 of
# 224 pixels, so that the positions of all layers up to stride 32 coincide.
_OVERLAP = 7

# The image is continued by its mirror image for this share of a tile: a network's zeros do not touch it.
_MARGIN = 14

# Positions a side of a tile: a finer layer is averaged in blocks.
_MOST_POSITIONS = 28


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of one image.

    Attributes
    ----------
    image_px, tile_px : tuple of int
        Height and width of the image and of a tile.
    n_rows, n_cols : int
        Number of tiles down and across.
    has_margin : bool
        Whether a margin of mirrored pixels surrounds the image.
    """

    image_px: tuple[int, int]
    tile_px: tuple[int, int]
    n_rows: int
    n_cols: int
    has_margin: bool = False

    @property
    def margin_px(self) -> tuple[int, int]:
        """Mirrored pixels above and below, and left and right of the image."""
        height, width = (side // _MARGIN if self.has_margin else 0 for side in self.tile_px)
        return height, width

    @property
    def canvas_px(self) -> tuple[int, int]:
        """Height and width that the tiles cover exactly: the scaled image and its margin."""
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


def plan_tiles(
    image_px: tuple[int, int], tile_px: tuple[int, int], max_tiles: int, *, scale: float = 1.0
) -> TileGrid:
    """Plan the tiles of an image: at the wanted scale if `max_tiles` are enough, else reduced.

    Parameters
    ----------
    image_px, tile_px : tuple of int
        Height and width.
    max_tiles : int
        At least 1. An image that needs more is reduced, both sides by the same factor up to whole tiles.
    scale : float, default 1
        Above 0: pixels of the tiles for one pixel of the image, at least; the image then gets a margin. 0
        gives one tile, to which the whole image is stretched.

    Examples
    --------
    >>> [(g.n_rows, g.n_cols) for g in (plan_tiles(px, (224, 224), 16) for px in
    ...     ((200, 200), (250, 250), (100, 2000), (3000, 4000)))]
    [(2, 2), (2, 2), (1, 11), (3, 5)]
    >>> plan_tiles((250, 250), (224, 224), 16, scale=2).canvas_px
    (608, 608)
    """

    def tiles(share: float) -> tuple[int, int]:
        margin = 2 / _MARGIN if scale else 0
        n_rows, n_cols = (
            max(
                1,
                math.ceil((share * px - side // _OVERLAP + margin * side) / (side - side // _OVERLAP) - 1e-9),
            )
            for px, side in zip(image_px, tile_px, strict=True)
        )
        return n_rows, n_cols

    low, high = 0.0, scale
    if math.prod(tiles(scale)) > max_tiles:
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if math.prod(tiles(middle)) <= max_tiles else (low, middle)
        high = low
    return TileGrid(image_px, tile_px, *tiles(high), has_margin=scale > 0)


def cut_tiles(image: Image.Image, spec: ModelSpec, grid: TileGrid) -> list[NDArray[np.uint8]]:
    """Return the tiles of an image, (H, W, 3) uint8 each, row by row.

    The image is stretched to the canvas, as ``resize_mode="squash"`` stretches it to a model's input.
    """
    (height, width), (down, across) = grid.canvas_px, grid.margin_px
    inner_px = (height - 2 * down, width - 2 * across)
    inner = resize_and_crop(image, replace(spec, resize_mode="squash", input_px=inner_px))
    canvas = np.pad(inner, ((down, down), (across, across), (0, 0)), mode="symmetric")
    height, width = grid.tile_px
    return [canvas[top : top + height, left : left + width] for top, left in grid.corners]


def join_features(maps: Sequence[NDArray[np.float32]], grid: TileGrid) -> NDArray[np.float32]:
    """Join the feature maps of one layer to one map of the whole canvas.

    Each position is taken from the tile whose center is nearest, so what a network sees badly, at the edge of
    a tile, is left out where another tile sees it better.

    Parameters
    ----------
    maps : sequence of ndarray of shape (h, w, d), float32
        One for each tile, row by row. Finer maps than 28 positions a side are averaged in blocks.

    Returns
    -------
    ndarray of shape (H, W, d), float32
        Position (i, j) lies at ((i + 0.5) / H, (j + 0.5) / W) of the image.
    """
    block = max(1, -(-max(maps[0].shape[:2]) // _MOST_POSITIONS))
    tiles = np.stack([block_averaged(tile, block) for tile in maps])
    (rows, y), (columns, x) = (
        _nearest_tiles(canvas, side, n, positions)
        for canvas, side, n, positions in zip(
            grid.canvas_px, grid.tile_px, (grid.n_rows, grid.n_cols), tiles.shape[1:3], strict=True
        )
    )
    joined: NDArray[np.float32] = tiles[rows[:, None] * grid.n_cols + columns, y[:, None], x]
    # Without the positions of the margin.
    down, across = (
        min(round(margin * n / canvas), (n - 1) // 2)
        for margin, n, canvas in zip(grid.margin_px, joined.shape[:2], grid.canvas_px, strict=True)
    )
    return joined[down : joined.shape[0] - down, across : joined.shape[1] - across]


def block_averaged(values: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Return (h, w, d) features averaged in blocks of positions; the last block may be smaller."""
    if block == 1:
        return values
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], block)
        lengths = np.diff([*starts, values.shape[axis]]).reshape(-1, *[1] * (2 - axis)).astype(np.float32)
        values = np.asarray(np.add.reduceat(values, starts, axis=axis) / lengths, np.float32)
    return values


def resize_map(values: NDArray[np.float32], size_px: tuple[int, int]) -> NDArray[np.float32]:
    """Return a map of numbers at another size (height, width), bilinear."""
    height, width = size_px
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


def _nearest_tiles(
    canvas_px: int, tile_px: int, n_tiles: int, n_positions: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tile, and the position within it, for each position along one side of the canvas."""
    step = tile_px - tile_px // _OVERLAP
    n = max(1, round(canvas_px * n_positions / tile_px))
    at = (np.arange(n) + 0.5) * canvas_px / n
    tiles = np.clip(np.rint((at - tile_px / 2) / step), 0, n_tiles - 1).astype(np.int64)
    within = np.floor((at - tiles * step) * n_positions / tile_px).astype(np.int64)
    return tiles, np.clip(within, 0, n_positions - 1)
