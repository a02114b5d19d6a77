"""Verifies proposed pairs of duplicates: the details of their thumbnails must agree."""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nearsight import progress
from nearsight.analyses.scratch_array import scratch_array
from nearsight.collection import Collection
from nearsight.collection.arrays import VectorTable, iter_thumbnails
from nearsight.parallel import ordered_map
from nearsight.parallel.processes import WorkerProcesses, can_start_processes
from nearsight.parallel.threads import in_order
from nearsight.verification import dense

T = TypeVar("T")
_LOG = logging.getLogger(__name__)

# Images that a thread hashes in one call.
_IMAGES_PER_HASHING = 1024
# Pairs that a thread or a worker process compares in one call.
_PAIRS_PER_CALL = 512
# Pairs from which on processes pay: they start in a second, and threads wait for each other's Python code.
_MIN_PAIRS_FOR_PROCESSES = 20_000
# Pairs on a plain ground whose fine thumbnails, of 110 kB each, are in memory at a time.
_FINE_PAIRS_PER_READ = 512
# Agreement at low resolution from which on pairs on a plain ground are compared at a higher one: words are
# seen there only.
_MIN_PLAIN_AGREEMENT = 0.45
# Pairs that agree by no more are no duplicates, and nobody asks about them again.
_MIN_REMEMBERED = 0.3
# Shorter steps show no progress bar: it would only flicker.
_MIN_SHOWN = 1024

Ints = NDArray[np.int64]
# Thumbnails, pairs of them, and their aspects.
_Batch = tuple[NDArray[np.uint8], Ints, NDArray[np.float32]]


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
        Share of each image that is a plain ground.
    """

    collection: Collection
    ids: Sequence[str]
    pixels: NDArray[np.uint8]
    is_present: NDArray[np.bool_]
    aspects: NDArray[np.float32]
    ground_shares: NDArray[np.float32]


def read_gray_thumbnails(
    collection: Collection, table: VectorTable, *, n_threads: int, show_progress: bool | None
) -> GrayThumbnails:
    """Read a gray thumbnail of each image of a table that has the columns ``width`` and ``height``."""
    n = len(table)
    width, height = (np.array(table.columns[name], np.float32) for name in ("width", "height"))
    pixels, is_present = scratch_array((n, dense.SIDE_PX, dense.SIDE_PX), np.uint8), np.zeros(n, bool)
    ground_shares = np.zeros(n, np.float32)
    # Matrix products as small as these are slower on several threads.
    with _bar("reading thumbnails", n, "images", show_progress) as bar, threadpool_limits(1, "blas"):
        for row, thumbnail in map_thumbnails(
            collection, table.ids, dense.gray_thumbnail_on_ground, n_threads=n_threads
        ):
            (pixels[row], ground_shares[row]), is_present[row] = thumbnail, True
            bar.update()
    aspects = np.maximum(width, 1) / np.maximum(height, 1)
    return GrayThumbnails(
        collection, table.ids, pixels, is_present, aspects.astype(np.float32), ground_shares
    )


def read_edit_hashes(thumbnails: GrayThumbnails, *, n_threads: int) -> NDArray[np.int8]:
    """Return the hashes of all images and of edits of them; see `dense.edit_hashes`."""
    n = len(thumbnails.ids)
    hashes = scratch_array((dense.N_HASHES, n, dense.HASH_SIGNS), np.int8)
    blocks = [slice(at, at + _IMAGES_PER_HASHING) for at in range(0, n, _IMAGES_PER_HASHING)]

    def hash_block(block: slice) -> NDArray[np.int8]:
        return dense.edit_hashes(thumbnails.pixels[block])

    # So that no two threads prepare the hashes.
    dense.edit_hashes(thumbnails.pixels[:0])
    with threadpool_limits(1, "blas"):
        for block, own in zip(blocks, ordered_map(hash_block, blocks, n_threads=n_threads), strict=True):
            hashes[:, block] = own
    return hashes


class PairVerification:
    """Verifies pairs of images, and remembers what it found: of duplicates, it is asked several times.

    Pairs on a plain ground are compared more strictly, since outlines and lines of text agree by themselves.

    Parameters
    ----------
    thumbnails : GrayThumbnails
    n_threads : int
    show_progress : bool or None
        None: where stderr is a terminal.
    """

    def __init__(self, thumbnails: GrayThumbnails, *, n_threads: int, show_progress: bool | None) -> None:
        self.thumbnails, self._n_threads, self._show_progress = thumbnails, n_threads, show_progress
        self._known = np.empty(0, np.int64)
        self._agreements = np.empty(0, np.float32)
        self._transforms = np.empty((0, 2, 3), np.float32)

    def __call__(self, left: Ints, right: Ints) -> NDArray[np.float32]:
        """Return how well the two images of each pair agree.

        Parameters
        ----------
        left, right : ndarray of shape (m,), int64
            Rows of the two images; their order makes no difference.

        Returns
        -------
        ndarray of shape (m,), float32
            See `dense.register` and `dense.plain_ground_agreement`; NaN where an image has no thumbnail.
        """
        return self._verified(left, right)[0]

    def transforms(self, pairs: Ints) -> NDArray[np.float32]:
        """Return the transforms of (m, 2) pairs, the lower row first.

        See `dense.Registration`.
        """
        return self._verified(*pairs.T)[1]

    def _verified(self, left: Ints, right: Ints) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        # The lower row first: the other way round, the last digits differ.
        pairs = np.sort(np.stack([left, right], axis=1), axis=1)
        keys = pairs[:, 0] * len(self.thumbnails.ids) + pairs[:, 1]
        at = np.minimum(np.searchsorted(self._known, keys), max(len(self._known) - 1, 0))
        is_known = self._known[at] == keys if len(self._known) else np.zeros(len(keys), bool)
        agreements = np.full(len(pairs), np.nan, np.float32)
        transforms = np.zeros((len(pairs), 2, 3), np.float32)
        agreements[is_known], transforms[is_known] = (
            self._agreements[at[is_known]],
            self._transforms[at[is_known]],
        )
        new = np.flatnonzero(~is_known)
        if len(new):
            agreements[new], transforms[new] = _compare(
                self.thumbnails, pairs[new], n_threads=self._n_threads, show_progress=self._show_progress
            )
            self._remember(keys[new], agreements[new], transforms[new])
        return agreements, transforms

    def _remember(self, keys: Ints, agreements: NDArray[np.float32], transforms: NDArray[np.float32]) -> None:
        worth = np.flatnonzero(agreements > _MIN_REMEMBERED)
        known, first = np.unique(np.concatenate([self._known, keys[worth]]), return_index=True)
        self._known = known
        self._agreements = np.concatenate([self._agreements, agreements[worth]])[first]
        self._transforms = np.concatenate([self._transforms, transforms[worth]])[first]


def _compare(
    thumbnails: GrayThumbnails, pairs: Ints, *, n_threads: int, show_progress: bool | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the agreement and the transform of each pair."""
    agreements = np.full(len(pairs), np.nan, np.float32)
    transforms = np.zeros((len(pairs), 2, 3), np.float32)
    comparable = np.flatnonzero(thumbnails.is_present[pairs].all(axis=1))
    parts = [comparable[at : at + _PAIRS_PER_CALL] for at in range(0, len(comparable), _PAIRS_PER_CALL)]
    with (
        _bar("comparing images", len(comparable), "pairs", show_progress) as bar,
        threadpool_limits(1, "blas"),
        closing(_registrations(thumbnails, [pairs[part] for part in parts], n_threads)) as results,
    ):
        for part, result in zip(parts, results, strict=True):
            agreements[part], transforms[part] = result.agreement, result.transforms
            bar.update(len(part))
        # Of a scan, less of the ground is plain.
        shares = thumbnails.ground_shares[pairs].max(axis=1)
        partly_plain = (shares >= dense.PARTLY_PLAIN_GROUND_SHARE) & (shares < dense.PLAIN_GROUND_SHARE)
        toned = np.flatnonzero(partly_plain & (agreements > dense.MATCH_AGREEMENT))
        agreements[toned] = dense.toned_agreement(
            thumbnails.pixels, pairs[toned], transforms[toned], agreements[toned]
        )
        plain = np.flatnonzero((shares >= dense.PLAIN_GROUND_SHARE) & (agreements > _MIN_PLAIN_AGREEMENT))
        agreements[plain] = _plain_ground_agreements(
            thumbnails, pairs[plain], transforms[plain], n_threads, show_progress
        )
    return agreements, transforms


def _registrations(
    thumbnails: GrayThumbnails, parts: Sequence[Ints], n_threads: int
) -> Generator[dense.Registration, None, None]:
    """Yield the registration of each part of the pairs, computed in processes if there are many pairs."""
    workers = _started_workers(n_threads) if sum(map(len, parts)) >= _MIN_PAIRS_FOR_PROCESSES else None
    if workers is None:

        def compare(part: Ints) -> dense.Registration:
            return dense.register(thumbnails.pixels, part, thumbnails.aspects)

        yield from ordered_map(compare, parts, n_threads=n_threads)
        return

    def submit(part: Ints) -> "Future[list[dense.Registration]]":
        # Only the images of these pairs cross, in some milliseconds.
        rows, places = np.unique(part, return_inverse=True)
        return workers.submit([(thumbnails.pixels[rows], places.reshape(-1, 2), thumbnails.aspects[rows])])

    with workers:
        for [registration] in in_order(submit, parts, look_ahead=workers.n_slots):
            yield registration


def _started_workers(n_processes: int) -> WorkerProcesses[_Batch, dense.Registration] | None:
    """Return worker processes, or None if one is enough, or none can be started."""
    if n_processes < 2 or not can_start_processes():
        return None
    workers = None
    try:
        workers = WorkerProcesses(dense.register_in_worker, n_processes=n_processes, lost=_compared_here)
        workers.wait_until_ready()
    except (OSError, RuntimeError) as error:  # such as for want of memory
        _LOG.info("images are compared in threads: %s", error)
        if workers is not None:
            workers.close()
        return None
    return workers


def _compared_here(batch: _Batch, _: str) -> dense.Registration:
    return dense.register(*batch)


def _plain_ground_agreements(
    thumbnails: GrayThumbnails,
    pairs: Ints,
    transforms: NDArray[np.float32],
    n_threads: int,
    show_progress: bool | None,
) -> NDArray[np.float32]:
    """Return the agreement of pairs on a plain ground, compared at a higher resolution."""
    agreements = np.empty(len(pairs), np.float32)
    with _bar("comparing images on plain grounds", len(pairs), "pairs", show_progress) as bar:
        for at in range(0, len(pairs), _FINE_PAIRS_PER_READ):
            read = slice(at, at + _FINE_PAIRS_PER_READ)
            rows, places = np.unique(pairs[read], return_inverse=True)
            colors = np.zeros((len(rows), dense.FINE_SIDE_PX, dense.FINE_SIDE_PX, 3), np.uint8)
            blurs = np.zeros(len(rows))
            ids = [thumbnails.ids[row] for row in rows]
            for row, fine in map_thumbnails(
                thumbnails.collection, ids, dense.fine_thumbnail, n_threads=n_threads
            ):
                colors[row], blurs[row] = fine
            compare = partial(_plain_ground_agreement, colors, blurs)
            parts = zip(places.reshape(-1, 2), transforms[read], strict=True)
            for row, agreement in enumerate(ordered_map(compare, parts, n_threads=n_threads), at):
                agreements[row] = agreement
                bar.update()
    return agreements


def _plain_ground_agreement(
    colors: NDArray[np.uint8], blurs: NDArray[np.float64], part: tuple[Ints, NDArray[np.float32]]
) -> float:
    pair, transform = part
    return dense.plain_ground_agreement(colors[pair], blurs[pair], transform)


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
