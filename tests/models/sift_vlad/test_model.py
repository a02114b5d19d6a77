"""The classical baseline: gathered as defined, learned the same each time, loaded by name."""

import dataclasses
import logging
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from nearsight.collection import Collection
from nearsight.embedder import Embedder
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, MissingExtraError, WeightsError
from nearsight.models import Backend, find_model, list_models, load_model
from nearsight.models.sift_vlad.model import (
    SiftVlad,
    _learn_whitening,
    _RandomSample,
    _read_all,
    fit_sift_vlad,
    vlad,
)
from nearsight.models.sift_vlad.vocabulary import Method
from nearsight.testing import BackendTests
from nearsight.verification.sift import root_sift

from sample_images import encoded, texture

SMALL = {"n_words": 8, "size_px": 160, "max_features": 100}


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [texture(seed=seed) for seed in range(10)]


@pytest.fixture(scope="module")
def plain(photos: list[Image.Image]) -> SiftVlad:
    return fit_sift_vlad(photos, **SMALL)


@pytest.fixture(scope="module")
def whitened(photos: list[Image.Image]) -> SiftVlad:
    return fit_sift_vlad(photos, dim=6, **SMALL)


class TestPlain(BackendTests):
    blank_is_zero = True

    @pytest.fixture
    def backend(self, plain: SiftVlad) -> Backend:
        return plain


class TestWhitened(BackendTests):
    blank_is_zero = True

    @pytest.fixture
    def backend(self, whitened: SiftVlad) -> Backend:
        return whitened


def naive_vlad(descriptors: np.ndarray, words: np.ndarray, power: float, intra: bool) -> np.ndarray:
    sums = [[0.0] * words.shape[1] for _ in words]
    for descriptor in descriptors.astype(float):
        distances = [sum((descriptor - word) ** 2) for word in words.astype(float)]
        nearest = distances.index(min(distances))
        for i, value in enumerate(descriptor - words[nearest]):
            sums[nearest][i] += value
    if intra:
        sums = [[v / length for v in part] if (length := np.linalg.norm(part)) else part for part in sums]
    flat = [np.sign(v) * abs(v) ** power for part in sums for v in part]
    return np.array(flat) / np.linalg.norm(flat)


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("intra", [False, True])
def test_vlad_is_as_defined(power: float, intra: bool) -> None:
    rng = np.random.default_rng(1)
    words = rng.random((5, 12), np.float32)
    words[4] = 99  # nobody's nearest
    descriptors = rng.random((40, 12), np.float32)
    found = vlad(descriptors, words, power=power, intra_normalize=intra)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_vlad(descriptors, words, power, intra), atol=2e-5)
    assert not found[-12:].any()
    assert not vlad(descriptors[:0], words, power=power, intra_normalize=intra).any()


def test_a_vector_is_that_of_the_method(plain: SiftVlad, photos: list[Image.Image]) -> None:
    prepared = plain.prepare(photos[0])
    method = plain.vocabulary.method
    expected = naive_vlad(root_sift(prepared), plain.vocabulary.words, method.power, method.intra_normalize)
    np.testing.assert_allclose(plain.embed([prepared])[0], expected, atol=2e-5)
    assert plain.spec.dim == 8 * 128
    assert plain.decode_px == 160


def test_whitening_makes_directions_alike() -> None:
    rng = np.random.default_rng(2)
    vectors = (rng.standard_normal((50, 9)) @ rng.standard_normal((9, 9)) + 5).astype(np.float32)
    mean, projection = _learn_whitening(vectors, 4)
    white = (vectors - mean) @ projection
    np.testing.assert_allclose(np.cov(white.T), np.eye(4), atol=1e-3)


def test_learning_is_repeatable(plain: SiftVlad, whitened: SiftVlad, photos: list[Image.Image]) -> None:
    again = fit_sift_vlad(photos, dim=6, **SMALL)
    assert again.spec.fingerprint == whitened.spec.fingerprint
    other = fit_sift_vlad(photos, random_state=1, **SMALL)
    assert other.vocabulary.sha256 != plain.vocabulary.sha256
    assert plain.vocabulary.learned_from.startswith("10 images, ")


@pytest.mark.parametrize(
    "change",
    [{"size_px": 161}, {"max_features": 99}, {"power": 0.4}, {"intra_normalize": False}, {"version": 2}],
)
def test_every_choice_changes_the_fingerprint(plain: SiftVlad, change: dict[str, object]) -> None:
    method = dataclasses.replace(plain.vocabulary.method, **change)
    other = SiftVlad(dataclasses.replace(plain.vocabulary, method=method), id=plain.spec.id)
    assert other.spec.fingerprint != plain.spec.fingerprint
    assert {*change} <= {field.name for field in dataclasses.fields(Method)}


def test_what_cannot_be_used_is_left_out(
    photos: list[Image.Image], plain: SiftVlad, caplog: pytest.LogCaptureFixture
) -> None:
    blank = Image.new("RGB", (50, 50))
    broken = encoded(photos[0], "PNG")[:500]
    with caplog.at_level(logging.WARNING):
        found = fit_sift_vlad([broken, *photos, blank, "no/such.jpg"], **SMALL)
    assert found.vocabulary.sha256 == plain.vocabulary.sha256
    assert found.vocabulary.learned_from == plain.vocabulary.learned_from
    assert [record.message.split(":")[0] for record in caplog.records] == ["<image 1>", "no/such.jpg"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_words": 0}, "n_words is 0; it must be at least 1"),
        ({"dim": 0}, "dim is 0"),
        ({"size_px": -1}, "size_px is -1"),
        ({"max_features": 0}, "max_features is 0"),
        ({"power": 0}, "power is 0; it must be greater than 0"),
        ({"power": 1.5}, "power is 1.5"),
        ({"n_words": 5000}, "n_words is 5000, but the images have .* keypoints altogether; give more"),
        ({"dim": 2}, "dim is 2, but 2 images .* span 1; give more images"),
    ],
)
def test_parameters_out_of_range(photos: list[Image.Image], parameters: dict, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        fit_sift_vlad(photos[:2], **{**SMALL, **parameters})


def test_the_sample_is_bounded_and_fair() -> None:
    sample = _RandomSample(60, np.random.default_rng(0))
    for number in range(200):
        sample.add(np.full((3, 128), number, np.uint8))
        assert sum(map(len, sample._rows)) <= 120
    rows = sample.rows()[:, 0]
    assert len(rows) == 60
    assert (np.diff(rows.astype(int)) >= 0).all()
    # Of 60 fair draws, 30 are expected from either half, give or take 4.
    assert 18 < (rows < 100).sum() < 42


def test_a_random_few_are_kept(plain: SiftVlad, photos: list[Image.Image]) -> None:
    rng = np.random.default_rng(0)
    named = [(str(number), photo.resize((60, 45))) for number, photo in enumerate(photos)]
    draws = [_read_all(named, plain, 3, rng) for _ in range(20)]
    assert {n_used for _, n_used, _ in draws} == {10}
    assert all(len({source.path for source in cached_bytes}) == 3 for _, _, cached_bytes in draws)
    # Each of ten is drawn 6 times of 20 on average; none is always or never there.
    times = Counter(source.path for _, _, cached_bytes in draws for source in cached_bytes)
    assert len(times) == 10
    assert max(times.values()) < 15


def test_saved_and_loaded_by_name(
    tmp_path: Path, whitened: SiftVlad, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved = whitened.save("mine.npz")
    assert saved.spec.id == f"sift-vlad:{tmp_path / 'mine.npz'}"
    assert saved.spec.size_bytes == (tmp_path / "mine.npz").stat().st_size
    assert saved.spec.weights_sha256 == whitened.spec.weights_sha256
    assert find_model("sift-vlad:mine.npz").spec == saved.spec
    loaded = load_model(saved.spec.id)
    prepared = [loaded.prepare(texture(seed=77))]
    np.testing.assert_array_equal(loaded.embed(prepared), whitened.embed(prepared))
    assert find_model(saved.spec.id).available()


def test_a_name_without_a_file(plain: SiftVlad, tmp_path: Path) -> None:
    assert plain.spec.id == f"sift-vlad:unsaved-{plain.vocabulary.sha256[:12]}"
    with pytest.raises(WeightsError, match="no vocabulary at .*unsaved-.* fit_sift_vlad[(]IMAGES[)].save"):
        load_model(plain.spec.id)


def test_a_collection_finds_its_model_again(
    tmp_path: Path, plain: SiftVlad, photos: list[Image.Image]
) -> None:
    saved = plain.save(tmp_path / "mine.npz")
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, photo in enumerate(photos):
        photo.save(folder / f"{number}.png")
    Collection.create(tmp_path / "c", model=saved).add(folder)
    turned = photos[3].rotate(30, Image.Resampling.BICUBIC, expand=True)
    best = Collection.open(tmp_path / "c").search(turned, k=1)[0]
    assert Path(best.path).name == "3.png"
    fit_sift_vlad(photos, random_state=1, **SMALL).save(tmp_path / "mine.npz")
    with pytest.raises(FingerprintMismatchError, match="weights_sha256"):
        Collection.open(tmp_path / "c").search(turned, k=1)


def test_a_blank_image_is_a_failure(plain: SiftVlad, photos: list[Image.Image]) -> None:
    found = Embedder(plain).embed([photos[0], Image.new("RGB", (200, 100), "white")])
    assert found.positions.tolist() == [0]
    [failure] = found.failed
    assert "all zeros" in failure.reason


class TestShipped:
    """The vocabulary that comes along."""

    def test_facts(self) -> None:
        entry = find_model("sift-vlad")
        assert entry.spec in [known.spec for known in list_models()]
        assert entry.available()
        assert entry.spec.dim == 64 * 128
        assert entry.spec.license == "Apache-2.0"
        assert 0 < entry.spec.size_bytes < 64 * 1024
        # Collections hold it: another vocabulary or method must be another model, and is on purpose.
        assert entry.spec.weights_sha256 == (
            "93648b1d00429cd30a160f5de6f8612d6339a63c51bcb4f91b0bb2aef593202e"
        )

    def test_finds_edits_among_others(self) -> None:
        model = load_model("sift-vlad")
        images = [texture(320, 240, seed) for seed in range(8)]
        photo = images[5]
        edits = [
            photo.crop((60, 40, 280, 220)),
            photo.rotate(25, Image.Resampling.BICUBIC, expand=True),
            photo.resize((200, 150), Image.Resampling.LANCZOS),
            ImageOps.autocontrast(photo.point(lambda v: v * 0.6 + 40)),
        ]
        index = model.embed([model.prepare(image) for image in images])
        found = model.embed([model.prepare(edit) for edit in edits]) @ index.T
        assert found.argmax(axis=1).tolist() == [5] * 4
        np.testing.assert_array_less(np.delete(found, 5, axis=1).max(axis=1) + 0.05, found[:, 5])

    def test_without_opencv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert not find_model("sift-vlad").available()
        monkeypatch.setitem(sys.modules, "cv2", None)
        with pytest.raises(MissingExtraError, match="nearsight\\[sift\\]"):
            load_model("sift-vlad")
