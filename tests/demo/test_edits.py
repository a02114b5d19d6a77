import numpy as np
import pytest
from PIL import Image

from nearsight.collection import Match
from nearsight.demo.edits import EDITS, EditedImage


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


def test_the_rank_of_the_original():
    class Original:
        id = "b"

    matches = [Match("a", "", 0.9), Match("b", "", 0.8)]
    assert EditedImage(Original, "", b"", matches).rank == 2
    assert EditedImage(Original, "", b"", matches[:1]).rank is None
