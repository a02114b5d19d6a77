from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nearsight.collection import Match
from nearsight.demo.edits import EDITS, EditedImage, search_edited


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


def test_the_rank_of_the_original_and_the_reason_of_a_miss():
    class Original:
        id = "b"

    matches = [Match("a", "", 0.9), Match("b", "", 0.8)]
    missed = EditedImage(Original, EDITS[0], b"", matches, 0.8)
    assert missed.rank == 2
    assert missed.reason.startswith(EDITS[0].loss)
    assert missed.reason.endswith(
        "So 1 other image is more similar to it (up to 0.90) than its original (0.80)."
    )
    absent = EditedImage(Original, EDITS[0], b"", matches[:1], 0.7)
    assert absent.rank is None
    assert "So 1 or more other" in absent.reason
    assert EditedImage(Original, EDITS[0], b"", matches[1:], 0.8).reason == ""


def test_hits_come_before_misses(monkeypatch, tmp_path):
    """The first edited image finds its original second, the two others first."""
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.new("RGB", (64, 64), (80 * i, 20, 20)).save(path)

    class Collection:
        searches = 0

        def embed_query(self, image):
            return np.ones(2, np.float32)

        def vectors(self, ids):
            return np.full((1, 2), 0.4, np.float32)

        def search(self, *, vector, k):
            self.searches += 1
            own = Match(str(self.searches - 1), "", 0.8)
            return [Match("other", "", 0.9), own] if self.searches == 1 else [own]

    items = [SimpleNamespace(id=str(i), path=str(path)) for i, path in enumerate(paths)]
    edited = search_edited(Collection(), items)
    assert [image.rank for image in edited] == [1, 1, 2]
    assert [image.item.id for image in edited] == ["1", "2", "0"]
    assert edited[2].similarity == pytest.approx(0.8)
