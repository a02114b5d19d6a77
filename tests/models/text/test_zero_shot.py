"""Labels from names alone."""

import numpy as np
import pytest

from nearsight.errors import InvalidParameterError
from nearsight.models.spec import ModelSpec
from nearsight.models.text.conse import classes
from nearsight.models.text.zero_shot import ZeroShotClassifier


class Letters:
    """A tower in which an image is the letters it shows, and fits the words made of them."""

    spec = ModelSpec(id="letters", dim=26, weights_sha256="-")
    shares_space = True
    prompt = "{}"

    def embed(self, texts):
        counts = np.array(
            [[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], np.float32
        )
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    def to_text_space(self, X):
        return X

    def to_image_space(self, queries):
        return queries

    def logits(self, X, queries):
        return 20 * X @ queries.T


@pytest.fixture
def tower():
    return Letters()


def test_the_fitting_name_is_chosen(tower):
    names = ["zebra", "piano", "mug"]
    found = ZeroShotClassifier(tower, names).predict(tower.embed(["mug", "zebra", "piano"]))
    assert found.labels == ["mug", "zebra", "piano"]
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-6)
    assert not found.unknown.any()


def test_probabilities_are_a_softmax(tower):
    names, X = ["zebra", "piano"], tower.embed(["pizza"])
    logits = 20 * X @ tower.embed(names).T
    wanted = np.exp(logits[0]) / np.exp(logits[0]).sum()
    np.testing.assert_allclose(
        ZeroShotClassifier(tower, names).predict(X).probabilities[0], wanted, rtol=1e-4
    )


def test_what_a_tenth_of_other_words_fits_better_is_unknown(tower):
    common = [names[0] for names, _ in classes()[::5]]
    for shown in ("mug", "tench", "quilt", "sandwich", "xylophone"):
        X = tower.embed([shown])
        for names in (["mug"], ["zzz", "kkk"]):
            own = (X @ tower.embed(names).T).max()
            better = sum((X @ tower.embed([word]).T).item() > own + 1e-6 for word in common)
            found = ZeroShotClassifier(tower, names).predict(X)
            assert found.unknown[0] == (better > 20), (shown, names, better)


def test_one_name_and_no_image(tower):
    classifier = ZeroShotClassifier(tower, ["mug"])
    assert classifier.predict(np.empty((0, 26), np.float32)).labels == []
    assert classifier.predict(tower.embed(["mug"])).probabilities.tolist() == [[1]]


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "at least one"), (["mug", " "], "no empty one"), (["mug", "mug "], "'mug' twice")],
)
def test_bad_names(tower, names, message):
    with pytest.raises(InvalidParameterError, match=message):
        ZeroShotClassifier(tower, names)


def test_a_name_with_braces_is_a_name(tower):
    assert ZeroShotClassifier(tower, ["{x}", "mug"]).predict(tower.embed(["mug"])).labels == ["mug"]
