"""Which of several copies of an image is best kept, and why."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nearsight.collection import Collection
from nearsight.collection.arrays import VectorTable, iter_thumbnails
from nearsight.verification import dense

#: Columns that are looked at.
FACTS = ("width", "height", "size_bytes", "modified")

# Sharper by less than this factor is as sharp.
_SHARPER = 1.2
# What a pixel is worth in an image that was turned: each is a mixture of its neighbors.
_TURNED = 0.8
# In a tenth of the places a quarter more edges than among its copies: something is laid over.
_MORE_EDGES, _PLACES = 1.25, 0.1
# How crisp an image is shows in three tenths of its places; a mark covers up to half of them.
_BARE = 0.3
# Edges that are noise, in gray levels.
_NO_EDGE = 2.0

Ints = NDArray[np.int64]


class CopyQuality:
    """Which of several copies is best kept."""

    def __init__(self, view: Collection, rows: VectorTable, n_threads: int) -> None:
        self._view, self._rows, self._n_threads = view, rows, n_threads
        self._crisp: dict[int, int] = {}
        self._marked: dict[int, bool] = {}
        self._black: dict[int, float] = {}

    def __call__(self, rows: Ints, pairs: Ints) -> NDArray[np.float64]:
        """Return a number for each row, higher for what is better kept; `pairs` are the same image."""
        edges = self._look_at(rows)
        graph = coo_array((np.ones(len(pairs)), np.searchsorted(rows, pairs.T)), shape=(len(rows),) * 2)
        _, number = connected_components(graph, directed=False)
        order = np.argsort(number, kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
            copies = [row for row in rows[some].tolist() if row in edges]
            if copies:
                self._compare(copies, np.stack([edges[row] for row in copies]))
        keys = np.array([self.keys(row) for row in rows.tolist()], np.float64).reshape(len(rows), 5)
        rank = np.empty(len(rows))
        # Earlier rows win where all else is equal; lexsort looks at its last key first.
        rank[np.lexsort((-rows, *keys.T[::-1]))] = np.arange(len(rows))
        return rank

    def _look_at(self, rows: Ints) -> dict[int, NDArray[np.float32]]:
        place = {self._rows.ids[row]: row for row in rows.tolist()}
        edges: dict[int, NDArray[np.float32]] = {}
        with ThreadPoolExecutor(self._n_threads) as pool:
            for some in iter_thumbnails(self._view, list(place)):
                mine = {place[id]: data for id, data in some.items() if id in place}
                for row, (strong, black) in zip(mine, pool.map(_seen, mine.values()), strict=True):
                    edges[row], self._black[row] = strong, black
        return edges

    def _compare(self, copies: list[int], edges: NDArray[np.float32]) -> None:
        """Compare copies place by place, so that what lies over some places does not pass for crispness."""
        # The lower of two: their mean would hide half of a mark.
        usual = np.sort(edges, axis=0)[(len(copies) - 1) // 2]
        ratios = (edges + _NO_EDGE) / (usual + _NO_EDGE)
        levels = np.quantile(ratios, _BARE, axis=(1, 2))
        more = (ratios > _MORE_EDGES * levels[:, None, None]).mean(axis=(1, 2))
        for row, level, share in zip(copies, levels.tolist(), more.tolist(), strict=True):
            self._crisp[row] = round(float(np.log(level) / np.log(_SHARPER)))
            self._marked[row] = share > _PLACES

    def keys(self, row: int) -> tuple[float, float, float, float, float]:
        """Return what is compared, in this order; more is better."""
        width, height, size, modified = (self._rows.columns[name][row] for name in FACTS)
        black = self._black.get(row, 0.0)
        shown = (width or 0) * (height or 0) * (1 - black) * (_TURNED if black else 1)
        bare = not self._marked.get(row, False)
        return shown, self._crisp.get(row, 0), bare, size or 0, -modified.timestamp() if modified else -np.inf

    def why(self, keep: int, others: Sequence[int]) -> str:
        """Say why `keep` is the best of them."""
        best, runner_up = self.keys(keep), max(self.keys(row) for row in others)
        first = next((at for at in range(5) if best[at] != runner_up[at]), None)
        columns, same = self._rows.columns, "of those as large"
        if first == 0:
            width, height = columns["width"][keep], columns["height"][keep]
            times = best[0] / max(1, runner_up[0])
            turned = any(self._black.get(row) for row in (keep, *others))
            what = "black corners and mixed pixels left out, " if turned else ""
            return f"the largest: {width} × {height}, {what}{times:.3g} times the next"
        if first == 1:
            return f"the sharpest {same}"
        if first == 2:
            return f"nothing seems laid over it, {same} and sharp"
        if first == 3:
            return f"the most bytes {same} and sharp: {best[3]:,.0f}, the next {runner_up[3]:,.0f}"
        if first == 4:
            date: datetime = columns["modified"][keep]
            return f"the oldest {same} and sharp: {date.astimezone(timezone.utc):%Y-%m-%d %H:%M}"
        return "the first that came in; they are as good as each other"


def _seen(thumbnail: bytes) -> tuple[NDArray[np.float32], float]:
    """Return where an image has how many edges, and how much of it is black corners."""
    return dense.edge_strengths(thumbnail), dense.black_corner_share(dense.gray_thumbnail(thumbnail))
