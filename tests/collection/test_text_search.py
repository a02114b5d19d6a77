"""Searching with words: every way finds what comparing with each image finds."""

import numpy as np
import pytest

from nearsight import Collection
from nearsight.collection import text_search
from nearsight.errors import InvalidParameterError, UnknownModelError

from fake import DIM, FakeBackend


class Encoder:
    """Texts are seeds of random vectors; images are brought among them by squaring."""

    prompt = "{}"

    def __init__(self, spec, *, shares_space=False):
        self.spec = spec
        self.shares_space = shares_space

    def embed(self, texts):
        made = np.stack([np.random.default_rng(len(text)).standard_normal(DIM) for text in texts])
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)

    def to_text_space(self, X):
        if self.shares_space:
            return X
        bent = X + 0.2 * X**2
        return bent / np.linalg.norm(bent, axis=1, keepdims=True)

    def to_image_space(self, queries):
        return queries

    def logits(self, X, queries):
        return self.to_text_space(X) @ queries.T


@pytest.fixture
def collection(tmp_path):
    made = Collection.create(tmp_path / "c", model=FakeBackend())
    X = np.random.default_rng(0).standard_normal((300, DIM)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    made.add_vectors(
        X,
        ids=[f"{i:032x}" for i in range(300)],
        fingerprint=made.fingerprint,
        metadata=[{"parity": i % 2} for i in range(300)],
    )
    return made


def naive(collection, encoder, text, k, keep=lambda item: True):
    items = [item for item in collection.items() if keep(item)]
    similarities = (
        encoder.to_text_space(collection.vectors([item.id for item in items])) @ encoder.embed([text])[0]
    )
    order = np.argsort(-similarities, kind="stable")[:k]
    return [(items[i].id, float(similarities[i])) for i in order]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("max_compared", [10_000, 10])
def test_finds_what_a_plain_loop_finds(collection, monkeypatch, shared, max_compared):
    monkeypatch.setattr(text_search, "_MAX_COMPARED", max_compared)
    encoder = collection.__dict__["text_encoder"] = Encoder(collection.spec, shares_space=shared)
    for text in ("a cat", "a very long walk on the beach"):
        found = collection.search(text=text, k=7)
        wanted = naive(collection, encoder, text, 7)
        assert [match.id for match in found] == [id for id, _ in wanted]
        np.testing.assert_allclose([m.similarity for m in found], [s for _, s in wanted], atol=1e-5)


@pytest.mark.parametrize("max_compared", [10_000, 10])
def test_finds_only_what_matches(collection, monkeypatch, max_compared):
    monkeypatch.setattr(text_search, "_MAX_COMPARED", max_compared)
    encoder = collection.__dict__["text_encoder"] = Encoder(collection.spec)
    found = collection.search(text="a cat", k=5, where="parity = 1")
    wanted = naive(collection, encoder, "a cat", 5, lambda item: item.metadata["parity"] == 1)
    assert [match.id for match in found] == [id for id, _ in wanted]
    assert all(match.metadata == {"parity": 1} for match in found)


def test_many_candidates_where_much_is_wanted(collection, monkeypatch):
    monkeypatch.setattr(text_search, "_MAX_COMPARED", 10)
    monkeypatch.setattr(text_search, "_MIN_CANDIDATES", 10)
    encoder = collection.__dict__["text_encoder"] = Encoder(collection.spec)
    # Ten candidates could not be it.
    assert len(collection.search(text="a cat", k=40)) == 40
    # Exactly means each of them.
    found = collection.search(text="a cat", k=40, exact=True)
    assert [match.id for match in found] == [id for id, _ in naive(collection, encoder, "a cat", 40)]


def test_more_than_there_is(collection):
    collection.__dict__["text_encoder"] = Encoder(collection.spec)
    assert len(collection.search(text="a cat", k=1000)) == 300
    assert collection.search(text="a cat", where="parity = 7") == []


@pytest.mark.parametrize(
    ("text", "k", "message"), [(" ", 1, "the text is empty"), ("a cat", 0, "k is 0; it must be at least 1")]
)
def test_bad_questions(collection, text, k, message):
    with pytest.raises(InvalidParameterError, match=message):
        collection.search(text=text, k=k)


def test_a_model_that_knows_no_texts(collection):
    with pytest.raises(UnknownModelError, match="no model 'fake'"):
        collection.search(text="a cat")


def test_one_question_at_a_time(collection):
    for question in ({}, {"id": "0" * 32, "text": "a cat"}, {"text": "a cat", "vector": np.ones(DIM)}):
        with pytest.raises(InvalidParameterError, match="search for one thing"):
            collection.search(**question)
