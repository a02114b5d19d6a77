"""From strings to vector: nearsight's text towers against transformers; see ``make parity``."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="make parity installs it")
pytest.importorskip("transformers", reason="make parity installs it")

# After the skips: these import what is missing elsewhere.
from models.parity.export_text import TextFamily

from nearsight.models import load_text_encoder

pytestmark = pytest.mark.parity

TEXTS = [
    "a photo of a dog on a beach",
    "Two CATS, three birds",
    "",
    "naïve 日本語 🐶 & more",
    "dog " * 40,
    "fox",
]


@pytest.mark.filterwarnings("ignore")  # the exporter's remarks on itself
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_same_vectors(name, tmp_path) -> None:
    family = TextFamily(name)
    family.write(tmp_path / "model")
    tower = load_text_encoder(f"dir:{tmp_path / 'model'}")
    wanted = family.vectors(TEXTS)
    cosines = (wanted * tower.embed(TEXTS)).sum(1)
    print(f"\n{name}: cosine smallest {cosines.min():.6f}")
    assert cosines.min() >= 0.9999, dict(zip(TEXTS, cosines, strict=True))
    # Without this, equal vectors would prove nothing.
    assert np.abs((wanted @ wanted.T)[~np.eye(len(TEXTS), dtype=bool)]).mean() < 0.9
