"""Verifies proposed pairs of duplicates: the details of their thumbnails must agree."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nearsight.analyses.gray_thumbnails import GrayThumbnails, bar, map_thumbnails
from nearsight.parallel import WorkerPool, ordered_map
from nearsight.verification import dense

# Pairs that a thread or a worker process compares in one call.
_PAIRS_PER_CALL = 512
# Pairs from which on processes pay: they start in a second, and threads wait for each other's Python code;
# and where they have started.
_MIN_PAIRS_FOR_PROCESSES, _MIN_PAIRS_FOR_STARTED = 5_000, 1_024
# Pairs on a plain ground whose fine thumbnails, of 110 kB each, are in memory at a time.
_FINE_PAIRS_PER_READ = 512
# Agreement at low resolution from which on pairs on a plain ground are compared at a higher one: words are
# seen there only.
_MIN_PLAIN_AGREEMENT = 0.45
# Pairs that agree by no more are no duplicates, and nobody asks about them again.
_MIN_REMEMBERED = 0.3

Ints = NDArray[np.int64]
# Thumbnails, pairs of them, and their aspects.
_Part = tuple[NDArray[np.uint8], Ints, NDArray[np.float32]]


class PairVerification:
    """Verifies pairs of images, and remembers what it found: of duplicates, it is asked several times.

    Pairs on a plain ground are compared more strictly, since outlines and lines of text agree by themselves.

    Parameters
    ----------
    thumbnails : GrayThumbnails
    workers : WorkerPool
        Compares the pairs, in processes if they are many.
    show_progress : bool or None
        None: where stderr is a terminal.
    """

    def __init__(
        self, thumbnails: GrayThumbnails, *, workers: WorkerPool, show_progress: bool | None
    ) -> None:
        self.thumbnails, self._workers, self._show_progress = thumbnails, workers, show_progress
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
            See `dense.register` and `dense.plain_ground_agreements`; NaN where an image has no thumbnail.
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
                self.thumbnails, pairs[new], workers=self._workers, show_progress=self._show_progress
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
    thumbnails: GrayThumbnails, pairs: Ints, *, workers: WorkerPool, show_progress: bool | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the agreement and the transform of each pair."""
    agreements = np.full(len(pairs), np.nan, np.float32)
    transforms = np.zeros((len(pairs), 2, 3), np.float32)
    comparable = np.flatnonzero(thumbnails.is_present[pairs].all(axis=1))
    parts = [comparable[at : at + _PAIRS_PER_CALL] for at in range(0, len(comparable), _PAIRS_PER_CALL)]
    with (
        bar("comparing images", len(comparable), "pairs", show_progress) as shown,
        threadpool_limits(1, "blas"),
        closing(_registrations(thumbnails, [pairs[part] for part in parts], workers)) as results,
    ):
        for part, result in zip(parts, results, strict=True):
            agreements[part], transforms[part] = result.agreement, result.transforms
            shown.update(len(part))
    may_be_plain = agreements > min(_MIN_PLAIN_AGREEMENT, dense.MATCH_AGREEMENT)
    thumbnails.measure_grounds(np.unique(pairs[may_be_plain]), workers, show_progress)
    with threadpool_limits(1, "blas"):
        # NaN, where it was not measured, is no plain ground. Of a scan, less of the ground is plain.
        shares = thumbnails.ground_shares[pairs].max(axis=1)
        partly_plain = (shares >= dense.PARTLY_PLAIN_GROUND_SHARE) & (shares < dense.PLAIN_GROUND_SHARE)
        toned = np.flatnonzero(partly_plain & (agreements > dense.MATCH_AGREEMENT))
        agreements[toned] = dense.toned_agreement(
            thumbnails.pixels, pairs[toned], transforms[toned], agreements[toned]
        )
        plain = np.flatnonzero((shares >= dense.PLAIN_GROUND_SHARE) & (agreements > _MIN_PLAIN_AGREEMENT))
        agreements[plain] = _plain_ground_agreements(
            thumbnails, pairs[plain], transforms[plain], workers, show_progress
        )
    return agreements, transforms


def _registrations(
    thumbnails: GrayThumbnails, parts: Sequence[Ints], workers: WorkerPool
) -> Generator[dense.Registration, None, None]:
    """Yield the registration of each part of the pairs, computed in processes if there are many pairs."""
    if sum(map(len, parts)) < (_MIN_PAIRS_FOR_STARTED if workers.pids else _MIN_PAIRS_FOR_PROCESSES):

        def compare(part: Ints) -> dense.Registration:
            return dense.register(thumbnails.pixels, part, thumbnails.aspects)

        yield from ordered_map(compare, parts, n_threads=workers.n_workers)
        return

    def items() -> Iterator[_Part]:
        # Only the images of these pairs cross, in some milliseconds.
        for part in parts:
            rows, places = np.unique(part, return_inverse=True)
            yield thumbnails.pixels[rows], places.reshape(-1, 2), thumbnails.aspects[rows]

    yield from workers.map(dense.register_part, items(), in_processes=True, lost=dense.register_part)


def _plain_ground_agreements(
    thumbnails: GrayThumbnails,
    pairs: Ints,
    transforms: NDArray[np.float32],
    workers: WorkerPool,
    show_progress: bool | None,
) -> NDArray[np.float32]:
    """Return the agreement of pairs on a plain ground, compared at a higher resolution."""
    agreements = np.zeros(len(pairs), np.float32)
    with bar("comparing images on plain grounds", len(pairs), "pairs", show_progress) as shown:
        for at in range(0, len(pairs), _FINE_PAIRS_PER_READ):
            read = np.arange(at, min(at + _FINE_PAIRS_PER_READ, len(pairs)))
            rows = np.unique(pairs[read])
            ids = [thumbnails.ids[row] for row in rows]
            found = map_thumbnails(thumbnails.collection, ids, dense.fine_thumbnail, workers=workers)
            fine = {int(rows[place]): thumbnail for place, thumbnail in found}
            # An image with which a worker process ended agrees with none.
            parts = _by_first(pairs, read[[fine.keys() >= set(pair) for pair in pairs[read].tolist()]])

            def compare(part: Ints, fine: dict[int, dense.FineThumbnail] = fine) -> list[float]:
                here, others = fine[pairs[part[0], 0]], [fine[row] for row in pairs[part, 1].tolist()]
                return dense.plain_ground_agreements(here, others, transforms[part])

            results = ordered_map(compare, parts, n_threads=workers.n_workers)
            for part, result in zip(parts, results, strict=True):
                agreements[part] = result
                shown.update(len(part))
    return agreements


def _by_first(pairs: Ints, at: Ints) -> list[Ints]:
    """Return the places `at` of pairs, together where the first image is one: it is prepared once."""
    order = at[np.argsort(pairs[at, 0], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(pairs[order, 0])) + 1) if len(order) else []
