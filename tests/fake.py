"""A real backend that is tiny: for tests of everything above models."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.models.preprocess import preprocess
from nearsight.models.spec import ModelSpec

SIDE_PX = 16
DIM = 64


class FakeBackend:
    """Random projection of a 16×16 image to 64 numbers of unit length.

    Like images get like vectors, and it costs microseconds. Backends of one seed share a fingerprint;
    those of different seeds do not.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        rng = np.random.default_rng(seed)
        self._projection = rng.standard_normal((3 * SIDE_PX**2, DIM)).astype(np.float32)
        self.spec = ModelSpec(
            id="fake",
            dim=DIM,
            weights_sha256=hashlib.sha256(self._projection.tobytes()).hexdigest(),
            input_px=(SIDE_PX, SIDE_PX),
            resize_px=SIDE_PX,
            interpolation="bilinear",
            license="Apache-2.0",
            size_bytes=self._projection.nbytes,
        )

    @property
    def decode_px(self) -> int:
        return SIDE_PX

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        return preprocess(image, self.spec).ravel()

    def embed(self, prepared: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        vectors = np.empty((len(prepared), DIM), np.float32)
        # One by one: a product of matrices rounds by their shape, and a vector must not depend on its batch.
        for vector, pixels in zip(vectors, prepared, strict=True):
            projected = pixels @ self._projection
            vector[:] = projected / np.linalg.norm(projected)
        return vectors
