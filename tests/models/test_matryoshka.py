"""Vectors cut to their first numbers."""

import json

import numpy as np
import pytest
from models.layouts import write_layout, write_text_tower

from nearsight.errors import UnknownModelError
from nearsight.models import find_model, load_model, load_text_encoder
from nearsight.models.matryoshka import truncate
from nearsight.testing import BackendTests
from nearsight.testing.backends import example_images


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    folder = write_layout(tmp_path_factory.mktemp("clip"))
    write_text_tower(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "matryoshka_dimensions": [2, 4]}))
    return f"dir:{folder}"


class TestCut(BackendTests):
    # Of few random numbers, two vectors may point nearly the same way.
    @pytest.fixture
    def backend(self, name, cache_dir):
        return load_model(f"{name}#dim=5", cache_dir=cache_dir)


def test_is_the_start_of_the_vector_in_full(name, cache_dir):
    full, short = (load_model(name + form, cache_dir=cache_dir) for form in ("", "#dim=4"))
    shown = [full.prepare(image) for image in example_images(6)]
    wanted = full.embed(shown)[:, :4]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(short.embed(shown), wanted, atol=1e-6)


def test_another_length_is_another_fingerprint_and_a_name_that_leads_back(name):
    specs = [find_model(name + form).spec for form in ("", "#dim=5", "#dim=4", "#dim=2")]
    assert [spec.dim for spec in specs] == [6, 5, 4, 2]
    assert len({spec.fingerprint.digest for spec in specs}) == 4
    assert len({spec.fingerprint.model for spec in specs}) == 1
    for spec in specs:
        assert find_model(spec.id).spec == spec


def test_in_full_length_it_is_the_model(name):
    assert find_model(f"{name}#dim=6").spec == find_model(name).spec


def test_texts_are_cut_along(name, cache_dir):
    full, short = (load_text_encoder(name + form, cache_dir=cache_dir) for form in ("", "#dim=4"))
    texts = ["a cat", "two dogs"]
    np.testing.assert_allclose(short.embed(texts), truncate(full.embed(texts), 4))
    assert short.shares_space
    assert short.spec == find_model(f"{name}#dim=4").spec
    X = np.eye(2, 4, dtype=np.float32)
    assert short.to_text_space(X) is X
    assert short.to_image_space(X) is X
    assert short.logits(X, X).shape == (2, 2)
    assert short.prompt == full.prompt


@pytest.mark.parametrize("dim", [1, 7])
def test_lengths_beyond_what_it_was_trained_for(name, dim):
    with pytest.raises(UnknownModelError, match=f"dim is {dim}; .* 2 to 6 numbers"):
        find_model(f"{name}#dim={dim}")


def test_a_model_that_was_not_trained_for_it_names_the_other_way():
    with pytest.raises(UnknownModelError, match="nearsight index PATH --dim 64"):
        find_model("efficientnet-lite0#dim=64")


def test_nothing_in_nothing_out():
    assert truncate(np.zeros((0, 5), np.float32), 3).shape == (0, 3)
    assert not truncate(np.zeros((1, 5), np.float32), 3).any()
