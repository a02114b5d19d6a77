"""Small gray versions of a collection's thumbnails, and what is measured on thumbnails."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nearsight import progress
from nearsight.analyses.scratch_array import scratch_array
from nearsight.collection import Collection
from nearsight.collection.arrays import VectorTable, iter_thumbnails
from nearsight.parallel import WorkerPool, ordered_map
from nearsight.verification import dense

T = TypeVar("T")

# Images that a thread hashes in one call.
_IMAGES_PER_HASHING = 1024
# Images from which on processes pay: they start in a second; and where they have started.
_MIN_IMAGES_FOR_PROCESSES, _MIN_IMAGES_FOR_STARTED = 5_000, 256
# Thumbnails that a process is sent at a time.
_IMAGES_PER_BATCH = 64
#: Shorter steps show no progress bar: it would only flicker.
MIN_SHOWN = 1024

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GrayThumbnails:
    """Small gray versions of a collection's thumbnails.

    Attributes
    ----------
    collection : Collection
    ids : sequence of str, length n
    pixels : ndarray of shape (n, 96, 96), uint8
        Zeros for an image without a thumbnail.
    is_present : ndarray of shape (n,), bool
        Whether an image has a thumbnail.
    aspects : ndarray of shape (n,), float32
        Width over height of the original.
    ground_shares : ndarray of shape (n,), float32
        Share of each image that is a plain ground; NaN until `measure_grounds` was asked for it.
    """

    collection: Collection
    ids: Sequence[str]
    pixels: NDArray[np.uint8]
    is_present: NDArray[np.bool_]
    aspects: NDArray[np.float32]
    ground_shares: NDArray[np.float32]

    def measure_grounds(self, rows: Ints, workers: WorkerPool, show_progress: bool | None) -> None:
        """Fill in the ground shares of rows: costly, and of use for images only that agree with another."""
        rows = rows[np.isnan(self.ground_shares[rows])]
        self.ground_shares[rows] = 0
        ids = [self.ids[row] for row in rows.tolist()]
        with bar("measuring grounds", len(rows), "images", show_progress) as shown:
            function = dense.thumbnail_ground_share
            for at, share in map_thumbnails(self.collection, ids, function, workers=workers) if ids else ():
                self.ground_shares[rows[at]] = share
                shown.update()


def read_gray_thumbnails(
    collection: Collection, table: VectorTable, *, workers: WorkerPool, show_progress: bool | None
) -> GrayThumbnails:
    """Read a gray thumbnail of each image of a table that has the columns ``width`` and ``height``."""
    n = len(table)
    width, height = (np.array(table.columns[name], np.float32) for name in ("width", "height"))
    pixels, is_present = scratch_array((n, dense.SIDE_PX, dense.SIDE_PX), np.uint8), np.zeros(n, bool)
    with bar("reading thumbnails", n, "images", show_progress) as shown:
        for row, thumbnail in map_thumbnails(collection, table.ids, dense.gray_thumbnail, workers=workers):
            pixels[row], is_present[row] = thumbnail, True
            shown.update()
    aspects = (np.maximum(width, 1) / np.maximum(height, 1)).astype(np.float32)
    return GrayThumbnails(collection, table.ids, pixels, is_present, aspects, np.full(n, np.nan, np.float32))


def read_edit_hashes(
    thumbnails: GrayThumbnails, *, n_threads: int, show_progress: bool | None
) -> NDArray[np.int8]:
    """Return the hashes of all images and of edits of them; see `dense.edit_hashes`."""
    n = len(thumbnails.ids)
    hashes = scratch_array((dense.N_HASHES, n, dense.HASH_SIGNS), np.int8)
    blocks = [slice(at, at + _IMAGES_PER_HASHING) for at in range(0, n, _IMAGES_PER_HASHING)]

    def hash_block(block: slice) -> NDArray[np.int8]:
        return dense.edit_hashes(thumbnails.pixels[block])

    # So that no two threads prepare the hashes.
    dense.edit_hashes(thumbnails.pixels[:0])
    with bar("hashing thumbnails", n, "images", show_progress) as shown, threadpool_limits(1, "blas"):
        for block, own in zip(blocks, ordered_map(hash_block, blocks, n_threads=n_threads), strict=True):
            hashes[:, block] = own
            shown.update(own.shape[1])
    return hashes


def map_thumbnails(
    collection: Collection, ids: Sequence[str], function: Callable[[bytes], T], *, workers: WorkerPool
) -> Iterator[tuple[int, T]]:
    """Yield the position in `ids` and the function's result for each image with a thumbnail, in any order.

    Of many images, worker processes compute it; an image with which they end is left out, as one without a
    thumbnail is.
    """
    positions = {id: position for position, id in enumerate(ids)}
    for_positions, for_bytes = tee(
        (positions[id], jpeg)
        for chunk in iter_thumbnails(collection, ids)
        for id, jpeg in chunk.items()
        if id in positions
    )
    results = workers.map(
        function,
        (jpeg for _, jpeg in for_bytes),
        in_processes=len(ids) >= (_MIN_IMAGES_FOR_STARTED if workers.pids else _MIN_IMAGES_FOR_PROCESSES),
        batch_size=_IMAGES_PER_BATCH,
        lost=_none,
    )
    # Small matrix products are slower on several threads.
    with threadpool_limits(1, "blas"):
        for (position, _), result in zip(for_positions, results, strict=True):
            if result is not None:
                yield position, result


def _none(_: bytes) -> None:
    return None


def bar(description: str, total: int, unit: str, show_progress: bool | None) -> progress.Bar:
    """Return a progress bar of a step; it is shown if the step is long."""
    return progress.bar(
        description, total, unit=unit, progress=show_progress if total >= MIN_SHOWN else False
    )
