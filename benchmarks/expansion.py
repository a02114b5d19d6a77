"""Whether a widened search (`search --expand`) finds more images of a query's class.

    python -m benchmarks.expansion FOLDER [--model NAME]

FOLDER has one folder of images a class, perhaps in folders train and test: then the images of test are
searched among the others, else each image among all others. Recall@1 and mAP@10 with and without expansion
by the three nearest images, and the paired difference with its 95 % interval (bootstrap over images).
"""

import argparse
import json
from pathlib import Path

import numpy as np

from nearsight import Embedder, evaluation
from nearsight.collection.search import _EXPANSION_POWER, _N_EXPANSION
from nearsight.evaluation.metrics import Task, retrieval
from nearsight.models import DEFAULT_MODEL


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    options = parser.parse_args()
    folder = evaluation.read_labeled_folder(options.folder)
    found = Embedder(options.model).embed(folder.paths)
    kept = set(found.positions.tolist())
    folder = folder.without({path for row, path in enumerate(folder.paths) if row not in kept})
    X = found.vectors / np.linalg.norm(found.vectors, axis=1, keepdims=True)
    task = evaluation.task_of(folder, np.arange(len(X)))
    plain = retrieval(X, task)
    wide = retrieval(*with_expanded_queries(X, task, plain.matches[:, :_N_EXPANSION]))
    result = {}
    for metric in ("recall@1", "map@10"):
        gap = evaluation.paired_difference(
            wide.values[metric], plain.values[metric], task.groups[task.queries]
        )
        result[metric] = {
            "plain": round(float(np.nanmean(plain.values[metric])), 4),
            "expanded": round(float(np.nanmean(wide.values[metric])), 4),
            "difference": [round(value, 4) for value in (gap.value, gap.low, gap.high)],
        }
    print(json.dumps(result, indent=2))


def with_expanded_queries(X: np.ndarray, task: Task, nearest: np.ndarray) -> tuple[np.ndarray, Task]:
    """Return the vectors with expanded queries as further rows, and the task of searching these."""
    queries = X[task.queries]
    similarities = np.maximum(np.einsum("qd,qkd->qk", queries, X[nearest]), 0)
    expanded = queries + np.einsum("qk,qkd->qd", similarities**_EXPANSION_POWER, X[nearest])
    rows = np.arange(len(X), len(X) + len(expanded))
    y, groups = (np.concatenate([of_image, of_image[task.queries]]) for of_image in (task.y, task.groups))
    return np.concatenate([X, expanded]), Task(rows, task.gallery, y, groups)


if __name__ == "__main__":
    main()
