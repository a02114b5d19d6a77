import numpy as np
import pytest
from PIL import Image

from nearsight.errors import StorageError
from nearsight.faces.annotated_images import Label, draw, save


@pytest.mark.parametrize(
    "box", [(10, 40, 60, 90), (0, 0, 100, 100), (-5, -5, 300, 300), (50, 50, 50, 50), (90, 2, 99, 9)]
)
def test_boxes_are_drawn_wherever_they_lie_and_the_image_is_not_changed(box):
    image = Image.new("RGB", (100, 100), "white")
    made = draw(image, [Label(box, "Ada Lovelace 0.98", "known")])
    assert made.size == image.size
    assert (np.asarray(made) != 255).any()
    assert (np.asarray(image) == 255).all()


def test_kinds_have_their_colors():
    image = Image.new("RGB", (100, 100), "white")
    edges = {
        kind: draw(image, [Label((20, 50, 80, 90), "x", kind)]).getpixel((80 - 1, 70))
        for kind in ("known", "doubtful", "unknown")
    }
    assert len(set(edges.values())) == 3


def test_names_are_safe_and_never_given_twice(tmp_path):
    image, taken = Image.new("RGB", (8, 8)), set()
    paths = ["a/x.png", "b/x.jpg", "https://example.org/../?q=1.png", "\udcff.png", "<image 1>"]
    made = [save(image, tmp_path / "new", path, taken) for path in paths]
    assert [path.name for path in made[:2]] == ["x.jpg", "x-2.jpg"]
    assert len({path.name for path in made}) == len(paths)
    assert all(path.parent == tmp_path / "new" and path.is_file() for path in made)


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another folder"):
        save(Image.new("RGB", (8, 8)), tmp_path / "file", "x.png", set())
