"""Trains a model of one's own on labeled images: the pretrained network, and a linear map behind it."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.embedder import Embedder
from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.evaluation import LabeledFolder, estimate, paired_difference
from nearsight.evaluation.metrics import Task, probe_accuracy, retrieval
from nearsight.images.path_encoding import decode_path
from nearsight.models import DEFAULT_MODEL
from nearsight.models.cache import user_cache_dir
from nearsight.progress import steps
from nearsight.training.augmentation import ViewsBackend, augmentation
from nearsight.training.network_features import FeatureNetwork, feature_network
from nearsight.training.results import Figure, Training
from nearsight.training.selection import TrainingData, choose_map
from nearsight.training.split import rows_of_test

DEFAULT_VIEWS = 2
_METRICS = ("recall@1", "recall@5", "map@10", "knn_accuracy")


def train(
    folder: LabeledFolder,
    groups: NDArray[np.integer],
    *,
    model: str = DEFAULT_MODEL,
    augment: str = "photos",
    n_views: int = DEFAULT_VIEWS,
    dim: int | None = None,
    cache_dir: Path | None = None,
    progress: bool | None = None,
    random_state: int = 0,
) -> Training:
    """Fit a linear map behind a pretrained network, so that images of one class become alike.

    *Method*: see `closed_form.ClassScatter`. How much the classes are told apart, and which layers count, is
    chosen by recall@1 on images that were left out; of settings under which held-out classes lose, none is
    chosen. The dimension is the smallest within one standard error of the best. The figures are of test
    images, which neither the map nor a setting has seen.

    Parameters
    ----------
    folder : LabeledFolder
        With a test split, its images only judge; without one, a fifth of each class does.
    groups : ndarray of shape (n,), int
        Near-duplicates share a number; see `evaluation.duplicate_groups`.
    model : str
        An ONNX model in full precision.
    augment : str
        One of `augmentation.AUGMENTATIONS`.
    n_views : int
        Views of each image that are learned from, at least 1; the first is the image itself.
    dim : int, optional
        Length of the vectors; by default it is chosen.
    cache_dir, progress
        See `nearsight.Embedder`.
    random_state : int

    Raises
    ------
    InvalidParameterError
        There are too few classes or images, or a parameter is out of range.
    UnknownModelError
        There is no such model, or it is not an ONNX model.

    Notes
    -----
    Holds 10 kB per image and view in memory for `efficientnet-lite0`, and three times as much while it fits.
    """
    if n_views < 1:
        raise InvalidParameterError(f"n_views is {n_views}; it must be at least 1")
    started = time.perf_counter()
    network = feature_network(model, cache_dir or user_cache_dir())
    with steps(2):
        views, kept, failed = _embedded(network, folder.paths, augment, n_views, cache_dir, progress)
        usable = set(kept.tolist())
        folder = folder.without({path for row, path in enumerate(folder.paths) if row not in usable})
        y = np.unique(folder.labels, return_inverse=True)[1]
        data = TrainingData(views, network.base.dim, y, np.asarray(groups)[kept])
        is_test = rows_of_test(data.y, data.groups, folder.splits, random_state=random_state)
        fitted = data.rows(np.flatnonzero(~is_test))
        _require_enough(fitted, is_test)
        fit = choose_map(fitted, dim, random_state=random_state, progress=progress)
    tested = fit.map(fitted).apply(data.views[0])
    task = Task.split(data.y, data.groups, is_test)
    # Without a folder of test images, all images may serve, once the figures are known.
    saved = fitted if folder.has_split else data
    return Training(
        base=network.base,
        network=network,
        map=fit.map(saved),
        setting=fit.setting,
        settings=fit.settings,
        dimensions=fit.dimensions,
        unseen=fit.unseen,
        figures=_figures(data.frozen, tested, task),
        augmentation=augment,
        n_views=n_views,
        n_fitted=len(saved.y),
        n_test=int(is_test.sum()),
        n_classes=len(np.unique(saved.y)),
        has_test_split=folder.has_split,
        data_sha256=_data_sha256(folder),
        seconds=time.perf_counter() - started,
        failed=[*folder.failed, *failed],
    )


def _embedded(
    network: FeatureNetwork,
    paths: Sequence[str],
    augment: str,
    n_views: int,
    cache_dir: Path | None,
    progress: bool | None,
) -> tuple[list[NDArray[np.float32]], NDArray[np.integer], list[ImageFailure]]:
    """Return the features of each view, of the images that could be used, and their positions."""
    backend = ViewsBackend(network.backend(), augmentation(augment), n_views)
    result = Embedder(backend, cache_dir=cache_dir, progress=progress).embed(list(paths))
    views = [result.vectors[:, number * network.dim :][:, : network.dim] for number in range(n_views)]
    return views, result.positions, result.failed


def _require_enough(fitted: TrainingData, is_test: NDArray[np.bool_]) -> None:
    counts = np.bincount(fitted.y)
    n_usable = int((counts >= 2).sum())
    if n_usable < 2 or not is_test.any():
        raise InvalidParameterError(
            f"{len(fitted.y):,} images of {int((counts > 0).sum())} classes are left to learn from and "
            f"{int(is_test.sum()):,} to judge; training needs two classes of five different images each. "
            "Near-duplicates count as one"
        )


def _figures(pretrained: NDArray[np.float32], trained: NDArray[np.float32], task: Task) -> dict[str, Figure]:
    groups = task.groups[task.queries]
    values = []
    for X in (pretrained, trained):
        of_model = {name: v for name, v in retrieval(X, task).values.items() if name in _METRICS}
        values.append(of_model | {"probe_accuracy": probe_accuracy(X, task)})
    return {
        name: Figure(
            estimate(values[0][name], groups),
            estimate(values[1][name], groups),
            paired_difference(values[1][name], values[0][name], groups),
        )
        for name in values[0]
    }


def _data_sha256(folder: LabeledFolder) -> str:
    """Return a hash of every image's class, split and content, in an order that paths do not change."""
    digests = []
    for path, label, split in zip(folder.paths, folder.labels, folder.splits, strict=True):
        content = hashlib.sha256(Path(decode_path(path)).read_bytes()).hexdigest()
        digests.append(f"{split}\0{label}\0{content}")
    return hashlib.sha256("\n".join(sorted(digests)).encode("utf-8", "surrogatepass")).hexdigest()
