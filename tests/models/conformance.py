"""What every backend must do. Subclass it, and give a fixture `backend`."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nearsight.models import Backend, Fingerprint, spec


def images(n: int) -> list[Image.Image]:
    """Return n unlike images of odd sizes, a flat one and a one-pixel one among them."""
    rng = np.random.default_rng(7)
    made = [Image.new("RGB", (1, 1), (10, 200, 30)), Image.new("RGB", (40, 300), (250, 250, 250))]
    while len(made) < n:
        width, height, cell = rng.integers(50, 700), rng.integers(50, 700), rng.integers(2, 40)
        cells = rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), np.uint8)
        made.append(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))
    return made[:n]


class BackendConformance:
    """One promise of the `Backend` protocol per test."""

    # The first two images are flat. Where a model finds nothing in those, their vectors must be all zeros.
    blank_is_zero = False

    @pytest.fixture
    def prepared(self, backend: Backend) -> list[object]:
        return [backend.prepare(image) for image in images(9)]

    @pytest.fixture
    def vectors(self, backend: Backend, prepared: list[object]) -> np.ndarray:
        return backend.embed(prepared)

    def test_is_a_backend(self, backend: Backend) -> None:
        assert isinstance(backend, Backend)
        assert backend.decode_px is None or backend.decode_px > 0

    def test_shape_and_dtype(self, backend: Backend, vectors: np.ndarray) -> None:
        assert vectors.shape == (9, backend.spec.dim)
        assert vectors.dtype == np.float32
        assert np.isfinite(vectors).all()

    def test_unit_length(self, backend: Backend, vectors: np.ndarray) -> None:
        if backend.spec.normalize:
            lengths = np.ones(len(vectors))
            lengths[:2] -= self.blank_is_zero
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), lengths, atol=1e-5)

    def test_unlike_images_differ(self, vectors: np.ndarray) -> None:
        similarities = vectors @ vectors.T
        assert similarities[~np.eye(len(vectors), dtype=bool)].max() < 0.999

    def test_nothing_in_nothing_out(self, backend: Backend) -> None:
        nothing = backend.embed([])
        assert nothing.shape == (0, backend.spec.dim)
        assert nothing.dtype == np.float32

    def test_same_each_time(self, backend: Backend, prepared: list[object], vectors: np.ndarray) -> None:
        np.testing.assert_array_equal(backend.embed(prepared), vectors)

    @pytest.mark.parametrize("size", [1, 2, 4])
    def test_batch_does_not_matter(
        self, backend: Backend, prepared: list[object], vectors: np.ndarray, size: int
    ) -> None:
        batches = [backend.embed(prepared[i : i + size]) for i in range(0, len(prepared), size)]
        np.testing.assert_allclose(np.concatenate(batches), vectors, atol=1e-5)

    def test_order_is_kept(self, backend: Backend, prepared: list[object], vectors: np.ndarray) -> None:
        np.testing.assert_allclose(backend.embed(prepared[::-1]), vectors[::-1], atol=1e-5)

    def test_preparing_leaves_the_image_alone(self, backend: Backend) -> None:
        image = images(3)[2]
        before = image.tobytes()
        backend.embed([backend.prepare(image)])
        assert image.tobytes() == before

    def test_results_are_the_callers(self, backend: Backend, prepared: list[object]) -> None:
        first = backend.embed(prepared[2:3])
        cached_bytes = first.copy()
        backend.embed(prepared[3:4])[:] = 0
        np.testing.assert_array_equal(first, cached_bytes)

    def test_threads(self, backend: Backend, vectors: np.ndarray) -> None:
        made = images(9)

        def embed(i: int) -> np.ndarray:
            return backend.embed([backend.prepare(made[i % 9])])[0]

        with ThreadPoolExecutor(4) as pool:
            found = np.stack(list(pool.map(embed, range(27))))
        np.testing.assert_allclose(found, np.tile(vectors, (3, 1)), atol=1e-5)

    def test_pickling(self, backend: Backend, prepared: list[object], vectors: np.ndarray) -> None:
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
        self, backend: Backend, change: dict[str, object]
    ) -> None:
        # None turns a switch over.
        change = {k: not getattr(backend.spec, k) if v is None else v for k, v in change.items()}
        if change == {"resize_mode": backend.spec.resize_mode}:
            change = {"resize_mode": "squash"}
        changed = replace(backend.spec, **change)
        assert changed.fingerprint != backend.spec.fingerprint

    def test_another_rule_of_the_decoder_changes_it(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = backend.spec.fingerprint
        monkeypatch.setattr(spec, "DECODER_RULES", {**spec.DECODER_RULES, "version": -1})
        assert backend.spec.fingerprint != before

    def test_what_is_only_told_does_not(self, backend: Backend) -> None:
        told = {"source": "x", "license": "x", "training_data": "x", "accuracy": "x", "size_bytes": 1}
        told |= {"matryoshka_dims": (1,)}
        assert replace(backend.spec, **told).fingerprint == backend.spec.fingerprint
