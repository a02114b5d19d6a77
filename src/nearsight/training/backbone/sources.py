"""What a network learns from, kept in files that are mapped into memory: feature maps, and small images."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight import images, processor
from nearsight.artifacts import exported
from nearsight.embedder import Embedder
from nearsight.errors import ImageFailure
from nearsight.models.base import Backend
from nearsight.models.preprocess import normalize, resize_and_crop
from nearsight.models.spec import ModelSpec
from nearsight.parallel import ordered_map
from nearsight.progress import bar, track
from nearsight.training.augmentation import Augmentation, ViewsBackend, view
from nearsight.training.feature_embedder import gone

Ints = NDArray[np.integer]

# Images whose feature maps are computed, written and counted at once.
_N_AT_ONCE = 256
# Stored images are so much longer at their short side than the network's input, so that crops stay sharp.
_SIDE_FACTOR = 1.4
# The views 0 and 1 are the same in each epoch: the image and its mirror image.
_FIRST_DRAWN_VIEW = 2


@dataclass(frozen=True)
class StoredMaps:
    """Feature maps of a few views of each image, the same in each epoch.

    Attributes
    ----------
    file : Path
        An array of float16 of shape (n, n_views, c, h, w).
    n_views : int
    """

    file: Path
    n_views: int

    @cached_property
    def _maps(self) -> NDArray[np.float16]:
        maps: NDArray[np.float16] = np.load(self.file, mmap_mode="r")
        return maps

    def __getstate__(self) -> dict[str, object]:
        return {"file": self.file, "n_views": self.n_views}

    def views(self, rows: Ints, numbers: Ints, epoch: int) -> NDArray[np.float32]:
        """Return the maps of views by their numbers."""
        return self._maps[rows, numbers].astype(np.float32)

    def plain(self, rows: Ints) -> NDArray[np.float32]:
        """Return the maps of the images themselves."""
        return self.views(rows, np.zeros(len(rows), int), 0)


def cached_maps(
    folder: Path,
    backend: Backend,
    shape: tuple[int, int, int],
    paths: Sequence[str],
    augmentation: Augmentation,
    n_views: int,
    *,
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> StoredMaps:
    """Compute the feature maps of views of images; what an earlier call has written is not computed again.

    Parameters
    ----------
    folder : Path
        Takes ``maps.npy``, and ``maps.json`` with the number of images that are in it.
    backend : Backend
        Its vectors are flattened feature maps.
    shape : tuple of int
        Channels, height and width of a feature map.
    paths : sequence of str
    augmentation : Augmentation
    n_views : int
    cache_dir, progress
        See `nearsight.Embedder`.

    Raises
    ------
    StorageError
        The disk refuses, or an image that could be read before cannot be read now.
    """
    file, counter = folder / "maps.npy", folder / "maps.json"
    n_done = json.loads(counter.read_text())["images"] if counter.exists() and file.exists() else 0
    wanted = (len(paths), n_views, *shape)
    if n_done == 0:
        np.lib.format.open_memmap(file, "w+", np.float16, wanted).flush()
    maps = np.lib.format.open_memmap(file, "r+")
    embedder = Embedder(ViewsBackend(backend, augmentation, n_views), cache_dir=cache_dir, progress=False)
    with bar("computing feature maps", len(paths), progress=progress) as shown:
        shown.update(n_done)
        for start in range(n_done, len(paths), _N_AT_ONCE):
            chunk = list(paths[start : start + _N_AT_ONCE])
            result = embedder.embed(chunk)
            if result.failed:
                raise gone(result.failed[0])
            maps[start : start + len(chunk)] = result.vectors.reshape(len(chunk), n_views, *shape)
            maps.flush()
            with exported(counter) as out:
                out.write(json.dumps({"images": start + len(chunk)}).encode())
            shown.update(len(chunk))
    return StoredMaps(file, n_views)


@dataclass(frozen=True)
class StoredImages:
    """Small images, of which each epoch draws another view.

    Attributes
    ----------
    file : Path
        The pixels of all images, one after the other.
    sizes : ndarray of shape (n, 2), int
        Height and width.
    augmentation : Augmentation
    spec : ModelSpec
        How the network's input is made of an image.
    """

    file: Path
    sizes: Ints
    augmentation: Augmentation
    spec: ModelSpec
    n_views: int = 1

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        return np.memmap(self.file, np.uint8, "r")

    @cached_property
    def _starts(self) -> Ints:
        return np.concatenate([[0], np.cumsum(3 * self.sizes.prod(axis=1))])

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(processor.n_cores())

    def __getstate__(self) -> dict[str, object]:
        names = ("file", "sizes", "augmentation", "spec", "n_views")
        return {name: getattr(self, name) for name in names}

    def image(self, row: int) -> Image.Image:
        """Return a stored image."""
        pixels = self._pixels[self._starts[row] : self._starts[row + 1]]
        return Image.fromarray(pixels.reshape(*self.sizes[row], 3))

    def views(self, rows: Ints, numbers: Ints, epoch: int) -> NDArray[np.float32]:
        """Return inputs of the network: views that this epoch draws."""
        drawn = _FIRST_DRAWN_VIEW + epoch * self.n_views + np.asarray(numbers)
        return self._inputs(rows, drawn)

    def plain(self, rows: Ints) -> NDArray[np.float32]:
        """Return inputs of the network of the images themselves."""
        return self._inputs(rows, np.zeros(len(rows), int))

    def _inputs(self, rows: Ints, numbers: Ints) -> NDArray[np.float32]:
        return np.stack(list(self._threads.map(self._input, rows.tolist(), numbers.tolist())))

    def _input(self, row: int, number: int) -> NDArray[np.float32]:
        shown = view(self.image(row), self.augmentation, number)
        return normalize(resize_and_crop(shown, self.spec), self.spec)


def stored_images(
    folder: Path,
    paths: Sequence[str],
    augmentation: Augmentation,
    spec: ModelSpec,
    *,
    progress: bool | None = None,
) -> StoredImages:
    """Decode images once and store them small; what an earlier call has written whole is used again.

    Parameters
    ----------
    folder : Path
        Takes ``images.u8``, and ``images.npy`` with their sizes, written last.
    paths : sequence of str
    augmentation : Augmentation
    spec : ModelSpec
    progress : bool, optional

    Raises
    ------
    StorageError
        The disk refuses, or an image that could be read before cannot be read now.
    """
    file, sizes_file = folder / "images.u8", folder / "images.npy"
    if not sizes_file.exists():
        side = round(_SIDE_FACTOR * max(spec.resize_px, *spec.input_px))
        sizes = []
        with exported(file) as out:
            found = ordered_map(
                lambda source: _small(source, side),
                images.find(list(paths)),
                n_threads=processor.n_cores(),
            )
            for pixels in track(found, "decoding images", total=len(paths), progress=progress):
                out.write(pixels.tobytes())
                sizes.append(pixels.shape[:2])
        with exported(sizes_file) as out:
            np.save(out, np.array(sizes))
    return StoredImages(file, np.load(sizes_file), augmentation, spec)


def _small(source: images.ImageSource | ImageFailure, side_px: int) -> NDArray[np.uint8]:
    if isinstance(source, ImageFailure):
        raise gone(source)
    image = images.decode(source, min_side_px=side_px).image
    factor = side_px / min(image.size)
    if factor < 1:
        width, height = (max(1, round(factor * length)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)
