"""Shorter vectors."""

import numpy as np
import pytest

from nearsight.errors import InvalidParameterError, UnknownModelError, WeightsError
from nearsight.models import find_model, load_model, load_text_encoder
from nearsight.models.pca import MIN_TO_CENTER, ProjectedBackend, Projection, fit_center, fit_projection
from nearsight.testing import BackendTests

from fake import DIM, FakeBackend


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    made = (rng.standard_normal((300, DIM)) * np.linspace(3, 0.1, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def projection(X):
    return fit_projection(X, 12, FakeBackend().spec)


class TestConformance(BackendTests):
    @pytest.fixture
    def backend(self, projection):
        return ProjectedBackend(FakeBackend(), projection, "pca:x")


class TestCenteredConformance(BackendTests):
    @pytest.fixture
    def backend(self, X):
        return ProjectedBackend(FakeBackend(), fit_center(X, FakeBackend().spec), "pca:centered")


def test_centering_subtracts_the_mean_and_is_undone(X, tmp_path):
    centered = fit_center(X, FakeBackend().spec)
    expected = X - X.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(centered.apply(X), expected, atol=1e-6)
    np.testing.assert_allclose(centered.restore(centered.apply(X)), X, atol=1e-4)
    centered.save(tmp_path / "c.npz")
    again = Projection.load(tmp_path / "c.npz")
    assert again.components is None
    assert again.spec("pca:x") == centered.spec("pca:x")
    # Two means are two models, and a mean is no PCA.
    others = [fit_center(X[:200], FakeBackend().spec), fit_projection(X, 12, FakeBackend().spec)]
    assert len({one.spec("pca:x").fingerprint.digest for one in [centered, *others]}) == 3
    with pytest.raises(InvalidParameterError, match=rf"there are {MIN_TO_CENTER - 1} images"):
        fit_center(X[: MIN_TO_CENTER - 1], FakeBackend().spec)
    with pytest.raises(InvalidParameterError, match="the same vector"):
        fit_center(np.repeat(X[:1], MIN_TO_CENTER, axis=0), FakeBackend().spec)


def test_a_centered_name_says_that_it_belongs_to_a_collection():
    with pytest.raises(UnknownModelError, match=r"index PATH --model NAME#centered.*reduce-dim --center"):
        find_model("efficientnet-lite0#centered")


def test_keeps_the_directions_of_most_variance(X, projection):
    # The textbook's way: eigenvectors of the covariance.
    values, vectors = np.linalg.eigh(np.cov(X.T.astype(np.float64)))
    wanted = vectors[:, np.argsort(-values)[:12]].T
    np.testing.assert_allclose(np.abs((projection.components * wanted).sum(1)), 1, atol=1e-4)
    assert projection.variance_kept == pytest.approx(
        np.sort(values)[::-1][:12].sum() / values.sum(), abs=1e-5
    )
    short = (X[0] - X.mean(0)) @ projection.components.T
    np.testing.assert_allclose(projection.apply(X[:1])[0], short / np.linalg.norm(short), atol=1e-5)


def test_the_mean_has_no_direction(projection):
    assert not projection.apply(projection.mean[None]).any()


def test_is_saved_and_read_back(projection, tmp_path):
    projection.save(tmp_path / "p.npz")
    again = Projection.load(tmp_path / "p.npz")
    assert again.sha256 == projection.sha256
    assert again.base == projection.base
    assert again.variance_kept == projection.variance_kept


def test_is_the_same_model_in_any_place(projection, X):
    one, other = projection.spec("pca:/a"), projection.spec("pca:/b")
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != projection.base.fingerprint
    assert fit_projection(X[:200], 12, projection.base).spec("pca:/a").fingerprint != one.fingerprint


def test_is_found_by_name(tmp_path, cache_dir):
    base = find_model("efficientnet-lite0").spec
    rng = np.random.default_rng(0)
    projection = fit_projection(rng.standard_normal((40, 1280)).astype(np.float32), 5, base)
    projection.save(tmp_path / "p.npz")
    from PIL import Image

    image = Image.radial_gradient("L").convert("RGB")
    short, exact = (load_model(name, cache_dir=cache_dir) for name in (f"pca:{tmp_path}/p.npz", base.id))
    wanted = projection.apply(exact.embed([exact.prepare(image)]))
    np.testing.assert_allclose(short.embed([short.prepare(image)]), wanted, atol=1e-6)
    assert short.spec.dim == 5


@pytest.mark.parametrize(
    ("dim", "n", "message"), [(0, 300, "dim is 0"), (DIM, 300, "dim is 64"), (12, 12, "13 are needed")]
)
def test_bad_dimensions(X, dim, n, message):
    with pytest.raises(InvalidParameterError, match=message):
        fit_projection(X[:n], dim, FakeBackend().spec)


def test_images_that_are_all_the_same(X):
    with pytest.raises(InvalidParameterError, match="no direction to keep"):
        fit_projection(np.repeat(X[:1], 30, axis=0), 3, FakeBackend().spec)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"{}"])
def test_damaged_files(tmp_path, content):
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(WeightsError, match="is not a projection"):
        find_model(f"pca:{tmp_path}/p.npz")


def test_no_such_file(tmp_path):
    with pytest.raises(UnknownModelError, match="There is no file"):
        find_model(f"pca:{tmp_path}/p.npz")


@pytest.mark.slow
def test_a_projection_of_another_model_is_refused(tmp_path, X):
    from dataclasses import replace

    base = replace(find_model("efficientnet-lite0").spec, weights_sha256="0" * 64)
    rng = np.random.default_rng(0)
    fit_projection(rng.standard_normal((9, 1280)).astype(np.float32), 3, base).save(tmp_path / "p.npz")
    with pytest.raises(WeightsError, match="weights_sha256"):
        find_model(f"pca:{tmp_path}/p.npz")


def test_restoring_finds_the_distance_from_the_mean(X):
    # With every direction that the vectors have but one, hardly anything is lost.
    projection = fit_projection(X, DIM - 1, FakeBackend().spec)
    restored = projection.restore(projection.apply(X))
    assert (restored * X).sum(1).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(restored, axis=1), 1, atol=1e-5)
    # And the directions alone would not do.
    alone = projection.apply(X) @ projection.components
    assert (alone * X).sum(1).mean() < (restored * X).sum(1).mean()


@pytest.mark.slow
def test_words_go_through_the_vectors_in_full(tmp_path, cache_dir):
    words = pytest.importorskip("nearsight.models.text.minilm")
    if words.locate() is None:
        pytest.skip("the text encoder is not installed")
    base = load_model("efficientnet-lite0", cache_dir=cache_dir)
    from nearsight.testing.backends import example_images

    X = base.embed([base.prepare(image) for image in example_images(30)])
    fit_projection(X, 20, base.spec).save(tmp_path / "p.npz")
    name = f"pca:{tmp_path}/p.npz"
    near, exact = load_text_encoder(name, cache_dir=cache_dir), load_text_encoder(cache_dir=cache_dir)
    short = load_model(name, cache_dir=cache_dir)
    assert near.spec == short.spec
    queries = near.embed(["a dog", "a house"])
    np.testing.assert_array_equal(queries, exact.embed(["a dog", "a house"]))
    shorter = short.embed([short.prepare(image) for image in example_images(30)])
    similarities = near.to_text_space(shorter) @ queries.T
    wanted = exact.to_text_space(X) @ queries.T
    assert np.corrcoef(similarities[:, 0], wanted[:, 0])[0, 1] > 0.9
    assert near.to_image_space(queries).shape == (2, 20)
    assert near.logits(shorter, queries).shape == (30, 2)
    assert near.prompt == exact.prompt
    assert not near.shares_space
