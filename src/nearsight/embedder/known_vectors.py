"""Gives a collection the vectors that its model made of the same images before."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight.embedder.embedder import Embedder
from nearsight.embedder.results import Embedded
from nearsight.errors import ImageFailure
from nearsight.images import ImageSource
from nearsight.models import ModelSpec


class KnownVectors(Embedder):
    """Decodes images for what a collection holds besides vectors, and runs no network.

    Parameters
    ----------
    spec : ModelSpec
        Of the model that made the vectors.
    decode_px : int or None
        Its `Backend.decode_px`.
    vectors : mapping of str to ndarray of shape (dim,), float32
        By the images' content ids. An image without one is a failure.
    progress : bool, optional
        See `Embedder`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        decode_px: int | None,
        vectors: Mapping[str, NDArray[np.float32]],
        *,
        progress: bool | None = None,
    ) -> None:
        # In threads: the speed of processes would be measured, and remembered as that of the model.
        super().__init__(NoNetwork(spec, decode_px), n_processes=0, progress=progress)
        self._vectors = vectors

    def stream(
        self, sources: Iterable[ImageSource | ImageFailure], **options: Any
    ) -> Generator[Embedded | ImageFailure, None, None]:
        """Yield results in input order, see `Embedder.stream`."""
        for result in super().stream(sources, **options):
            if isinstance(result, ImageFailure) or result.vector is None:
                yield result
            elif result.id in self._vectors:
                yield replace(result, vector=self._vectors[result.id])
            else:
                yield ImageFailure(result.source.path, "the model could not use it")


@dataclass(frozen=True)
class NoNetwork:
    """Stands for a model whose vectors come from elsewhere.

    Attributes
    ----------
    spec : ModelSpec
    decode_px : int or None
        See `Backend`.
    """

    spec: ModelSpec
    decode_px: int | None

    def prepare(self, image: Image.Image) -> None:
        """Prepare nothing."""

    def embed(self, prepared: Sequence[None]) -> NDArray[np.float32]:
        """Return vectors that are replaced."""
        return np.ones((len(prepared), self.spec.dim), np.float32)
