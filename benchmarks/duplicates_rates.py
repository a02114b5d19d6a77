"""Whether the rate of false alarms that is stated for copies holds, over many splits.

FOLDER has photographs, of which some are edited as in `benchmarks.duplicates`. Half of them, chosen at
random, are searched for copies with their edits: once with the rate learned on these very images, then
together with the other half's unedited ones, with the rate learned on those (`distinct`). The report gives
the share of the half's images without a duplicate that were given one, in how many of the splits that share
lies in the binomial 95 % band of the stated rate, and in how many it is not above the band; a rate that is
refused is counted.

    python -m benchmarks.duplicates_rates FOLDER [--edited N] [--splits N] [--rates R ...] [--json]
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import binom

from benchmarks.duplicates import Truth, make
from nearsight import Collection
from nearsight.analyses.gray_thumbnails import read_gray_thumbnails
from nearsight.analyses.kept_image import FILE_COLUMNS
from nearsight.analyses.pair_verification import PairVerification
from nearsight.collection.arrays import read_vectors
from nearsight.errors import CalibrationError
from nearsight.estimators.duplicates import NearDuplicates
from nearsight.parallel import WorkerPool
from nearsight.verification import dense


def splits(options: argparse.Namespace) -> dict[str, dict[str, object]]:
    with tempfile.TemporaryDirectory() as directory, WorkerPool(options.threads) as workers:
        folder = Path(directory, "images")
        folder.mkdir()
        make(options.folder, folder, options.edited, options.seed)
        collection = Collection.create(Path(directory, "collection"))
        collection.add(folder)
        rows = read_vectors(collection, columns=["path", *FILE_COLUMNS])
        truth = Truth(rows.columns["path"])
        thumbnails = read_gray_thumbnails(collection, rows, workers=workers, show_progress=False)
        looks = dense.edit_hashes(thumbnails.pixels)
        known = Memory(PairVerification(thumbnails, workers=workers, show_progress=False))
        result: dict[str, list[float]] = {}
        for seed in range(options.splits):
            rng = np.random.default_rng(seed)
            numbers = np.unique(truth.number)
            asked = np.isin(truth.number, rng.choice(numbers, len(numbers) // 2, replace=False))
            distinct = ~asked & (truth.edit == "original")
            for rate in options.rates:
                for name, used in (("these images", asked), ("others, distinct", asked | distinct)):
                    mine = np.flatnonzero(used)
                    finder = NearDuplicates(
                        false_alarm_rate=rate,
                        certain_score=dense.CERTAIN_AGREEMENT,
                        min_similarity=0.7,
                        verify=lambda here, there, mine=mine: known(mine[here], mine[there]),
                    )
                    learned_on = distinct[mine] if used is not asked else None
                    alone = np.intersect1d(truth.alone, np.flatnonzero(asked))
                    try:
                        found = finder.fit(
                            rows.X[mine],
                            hashes=looks[: dense.N_PLAIN_HASHES, mine],
                            edited_hashes=looks[dense.N_PLAIN_HASHES :, mine],
                            distinct_where=learned_on,
                        )
                        alarms = np.isin(alone, mine[found.pairs_]).mean()
                    except CalibrationError:
                        alarms = np.nan
                    result.setdefault(f"{rate:g}, learned on {name}", []).append(float(alarms))
        return {
            name: band_of(np.array(v), float(name.split(",")[0]), len(alone)) for name, v in result.items()
        }


class Memory:
    """Scores of pairs that were compared before."""

    def __init__(self, confirm: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self._confirm, self._scores = confirm, dict[tuple[int, int], float]()

    def __call__(self, here: np.ndarray, there: np.ndarray) -> np.ndarray:
        pairs = list(zip(here.tolist(), there.tolist(), strict=True))
        new = sorted({pair for pair in pairs if pair not in self._scores})
        if new:
            self._scores |= dict(zip(new, self._confirm(*np.array(new).T).tolist(), strict=True))
        return np.array([self._scores[pair] for pair in pairs], np.float32)


def band_of(alarms: np.ndarray, rate: float, n: int) -> dict[str, object]:
    low, high = np.array(binom.interval(0.95, n, rate)) / n
    kept = alarms[np.isfinite(alarms)]
    return {
        "refused": int(np.isnan(alarms).sum()),
        "realized": float(kept.mean()) if len(kept) else None,
        "not above the band": int((kept <= high).sum()),
        "in the band": int(((kept >= low) & (kept <= high)).sum()),
        "band": [float(low), float(high)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--edited", type=int, default=200, help="photographs that are edited")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--rates", type=float, nargs="*", default=[0.01, 0.05], help="of false alarms")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    result = splits(options)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name, row in result.items():
        print(name)
        for key, value in row.items():
            print(f"    {key:20} {value}")


if __name__ == "__main__":
    main()
