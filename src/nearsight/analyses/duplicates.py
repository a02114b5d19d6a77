"""Near-duplicates in a collection: pairs are proposed, verified, and grouped around the image to keep."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from nearsight.analyses.duplicate_groups import N_STEPS, DuplicateGroup, Duplicates, Leak, is_doubtful
from nearsight.analyses.gray_thumbnails import MIN_SHOWN, bar, read_edit_hashes, read_gray_thumbnails
from nearsight.analyses.kept_file import kept_file
from nearsight.analyses.kept_image import FILE_COLUMNS, KeptImageChoice
from nearsight.analyses.pair_verification import PairVerification
from nearsight.analyses.scratch_array import scratch_array
from nearsight.collection import Collection, Item
from nearsight.collection.arrays import VectorTable, items_by_id, read_vectors
from nearsight.collection.notebook import Thumbnails
from nearsight.errors import InvalidParameterError
from nearsight.estimators.duplicates import NearDuplicates, PairVerifier, pair_cosines
from nearsight.parallel import WorkerPool
from nearsight.parameters import require_whole
from nearsight.progress import steps
from nearsight.verification import dense

# The doubt about every pair of a doubtful run; see `Duplicates.is_doubtful`.
_DOUBTFUL_RUN = "many images of this collection agree almost as well as duplicates do"

# A candidate by vectors needs hashes, of any two edits of the images, in which 49 of 63 signs agree.
_MIN_HASH_SIMILARITY = 0.55

# Split of an image: in the first set, in the second, or with files in both.
_FIRST, _SECOND, _BOTH = 0, 1, 2

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


def find_duplicates(
    collection: Collection,
    *,
    where: str | None = None,
    false_alarm_rate: float | None = None,
    distinct_where: str | None = None,
    n_neighbors: int = 10,
    min_similarity: float = 0.7,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Duplicates:
    """Find images that were re-encoded, resized, cropped, rotated, mirrored or marked, and which to keep.

    *Method*: candidate pairs are each image's nearest neighbors by vector, and by perceptual hashes of the
    image and of edits of it; a pair that one of the two proposes is dropped where the other finds it unlike.
    A pair is verified by its pixels alone: the thumbnails are aligned, and their details must agree
    (`verification.dense.register`; no file is opened). So images that are merely similar are not duplicates.
    On a plain ground, where outlines and lines of text agree by themselves, the part that agrees least
    decides (`verification.dense.plain_ground_agreements`). Verified pairs are grouped around the
    image to keep (`estimators.duplicates.NearDuplicates`), the one that lost least: the files of a pair are
    decoded, and compared by color, detail, compression, metadata and bytes (`analyses.image_comparison`). A
    file is redundant for certain if nothing speaks for it; otherwise somebody should look at it first.

    Parameters
    ----------
    where : str, optional
        Only among the images that match.
    false_alarm_rate : float, optional
        In (0, 1): the share of images without a duplicate that may get a false match; the match threshold is
        calibrated on this collection. Default: a threshold of 0.65, which no two different photographs of
        1,654 reached.
    distinct_where : str, optional
        A filter for images of which no two are duplicates: the rate is calibrated on them. Without it, images
        that agree above 0.7 are taken for duplicates, and so may the shots of a burst; where other images
        come close to that, the rate is refused.
    n_neighbors : int, default 10
        Candidates of each image by vector.
    min_similarity : float, default 0.7
        Cosine in -1..1 below which a pair is not a candidate by vector.
    n_threads : int, optional
        By default all cores.
    progress : bool, optional
        Show progress on stderr; by default only where that is a terminal.

    Returns
    -------
    Duplicates

    Raises
    ------
    CalibrationError
        There are too few images for that rate, and the message says how many are needed; or images that are
        no duplicates agree as well as duplicates do.
    InvalidParameterError, FilterError
        No image matches `distinct_where`; an expression is not understood.

    Notes
    -----
    Memory: beyond the libraries 0.4 GB for 5,000 images, and 0.7 GB for 20,000. Vectors, and 12 kB an image
    more, lie in temporary files that are mapped into memory. docs/figures.md tells what 100,000 vectors take,
    without files (`benchmarks/duplicates.py`); those of duplicates are decoded in full.
    An image without any detail, such as a plain color, is never verified. Two shots of a burst may agree as
    well as duplicates do: see `distinct_where` and `Duplicates.expected_rate`.
    """
    with steps(N_STEPS + 2 * (distinct_where is not None)):
        table = _read(collection, where, progress)
        distinct = None if distinct_where is None else _distinct(collection, table, where, distinct_where)
        duplicates, _ = _find(
            collection,
            table,
            (item for item in collection.items(where) if len(item.paths) > 1),
            distinct=distinct,
            n_threads=n_threads,
            progress=progress,
            false_alarm_rate=false_alarm_rate,
            n_neighbors=n_neighbors,
            min_similarity=min_similarity,
        )
    return duplicates


def find_leaks(
    collection: Collection,
    first_where: str,
    second_where: str,
    *,
    where: str | None = None,
    false_alarm_rate: float | None = None,
    distinct_where: str | None = None,
    n_neighbors: int = 10,
    min_similarity: float = 0.7,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Duplicates:
    """Find images of one set, such as a test set, that have a duplicate in another, such as a training set.

    *Method*: as `find_duplicates`, for pairs across the two sets only.

    Parameters
    ----------
    first_where, second_where : str
        Filters of the two sets, such as ``"path LIKE '%/train/%'"``. They must not name the same files.
    where, false_alarm_rate, distinct_where, n_neighbors, min_similarity, n_threads, progress
        See `find_duplicates`.

    Returns
    -------
    Duplicates
        With `leaks`.

    Raises
    ------
    CalibrationError
        See `find_duplicates`.
    InvalidParameterError, FilterError
        The two sets share a file, or one is empty; see also `find_duplicates`.
    """
    either = _both(f"({first_where}) OR ({second_where})", where)
    with steps(N_STEPS + 2 * (distinct_where is not None)):
        table = _read(collection, either, progress)
        if not len(table):
            return Duplicates([])
        splits = _splits(collection, table, where, first_where, second_where)
        distinct = None if distinct_where is None else _distinct(collection, table, where, distinct_where)
        identical = items_by_id(collection, [table.ids[row] for row in np.flatnonzero(splits == _BOTH)])
        duplicates, estimator = _find(
            collection,
            table,
            identical.values(),
            splits=splits,
            distinct=distinct,
            n_threads=n_threads,
            progress=progress,
            false_alarm_rate=false_alarm_rate,
            n_neighbors=n_neighbors,
            min_similarity=min_similarity,
        )
    leaks = [Leak(item, item, 1.0, 1.0) for item in identical.values()]
    leaks += _leaks_across(collection, table, estimator, splits)
    return replace(duplicates, leaks=sorted(leaks, key=lambda leak: (-leak.agreement, -leak.similarity)))


def _read(collection: Collection, where: str | None, progress: bool | None) -> VectorTable:
    with bar("reading vectors", collection.count(where), "images", progress) as shown:
        return read_vectors(collection, where, FILE_COLUMNS, empty_array=scratch_array, progress=shown.update)


def _find(
    collection: Collection,
    table: VectorTable,
    identical: Iterable[Item],
    *,
    splits: Ints | None = None,
    distinct: NDArray[np.bool_] | None = None,
    n_threads: int | None,
    progress: bool | None,
    **parameters: Any,
) -> tuple[Duplicates, NearDuplicates]:
    """Propose, verify and group; `identical` are the items that lie in several files."""
    require_whole("n_threads", n_threads, least=0, optional=True)
    n_threads = n_threads or cpu_count()
    estimator = NearDuplicates(
        threshold=dense.MATCH_AGREEMENT,
        certain_score=dense.CERTAIN_AGREEMENT,
        min_hash_similarity=_MIN_HASH_SIMILARITY,
        n_threads=n_threads,
        progress=progress if len(table) >= MIN_SHOWN else False,
        **parameters,
    )
    if not len(table):
        return Duplicates([]), estimator
    with WorkerPool(n_threads) as workers:
        thumbnails = read_gray_thumbnails(collection, table, workers=workers, show_progress=progress)
        agreements = PairVerification(thumbnails, workers=workers, show_progress=progress)
        hashes = read_edit_hashes(thumbnails, n_threads=n_threads, show_progress=progress)
        choice = KeptImageChoice(collection, table, agreements, workers, progress)
        estimator.set_params(verify=agreements).fit(
            table.X,
            quality=choice,
            splits=splits,
            hashes=hashes[: dense.N_PLAIN_HASHES],
            edited_hashes=hashes[dense.N_PLAIN_HASHES :],
            distinct_where=distinct,
        )
        groups = _verified_groups(collection, table, estimator, agreements, choice)
    grouped = {item.id for group in groups for item in group.items}
    groups += [
        DuplicateGroup(file.item, [file.item], [], [], [], file.why, [], file.hard_links)
        for file in (kept_file(item) for item in identical if item.id not in grouped)
        if len(file.item.paths) > 1 or file.hard_links
    ]
    return Duplicates(
        groups=sorted(groups, key=lambda group: (group.certain, group.agreement)),
        n_images=len(table),
        threshold=estimator.threshold_,
        calibration=estimator.calibration_,
        expected_rate=estimator.expected_rate_,
        n_without_thumbnail=int((~thumbnails.is_present).sum()),
        thumbnails=Thumbnails(collection.thumbnails),
    ), estimator


def _both(expression: str, other: str | None) -> str:
    return expression if other is None else f"({expression}) AND ({other})"


def _splits(
    collection: Collection, table: VectorTable, where: str | None, first_where: str, second_where: str
) -> Ints:
    """Return the split of each row."""
    first, second = (
        {item.id: item for item in collection.items(_both(expression, where))}
        for expression in (first_where, second_where)
    )
    for name, items, expression in (("first", first, first_where), ("second", second, second_where)):
        if not items:
            raise InvalidParameterError(f"no image is in the {name} set, {expression!r}; nothing can leak")
    shared = first.keys() & second.keys()
    if same_file := [id for id in shared if len(first[id].paths) < 2]:
        raise InvalidParameterError(
            f"{first[same_file[0]].path} is in both sets, like {len(same_file) - 1} more; name two sets that"
            " share no file"
        )
    return np.array(
        [_BOTH if id in shared else _FIRST if id in first else _SECOND for id in table.ids], np.int64
    )


def _distinct(
    collection: Collection, table: VectorTable, where: str | None, distinct_where: str
) -> NDArray[np.bool_]:
    """Return whether each row is among the images of which no two are duplicates."""
    ids = {item.id for item in collection.items(_both(distinct_where, where))}
    is_distinct = np.array([id in ids for id in table.ids], bool)
    if not is_distinct.any():
        raise InvalidParameterError(
            f"none of the compared images matches distinct_where, {distinct_where!r}; it must match images of"
            " which no two are duplicates"
        )
    return is_distinct


def _verified_groups(
    collection: Collection,
    table: VectorTable,
    estimator: NearDuplicates,
    agreements: PairVerifier,
    choice: KeptImageChoice,
) -> list[DuplicateGroup]:
    labels, kept = estimator.labels_, estimator.kept_
    rows = np.flatnonzero(labels >= 0)
    rows = rows[np.argsort(labels[rows], kind="stable")]
    rows = rows[rows != kept[labels[rows]]]
    partners, scores = _verified_against(estimator, agreements, rows)
    cosines = pair_cosines(table.X, np.stack([kept[labels[rows]], rows], axis=1))
    items = items_by_id(collection, [table.ids[row] for row in (*kept, *rows)])
    all_doubtful = _DOUBTFUL_RUN if is_doubtful(estimator.expected_rate_, estimator.calibration_) else ""
    groups = []
    bounds = np.searchsorted(labels[rows], np.arange(len(kept) + 1))
    for keep, start, end in zip(kept.tolist(), bounds, bounds[1:], strict=False):
        others = rows[start:end].tolist()
        members = [items[table.ids[row]] for row in (keep, *others) if table.ids[row] in items]
        # Another process may have removed one of them.
        if len(members) == 1 + len(others):
            best, own_scores = kept_file(members[0]), scores[start:end].tolist()
            doubts = [
                all_doubtful or choice.doubt(keep, row, best.item.path, other.path, score)
                for row, other, score in zip(others, members[1:], own_scores, strict=True)
            ]
            groups.append(
                DuplicateGroup(
                    best.item,
                    [best.item, *members[1:]],
                    cosines[start:end].tolist(),
                    own_scores,
                    [table.ids[row] for row in partners[start:end]],
                    choice.reason(keep, others),
                    doubts,
                    best.hard_links,
                )
            )
    return groups


def _verified_against(estimator: NearDuplicates, agreements: PairVerifier, rows: Ints) -> tuple[Ints, Floats]:
    """Return the row that each row was verified against, and their agreement."""
    groups = estimator.labels_[rows]
    partners = estimator.kept_[groups]
    scores = np.asarray(agreements(partners, rows), np.float32)
    is_verified = scores > estimator.threshold_
    # The others came into the group by the votes of verified rows.
    voter_pairs = [
        (position, voter)
        for position in np.flatnonzero(~is_verified)
        for voter in rows[is_verified & (groups == groups[position])]
    ]
    positions, voters = np.array(voter_pairs, np.int64).reshape(-1, 2).T
    voter_scores = np.asarray(agreements(rows[positions], voters), np.float32)
    # Ascending, so that the best one is written last.
    for best in np.argsort(voter_scores, kind="stable"):
        partners[positions[best]], scores[positions[best]] = voters[best], voter_scores[best]
    return partners, scores


def _leaks_across(
    collection: Collection, table: VectorTable, estimator: NearDuplicates, splits: Ints
) -> list[Leak]:
    items = items_by_id(collection, [table.ids[row] for row in np.unique(estimator.pairs_)])
    leaks = []
    for pair, similarity, agreement in zip(
        estimator.pairs_.tolist(), estimator.similarities_.tolist(), estimator.scores_.tolist(), strict=True
    ):
        # An image of both sets takes the side that the other leaves free.
        left, right = sorted(pair, key=lambda row: (splits[row] != _FIRST, splits[row] == _SECOND))
        first, second = items.get(table.ids[left]), items.get(table.ids[right])
        if first and second:
            leaks.append(Leak(first, second, similarity, agreement))
    return leaks
