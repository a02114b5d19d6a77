"""How often `nearsight monitor` alarms without a reason, and how often with one.

    python -m benchmarks.monitor FOLDER --foreign FOLDER [--draws N] [--json]

FOLDER has images, of which in each draw 1,000 are known and others are new: without a change; with a share of
images of the other folder; and with half of the classes (folders) twice as frequent. Reported is the share of
draws in which p is at most 0.01, with its Wilson interval. Without a change it should lie in the binomial
95 % band of 0.01. An alarm of `monitor` is two such runs in a row.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import binom

from benchmarks.duplicates import wilson
from nearsight import Embedder
from nearsight.services.monitor import ALARM_P
from nearsight.training.drift import changed_mix, unknown_kinds

_N_KNOWN = 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--foreign", type=Path, required=True)
    parser.add_argument("--new", type=int, default=300, help="new images")
    parser.add_argument("--draws", type=int, default=200, help="without a change; a fifth with one")
    parser.add_argument("--json", action="store_true", help="print one JSON document only")
    options = parser.parse_args()
    print(json.dumps(measure(options), indent=2))


def measure(options: argparse.Namespace) -> dict[str, object]:
    found = Embedder().embed(options.folder)
    X, labels = found.vectors, np.array([Path(path).parent.name for path in found.paths])
    foreign = Embedder().embed(options.foreign).vectors
    classes, m = np.unique(labels), options.new

    def same(rng: np.random.Generator, rest: np.ndarray) -> np.ndarray:
        return X[rng.choice(rest, m, replace=False)]

    def with_foreign(share: float) -> Callable[[np.random.Generator, np.ndarray], np.ndarray]:
        n_foreign = round(share * m)

        def draw(rng: np.random.Generator, rest: np.ndarray) -> np.ndarray:
            others = foreign[rng.choice(len(foreign), n_foreign, replace=False)]
            return np.concatenate([X[rng.choice(rest, m - n_foreign, replace=False)], others])

        return draw

    def other_mix(rng: np.random.Generator, rest: np.ndarray) -> np.ndarray:
        frequent = np.isin(labels[rest], rng.permutation(classes)[: len(classes) // 2])
        weights = np.where(frequent, 2.0, 1.0)
        return X[rng.choice(rest, m, replace=False, p=weights / weights.sum())]

    changes = {
        "none": (same, options.draws),
        "3 % foreign": (with_foreign(0.03), options.draws // 5),
        "10 % foreign": (with_foreign(0.1), options.draws // 5),
        "half of the classes twice as frequent": (other_mix, options.draws // 5),
    }
    return {
        "known": _N_KNOWN,
        "new": m,
        "band without a change": [k / options.draws for k in binom.interval(0.95, options.draws, ALARM_P)],
        **{name: _alarms(X, draw, n) for name, (draw, n) in changes.items()},
    }


def _alarms(
    X: np.ndarray, draw: Callable[[np.random.Generator, np.ndarray], np.ndarray], n_draws: int
) -> dict[str, list[float]]:
    alarms = np.zeros(3, int)
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(X))
        known, new = X[order[:_N_KNOWN]], draw(rng, order[_N_KNOWN:])
        unknown = unknown_kinds(known, new, random_state=seed).p <= ALARM_P
        mix = changed_mix(known, new, random_state=seed).p <= ALARM_P
        alarms += [unknown, mix, unknown or mix]
    names = ("unknown kinds", "changed mix", "either")
    return {
        name: [round(x, 4) for x in (k / n_draws, *wilson(int(k), n_draws))]
        for name, k in zip(names, alarms, strict=True)
    }


if __name__ == "__main__":
    main()
