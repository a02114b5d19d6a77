"""Verifies proposed pairs of duplicates: the details of their thumbnails must agree."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nearsight import progress
from nearsight.collection import Collection
from nearsight.collection.arrays import VectorTable, iter_thumbnails
from nearsight.parallel import ordered_map
from nearsight.verification import dense

T = TypeVar("T")

# Pairs that a thread compares in one call.
_PAIRS_PER_CALL = 512
# Shorter steps show no progress bar: it would only flicker.
_MIN_SHOWN = 1024

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GrayThumbnails:
    """Small gray versions of a collection's thumbnails.

    Attributes
    ----------
    pixels : ndarray of shape (n, 96, 96), uint8
        Zeros for an image without a thumbnail.
    is_present : ndarray of shape (n,), bool
        Whether an image has a thumbnail.
    aspects : ndarray of shape (n,), float32
        Width over height of the original.
    """

    pixels: NDArray[np.uint8]
    is_present: NDArray[np.bool_]
    aspects: NDArray[np.float32]


def read_gray_thumbnails(
    collection: Collection, table: VectorTable, *, n_threads: int, show_progress: bool | None
) -> GrayThumbnails:
    """Read a gray thumbnail of each image of a table that has the columns ``width`` and ``height``."""
    n = len(table)
    width, height = (np.array(table.columns[name], np.float32) for name in ("width", "height"))
    # Pages of zeros that are never written take no memory.
    pixels, is_present = np.zeros((n, dense.SIDE_PX, dense.SIDE_PX), np.uint8), np.zeros(n, bool)
    with _bar("reading thumbnails", n, "images", show_progress) as bar:
        for row, thumbnail in map_thumbnails(
            collection, table.ids, dense.gray_thumbnail, n_threads=n_threads
        ):
            pixels[row], is_present[row] = thumbnail, True
            bar.update()
    aspects = np.maximum(width, 1) / np.maximum(height, 1)
    return GrayThumbnails(pixels, is_present, aspects.astype(np.float32))


def verify(
    thumbnails: GrayThumbnails, left: Ints, right: Ints, *, n_threads: int, show_progress: bool | None
) -> NDArray[np.float32]:
    """Return how well the two images of each pair agree.

    Parameters
    ----------
    thumbnails : GrayThumbnails
    left, right : ndarray of shape (m,), int64
        Rows of the two images; their order makes no difference.
    n_threads : int
    show_progress : bool or None
        None: where stderr is a terminal.

    Returns
    -------
    ndarray of shape (m,), float32
        See `dense.register`; NaN where an image has no thumbnail.
    """
    # The lower row first: the other way round, the last digits differ.
    pairs = np.sort(np.stack([left, right], axis=1), axis=1)
    agreements = np.full(len(pairs), np.nan, np.float32)
    comparable = np.flatnonzero(thumbnails.is_present[pairs].all(axis=1))
    parts = [comparable[at : at + _PAIRS_PER_CALL] for at in range(0, len(comparable), _PAIRS_PER_CALL)]

    def compare(part: Ints) -> NDArray[np.float32]:
        return dense.register(thumbnails.pixels, pairs[part], thumbnails.aspects).agreement

    # Matrix products as small as these are slower on several threads.
    with (
        _bar("comparing images", len(comparable), "pairs", show_progress) as bar,
        threadpool_limits(1, "blas"),
    ):
        for part, values in zip(parts, ordered_map(compare, parts, n_threads=n_threads), strict=True):
            agreements[part] = values
            bar.update(len(part))
    return agreements


def map_thumbnails(
    collection: Collection, ids: Sequence[str], function: Callable[[bytes], T], *, n_threads: int
) -> Iterator[tuple[int, T]]:
    """Yield the position in `ids` and the function's result for each image with a thumbnail, in any order."""
    positions = {id: position for position, id in enumerate(ids)}
    thumbnails = (
        (positions[id], jpeg)
        for chunk in iter_thumbnails(collection, ids)
        for id, jpeg in chunk.items()
        if id in positions
    )
    yield from ordered_map(lambda pair: (pair[0], function(pair[1])), thumbnails, n_threads=n_threads)


def _bar(description: str, total: int, unit: str, show_progress: bool | None) -> progress.Bar:
    shown = show_progress if total >= _MIN_SHOWN else False
    return progress.bar(description, total, unit=unit, progress=shown)
