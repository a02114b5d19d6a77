"""Adapts the last block to images without labels, and judges it by labels. Needs torch.

    python -m benchmarks.adaptation FOLDER [--augment photos] [--epochs 5] [--views 4] [--seeds 2]

FOLDER has one folder of images a class; the labels only judge. The recipe is instance contrast: views of
one image attract each other and repel those of other images (SupCon with each image as its own class), on
stored feature maps. The images of a folder test, or a fifth of each class, are queries among the others;
they are not adapted to. Recall@1 and mAP@10 of the pretrained and of the adapted vectors, paired by query
and averaged over the seeds, with 95 % intervals (bootstrap over groups of near-duplicates).
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from nearsight.evaluation import paired_difference
from nearsight.evaluation.metrics import Task, retrieval
from nearsight.images import Exclusions
from nearsight.models import DEFAULT_MODEL
from nearsight.models.registry import find_model
from nearsight.services.training import labeled_images
from nearsight.training.backbone import depth
from nearsight.training.backbone.network import EfficientNetLite
from nearsight.training.backbone.optimization import LayerTraining, LearningSchedule, vectors
from nearsight.training.backbone.processes import train_network
from nearsight.training.split import rows_of_test

METRICS = ("recall@1", "map@10")


def adapted(options: argparse.Namespace) -> dict[str, object]:
    labeled, groups = labeled_images(options.folder, None, Exclusions())
    y = np.unique(labeled.labels, return_inverse=True)[1]
    is_test = rows_of_test(y, groups, labeled.splits)
    task, rows = Task.split(y, groups, is_test), np.flatnonzero(~is_test)
    entry = find_model(options.model)
    first_block = len(entry.trainable.blocks) - 1
    with tempfile.TemporaryDirectory() as folder:
        settings = depth.Options("last", "supcon", options.augment, options.views, Path(folder))
        source = depth._source(entry, labeled.paths, settings)

        def values(network: EfficientNetLite) -> dict[str, np.ndarray]:
            return retrieval(vectors(network, source, np.arange(len(y)), "cpu"), task).values

        before = values(EfficientNetLite(entry.trainable, first_block))
        after = []
        for seed in range(options.seeds):
            outcome = train_network(
                LayerTraining(
                    entry.trainable,
                    first_block,
                    source,
                    rows,
                    rows,
                    "supcon",
                    LearningSchedule(options.epochs, rate=options.rate),
                    Path(folder) / f"{seed}.pt",
                    random_state=seed,
                )
            )
            state = {**entry.trainable.state(), **outcome.state}
            after.append(values(EfficientNetLite(entry.trainable, first_block, state)))
    result: dict[str, object] = {
        "queries": int(is_test.sum()),
        "adapted to": len(rows),
        "epochs": options.epochs,
    }
    for name in METRICS:
        mean = np.mean([each[name] for each in after], axis=0)
        gap = paired_difference(mean, before[name], groups[is_test])
        result[name] = {
            "pretrained": round(float(np.nanmean(before[name])), 4),
            "adapted": round(float(np.nanmean(mean)), 4),
            "difference": [round(gap.value, 4), round(gap.low, 4), round(gap.high, 4)],
            "p": round(gap.p, 4),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--augment", default="photos")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-4, help="largest learning rate")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=2)
    print(json.dumps(adapted(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
