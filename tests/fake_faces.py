"""Faces that are squares, and persons that are colors: for tests of everything above the face models."""

import hashlib

import numpy as np
from PIL import Image
from scipy import ndimage

from nearsight.estimators.faces.impostor_quantiles import ImpostorQuantiles
from nearsight.faces.models.base import Candidates, DetectorSpec
from nearsight.models.spec import ModelSpec

DIM = 16
POINTS = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
_RNG = np.random.default_rng(0)
_PROJECTION = _RNG.normal(size=(3, DIM))
#: Persons by name; every channel is bright, since that is what the detector sees.
COLORS = {
    "ann": (235, 185, 185),
    "bob": (185, 235, 185),
    "cy": (185, 185, 235),
    "dee": (235, 235, 185),
    "eve": (185, 235, 235),
}


class SquareDetector:
    """Each connected block of bright pixels is a face."""

    input_px = None
    spec = DetectorSpec("squares", "centerface", "0" * 64, "MIT")

    def find(self, pixels):
        labels, _ = ndimage.label(pixels.min(2) > 115)
        boxes = np.array(
            [
                [columns.start, rows.start, columns.stop, rows.stop]
                for rows, columns in ndimage.find_objects(labels)
                if min(rows.stop - rows.start, columns.stop - columns.start) >= 8
            ],
            np.float32,
        ).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        landmarks = boxes[:, None, :2] + np.array(POINTS, np.float32)[None] * sides[:, None]
        return Candidates(boxes, landmarks.astype(np.float32), np.full(len(boxes), 0.9, np.float32))


class ColorRecognizer:
    """The vector of a face is a projection of its color."""

    spec = ModelSpec(
        id="colors",
        dim=DIM,
        weights_sha256=hashlib.sha256(_PROJECTION.tobytes()).hexdigest(),
        input_px=(32, 32),
        resize_mode="squash",
        license="MIT",
        draft=False,
    )
    template = np.array(POINTS, np.float32) * 32
    weights = np.ones(5, np.float32)

    def embed(self, chips):
        vectors = np.empty((len(chips), DIM), np.float32)
        for vector, chip in zip(vectors, chips, strict=True):
            made = (chip[8:24, 8:24].mean((0, 1)) - 205) @ _PROJECTION
            vector[:] = made / max(np.linalg.norm(made), 1e-9)
        return vectors


def fake_impostor_quantiles():
    """Below what two images of one color give, above what two colors give."""
    rates = 10 ** -np.arange(0.3, 5, 0.1)
    return ImpostorQuantiles([1, 2], rates, [0.9 - 1.9 * rates] * 2, [20_000] * 2)


def photograph(*faces, size=(240, 160), seed=0):
    """Return an image of squares.

    Each face is a person of `COLORS` and left, top and side.
    """
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 100, (size[1], size[0], 3), np.uint8)
    for person, left, top, side in faces:
        # Grain makes a face sharp enough to be enrolled without a word.
        blocks = rng.integers(-45, 46, (side // 8 + 1, side // 8 + 1))
        grain = np.kron(blocks, np.ones((8, 8)))[:side, :side, None]
        pixels[top : top + side, left : left + side] = np.clip(COLORS[person] + grain, 0, 255)
    return Image.fromarray(pixels)


def album(folder, persons=("ann", "bob"), n_each=3):
    """Write a folder of photographs for each person."""
    for person in persons:
        (folder / person).mkdir(parents=True, exist_ok=True)
        for i in range(n_each):
            photograph((person, 60 + i, 40, 80), seed=hash_of(person, i)).save(folder / person / f"{i}.png")
    return folder


def hash_of(*parts):
    """Return a seed that is the same in every process."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16)
