"""Embeds views of images once, for near-duplicates among them and for training."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.embedder import Embedded, Embedder
from nearsight.errors import ImageFailure, StorageError
from nearsight.images import ImageSource, find
from nearsight.models import Backend, ModelSpec
from nearsight.progress import Bar
from nearsight.training.augmentation import ViewsBackend, augmentation
from nearsight.training.network_features import FeatureNetwork

Floats = NDArray[np.float32]


def gone(failure: ImageFailure) -> StorageError:
    """Return what to raise where an image that could be read before cannot be read now."""
    return StorageError(
        f"{failure.path} could be read when the training began, and cannot be read now ({failure.reason}); "
        "leave the images as they are, and start again"
    )


class FeatureEmbedder:
    """Keeps the features of each image's views, so that no image is embedded twice.

    Parameters
    ----------
    network : FeatureNetwork
    augment : str
        One of `augmentation.AUGMENTATIONS`.
    n_views : int
        Views of an image, itself included.
    cache_dir, progress
        See `nearsight.Embedder`.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        augment: str,
        n_views: int,
        *,
        cache_dir: Path | None = None,
        progress: bool | None = None,
    ) -> None:
        self.network = network
        self.augment = augment
        self.n_views = n_views
        self._options: dict[str, Any] = {"cache_dir": cache_dir, "progress": progress}
        self._features: dict[str, Floats] = {}
        self._ids: dict[str, str] = {}
        self._failed: dict[str, ImageFailure] = {}
        self._shown: Bar | None = None

    def vector_embedder(self, n_views: int | None = None) -> Embedder:
        """Return what embeds images by the pretrained model for somebody else, and keeps their features here.

        Parameters
        ----------
        n_views : int, optional
            Views whose features are kept, by default all.
        """
        n_views = n_views or self.n_views
        backend = ViewsBackend(self._backend, augmentation(self.augment), n_views)
        return _VectorEmbedder(backend, self, **self._options)

    @cached_property
    def _backend(self) -> Backend:
        # It takes a third of a second to open.
        return self.network.backend()

    @contextmanager
    def one_bar(self, total: int) -> Iterator[Bar]:
        """Show the images that the block's embedders embed in one bar."""
        with self.vector_embedder().bar(total) as shown:
            self._shown = shown
            try:
                yield shown
            finally:
                self._shown = None

    def bar(self) -> Bar | None:
        """Return the open bar of `one_bar`."""
        return self._shown

    def views(
        self, paths: Sequence[str], is_judge: Sequence[bool]
    ) -> tuple[list[Floats], NDArray[np.intp], list[ImageFailure]]:
        """Return the features of images, embedding those that were not embedded yet.

        Parameters
        ----------
        paths : sequence of str
        is_judge : sequence of bool, same length
            Images that nothing is learned from; only the first of their views is needed.

        Returns
        -------
        views : list of ndarray of shape (n, d), float32
            Of the images that can be used; after the first view, images that judge have NaN.
        positions : ndarray of shape (n,), int
            Of these images in `paths`.
        failed : list of ImageFailure
        """
        missing = [path for path in paths if path not in self._ids and path not in self._failed]
        judges = {path for path, judge in zip(paths, is_judge, strict=True) if judge}
        parts = [
            (self.vector_embedder(self.n_views), [path for path in missing if path not in judges]),
            (self.vector_embedder(n_views=1), [path for path in missing if path in judges]),
        ]
        if missing:
            with self.one_bar(len(missing)) as shown:
                for embedder, part in parts:
                    for _ in embedder.stream(find(part)):
                        shown.update()
        positions = np.array([row for row, path in enumerate(paths) if path in self._ids], np.intp)
        dim = self.network.dim
        views = [np.full((len(positions), dim), np.nan, np.float32) for _ in range(self.n_views)]
        for row, position in enumerate(positions):
            features = self._features[self._ids[paths[position]]].reshape(-1, dim)
            for number, of_view in enumerate(features):
                views[number][row] = of_view
        return views, positions, [self._failed[path] for path in paths if path in self._failed]

    def all_views(self, paths: Sequence[str]) -> list[Floats]:
        """Return the features of images that could be used before.

        Raises
        ------
        StorageError
            One cannot be used now.
        """
        views, _, failed = self.views(paths, [False] * len(paths))
        if failed:
            raise gone(failed[0])
        return views

    def keep(self, path: str, id: str, features: Floats | None) -> None:
        """Remember an image's features; None where another file has the same content."""
        self._ids[path] = id
        if features is not None and len(features) > len(self._features.get(id, ())):
            self._features[id] = features

    def keep_failure(self, failure: ImageFailure) -> None:
        """Remember an image that cannot be used."""
        self._failed[failure.path] = failure


class _VectorEmbedder(Embedder):
    """Yields the pretrained model's vectors, and gives the features to their keeper."""

    def __init__(self, backend: ViewsBackend, keeper: FeatureEmbedder, **options: Any) -> None:
        super().__init__(backend, **options)
        self._keeper = keeper

    @property
    def spec(self) -> ModelSpec:
        """The facts of the vectors that are yielded."""
        return self._keeper.network.base

    def bar(self, total: int | None) -> Bar:
        """Return the progress bar of a job, or that of all jobs; see `FeatureEmbedder.one_bar`."""
        return _Shared(shown) if (shown := self._keeper.bar()) else super().bar(total)

    def stream(
        self, sources: Iterable[ImageSource | ImageFailure], **options: Any
    ) -> Generator[Embedded | ImageFailure, None, None]:
        """Yield results in input order, see `Embedder.stream`."""
        for result in super().stream(sources, **options):
            if isinstance(result, ImageFailure):
                self._keeper.keep_failure(result)
                yield result
                continue
            self._keeper.keep(result.source.path, result.id, result.vector)
            vector = None if result.vector is None else result.vector[: self.spec.dim].copy()
            yield replace(result, vector=vector)


class _Shared:
    """A bar that others go on with."""

    def __init__(self, shown: Bar) -> None:
        self.update = shown.update

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        """Leave it open."""
