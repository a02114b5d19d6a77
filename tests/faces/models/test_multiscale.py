import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nearsight.errors import InvalidParameterError
from nearsight.faces.models import detect
from nearsight.faces.models.base import Candidates
from nearsight.faces.models.multiscale import non_maximum_suppression, overlaps


def random_image(size, squares):
    image = Image.new("RGB", size, "black")
    for left, top, side in squares:
        image.paste("white", (left, top, left + side, top + side))
    return image


def boxes(faces):
    return sorted(tuple(round(value) for value in face.box) for face in faces)


def test_small_faces_of_a_large_image_are_found_when_asked_for(planted):
    squares = [(100, 100, 30), (1905, 900, 34), (2900, 1900, 40), (1000, 200, 700)]
    image, detector = random_image((3000, 2000), squares), planted()
    wanted = sorted((x, y, x + side, y + side) for x, y, side in squares)
    found = boxes(detect(detector, image, smallest_px=24))
    assert len(found) == len(wanted)
    np.testing.assert_allclose(found, wanted, atol=8)
    # Memory: whatever the image, no raster is larger than a tile.
    assert max(max(shape[:2]) for shape in detector.rasters) <= 1024
    assert len(detect(planted(), image, smallest_px=100)) < 4


@pytest.mark.parametrize("size", [(12, 12), (33, 250), (640, 480), (1, 1), (5000, 10)])
def test_images_of_any_shape_are_looked_at(planted, size):
    assert detect(planted(), random_image(size, [])) == []


def test_boxes_and_landmarks_are_in_pixels_of_the_image(planted):
    (face,) = detect(planted(), random_image((1600, 1200), [(800, 300, 200)]))
    np.testing.assert_allclose(face.box, (800, 300, 1000, 500), atol=4)
    np.testing.assert_allclose(face.landmarks[0], (860, 380), atol=4)
    assert face.side_px == pytest.approx(200, abs=4)


def test_a_face_that_fills_the_image_is_found(planted):
    (face,) = detect(planted(), Image.new("RGB", (92, 112), "white"))
    np.testing.assert_allclose(face.box, (0, 0, 92, 112), atol=1)


def test_the_largest_comes_first(planted):
    faces = detect(planted(), random_image((640, 480), [(20, 20, 40), (300, 200, 120), (150, 50, 80)]))
    sides = [face.side_px for face in faces]
    assert len(sides) == 3
    assert sides == sorted(sides, reverse=True)


def test_a_detector_of_one_input_size_is_given_that(planted):
    detector = planted((320, 320))
    squares = [(100, 100, 40), (1500, 900, 60)]
    found = boxes(detect(detector, random_image((2000, 1200), squares), smallest_px=32))
    assert set(detector.rasters) == {(320, 320, 3)}
    np.testing.assert_allclose(found, [(x, y, x + s, y + s) for x, y, s in squares], atol=8)


@pytest.mark.parametrize(
    ("name", "value"), [("min_confidence", 0), ("min_confidence", 1.5), ("smallest_px", 0)]
)
def test_numbers_outside_their_range_are_refused(planted, name, value):
    with pytest.raises(InvalidParameterError, match=name):
        detect(planted(), random_image((64, 64), []), **{name: value})


def naive_overlap(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [max(0.0, x[2] - x[0]) * max(0.0, x[3] - x[1]) for x in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


box = st.lists(st.integers(0, 40), min_size=4, max_size=4)


@settings(max_examples=60)
@given(st.lists(box, max_size=12), st.integers(0, 100))
def test_suppression_is_what_a_plain_loop_does(rows, seed):
    values = np.array(rows, np.float32).reshape(-1, 4)
    scores = np.random.default_rng(seed).permutation(len(values)).astype(np.float32)
    found = Candidates(values, np.zeros((len(values), 5, 2), np.float32), scores)
    kept = []
    for i in np.argsort(-scores):
        if all(naive_overlap(values[i], values[j]) <= 0.4 for j in kept):
            kept.append(int(i))
    assert non_maximum_suppression(found).tolist() == kept
    table = overlaps(values, values)
    for i in range(len(values)):
        for j in range(len(values)):
            assert table[i, j] == pytest.approx(naive_overlap(values[i], values[j]), abs=1e-5)
