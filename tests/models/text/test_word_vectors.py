"""Stored vectors of words are those that the encoder would give."""

from types import SimpleNamespace

import numpy as np
import pytest

from nearsight.models.text.word_vectors import word_vectors

from fake import FakeBackend

TEXTS = ["a cat", "a dog", "a lamp"]


class Encoder:
    """A text's vector follows from the text and the seed: another seed is another text tower."""

    spec = FakeBackend().spec

    def __init__(self, seed=0):
        self.seed, self.embedded = seed, []

    def embed(self, texts):
        self.embedded += texts
        rows = [np.random.default_rng([self.seed, *text.encode()]).normal(size=8) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def test_the_second_call_embeds_two_probes_only(tmp_path):
    first, second = Encoder(), Encoder()
    vectors = word_vectors(first, TEXTS, cache_dir=tmp_path)
    np.testing.assert_array_equal(vectors, Encoder().embed(TEXTS))
    np.testing.assert_array_equal(word_vectors(second, TEXTS, cache_dir=tmp_path), vectors)
    assert second.embedded == TEXTS[:2]
    assert len(list(tmp_path.rglob("words-*.npy"))) == 1


def test_other_texts_or_another_model_have_their_own_vectors(tmp_path):
    word_vectors(Encoder(), TEXTS, cache_dir=tmp_path)
    others = [*TEXTS[:2], "a tree"]
    np.testing.assert_array_equal(
        word_vectors(Encoder(), others, cache_dir=tmp_path), Encoder().embed(others)
    )
    model = Encoder()
    model.spec = FakeBackend(seed=1).spec
    assert len(word_vectors(model, TEXTS, cache_dir=tmp_path)) == 3
    assert model.embedded[:3] == TEXTS


def test_another_text_tower_of_the_same_image_model_is_noticed(tmp_path):
    word_vectors(Encoder(0), TEXTS, cache_dir=tmp_path)
    for _ in range(2):
        tower = Encoder(1)
        np.testing.assert_array_equal(word_vectors(tower, TEXTS, cache_dir=tmp_path), Encoder(1).embed(TEXTS))
    assert tower.embedded == TEXTS[:2]
    assert len(list(tmp_path.rglob("words-*.npy"))) == 1


@pytest.mark.parametrize("damage", [b"", b"no numpy file"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    word_vectors(Encoder(), TEXTS, cache_dir=tmp_path)
    [path] = tmp_path.rglob("words-*.npy")
    path.write_bytes(damage)
    np.testing.assert_array_equal(word_vectors(Encoder(), TEXTS, cache_dir=tmp_path), Encoder().embed(TEXTS))


def test_progress_is_left_to_the_caller(tmp_path):
    calls = SimpleNamespace(n=0)

    def embed(texts):
        calls.n += 1
        return Encoder().embed(texts)

    for _ in range(2):
        word_vectors(Encoder(), TEXTS, cache_dir=tmp_path, embed=embed)
    assert calls.n == 1
