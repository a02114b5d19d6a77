"""Conformance tests of the `Backend` protocol."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nearsight.images import DECODER_RULES
from nearsight.models import Backend, Fingerprint, spec


def example_images(n: int) -> list[Image.Image]:
    """Return n different images of several sizes; the first has one pixel, the second one color."""
    rng = np.random.default_rng(7)
    images = [Image.new("RGB", (1, 1), (10, 200, 30)), Image.new("RGB", (40, 300), (250, 250, 250))]
    while len(images) < n:
        width, height, cell = (int(rng.integers(low, high)) for low, high in ((50, 700), (50, 700), (2, 40)))
        cells = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
        images.append(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))
    return images[:n]


class BackendTests:
    """The tests of a backend: give the fixture `backend`.

    Attributes
    ----------
    blank_is_zero : bool
        Whether the vector of an image of one color is all zeros.

    Examples
    --------
    A test module of a backend::

        import pytest

        from nearsight.testing import BackendTests

        class TestMyBackend(BackendTests):
            @pytest.fixture
            def backend(self):
                return MyBackend()
    """

    blank_is_zero = False

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError("a subclass of BackendTests must define the fixture backend")

    @pytest.fixture
    def prepared(self, backend: Backend) -> list[Any]:
        return [backend.prepare(image) for image in example_images(9)]

    @pytest.fixture
    def vectors(self, backend: Backend, prepared: list[Any]) -> NDArray[np.float32]:
        return backend.embed(prepared)

    def test_is_a_backend(self, backend: Backend) -> None:
        assert isinstance(backend, Backend)
        assert backend.decode_px is None or backend.decode_px > 0

    def test_shape_and_dtype(self, backend: Backend, vectors: NDArray[np.float32]) -> None:
        assert vectors.shape == (9, backend.spec.dim)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()

    def test_unit_length(self, backend: Backend, vectors: NDArray[np.float32]) -> None:
        if backend.spec.normalize:
            lengths = np.ones(len(vectors))
            lengths[:2] -= self.blank_is_zero
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), lengths, atol=1e-5)

    def test_different_images_have_different_vectors(self, vectors: NDArray[np.float32]) -> None:
        similarities = vectors @ vectors.T
        assert similarities[~np.eye(len(vectors), dtype=bool)].max() < 0.999

    def test_no_images_give_no_vectors(self, backend: Backend) -> None:
        vectors = backend.embed([])
        assert vectors.shape == (0, backend.spec.dim)
        assert vectors.dtype == np.float32

    def test_the_same_images_give_the_same_vectors(
        self, backend: Backend, prepared: list[Any], vectors: NDArray[np.float32]
    ) -> None:
        np.testing.assert_array_equal(backend.embed(prepared), vectors)

    @pytest.mark.parametrize("size", [1, 2, 4])
    def test_vectors_do_not_depend_on_the_batch(
        self, backend: Backend, prepared: list[Any], vectors: NDArray[np.float32], size: int
    ) -> None:
        batches = [backend.embed(prepared[i : i + size]) for i in range(0, len(prepared), size)]
        np.testing.assert_allclose(np.concatenate(batches), vectors, atol=1e-5)

    def test_order_is_kept(self, backend: Backend, prepared: list[Any], vectors: NDArray[np.float32]) -> None:
        np.testing.assert_allclose(backend.embed(prepared[::-1]), vectors[::-1], atol=1e-5)

    def test_preparation_does_not_change_the_image(self, backend: Backend) -> None:
        image = example_images(3)[2]
        before = image.tobytes()
        backend.embed([backend.prepare(image)])
        assert image.tobytes() == before

    def test_results_belong_to_the_caller(self, backend: Backend, prepared: list[Any]) -> None:
        first = backend.embed(prepared[2:3])
        cached_bytes = first.copy()
        backend.embed(prepared[3:4])[:] = 0
        np.testing.assert_array_equal(first, cached_bytes)

    def test_threads(self, backend: Backend, vectors: NDArray[np.float32]) -> None:
        images = example_images(9)

        def embed(i: int) -> NDArray[np.float32]:
            vector: NDArray[np.float32] = backend.embed([backend.prepare(images[i % 9])])[0]
            return vector

        with ThreadPoolExecutor(4) as pool:
            results = np.stack(list(pool.map(embed, range(27))))
        np.testing.assert_allclose(results, np.tile(vectors, (3, 1)), atol=1e-5)

    def test_pickling(self, backend: Backend, prepared: list[Any], vectors: NDArray[np.float32]) -> None:
        again = pickle.loads(pickle.dumps(backend))
        assert again.spec == backend.spec
        np.testing.assert_allclose(again.embed(prepared), vectors, atol=1e-5)

    def test_fingerprint_survives_a_manifest(self, backend: Backend) -> None:
        fingerprint = backend.spec.fingerprint
        assert Fingerprint.from_dict(fingerprint.to_dict()) == fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            {"weights_sha256": "0" * 64},
            {"input_px": (10, 10), "resize_px": 1000},
            {"resize_mode": "shrink"},
            {"resize_mode": "squash-crop", "resize_px": 1001},
            {"resize_mode": "squash-crop", "resize_px": 1000, "crop_rounding": "down"},
            {"interpolation": "nearest"},
            {"mean": (0.1, 0.2, 0.3)},
            {"std": (0.1, 0.2, 0.3)},
            {"layer": "another"},
            {"pooling": "patches"},
            {"dim": 7},
            {"precision": "another"},
            {"identity": "another"},
            {"draft": None},
            {"normalize": None},
        ],
        ids=lambda change: "-".join(change),
    )
    def test_what_changes_vectors_changes_the_fingerprint(
        self, backend: Backend, change: dict[str, Any]
    ) -> None:
        # None stands for the opposite of a bool.
        change = {k: not getattr(backend.spec, k) if v is None else v for k, v in change.items()}
        if change == {"resize_mode": backend.spec.resize_mode}:
            change = {"resize_mode": "squash"}
        changed = replace(backend.spec, **change)
        assert changed.fingerprint != backend.spec.fingerprint

    def test_another_decoder_rule_changes_the_fingerprint(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = backend.spec.fingerprint
        monkeypatch.setattr(spec, "DECODER_RULES", {**DECODER_RULES, "version": -1})
        assert backend.spec.fingerprint != before

    def test_facts_for_users_do_not_change_the_fingerprint(self, backend: Backend) -> None:
        facts: dict[str, Any] = dict.fromkeys(("source", "license", "training_data", "accuracy"), "x")
        facts |= {"size_bytes": 1, "matryoshka_dims": (1,)}
        assert replace(backend.spec, **facts).fingerprint == backend.spec.fingerprint
