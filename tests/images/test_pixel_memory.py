"""Freed memory is kept, and changes no pixel."""

import numpy as np
import pytest
from PIL import Image

from nearsight.images.pixel_memory import keep_pixel_memory


@pytest.fixture
def _as_before():
    before = Image.core.get_blocks_max()
    Image.core.set_blocks_max(0)
    yield
    Image.core.set_blocks_max(before)
    Image.core.clear_cache()


@pytest.mark.usefixtures("_as_before")
def test_kept_memory_is_limited_and_shows_nothing_of_the_image_before():
    keep_pixel_memory(2)
    assert Image.core.get_blocks_max() == 8
    Image.core.reset_stats()
    for _ in range(20):
        Image.new("RGB", (300, 200), "red")
        assert not np.asarray(Image.new("RGB", (300, 200))).any()
    stats = Image.core.get_stats()
    assert stats["reused_blocks"] > 0
    assert stats["blocks_cached"] <= 8


@pytest.mark.usefixtures("_as_before")
def test_a_number_that_is_set_already_stays():
    Image.core.set_blocks_max(3)
    keep_pixel_memory(2)
    assert Image.core.get_blocks_max() == 3
