from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearsight.faces.models import is_available, load_detector, load_recognizer


@pytest.fixture(scope="session")
def photograph():
    """A photograph of one person, 512×512, that scikit-image ships."""
    skimage = pytest.importorskip("skimage")
    return Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")


@pytest.fixture(scope="session")
def detector():
    if not is_available():
        pytest.skip("needs the face models")
    return load_detector()


@pytest.fixture(scope="session")
def cache_dir(cache):
    return cache


@pytest.fixture(scope="session")
def recognizer(cache_dir):
    if not is_available():
        pytest.skip("needs the face models")
    return load_recognizer(cache_dir=cache_dir)


class Planted:
    """A detector that sees bright squares: each connected block of white pixels is a face."""

    input_px = None

    def __init__(self, input_px=None):
        self.input_px = input_px
        self.rasters = []

    def find(self, pixels):
        from scipy import ndimage

        from nearsight.faces.models.base import Candidates

        self.rasters.append(pixels.shape)
        labels, _ = ndimage.label(pixels.min(2) > 200)
        boxes = []
        for rows, columns in ndimage.find_objects(labels):
            if rows.stop - rows.start >= 8 and columns.stop - columns.start >= 8:
                boxes.append([columns.start, rows.start, columns.stop, rows.stop])
        boxes = np.array(boxes, np.float32).reshape(-1, 4)
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        points = [(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)]
        landmarks = np.stack(
            [np.stack([boxes[:, 0] + x * width, boxes[:, 1] + y * height], 1) for x, y in points], 1
        ).reshape(-1, 5, 2)
        return Candidates(boxes, landmarks.astype(np.float32), np.full(len(boxes), 0.9, np.float32))


@pytest.fixture
def planted():
    return Planted
