"""The packaged models' vectors against torch's, see canonical/make.py."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearsight.images import decode
from nearsight.models import Backend

CANONICAL = Path(__file__).parent / "canonical"
VECTORS = dict(np.load(CANONICAL / "canonical.npz"))
LITE2 = dict(np.load(CANONICAL / "canonical-lite2.npz"))


def test_every_image_has_a_vector() -> None:
    images = {path.name for path in CANONICAL.iterdir() if path.suffix in {".jpg", ".png"}}
    assert images == VECTORS.keys() == LITE2.keys()
    assert len(images) == 6


@pytest.mark.parametrize("name", VECTORS)
def test_from_file_to_vector(lite0: Backend, name: str) -> None:
    image = decode((CANONICAL / name).read_bytes(), path=name, min_side_px=lite0.decode_px)
    (vector,) = lite0.embed([lite0.prepare(image.image)])
    assert vector @ VECTORS[name] >= 0.99999
    # Cropping before resizing moves a few pixels in ten thousand by one level of 255.
    np.testing.assert_allclose(vector, VECTORS[name], atol=5e-4)


@pytest.mark.parametrize("name", VECTORS)
def test_from_pixels_to_vector(lite0: Backend, name: str) -> None:
    image = Image.open(CANONICAL / name).convert("RGB")
    shorter, longer = sorted(image.size)
    long_px = int(256 * longer / shorter)
    width, height = (256, long_px) if image.width <= image.height else (long_px, 256)
    # Columns before rows, as Pillow 11 did in one call when it made the reference.
    resized = image.resize((width, image.height), Image.Resampling.BICUBIC)
    resized = resized.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    pixels = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    np.testing.assert_allclose(lite0.embed([pixels])[0], VECTORS[name], atol=1e-5)


@pytest.mark.parametrize("name", LITE2)
def test_lite2_from_file_to_vector(lite2: Backend, name: str) -> None:
    image = decode((CANONICAL / name).read_bytes(), path=name, min_side_px=lite2.decode_px)
    (vector,) = lite2.embed([lite2.prepare(image.image)])
    assert vector @ LITE2[name] >= 0.99999
    np.testing.assert_allclose(vector, LITE2[name], atol=1e-3)
