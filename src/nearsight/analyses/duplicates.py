"""Finds the copies among a collection's images, and the best of them."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from nearsight.analyses.best_copy import FACTS, CopyQuality
from nearsight.collection import Collection
from nearsight.collection.arrays import VectorTable, items_by_id, iter_thumbnails, read_vectors
from nearsight.collection.schema import Item
from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal import Threshold
from nearsight.estimators.duplicates import NearDuplicates
from nearsight.images.path_encoding import absolute
from nearsight.processor import n_cores
from nearsight.verification import dense

# More false copies than that are worth a word; of 1,654 photographs, .1 % were given one.
_MANY = 0.02
# Pairs that a thread compares in one go.
_PAIRS = 512

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CopyGroup:
    """Images that are one image.

    Attributes
    ----------
    keep : Item
        The best of them. Links to a file that is there already are left out of its paths.
    items : list of Item
        All of them, the kept one first; each was confirmed against the kept one, or against most of those
        that were. A single one that lies in several files is a group, too.
    similarities : list of float
        Cosine of the kept one and each of the others, in -1..1.
    agreements : list of float
        How well the pixels of each of the others agree with what it was confirmed against, in -1..1.
    against : list of str
        The id of that: the kept one, or, where the two have too little in common, the copy of it that agrees
        most, of those that did confirm it.
    why : str
        Why that one is kept.
    """

    keep: Item
    items: list[Item]
    similarities: list[float]
    agreements: list[float]
    against: list[str]
    why: str

    @property
    def similarity(self) -> float:
        """The least of `similarities`; 1 for files of the same bytes."""
        return min(self.similarities, default=1.0)

    @property
    def agreement(self) -> float:
        """The least of `agreements`; 1 for files of the same bytes."""
        return min(self.agreements, default=1.0)

    @property
    def redundant(self) -> list[str]:
        """The files that are not needed any more: all but the first path of the kept image."""
        return [*self.keep.paths[1:], *(path for item in self.items[1:] for path in item.paths)]


@dataclass(frozen=True, slots=True)
class Leak:
    """An image of one set that is in the other as well.

    Attributes
    ----------
    here, there : Item
        Of the first set, and of the second; the same where files of the same bytes lie in both.
    similarity, agreement : float
        Cosine, and how well their pixels agree, in -1..1; 1 for files of the same bytes.
    """

    here: Item
    there: Item
    similarity: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What `Collection.duplicates` found.

    Attributes
    ----------
    groups : list of CopyGroup
        Most images first.
    leaks : list of Leak
        Where two sets were compared: every pair across them, the surest first.
    n_images : int
        Images looked at.
    threshold : float
        Agreement above which two images were taken for one.
    calibration : Threshold or None
        What is known of that threshold where it was learned on the collection.
    expected_rate : float or None
        The share of images without a copy that are given one, as reckoned; by the default threshold, from
        how few images agree nearly as much as copies do. Where many do, they may be shots of one scene.
    n_unseen : int
        Images without a thumbnail, which cannot be compared and have no near copies.
    """

    groups: list[CopyGroup]
    leaks: list[Leak] = field(default_factory=list)
    n_images: int = 0
    threshold: float = dense.MATCH_AGREEMENT
    calibration: Threshold | None = None
    expected_rate: float | None = None
    n_unseen: int = 0

    @property
    def is_doubtful(self) -> bool:
        """Whether so many are probably false that somebody should look, and no rate was stated."""
        return self.calibration is None and (self.expected_rate or 0) > _MANY


def find_duplicates(
    self: Collection,
    *,
    where: str | None = None,
    between: tuple[str, str] | None = None,
    false_alarm_rate: float | None = None,
    distinct: str | None = None,
    n_neighbors: int = 10,
    min_similarity: float = 0.7,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Duplicates:
    """Find images that are copies of one another: re-encoded, resized, cropped, turned, mirrored, marked.

    *Method*: `tasks.duplicates.NearDuplicates`. Candidates are each image's nearest by vector, and by a
    perceptual hash of it and of edits of it (`verification.dense.edit_hashes`), since vectors tell little
    where all images are alike. What confirms them looks at pixels only (`verification.dense.register`, on
    the thumbnails: no file is opened). So an image that is merely like another is no copy of it. Of the
    copies, the largest is kept, what turning has added or blurred left out; of equally large ones the
    sharpest, then one with nothing laid over, then that of most bytes, the oldest, the first that came in.

    Parameters
    ----------
    where : str, optional
        Only among the images that match.
    between : pair of str, optional
        Two filters, such as ``("path LIKE '%/train/%'", "path LIKE '%/test/%'")``: only copies of images
        of the first among those of the second are looked for. They must not name the same files.
    false_alarm_rate : float, optional
        In (0, 1): the share of images without a copy that may be given one, by a threshold learned on this
        collection. Default: a threshold of 0.65, which no two different photographs of 1,654 reached.
    distinct : str, optional
        A filter that matches images of which no two are copies; the rate is learned on them. Without it,
        images that agree above 0.7 are taken for copies, which the shots of a burst may do as well: where
        others come near to it, the rate is refused.
    n_neighbors : int, default 10
        Candidates of each image by vector.
    min_similarity : float, default 0.7
        The cosine, in -1..1, below which a pair is no candidate by its vectors.
    n_threads : int, optional
        By default all cores.
    progress : bool, optional
        By default where somebody watches.

    Returns
    -------
    Duplicates

    Raises
    ------
    CalibrationError
        There are too few images for that rate; the message says how many are needed. Or images that are
        no copies agree as copies do.
    InvalidParameterError, FilterError
        The two sets overlap; nothing is in a set; an expression that is not understood.

    Notes
    -----
    An image needs 4 bytes a number of its vector, and 11 kB. 100,000 rows of 1,280 numbers took 6.4 minutes
    on two cores (`benchmarks/duplicates.py`). An image without any detail (a plain color) is never
    confirmed. No image and one have no copies. Two shots of a burst may agree like copies: see `distinct`
    and `Duplicates.expected_rate`.
    """
    rows = read_vectors(self, _either(where, between), FACTS)
    if not len(rows):
        return Duplicates([])
    sides = None if between is None else _sides(self, rows, where, between)
    shown = sys.stderr.isatty() if progress is None else progress
    n_threads = n_threads or n_cores()
    pixels, quality = _Pixels(self, rows, n_threads, shown), CopyQuality(self, rows, n_threads)
    ways = pixels.looks()
    found = NearDuplicates(
        threshold=dense.MATCH_AGREEMENT,
        certain_score=dense.CERTAIN_AGREEMENT,
        false_alarm_rate=false_alarm_rate,
        min_similarity=min_similarity,
        n_neighbors=n_neighbors,
        verify=pixels.agreement,
    ).fit(
        rows.X,
        quality=quality,
        splits=sides,
        hashes=ways[: dense.N_PLAIN_HASHES],
        edited_hashes=ways[dense.N_PLAIN_HASHES :],
        distinct_where=None if distinct is None else _distinct(self, rows, where, distinct),
    )
    return Duplicates(
        groups=_groups(self, rows, found, pixels, quality, where if between is None else None, sides),
        leaks=[] if sides is None else _leaks(self, rows, found, sides),
        n_images=len(rows),
        threshold=found.threshold_,
        calibration=found.calibration_,
        expected_rate=found.expected_rate_,
        n_unseen=pixels.n_unseen,
    )


def _either(where: str | None, between: tuple[str, str] | None) -> str | None:
    if between is None:
        return where
    return _and(f"({between[0]}) OR ({between[1]})", where)


def _and(one: str, other: str | None) -> str:
    return one if other is None else f"({one}) AND ({other})"


def _sides(view: Collection, rows: VectorTable, where: str | None, between: tuple[str, str]) -> Ints:
    """Return 0 and 1 for the two sets, 2 for what has files in both."""
    first, second = ({item.id: item for item in view.items(_and(one, where))} for one in between)
    for name, some, expression in (("first", first, between[0]), ("second", second, between[1])):
        if not some:
            raise InvalidParameterError(f"no image is in the {name} set, {expression!r}; nothing can leak")
    both = first.keys() & second.keys()
    if alone := [id for id in both if len(first[id].paths) < 2]:
        raise InvalidParameterError(
            f"{first[alone[0]].path} is in both sets, like {len(alone) - 1} more; name two that share no file"
        )
    return np.array([2 if id in both else int(id not in first) for id in rows.ids], np.int64)


def _distinct(view: Collection, rows: VectorTable, where: str | None, expression: str) -> NDArray[np.bool_]:
    """Return which images are said to have no copies among each other."""
    some = {item.id for item in view.items(_and(expression, where))}
    found = np.array([id in some for id in rows.ids], bool)
    if not found.any():
        raise InvalidParameterError(
            f"no image that is looked at matches distinct, {expression!r}; it must match some of which no"
            " two are copies"
        )
    return found


class _Pixels:
    """The second signal: whether the pixels of two images agree."""

    def __init__(self, view: Collection, rows: VectorTable, n_threads: int, progress: bool) -> None:
        self._view, self._ids, self._n_threads, self._progress = view, rows.ids, n_threads, progress
        width, height = (np.array(rows.columns[name], np.float32) for name in ("width", "height"))
        self._aspects = np.maximum(width, 1) / np.maximum(height, 1)
        # Pages that are never written to take no memory.
        self._miniatures = np.zeros((len(rows), dense.SIDE_PX, dense.SIDE_PX), np.uint8)
        self._state = np.zeros(len(rows), np.int8)  # 1: seen, -1: has no thumbnail

    def looks(self) -> NDArray[np.int8]:
        """Return how every image looks from far, and how edits of it would; zeros for one unseen."""
        self._look_at(np.arange(len(self._ids)))
        return dense.edit_hashes(self._miniatures)

    @property
    def n_unseen(self) -> int:
        return int((self._state < 0).sum())

    def agreement(self, here: Ints, there: Ints) -> NDArray[np.float32]:
        """Return how well the pixels of each pair agree; NaN where one has no thumbnail."""
        self._look_at(np.unique(np.concatenate([here, there])))
        scores = np.full(len(here), np.nan, np.float32)
        seen = np.flatnonzero((self._state[here] > 0) & (self._state[there] > 0))
        parts = [seen[at : at + _PAIRS] for at in range(0, len(seen), _PAIRS)]

        def compare(part: Ints) -> NDArray[np.float32]:
            pairs = np.stack([here[part], there[part]], axis=1)
            return dense.register(self._miniatures, pairs, self._aspects).agreement

        # Products as small as these are slower on several threads, and these threads are busy.
        with (
            self._bar("comparing", len(seen), " pairs") as bar,
            threadpool_limits(1, "blas"),
            ThreadPoolExecutor(self._n_threads) as pool,
        ):
            for part, agreement in zip(parts, pool.map(compare, parts), strict=True):
                scores[part] = agreement
                bar.update(len(part))
        return scores

    def _look_at(self, rows: Ints) -> None:
        rows = rows[self._state[rows] == 0]
        place = {self._ids[row]: row for row in rows}
        self._state[rows] = -1
        with self._bar("reading", len(rows), " images") as bar, ThreadPoolExecutor(self._n_threads) as pool:
            for some in iter_thumbnails(self._view, list(place)):
                mine = {id: data for id, data in some.items() if id in place}
                for id, small in zip(mine, pool.map(dense.gray_thumbnail, mine.values()), strict=True):
                    self._miniatures[place[id]], self._state[place[id]] = small, 1
                bar.update(len(mine))

    def _bar(self, what: str, total: int, unit: str) -> "tqdm[None]":
        # A bar that comes and goes at once is a flicker.
        shown = self._progress and total > 2 * _PAIRS
        return tqdm(total=total, desc=what, unit=unit, dynamic_ncols=True, disable=not shown)


def _groups(
    view: Collection,
    rows: VectorTable,
    found: NearDuplicates,
    pixels: _Pixels,
    quality: CopyQuality,
    where: str | None,
    sides: Ints | None,
) -> list[CopyGroup]:
    rest = [others[others != keep] for keep, others in zip(found.kept_, _members(found), strict=True)]
    here = np.repeat(found.kept_, [len(others) for others in rest])
    there = np.concatenate([*rest, np.empty(0, np.int64)])
    agreements = _between(pixels, here, there)
    against = _against(found, pixels, rest, agreements)
    cosines = np.einsum("nd,nd->n", rows.X[here], rows.X[there])
    items = items_by_id(view, [rows.ids[row] for row in np.flatnonzero(found.labels_ >= 0)])
    groups, grouped = [], set(items)
    for keep, others in zip(found.kept_.tolist(), rest, strict=True):
        mine, agreements = agreements[: len(others)], agreements[len(others) :]
        by, against = [rows.ids[row] for row in against[: len(others)]], against[len(others) :]
        near, cosines = cosines[: len(others)], cosines[len(others) :]
        # An image that another process has removed meanwhile is no copy any more.
        shown = [items[rows.ids[row]] for row in (keep, *others) if rows.ids[row] in items]
        if len(shown) == 1 + len(others):
            why, best = quality.why(keep, others.tolist()), _without_links(shown[0])
            groups.append(CopyGroup(best, [best, *shown[1:]], near.tolist(), mine.tolist(), by, why))
    groups += [
        CopyGroup(item, [item], [], [], [], "the first of several files of the same bytes")
        for item in map(_without_links, _in_several_files(view, rows, where, sides))
        if item.id not in grouped and len(item.paths) > 1
    ]
    return sorted(groups, key=lambda group: -sum(len(item.paths) for item in group.items))


def _between(pixels: _Pixels, here: Ints, there: Ints) -> NDArray[np.float32]:
    # As they were judged, the lower row first: from the other side the last digits differ.
    return pixels.agreement(np.minimum(here, there), np.maximum(here, there))


def _against(
    found: NearDuplicates, pixels: _Pixels, rest: Sequence[Ints], agreements: NDArray[np.float32]
) -> Ints:
    """Return what each of the others was confirmed against; write how well it agrees with that."""
    rows = np.concatenate([*rest, np.empty(0, np.int64)])
    group = np.repeat(np.arange(len(rest)), [len(others) for others in rest])
    against, is_sure = found.kept_[group], agreements > found.threshold_
    juries = [others[is_sure[group == number]] for number, others in enumerate(rest)]
    asked = [(at, one) for at in np.flatnonzero(~is_sure) for one in juries[group[at]]]
    at, jury = np.array(asked, np.int64).reshape(-1, 2).T
    told = _between(pixels, rows[at], jury)
    # The last word is that of the best.
    for best in np.argsort(told, kind="stable"):
        against[at[best]], agreements[at[best]] = jury[best], told[best]
    return against


def _without_links(item: Item) -> Item:
    """Name each file of an item once, by a path that is no link where there is one.

    A link is no copy: whoever keeps it and deletes what it leads to has lost the image. The file that
    most links lead to comes first, so that they keep leading somewhere.
    """
    led_to: dict[str, list[str]] = {}
    for path in item.paths:
        led_to.setdefault(os.path.realpath(path), []).append(path)
    paths = [
        next((path for path in some if absolute(path) == real), some[0])
        for real, some in sorted(led_to.items(), key=lambda entry: -len(entry[1]))
    ]
    return replace(item, path=paths[0], paths=paths) if paths else item


def _members(found: NearDuplicates) -> list[Ints]:
    """Return the rows of each group."""
    order = np.argsort(found.labels_, kind="stable")
    return np.split(order, np.searchsorted(found.labels_[order], np.arange(len(found.kept_) + 1)))[1:-1]


def _in_several_files(
    view: Collection, rows: VectorTable, where: str | None, sides: Ints | None
) -> Iterator[Item]:
    if sides is None:
        yield from (item for item in view.items(where) if len(item.paths) > 1)
    else:
        yield from items_by_id(view, [rows.ids[row] for row in np.flatnonzero(sides == 2)]).values()


def _leaks(view: Collection, rows: VectorTable, found: NearDuplicates, sides: Ints) -> list[Leak]:
    items = items_by_id(view, [rows.ids[row] for row in {*found.pairs_.ravel(), *np.flatnonzero(sides == 2)}])
    leaks = [
        Leak(item, item, 1.0, 1.0) for row in np.flatnonzero(sides == 2) if (item := items.get(rows.ids[row]))
    ]
    for pair, similarity, agreement in zip(
        found.pairs_.tolist(), found.similarities_.tolist(), found.scores_.tolist(), strict=True
    ):
        # What lies in both sets stands on whichever side the other does not.
        here, there = sorted(pair, key=lambda row: (sides[row] != 0, sides[row] == 1))
        one, other = items.get(rows.ids[here]), items.get(rows.ids[there])
        if one and other:
            leaks.append(Leak(one, other, similarity, agreement))
    return sorted(leaks, key=lambda leak: (-leak.agreement, -leak.similarity))
