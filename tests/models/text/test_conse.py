"""Words for a classifier's images."""

import numpy as np
import pytest

from nearsight.errors import WeightsError
from nearsight.models import TextEncoder, load_model, load_text_encoder
from nearsight.models.text import conse, minilm
from nearsight.models.text.conse import ConseTextEncoder, classes, label_vectors

needs_encoder = pytest.mark.skipif(minilm.locate() is None, reason=f"needs {minilm.REQUIREMENT}")


@pytest.fixture(scope="module")
def tower(cache_dir) -> ConseTextEncoder:
    return load_text_encoder(cache_dir=cache_dir)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    X = np.random.default_rng(0).random((6, 1280), np.float32)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def test_the_classes_are_those_of_imagenet():
    assert len(classes()) == 1000
    assert classes()[0][0][0] == "tench"
    assert classes()[281][0] == ["tabby", "tabby cat"]
    assert classes()[999][0][0] == "toilet tissue"
    assert all(names and meaning for names, meaning in classes())


@needs_encoder
def test_is_a_text_tower(tower):
    assert isinstance(tower, TextEncoder)
    assert tower.spec.id == "efficientnet-lite0"


@needs_encoder
def test_projects_as_a_plain_loop_does(tower, vectors):
    head, labels = tower._head.T, tower._labels
    for x, found in zip(vectors, tower.to_text_space(vectors), strict=True):
        logits = np.array([8 * float(x @ row) for row in head])
        likeliest = sorted(range(1000), key=lambda i: -logits[i])[:30]
        weights = {i: np.exp(logits[i] - logits.max()) for i in likeliest}
        place = sum(weight / sum(weights.values()) * labels[i] for i, weight in weights.items())
        wanted = np.concatenate([place / np.linalg.norm(place), x]) / np.sqrt(2)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


@needs_encoder
def test_a_similarity_is_the_mean_of_two_cosines(tower, vectors):
    queries = tower.embed(["a cat", "a red sports car"])
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    projected = tower.to_text_space(vectors)
    np.testing.assert_allclose(np.linalg.norm(projected, axis=1), 1, atol=1e-5)
    words = 2 * projected[:, :384] @ queries[:, :384].T
    aimed = vectors @ tower.to_image_space(queries).T
    np.testing.assert_allclose(projected @ queries.T, (words + aimed) / 2, atol=1e-5)


@needs_encoder
def test_names_of_classes_find_those_classes(tower):
    # An image exactly as the head would like it best, for each of some classes.
    chosen = [1, 281, 404, 504, 817, 963]
    images = tower._head.T[chosen] / np.linalg.norm(tower._head.T[chosen], axis=1, keepdims=True)
    queries = tower.embed([classes()[i][0][0] for i in chosen])
    assert ((tower.to_text_space(images) @ queries.T).argmax(0) == range(len(chosen))).all()
    assert (tower.logits(images, queries).argmax(1) == range(len(chosen))).all()


@needs_encoder
def test_photographs_are_found_by_what_they_show(tower, cache_dir):
    data = pytest.importorskip("skimage.data")
    model = load_model(cache_dir=cache_dir)
    from PIL import Image

    shown = {"a cat": data.chelsea(), "a cup of coffee": data.coffee(), "a rocket": data.rocket()}
    X = model.embed([model.prepare(Image.fromarray(pixels)) for pixels in shown.values()])
    similarities = tower.to_text_space(X) @ tower.embed(list(shown)).T
    assert (similarities.argmax(0) == range(3)).all()


def test_a_class_is_the_mean_of_its_names_and_its_meaning():
    def embed(texts):
        # Of unit length, and another for each text.
        rng = [np.random.default_rng(sum(map(ord, text))) for text in texts]
        made = np.stack([r.standard_normal(384) for r in rng]).astype(np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    found = label_vectors(embed)
    names, meaning = classes()[281]
    mean = sum(embed([f"a photo of a {name}" for name in names]))
    wanted = mean / np.linalg.norm(mean) + embed([f"{names[0]}: {meaning}"])[0]
    np.testing.assert_allclose(found[281], wanted / np.linalg.norm(wanted), atol=1e-5)


def test_a_head_that_does_not_fit_is_refused(tmp_path):
    spec = load_model().spec
    with pytest.raises(WeightsError, match=r"has shape \(10, 1280\)"):
        ConseTextEncoder(spec, np.zeros((10, 1280), np.float32), tmp_path)


@needs_encoder
def test_the_classes_vectors_are_kept(cache_dir, tower, monkeypatch):
    monkeypatch.setattr(conse, "label_vectors", lambda embed: pytest.fail("made again"))
    again = load_text_encoder(cache_dir=cache_dir)
    np.testing.assert_array_equal(again._labels, tower._labels)
