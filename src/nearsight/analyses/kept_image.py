"""Chooses the image to keep of each group of duplicates, and says why."""

from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nearsight.analyses.kept_file import passing_folder
from nearsight.analyses.pair_verification import map_thumbnails
from nearsight.collection import Collection, Item
from nearsight.collection.arrays import VectorTable
from nearsight.verification import dense

#: Columns that a table for `KeptImageChoice` must have.
FILE_COLUMNS = ("width", "height", "size_bytes", "modified")

# Levels of sharpness differ by this factor.
_SHARPNESS_STEP = 1.2
# Weight of a pixel of a rotated image, since rotation mixes each pixel with its neighbors.
_ROTATED_PIXEL_WEIGHT = 0.8
# An overlay, such as a watermark: in a tenth of the cells, a quarter more edges than in the duplicates.
_OVERLAY_EDGES, _OVERLAY_CELLS = 1.25, 0.1
# Sharpness is the edge ratio at this quantile of the cells: an overlay covers up to half of them.
_SHARPNESS_QUANTILE = 0.3
# Edges below this are noise, in gray levels.
_EDGE_NOISE = 2.0

Ints = NDArray[np.int64]
Criteria = tuple[float, float, float, float, float]


class KeptImageChoice:
    """Ranks duplicates: the best of them is kept.

    *Method*: the most pixels win, without black corners of a rotation; then the sharpest, one without an
    overlay, the most bytes, the oldest file, and the first row.

    Parameters
    ----------
    collection : Collection
        It has the thumbnails.
    table : VectorTable
        With `FILE_COLUMNS`.
    n_threads : int
    """

    def __init__(self, collection: Collection, table: VectorTable, n_threads: int) -> None:
        self._collection, self._table, self._n_threads = collection, table, n_threads
        self._sharpness: dict[int, int] = {}
        self._has_overlay: dict[int, bool] = {}
        self._black_share: dict[int, float] = {}

    def __call__(self, rows: Ints, pairs: Ints) -> NDArray[np.float64]:
        """Return a rank for each of the sorted `rows`, higher for a better image.

        `pairs` of shape (m, 2) are duplicates; only images that they connect are compared with each other.
        """
        edges = self._read_edges(rows)
        graph = coo_array((np.ones(len(pairs)), np.searchsorted(rows, pairs.T)), shape=(len(rows),) * 2)
        _, component = connected_components(graph, directed=False)
        order = np.argsort(component, kind="stable")
        for positions in np.split(order, np.flatnonzero(np.diff(component[order])) + 1):
            duplicates = [row for row in rows[positions].tolist() if row in edges]
            if duplicates:
                self._compare_edges(duplicates, np.stack([edges[row] for row in duplicates]))
        criteria = np.array([self._criteria(row) for row in rows.tolist()], np.float64).reshape(len(rows), 5)
        rank = np.empty(len(rows))
        # Earlier rows win where all else is equal; lexsort sorts by its last key first.
        rank[np.lexsort((-rows, *criteria.T[::-1]))] = np.arange(len(rows))
        return rank

    def _read_edges(self, rows: Ints) -> dict[int, NDArray[np.float32]]:
        ids = [self._table.ids[row] for row in rows]
        edges = {}
        measures = map_thumbnails(self._collection, ids, _edges_and_black_share, n_threads=self._n_threads)
        for position, (strengths, black_share) in measures:
            edges[int(rows[position])], self._black_share[int(rows[position])] = strengths, black_share
        return edges

    def _compare_edges(self, duplicates: list[int], edges: NDArray[np.float32]) -> None:
        """Compare edges cell by cell, so that an overlay on a few cells is not taken for sharpness."""
        # The lower of two: their mean would hide half of an overlay.
        typical = np.sort(edges, axis=0)[(len(duplicates) - 1) // 2]
        ratios = (edges + _EDGE_NOISE) / (typical + _EDGE_NOISE)
        levels = np.quantile(ratios, _SHARPNESS_QUANTILE, axis=(1, 2))
        overlay_shares = (ratios > _OVERLAY_EDGES * levels[:, None, None]).mean(axis=(1, 2))
        for row, level, share in zip(duplicates, levels.tolist(), overlay_shares.tolist(), strict=True):
            self._sharpness[row] = round(float(np.log(level) / np.log(_SHARPNESS_STEP)))
            self._has_overlay[row] = share > _OVERLAY_CELLS

    def _criteria(self, row: int) -> Criteria:
        """Return what decides, in this order; more is better."""
        width, height, size_bytes, modified = (self._table.columns[name][row] for name in FILE_COLUMNS)
        black_share = self._black_share.get(row, 0.0)
        n_pixels = (width or 0) * (height or 0) * (1 - black_share)
        return (
            n_pixels * (_ROTATED_PIXEL_WEIGHT if black_share else 1),
            self._sharpness.get(row, 0),
            not self._has_overlay.get(row, False),
            size_bytes or 0,
            -modified.timestamp() if modified else -np.inf,
        )

    def doubt(self, kept: Item, other: Item, agreement: float) -> str:
        """Say why somebody should look before the other image is deleted; empty if it certainly can go."""
        if agreement < dense.REVIEW_AGREEMENT:
            return f"the pixels agree by less than {dense.REVIEW_AGREEMENT:.2f}"
        level, folder = passing_folder(kept.path, [other.path])
        if level > passing_folder(other.path, [kept.path])[0]:
            return f"the image to keep lies in {folder}"
        return ""

    def reason(self, kept: int, others: Sequence[int]) -> str:
        """Say why one row is kept rather than the others of its group."""
        best, second = self._criteria(kept), max(self._criteria(row) for row in others)
        decisive = next((i for i, (a, b) in enumerate(zip(best, second, strict=True)) if a != b), None)
        columns = self._table.columns
        if decisive == 0:
            width, height = columns["width"][kept], columns["height"][kept]
            is_rotated = any(self._black_share.get(row) for row in (kept, *others))
            note = ", without black corners and interpolated pixels" if is_rotated else ""
            times = best[0] / max(1, second[0])
            return f"larger: {width} × {height}, {times:.3g} times the pixels of the next{note}"
        if decisive == 1:
            return "sharper, at the same size"
        if decisive == 2:
            return "no overlay, at the same size and sharpness"
        if decisive == 3:
            return f"more bytes, at the same size and sharpness: {best[3]:,.0f}, the next {second[3]:,.0f}"
        if decisive == 4:
            modified: datetime = columns["modified"][kept]
            return f"older file, otherwise equal: {modified.astimezone(timezone.utc):%Y-%m-%d %H:%M}"
        return "added first, otherwise equal"


def _edges_and_black_share(thumbnail: bytes) -> tuple[NDArray[np.float32], float]:
    return dense.edge_strengths(thumbnail), dense.black_corner_share(dense.gray_thumbnail(thumbnail))
