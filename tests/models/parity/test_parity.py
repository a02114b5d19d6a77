"""From JPEG bytes to vector: nearsight against transformers, family by family; see ``make parity``."""

import io
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="make parity installs it")
pytest.importorskip("transformers", reason="make parity installs it")
skimage = pytest.importorskip("skimage")

from models.parity.export import FAMILIES  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from nearsight.images import decode  # noqa: E402
from nearsight.models import Backend, load_model  # noqa: E402

pytestmark = pytest.mark.parity

PHOTOS = ("astronaut.png", "brick.png", "camera.png", "coffee.png", "hubble_deep_field.jpg", "rocket.jpg")


def photographs() -> dict[str, bytes]:
    """Return JPEG files of many sizes: odd sides, upright, wide, gray, turned by EXIF, and large."""
    folder = Path(skimage.__file__).parent / "data"
    found = {}
    for name in PHOTOS:
        if (folder / name).is_file():
            image = Image.open(folder / name).convert("RGB")
            for label, (width, height), orientation in (
                ("as-is", image.size, 1),
                ("odd", (331, 257), 1),
                ("turned", (307, 401), 6),
                ("wide", (700, 233), 1),
                ("large", (1603, 1201), 1),
            ):
                exif = Image.Exif()
                exif[0x0112] = orientation
                file = io.BytesIO()
                image.resize((width, height)).save(file, "JPEG", quality=90, exif=exif)
                found[f"{name}-{label}"] = file.getvalue()
    return found


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def vectors(request, tmp_path_factory) -> tuple[np.ndarray, np.ndarray, Backend]:
    """Return the vectors of transformers and of nearsight, row by row; and the model."""
    family = FAMILIES[request.param]()
    model = family.build()
    folder = tmp_path_factory.mktemp(request.param)
    family.write(folder, model)
    backend = load_model(f"dir:{folder}")
    wanted, found = [], []
    for name, data in photographs().items():
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        wanted.append(family.vector(model, upright))
        image = decode(data, path=name, min_side_px=backend.decode_px).image
        found.append(backend.embed([backend.prepare(image)])[0])
    return np.stack(wanted), np.stack(found), backend


def test_same_vectors(vectors, record_property) -> None:
    wanted, found, backend = vectors
    cosines = (wanted * found).sum(1)
    record_property("smallest cosine", cosines.min())
    print(f"\n{backend.spec.id}: cosine smallest {cosines.min():.6f}, mean {cosines.mean():.6f}")
    assert len(cosines) >= 15
    assert cosines.min() >= 0.9999, dict(zip(photographs(), cosines, strict=True))


@pytest.mark.filterwarnings("ignore:.*measured once", "ignore:.*slower than float32")
def test_float16_is_the_model_by_its_vectors(vectors, tmp_path) -> None:
    _, exact, backend = vectors
    half = load_model(f"{backend.spec.id}#fp16=builtin", device="cpu", cache_dir=tmp_path)
    assert half.spec == backend.spec
    found = half.embed([half.prepare(decode(data).image) for data in photographs().values()])
    assert (exact * found).sum(1).min() >= 0.9999
    assert not np.array_equal(exact, found)


def test_the_networks_tell_images_apart(vectors) -> None:
    # Without this, equal vectors would prove nothing.
    wanted, _, _ = vectors
    similarities = wanted @ wanted.T
    assert np.median(similarities[~np.eye(len(wanted), dtype=bool)]) < 0.99
