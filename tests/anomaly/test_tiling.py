from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nearsight.anomaly.tiling import (
    TileGrid,
    block_averaged,
    cut_tiles,
    join_features,
    plan_tiles,
    resize_map,
)
from nearsight.models.spec import ModelSpec

SPEC = ModelSpec(id="x", dim=1, weights_sha256="-", input_px=(64, 64), resize_px=64)
sides = st.integers(1, 5000)


def join(maps: list[np.ndarray], grid: TileGrid) -> np.ndarray:
    """Join one-feature maps, and bring them to the image's size."""
    return resize_map(join_features([one[..., None] for one in maps], grid)[..., 0], grid.image_px)


@given(sides, sides, st.integers(1, 40))
def test_tiles_cover_the_image_and_are_no_more_than_allowed(height: int, width: int, most: int) -> None:
    grid = plan_tiles((height, width), (64, 48), most)
    assert grid.n_rows * grid.n_cols <= most
    covered = np.zeros(grid.canvas_px, bool)
    for top, left in grid.corners:
        covered[top : top + 64, left : left + 48] = True
    assert covered.all()
    assert grid.corners[-1] == (grid.canvas_px[0] - 64, grid.canvas_px[1] - 48)


@given(st.integers(64, 400), st.integers(64, 400))
def test_nothing_is_shrunk_where_there_are_tiles_enough(height: int, width: int) -> None:
    grid = plan_tiles((height, width), (64, 64), 1000)
    inner = [canvas - 2 * margin for canvas, margin in zip(grid.canvas_px, grid.margin_px, strict=True)]
    assert inner[0] >= height
    assert inner[1] >= width


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_cut_comes_together_again(axis: int) -> None:
    ramp = np.mgrid[0:150, 0:250][axis].astype(np.uint8)
    grid = plan_tiles(ramp.shape, (64, 64), 100)
    tiles = cut_tiles(Image.fromarray(np.stack([ramp] * 3, -1)), SPEC, grid)
    assert [tile.shape for tile in tiles] == [(64, 64, 3)] * grid.n_rows * grid.n_cols
    # As of a network of stride 4.
    joined = join([block_averaged(tile.astype(np.float32), 4)[..., 0] for tile in tiles], grid)
    assert joined.shape == ramp.shape
    # The ramp rises by one a pixel, so that values are positions. Away from the border:
    off_px = (joined - ramp)[8:-8, 8:-8]
    # Tiles do not begin at whole positions, of four pixels each.
    assert np.abs(off_px).max() < 3
    assert abs(off_px.mean()) < 0.5


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_the_corners_of_an_image_are_seen(corner: tuple[int, int]) -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    y, x = (slice(0, 6) if c == 0 else slice(-6, None) for c in corner)
    image[y, x] = 255
    grid = plan_tiles((100, 300), (64, 64), 100)
    joined = join([t[..., 0].astype(np.float32) for t in cut_tiles(Image.fromarray(image), SPEC, grid)], grid)
    assert joined[corner] > 100
    assert np.unravel_index(joined.argmax(), joined.shape)[0] in (
        range(8) if corner[0] == 0 else range(92, 100)
    )


def test_coarse_maps_land_where_they_belong() -> None:
    grid = TileGrid((128, 64), (64, 64), 1, 1)
    coarse = np.zeros((4, 4), np.float32)
    coarse[3, 0] = 1
    joined = join([coarse], grid)
    y, x = np.unravel_index(joined.argmax(), joined.shape)
    assert (y > 110, x < 10) == (True, True)
    assert resize_map(coarse, (8, 12)).shape == (8, 12)


@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.sampled_from([(224, 56), (224, 14), (224, 7), (260, 33), (260, 17)]),
)
def test_each_position_of_the_canvas_is_taken_where_it_lies(
    n_rows: int, n_cols: int, side: tuple[int, int]
) -> None:
    tile_px, n = side
    grid = TileGrid((100, 100), (tile_px, tile_px), n_rows, n_cols)
    centers = (np.arange(n) + 0.5) * tile_px / n
    maps = [
        np.stack(np.meshgrid(top + centers, left + centers, indexing="ij"), -1).astype(np.float32)
        for top, left in grid.corners
    ]
    joined = join_features(maps, grid)
    for axis, canvas in enumerate(grid.canvas_px):
        length = joined.shape[axis]
        at = np.moveaxis(joined[..., axis], axis, 0)
        # Off by at most half a position, where a tile's side is no multiple of the network's stride.
        wanted = (np.arange(length) + 0.5) * canvas / length
        assert np.abs(at - wanted[:, None]).max() <= 1.01 * canvas / length
    if tile_px == 224:
        assert (
            np.abs(np.diff(joined[..., 0], axis=0) - canvas_step(joined.shape[0], grid.canvas_px[0])).max()
            < 1e-3
        )


def canvas_step(n: int, canvas_px: int) -> float:
    return canvas_px / n


def test_the_margin_mirrors_the_image_and_is_left_out_again() -> None:
    grid = plan_tiles((200, 300), (224, 224), 100, scale=1)
    assert grid.margin_px == (16, 16)
    white = Image.new("RGB", (300, 200), (255, 255, 255))
    assert all(
        (tile == 255).all()
        for tile in cut_tiles(white, replace(SPEC, input_px=(224, 224), resize_px=224), grid)
    )
    n = len(grid.corners)
    maps = [np.zeros((28, 28, 1), np.float32) for _ in range(n)]
    for one in maps:
        one[:2] = one[-2:] = one[:, :2] = one[:, -2:] = 1
    # The outermost 16 pixels are two of 28 positions.
    assert join_features(maps, grid).max() == 0
    assert plan_tiles((200, 300), (224, 224), 1, scale=0).margin_px == (0, 0)


def test_a_positions_features_come_from_the_tile_that_sees_it_best() -> None:
    grid = TileGrid((100, 100), (224, 224), 1, 2)
    maps = [np.full((14, 14, 1), value, np.float32) for value in (1, 2)]
    row = join_features(maps, grid)[0, :, 0]
    assert row.tolist() == [1] * 13 + [2] * 13


def test_blocks_average_and_the_last_may_be_smaller() -> None:
    values = np.arange(9, dtype=np.float32).reshape(3, 3, 1)
    assert block_averaged(values, 2)[..., 0].tolist() == [[2, 3.5], [6.5, 8]]
    assert block_averaged(values, 1) is values
