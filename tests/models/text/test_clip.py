"""A model's own text tower, in tiny models of the Hugging Face ONNX layout."""

import json

import numpy as np
import onnx
import pytest
from models.layouts import write_layout, write_text_tower

from nearsight.errors import UnknownModelError, WeightsError
from nearsight.models import TextEncoder, load_text_encoder


@pytest.fixture
def folder(tmp_path):
    return write_text_tower(write_layout(tmp_path / "clip"))


def by_hand(folder, tokens, length):
    """The tiny tower's own rule: the mean of its tokens' rows, padding counted where there is no mask."""
    path = next(path for path in folder.rglob("*.onnx") if "text" in path.name or path.name == "model.onnx")
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    rows = weights["words"][tokens + [0] * (length - len(tokens))]
    return rows.mean(0) / np.linalg.norm(rows.mean(0))


def test_texts_share_the_space_of_images(folder):
    tower = load_text_encoder(f"dir:{folder}")
    assert isinstance(tower, TextEncoder)
    assert tower.shares_space
    vectors = tower.embed(["a cat", "the dog"])
    assert vectors.shape == (2, 6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(tower.to_text_space(vectors), vectors)
    np.testing.assert_array_equal(tower.to_image_space(vectors), vectors)
    np.testing.assert_allclose(tower.logits(vectors, vectors).diagonal(), 100, rtol=1e-5)


def test_tokens_come_from_the_tokenizer(folder):
    # [start] a cat [end] is 2 4 6 3 in the tiny tokenizer's list.
    [found] = load_text_encoder(f"dir:{folder}").embed(["a cat"])
    np.testing.assert_allclose(found, by_hand(folder, [2, 4, 6, 3], 4), atol=1e-5)


def test_long_texts_are_cut_and_keep_their_end(folder):
    [found] = load_text_encoder(f"dir:{folder}").embed(["cat " * 50])
    np.testing.assert_allclose(found, by_hand(folder, [2, *[6] * 6, 3], 8), atol=1e-5)


def test_siglip_reads_texts_of_one_length(tmp_path):
    folder = write_layout(tmp_path, model_type="siglip", outputs={"pooler_output": [6]})
    write_text_tower(folder, output="pooler_output")
    [found] = load_text_encoder(f"dir:{folder}").embed(["a cat"])
    np.testing.assert_allclose(found, by_hand(folder, [2, 4, 6, 3], 8), atol=1e-5)


def test_both_towers_in_one_file(tmp_path):
    folder = write_layout(tmp_path, file="onnx/model.onnx")
    write_text_tower(folder, into="onnx/model.onnx")
    [found] = load_text_encoder(f"dir:{folder}").embed(["a cat"])
    np.testing.assert_allclose(found, by_hand(folder, [2, 4, 6, 3], 4), atol=1e-5)


def test_the_text_tower_of_the_same_precision(tmp_path):
    folder = write_layout(tmp_path, file="onnx/vision_model_quantized.onnx")
    write_text_tower(folder, file="onnx/text_model_quantized.onnx")
    assert load_text_encoder(f"dir:{folder}#quantized").embed(["cat"]).shape == (1, 6)


def test_a_model_without_one_says_so(tmp_path):
    folder = write_layout(tmp_path)
    with pytest.raises(UnknownModelError, match="has no text encoder"):
        load_text_encoder(f"dir:{folder}")


def test_towers_of_two_models_are_refused(folder):
    write_text_tower(folder, dim=5)
    with pytest.raises(WeightsError, match="belong to different models"):
        load_text_encoder(f"dir:{folder}").embed(["cat"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer_config.json", "[]", "does not contain a JSON object"),
        ("onnx/text_model.onnx", "x", "cannot be read as an ONNX model"),
    ],
)
def test_damaged_files_are_named(folder, file, content, message):
    (folder / file).write_text(content)
    with pytest.raises(WeightsError, match=message):
        load_text_encoder(f"dir:{folder}")


def test_a_tower_without_a_known_output(folder):
    write_text_tower(folder, output="sentence")
    with pytest.raises(WeightsError, match="must have one of text_embeds, pooler_output"):
        load_text_encoder(f"dir:{folder}")


def test_a_mask_is_given_where_it_is_wanted(tmp_path):
    folder = write_text_tower(write_layout(tmp_path), masked=True)
    tower = load_text_encoder(f"dir:{folder}")
    together = tower.embed(["a cat", "the dog and a cat"])
    np.testing.assert_allclose(together[0], by_hand(folder, [2, 4, 6, 3], 4), atol=1e-5)


def test_the_padding_token_is_the_files_own(folder):
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({"pad_token": {"content": "[end]"}}))
    tower = load_text_encoder(f"dir:{folder}")
    short, _ = tower.embed(["a cat", "the dog and a cat"])
    np.testing.assert_allclose(short, by_hand(folder, [2, 4, 6, 3, 3, 3, 3], 7), atol=1e-5)
