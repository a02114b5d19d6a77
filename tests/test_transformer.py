"""ImageEmbeddingTransformer as scikit-learn sees it."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from nearsight import ImageEmbeddingTransformer
from nearsight.errors import ImageError, InvalidParameterError, UnknownModelError

from fake import FakeBackend


def images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 16, 16, 3), np.uint8)


def test_check_estimator() -> None:
    # Most checks feed tables of numbers. scikit-learn leaves those out for other input, and says so.
    with pytest.warns(SkipTestWarning):
        check_estimator(ImageEmbeddingTransformer(FakeBackend()))


def test_cloning_loads_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("nearsight.embedder.embedder.load_model", refuse)
    embedder = clone(ImageEmbeddingTransformer("efficientnet-lite0", batch_size=3)).fit([])
    assert embedder.get_params()["batch_size"] == 3
    assert embedder.n_features_out_ == 1280
    assert len(embedder.get_feature_names_out()) == 1280
    assert pickle.loads(pickle.dumps(embedder)).batch_size == 3


def test_in_a_pipeline() -> None:
    X = images(12)
    y = np.arange(12) % 3
    model = make_pipeline(ImageEmbeddingTransformer(FakeBackend()), KNeighborsClassifier(1)).fit(list(X), y)
    assert model.predict(list(X)).tolist() == y.tolist()
    assert clone(model).fit(X, y).score(X, y) == 1


def test_bad_images(tmp_path: Path) -> None:
    X = [*images(2), tmp_path / "none.jpg"]
    with pytest.raises(ImageError, match="none.jpg"):
        ImageEmbeddingTransformer(FakeBackend()).transform(X)
    vectors = ImageEmbeddingTransformer(FakeBackend(), on_error="nan").transform(X)
    assert np.isnan(vectors).all(axis=1).tolist() == [False, False, True]
    with pytest.raises(InvalidParameterError, match="folder"):
        ImageEmbeddingTransformer(FakeBackend(), on_error="nan").transform([tmp_path])
    with pytest.raises(InvalidParameterError, match="on_error"):
        ImageEmbeddingTransformer(FakeBackend(), on_error="skip").fit([])
    with pytest.raises(UnknownModelError):
        ImageEmbeddingTransformer("nope").fit([])
