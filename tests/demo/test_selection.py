from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from nearsight.demo.selection import EDITS, arranged, rank_of, spread, telling, varied


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def clusters():
    """Three tight groups of five, interleaved, and one image unlike all."""
    rng = np.random.default_rng(0)
    centers = np.eye(8)[:3]
    rows = [centers[i % 3] + 0.03 * rng.standard_normal(8) for i in range(15)]
    return unit([*rows, np.eye(8)[7]])


def test_varied_rows_come_from_every_group(clusters):
    chosen = varied(clusters, 4)
    assert {row % 3 if row < 15 else "alone" for row in chosen} == {0, 1, 2, "alone"}
    assert len(set(varied(clusters, 100))) == 16
    assert varied(clusters[:0], 3) == []


def test_telling_rows_have_relatives_and_differ(clusters):
    chosen = telling(clusters, 3)
    assert {row % 3 for row in chosen} == {0, 1, 2}
    assert 15 not in chosen
    assert telling(clusters[:1], 3) == [0]
    assert sorted(telling(clusters, 100)) == list(range(16))


def test_arranged_rows_keep_groups_together(clusters):
    order = arranged(clusters, 4)
    assert sorted(order) == list(range(16))
    groups = [row % 3 if row < 15 else "alone" for row in order]
    changes = sum(a != b for a, b in pairwise(groups))
    assert changes == 3
    assert arranged(clusters[:0]) == []


def test_spread_is_even_and_complete():
    assert spread(5, 5) == [0, 1, 2, 3, 4]
    assert len(set(spread(1000, 320))) == 320
    assert spread(1000, 320)[-1] == 999
    assert spread(0, 3) == []


def test_rank():
    assert rank_of("b", ["a", "b"]) == 2
    assert rank_of("c", ["a", "b"]) is None


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
@pytest.mark.parametrize("size", [(640, 480), (1, 1), (3, 500)])
def test_edits_change_images_of_any_size(edit, size):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    changed = edit.apply(image)
    assert changed.mode == "RGB"
    assert min(changed.size) >= 1
    if size == (640, 480):
        assert changed.tobytes() != image.tobytes()
