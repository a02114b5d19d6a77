"""Every way of searching finds what comparing with each image finds."""

import pickle

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.collection import search as search_module
from nearsight.collection.results import Matches
from nearsight.errors import InvalidParameterError, UnknownModelError, VectorError

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
    monkeypatch.setattr(search_module, "_MAX_COMPARED", max_compared)
    encoder = collection.__dict__["text_encoder"] = Encoder(collection.spec, shares_space=shared)
    for text in ("a cat", "a very long walk on the beach"):
        found = collection.search(text=text, k=7)
        wanted = naive(collection, encoder, text, 7)
        assert [match.id for match in found] == [id for id, _ in wanted]
        np.testing.assert_allclose([m.similarity for m in found], [s for _, s in wanted], atol=1e-5)


@pytest.mark.parametrize("max_compared", [10_000, 10])
def test_finds_only_what_matches(collection, monkeypatch, max_compared):
    monkeypatch.setattr(search_module, "_MAX_COMPARED", max_compared)
    encoder = collection.__dict__["text_encoder"] = Encoder(collection.spec)
    found = collection.search(text="a cat", k=5, where="parity = 1")
    wanted = naive(collection, encoder, "a cat", 5, lambda item: item.metadata["parity"] == 1)
    assert [match.id for match in found] == [id for id, _ in wanted]
    assert all(match.metadata == {"parity": 1} for match in found)


def test_many_candidates_where_much_is_wanted(collection, monkeypatch):
    monkeypatch.setattr(search_module, "_MAX_COMPARED", 10)
    monkeypatch.setattr(search_module, "_MIN_CANDIDATES", 10)
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


def test_a_search_needs_a_query(collection):
    for arguments in ({}, {"not_text": "a cat"}, {"id": []}):
        with pytest.raises(InvalidParameterError, match="name what to search for"):
            collection.search(**arguments)


def test_several_images_stand_for_their_mean(collection):
    ids = [f"{i:032x}" for i in (3, 14, 159)]
    mean = collection.vectors(ids).mean(axis=0)
    everything = collection.search(vector=mean / np.linalg.norm(mean), k=300, exact=True)
    expected = [match.id for match in everything if match.id not in ids][:20]
    assert [match.id for match in collection.search(id=ids, k=20, exact=True)] == expected
    # A vector counts once, whatever its length.
    vector = 7 * collection.vectors(ids[2:])[0]
    mixed = collection.search(id=ids[:2], vector=vector, k=21, exact=True)
    assert [m.id for m in mixed if m.id != ids[2]][:20] == expected


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_unwanted_images_push_the_query_away_and_are_left_out(collection):
    ids = [f"{i:032x}" for i in range(300)]
    X = collection.vectors(ids)
    query = unit(unit(unit(X[3]) + unit(X[4])) - 0.25 * unit(unit(X[5]) + unit(X[6])))
    order = [i for i in np.argsort(-(X @ query)) if i not in (3, 4, 5)][:20]
    arguments = {"id": ids[3:5], "not_id": ids[5][-4:].rjust(32, "0"), "not_vector": 9 * X[6], "k": 20}
    found = collection.search(**arguments, exact=True)
    assert [match.id for match in found] == [ids[i] for i in order]
    np.testing.assert_allclose([m.similarity for m in found], X[order] @ query, atol=1e-5)
    assert [m.id for m in found] != [m.id for m in collection.search(id=ids[3:5], k=20, exact=True)]
    with pytest.raises(InvalidParameterError, match="name what to search for"):
        collection.search(not_id=ids[3])
    few = collection.condition("parity = 1", ids=ids[:40])
    found = collection.search(vector=X[0], where=few, k=300, exact=True)
    assert {match.id for match in found} == set(ids[1:40:2])
    assert collection.count(few) == 20


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("max_compared", [10_000, 10])
@pytest.mark.parametrize(
    ("id", "text", "not_text", "not_id"),
    [
        ([7], "a cat", [], []),
        ([7, 8], "a cat", ["an umbrella"], []),
        ([7], None, ["an umbrella", "a very long walk on the beach"], []),
        ([], "a cat", ["an umbrella"], []),
        ([], "a cat", [], [11]),
        ([], "a cat", ["an umbrella"], [11, 12]),
        ([7, 8], "a cat", ["an umbrella"], [11, 12]),
    ],
)
def test_a_combination_is_what_plain_arithmetic_gives(
    collection, monkeypatch, shared, max_compared, id, text, not_text, not_id
):
    monkeypatch.setattr(search_module, "_MAX_COMPARED", max_compared)
    encoder = collection.__dict__["text_encoder"] = Encoder(collection.spec, shares_space=shared)
    query, unwanted = [f"{i:032x}" for i in id], [f"{i:032x}" for i in not_id]
    items = list(collection.items())
    X = collection.vectors([item.id for item in items]).astype(np.float64)
    columns = []
    away = unit(collection.vectors(unwanted).mean(axis=0)) if unwanted else np.zeros(DIM)
    if query:
        columns.append(X @ unit(unit(collection.vectors(query).mean(axis=0)) - 0.25 * away))
    texts = encoder.embed([*([text] if text else []), *not_text])
    columns.extend(encoder.to_text_space(X) @ vector for vector in texts)
    scores = np.zeros(len(items))
    n_wanted = len(columns) - len(not_text)
    weights = [1] * len(not_text)
    if unwanted and not query:
        columns.append(X @ away)
        weights.append(0.25)
    for i, column in enumerate(columns):
        z = (column - column.mean()) / column.std()
        scores += z / n_wanted if i < n_wanted else -weights[i - n_wanted] * np.maximum(z, 0)
    order = [i for i in np.argsort(-scores) if items[i].id not in query + unwanted][:9]
    matches = collection.search(id=query, text=text, not_text=not_text, not_id=unwanted, k=9)
    assert [match.id for match in matches] == [items[i].id for i in order]
    np.testing.assert_allclose([match.similarity for match in matches], scores[order], atol=1e-4)


# --- in memory ----------------------------------------------------------------------------------


def alike(found, wanted):
    assert [(m.id, m.path, m.metadata) for m in found] == [(m.id, m.path, m.metadata) for m in wanted]
    np.testing.assert_allclose([m.similarity for m in found], [m.similarity for m in wanted], atol=1e-6)


@pytest.mark.parametrize("where", [None, "parity = 1", "parity = 7", "id LIKE '%f'"])
def test_memory_gives_the_matches_of_the_disk(collection, where):
    outside = Collection.open(collection.directory, in_memory=False)
    assert not outside.load_into_memory()
    assert collection.load_into_memory()
    for seed in range(5):
        vector = np.random.default_rng(seed).standard_normal(DIM)
        wanted = outside.search(vector=vector, k=7, where=where)
        alike(collection.search(vector=vector, k=7, where=where), wanted)
        alike(collection.search(vector=vector, k=7, where=where, exact=True), wanted)
        assert len(wanted) == (0 if where == "parity = 7" else 7)
    assert collection.count(where) == outside.count(where)
    alike(
        collection.search(id=f"{3:032x}", k=5, where=where), outside.search(id=f"{3:032x}", k=5, where=where)
    )


def test_a_search_in_memory_asks_once_for_the_version(collection, monkeypatch):
    assert collection.load_into_memory()
    engine = collection._store._store
    asked = []
    version = type(engine).version
    monkeypatch.setattr(
        type(engine), "version", property(lambda store: asked.append(store) or version.fget(store))
    )
    collection.search(vector=np.ones(DIM), k=3, where="parity = 1")
    assert asked == [engine]


def test_many_vectors_at_once(collection):
    vectors = np.random.default_rng(0).standard_normal((40, DIM)).astype(np.float32)
    one_by_one = [collection.search(vector=vector, k=6, where="parity = 0") for vector in vectors]
    for _ in range(2):
        found = collection.search_vectors(vectors, k=6, where="parity = 0")
        assert len(found) == 40
        for own, wanted in zip(found, one_by_one, strict=True):
            alike(own, wanted)
        assert collection.load_into_memory()
    with pytest.raises(VectorError, match=f"needs \\(n, {DIM}\\)"):
        collection.search_vectors(vectors[0])


def test_new_metadata_shows_in_matches_and_filters(collection):
    assert collection.load_into_memory()
    first = f"{0:032x}"
    [vector] = collection.vectors([first])
    collection.update_metadata(first, {"stars": 5})
    assert collection.search(vector=vector, k=1)[0].metadata == {"parity": 0, "stars": 5}
    assert [m.id for m in collection.search(vector=vector, where="stars > 4")] == [first]
    Collection.open(collection.directory).update_metadata(first, {"stars": 1})
    assert collection.search(vector=vector, where="stars > 4") == []
    assert collection.load_into_memory()
    assert collection.search(vector=vector, where="stars > 4") == []
    assert collection.search(vector=vector, k=1)[0].metadata == {"parity": 0, "stars": 1}


def test_an_expanded_search_looks_for_the_query_and_its_nearest(collection):
    X = collection.vectors([f"{row:032x}" for row in range(300)])
    id = f"{7:032x}"
    similarities = X @ X[7]
    nearest = [row for row in np.argsort(-similarities) if row != 7][:3]
    expanded = X[7] + sum(similarities[row] ** 3 * X[row] for row in nearest)
    expected = [f"{row:032x}" for row in np.argsort(-(X @ expanded)) if row != 7][:20]
    matches = collection.search(id=id, k=20, expand=True)
    assert [match.id for match in matches] == expected
    similarity = float(np.sort(X @ expanded)[-2] / np.linalg.norm(expanded))
    assert matches[0].similarity == pytest.approx(similarity, abs=1e-5)
    assert [match.id for match in collection.search(id=id, k=20)] != expected
    with pytest.raises(InvalidParameterError, match="expand widens a search by images"):
        collection.search(id=id, text="a dog", expand=True)


def test_a_notebook_shows_matches_as_images(tmp_path):
    collection = Collection.create(tmp_path / "notebook", model=FakeBackend())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    files = [tmp_path / name for name in ("<b>.png", "1.png", "2.png")]
    for array, file in zip(pixels, files, strict=True):
        Image.fromarray(array).save(file)
    collection.add(files)
    matches = collection.search(files[0], k=3)
    page = matches._repr_html_()
    assert page.count("data:image/jpeg;base64,/9j/") == 3
    assert "1.000<br>&lt;b&gt;.png" in page
    assert "<b>" not in page
    again = pickle.loads(pickle.dumps(matches))
    assert type(again) is list
    assert again == matches
    collection.remove([matches[1].id])
    assert "2.png" in matches._repr_html_()
    assert "and 10 more" in Matches(matches * 20, collection.thumbnails)._repr_html_()
