"""Chooses the image to keep of each group of duplicates, the one that lost least, and says why."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nearsight import progress
from nearsight.analyses.gray_thumbnails import map_thumbnails
from nearsight.analyses.image_comparison import differences
from nearsight.analyses.image_difference import Candidate, Framing, ImageDifference
from nearsight.analyses.kept_file import passing_folder
from nearsight.analyses.pair_verification import PairVerification
from nearsight.analyses.scratch_array import scratch_array
from nearsight.collection import Collection, Item
from nearsight.collection.arrays import VectorTable, items_by_id
from nearsight.errors import ImageError
from nearsight.images import FileSource, Limits, content_id, decode
from nearsight.images.enlargement import AddedDetail, added_detail
from nearsight.images.path_encoding import absolute
from nearsight.images.quality import ImageQuality, measure_quality
from nearsight.parallel import WorkerPool
from nearsight.verification import dense

#: Columns that a table for `KeptImageChoice` must have.
FILE_COLUMNS = ("width", "height", "size_bytes", "modified")

# An overlay, such as a watermark: in a tenth of the cells, a quarter more edges than in the duplicates.
_OVERLAY_EDGES, _OVERLAY_CELLS = 1.25, 0.1
# Sharpness is the edge ratio at this quantile of the cells: an overlay covers up to half of them.
_SHARPNESS_QUANTILE = 0.3
# Edges below this are noise, in gray levels.
_EDGE_NOISE = 2.0
# Pixels of the small color images that are compared, and of the cells that are compared of them.
_LOOK_PX, _LOOK_CELLS = 64, 16
# A position this far beyond an edge is not an error of the alignment; an image runs from -1 to 1.
_EDGE = 1.04
# Images to measure, and pairs to compare, from which on processes pay, and how many one is sent at a time.
_MIN_IMAGES_FOR_PROCESSES, _IMAGES_PER_BATCH = 500, 4
_MIN_PAIRS_FOR_PROCESSES, _PAIRS_PER_BATCH = 2_000, 64
# Fewer images show no progress: it would only flicker.
_MIN_SHOWN = 64

_T = TypeVar("_T")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Thumbnail:
    edges: NDArray[np.float32]
    look: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What a pair of duplicates is compared by: an item of work."""

    first: Candidate
    second: Candidate
    transform: Floats  # where a position of the first lies in the second
    pixels: NDArray[np.uint8]
    looks: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None

    def differences(self) -> list[ImageDifference]:
        """Return in what the two images differ."""
        framing = _framing(self.transform, (self.first.item, self.second.item), self.pixels)
        common = None
        if self.looks is not None:
            first, second = (look.astype(np.float64) for look in self.looks)
            common = _common_looks(self.transform, first, second)
        added_detail = lru_cache(1)(partial(_added_detail, self.first, self.second))
        return differences(self.first, self.second, framing, common, added_detail)


class KeptImageChoice:
    """Ranks duplicates: the best of them is kept.

    *Method*: the files of duplicates are decoded and measured (`images.quality`), and each verified pair is
    compared (`image_comparison`): color, detail, framing, noise, compression, metadata, bytes of one format,
    age. The image that is better than most of its duplicates ranks highest; of equal ones, the first.

    Parameters
    ----------
    collection : Collection
        It has the thumbnails.
    table : VectorTable
        With `FILE_COLUMNS`.
    verifier : PairVerification
        Of the rows of `table`; it verified the pairs.
    workers : WorkerPool
        Decodes and compares, in processes if there is much to do.
    show_progress : bool or None
    """

    def __init__(
        self,
        collection: Collection,
        table: VectorTable,
        verifier: PairVerification,
        workers: WorkerPool,
        show_progress: bool | None = None,
    ) -> None:
        self._collection, self._table, self._verifier = collection, table, verifier
        self._workers, self._show_progress = workers, show_progress
        self._candidates: dict[int, Candidate] = {}
        self._differences: dict[tuple[int, int], list[ImageDifference]] = {}
        self._rank: dict[int, float] = {}

    def __call__(self, rows: Ints, pairs: Ints) -> NDArray[np.float64]:
        """Return a rank for each of the sorted `rows`, higher for a better image.

        `pairs` of shape (m, 2) are duplicates; only they are compared with each other.
        """
        ids = [self._table.ids[row] for row in rows]
        # 13 kB an image, of all images with a duplicate.
        all_edges = np.asarray(scratch_array((len(rows), dense.EDGE_CELLS, dense.EDGE_CELLS), np.float32))
        all_looks = np.asarray(scratch_array((len(rows), _LOOK_PX, _LOOK_PX, 3), np.uint8))
        edges, looks = {}, {}
        with self._bar("measuring edges", len(rows), "images") as bar:
            for place, small in map_thumbnails(self._collection, ids, _thumbnail, workers=self._workers):
                all_edges[place], all_looks[place] = small.edges, small.look
                edges[int(rows[place])], looks[int(rows[place])] = all_edges[place], all_looks[place]
                bar.update()
        with_overlay = _rows_with_overlay(rows, pairs, edges)
        self._candidates = dict(self._measured(rows, items_by_id(self._collection, ids), with_overlay))
        found_differences = self._workers.map(
            _Comparison.differences,
            self._comparisons(pairs, looks),
            in_processes=len(pairs) >= _MIN_PAIRS_FOR_PROCESSES,
            batch_size=_PAIRS_PER_BATCH,
            lost=_not_compared,
        )
        self._differences = {}
        with self._bar("comparing duplicates", len(pairs), "pairs") as bar:
            for (one, other), found in zip(pairs.tolist(), found_differences, strict=True):
                self._differences[one, other] = found
                bar.update()
        score = np.zeros(len(rows))
        n_compared = np.ones(len(rows))
        for pair, found in self._differences.items():
            at = np.searchsorted(rows, pair)
            sign = next((difference.sign for difference in found if difference.sign), 0)
            score[at] += sign, -sign
            n_compared[at] += 1
        rank = np.empty(len(rows))
        # Earlier rows win where all else is equal; lexsort sorts by its last key first.
        rank[np.lexsort((-rows, score / n_compared))] = np.arange(len(rows))
        self._rank = dict(zip(rows.tolist(), rank.tolist(), strict=True))
        return rank

    def _measured(
        self, rows: Ints, items: dict[str, Item], with_overlay: set[int]
    ) -> Iterator[tuple[int, Candidate]]:
        known = [items.get(self._table.ids[row], Item(self._table.ids[row], "", [])) for row in rows]
        with self._bar("measuring what images lost", len(rows), "images") as bar:
            qualities = self._workers.map(
                _quality,
                known,
                in_processes=len(rows) >= _MIN_IMAGES_FOR_PROCESSES,
                batch_size=_IMAGES_PER_BATCH,
                lost=_not_measured,
            )
            for row, item, quality in zip(rows.tolist(), known, qualities, strict=True):
                yield row, Candidate(item, quality, row in with_overlay)
                bar.update()

    def _bar(self, description: str, total: int, unit: str) -> progress.Bar:
        shown = self._show_progress if total >= _MIN_SHOWN else False
        return progress.bar(description, total, unit=unit, progress=shown)

    def _comparisons(self, pairs: Ints, looks: dict[int, NDArray[np.uint8]]) -> Iterator[_Comparison]:
        transforms = self._verifier.transforms(pairs).astype(np.float64)
        for (first, second), transform in zip(pairs.tolist(), transforms, strict=True):
            yield _Comparison(
                self._candidates[first],
                self._candidates[second],
                transform,
                self._verifier.thumbnails.pixels[[first, second]],
                (looks[first], looks[second]) if looks.keys() >= {first, second} else None,
            )

    def _between(self, kept: int, other: int) -> list[ImageDifference] | None:
        """Return the differences of two images, positive where the kept one is better."""
        if (kept, other) in self._differences:
            return self._differences[kept, other]
        found = self._differences.get((other, kept))
        return found and [ImageDifference(-one.sign, one.advantage, one.doubt) for one in found]

    def doubt(self, kept: int, other: int, kept_path: str, other_path: str, agreement: float) -> str:
        """Say why somebody should look before the other image is deleted; empty if it certainly can go."""
        if agreement < dense.REVIEW_AGREEMENT:
            return f"the pixels agree by less than {dense.REVIEW_AGREEMENT:.2f}"
        found = self._between(kept, other)
        if found is None:
            return "it shares too little with the kept image to be compared"
        if doubt := next((one.doubt for one in found if one.sign < 1 and one.doubt), ""):
            return doubt
        level, folder = passing_folder(kept_path, [other_path])
        if level > passing_folder(other_path, [kept_path])[0]:
            return f"the image to keep lies in {folder}"
        return ""

    def reason(self, kept: int, others: Sequence[int]) -> str:
        """Say why one row is kept rather than the others of its group."""
        for other in sorted(others, key=lambda row: -self._rank.get(row, 0)):
            for one in self._between(kept, other) or []:
                if one.sign > 0 and one.advantage:
                    return one.advantage
        return "added first, otherwise equal"


def _quality(item: Item) -> ImageQuality | None:
    """Return what an image lost, or None if none of its local files is as it was when it was added."""
    return _of_file(item, measure_quality)


def _not_measured(_: Item) -> None:
    """Return the quality of a file with which worker processes end: unknown."""
    return


def _not_compared(pair: _Comparison) -> list[ImageDifference]:
    """Return the differences of two images with which worker processes end, as if no file could be read."""
    return differences(replace(pair.first, quality=None), replace(pair.second, quality=None), Framing())


def _added_detail(first: Candidate, second: Candidate) -> AddedDetail:
    """Return what the larger of two images adds to the smaller one; unknown for a format of unknown loss."""
    small, large = sorted((first, second), key=lambda one: one.item.width * one.item.height)
    if not (
        small.quality and large.quality and small.quality.has_known_loss and large.quality.has_known_loss
    ):
        return AddedDetail()
    grays = [
        _drawn_lightness(one.item.id, tuple(one.item.paths))
        if one.quality and one.quality.image_format == "SVG"
        else _of_file(one.item, _lightness)
        for one in (large, small)
    ]
    if grays[0] is None or grays[1] is None:
        return AddedDetail()
    return added_detail(grays[0], grays[1], large.quality.compression, small.quality.compression)


# A process is started to draw one, and the next pairs have the same drawing; each takes 0.3 MB.
@lru_cache(64)
def _drawn_lightness(id: str, paths: tuple[str, ...]) -> NDArray[np.uint8] | None:
    return _of_file(Item(id, "", [*paths]), _lightness)


def _lightness(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode(data, limits=Limits()).image.convert("L"))


def _of_file(item: Item, function: Callable[[bytes], _T]) -> _T | None:
    """Return the result of a function for the content of a local file that is as it was when it was added."""
    for path in item.paths:
        if "://" in path:
            continue
        try:
            data = FileSource(path, absolute(path)).read(Limits())
            if content_id(data) == item.id:
                return function(data)
        except ImageError:
            continue
    return None


def _thumbnail(jpeg: bytes) -> _Thumbnail:
    image = Image.open(io.BytesIO(jpeg))
    look = image.convert("RGB").resize((_LOOK_PX, _LOOK_PX), Image.Resampling.BOX)
    return _Thumbnail(dense.edge_strengths(image), np.asarray(look))


def _rows_with_overlay(rows: Ints, pairs: Ints, edges: dict[int, NDArray[np.float32]]) -> set[int]:
    """Compare the edges of connected rows cell by cell, so that an overlay is not taken for sharpness."""
    graph = coo_array((np.ones(len(pairs)), np.searchsorted(rows, pairs.T)), shape=(len(rows),) * 2)
    _, component = connected_components(graph, directed=False)
    order = np.argsort(component, kind="stable")
    found: set[int] = set()
    for positions in np.split(order, np.flatnonzero(np.diff(component[order])) + 1):
        duplicates = [row for row in rows[positions].tolist() if row in edges]
        if not duplicates:
            continue
        strengths = np.stack([edges[row] for row in duplicates])
        # The lower of two: their mean would hide half of an overlay.
        typical = np.sort(strengths, axis=0)[(len(duplicates) - 1) // 2]
        ratios = (strengths + _EDGE_NOISE) / (typical + _EDGE_NOISE)
        levels = np.quantile(ratios, _SHARPNESS_QUANTILE, axis=(1, 2))
        shares = (ratios > _OVERLAY_EDGES * levels[:, None, None]).mean(axis=(1, 2))
        found |= {
            row for row, share in zip(duplicates, shares.tolist(), strict=True) if share > _OVERLAY_CELLS
        }
    return found


def _framing(transform: Floats, items: tuple[Item, Item], pixels: NDArray[np.uint8]) -> Framing:
    linear = transform[:, :2]
    area = abs(float(np.linalg.det(linear)))
    if area < 1e-3:  # given up: the pair was confirmed by another one
        return Framing(outside=(1.0, 1.0))
    inverse = np.linalg.inv(linear)
    back = np.column_stack([inverse, -inverse @ transform[:, 2]])
    (outside_a, detail_a), (outside_b, detail_b) = _beyond(transform, pixels[0]), _beyond(back, pixels[1])
    # In pixels, since a frame that is not square shears a turn.
    right = linear[:, 0] * (max(1, items[1].width), max(1, items[1].height))
    degrees = abs((np.degrees(np.arctan2(right[1], right[0])) + 45) % 90 - 45)
    is_turned = abs(linear[0, 0] * linear[1, 1]) < abs(linear[0, 1] * linear[1, 0])
    is_mirrored = np.linalg.det(linear) < 0
    return Framing(
        area, (outside_a, outside_b), (detail_a, detail_b), float(degrees), is_turned or is_mirrored
    )


def _beyond(transform: Floats, pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the share of an image beyond the edges of another one, and how strong edges are there."""
    at = (np.arange(dense.SIDE_PX) + 0.5) * 2 / dense.SIDE_PX - 1
    x, y = np.meshgrid(at, at)
    there = transform @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    outside = (np.abs(there) > _EDGE).any(axis=0).reshape(x.shape)
    gray = pixels.astype(np.float64)
    edges = np.hypot(*np.gradient(gray))
    if not outside.any() or outside.all():
        return float(outside.mean()), 1.0
    return float(outside.mean()), float(edges[outside].mean() / max(edges[~outside].mean(), 1e-6))


def _common_looks(transform: Floats, first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Return both images in the first one's frame, in cells; equal where the second shows nothing."""
    at = (np.arange(_LOOK_PX) + 0.5) * 2 / _LOOK_PX - 1
    x, y = np.meshgrid(at, at)
    there = transform @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    is_inside: NDArray[np.bool_] = np.all(np.abs(there) < 1, axis=0)
    column, row = np.clip(((there + 1) / 2 * _LOOK_PX).astype(int), 0, _LOOK_PX - 1)
    seen = np.where(is_inside[:, None], second[row, column], first.reshape(-1, 3)).reshape(first.shape)
    return _cells(first), _cells(seen)


def _cells(look: Floats) -> Floats:
    side = _LOOK_PX // _LOOK_CELLS
    cells: Floats = look.reshape(_LOOK_CELLS, side, _LOOK_CELLS, side, 3).mean(axis=(1, 3))
    return cells
