"""Trains a model of one's own on labeled images: a linear map behind a network, and perhaps its layers."""

import hashlib
import importlib.util
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageFailure, InvalidParameterError, MissingExtraError
from nearsight.evaluation import LabeledFolder, estimates, paired_differences
from nearsight.evaluation.metrics import Task, probe_accuracy, retrieval
from nearsight.models import DEFAULT_MODEL
from nearsight.models.base import ModelEntry
from nearsight.models.cache import user_cache_dir
from nearsight.models.registry import find_model
from nearsight.parameters import require_whole
from nearsight.progress import steps, steps_left
from nearsight.training.augmentation import augmentation
from nearsight.training.feature_embedder import FeatureEmbedder
from nearsight.training.losses import loss_facts
from nearsight.training.model_folder import content_digest
from nearsight.training.network_features import FeatureNetwork, feature_network
from nearsight.training.results import Figure, Training
from nearsight.training.selection import TrainingData, choose_map
from nearsight.training.split import Draw, draws, rows_of_test

if TYPE_CHECKING:
    from nearsight.training.backbone.depth import TrainedLayers

#: What may be trained: the map behind the network, its last block too, or all layers.
DEPTHS = ("auto", "head", "last", "all")
DEFAULT_LOSS, DEFAULT_LOSS_OF_PAIRS = "softmax", "supcon"
#: Views that the map is fitted on, and those that the last block learns from.
DEFAULT_VIEWS, DEFAULT_VIEWS_LAST = 2, 4
# Fewer labeled images than in so many classes of so many images teach a map, and no layers.
_MIN_CLASSES, _MIN_IMAGES = 10, 5
# Bars: the map's settings; then maps or images, two trainings, and vectors of the new network: of the test
# images, and where no maps are stored, twice of the others.
_N_STEPS = {"head": 1, "last": 5, "all": 7}
# Fewer things than this teach nothing.
_MIN_THINGS = 10
_METRICS = ("recall@1", "recall@5", "map@10", "knn_accuracy", "probe_accuracy")
# With two images of a thing, nothing can be elected or separated.
_METRICS_OF_PAIRS = ("recall@1", "recall@5", "map@10")


def train(
    folder: LabeledFolder,
    groups: NDArray[np.integer],
    *,
    model: str = DEFAULT_MODEL,
    depth: str = "head",
    loss: str | None = None,
    epochs: int | None = None,
    augment: str = "photos",
    n_views: int | None = None,
    dim: int | None = None,
    known_only: bool = False,
    embedder: FeatureEmbedder | None = None,
    state_folder: Path | None = None,
    cache_dir: Path | None = None,
    progress: bool | None = None,
    random_state: int = 0,
) -> Training:
    """Fit a linear map behind a pretrained network, so that images of one class become alike.

    *Method*: see `closed_form.ClassScatter`. How much the classes are told apart, and which layers count, is
    chosen by recall@1 on images that were left out; of settings under which held-out classes lose, none is
    chosen. The dimension is the smallest within one standard error of the best. The figures are of test
    images, which neither the map nor a setting has seen.

    With the depth ``last`` or ``all``, layers of the network are trained first. Whether they are better than
    the map alone, and after how many epochs, is judged in the same way; where they are not, the pretrained
    network is kept. With fewer than 8 classes none can be held out, so nothing shows what trained layers, a
    stretch or short vectors cost the others: all three need `known_only` then.

    Parameters
    ----------
    folder : LabeledFolder
        With a test split, its images only judge; without one, a fifth of each class does.
    groups : ndarray of shape (n,), int
        Near-duplicates share a number; see `evaluation.duplicate_groups`.
    model : str
        An ONNX model in full precision; an EfficientNet-Lite where layers are trained.
    depth : str
        One of `DEPTHS`: ``head`` needs no PyTorch; ``last`` also trains the last block, on feature maps that
        are computed once; ``all`` trains all layers, for which a GPU is needed in practice. ``auto`` is
        ``head`` without PyTorch or with fewer than 10 classes of 5 images, else ``all`` with an NVIDIA GPU
        and ``last`` without.
    loss : str, optional
        A key of `losses.LOSSES`, by which layers learn; by default ``softmax``, and ``supcon`` for pairs.
    epochs : int, optional
        Most epochs; by default 5 for ``last`` and 30 for ``all``.
    augment : str
        One of `augmentation.AUGMENTATIONS`.
    n_views : int, optional
        Views of each image that are learned from, at least 1; the first is the image itself. By default the
        map learns from 2, and the last block from 4.
    dim : int, optional
        Length of the vectors; by default it is chosen.
    known_only : bool
        Whether classes that were not learned do not matter: none are held out, and all is chosen by the
        learned ones.
    embedder : FeatureEmbedder, optional
        From `feature_embedder` with the same model, augmentation and views; what it has embedded is not
        embedded again.
    state_folder : Path, optional
        Where the state after each epoch is kept, so that the same call goes on after a crash. It can be
        deleted afterwards.
    cache_dir, progress
        See `nearsight.Embedder`.
    random_state : int

    Raises
    ------
    InvalidParameterError
        There are too few classes or images, a parameter is out of range, or the layers of this model cannot
        be trained.
    UnknownModelError
        There is no such model, or it is not an ONNX model.
    MissingExtraError
        Layers are to be trained, and PyTorch is missing.

    Notes
    -----
    Holds 10 kB per image and view in memory for `efficientnet-lite0`; while it fits, six times as much and
    0.3 GB.
    The feature maps of ``last`` take 19 kB of disk per image and view, the images of ``all`` about 400 kB.
    """
    entry = find_model(model)
    require_whole("random_state", random_state, least=0)
    _require_valid(folder, entry, depth, loss, n_views, known_only)
    started = time.perf_counter()
    n_map_views = n_views or DEFAULT_VIEWS
    places: dict[str, Any] = {"cache_dir": cache_dir, "progress": progress}
    embedder = embedder or feature_embedder(model, augment, n_map_views, **places)
    parts = _divided(folder, groups, embedder, known_only=known_only, random_state=random_state)
    depth = _resolved(depth, entry, parts.of_fitted.y, folder.holds_pairs)
    network, layers = embedder.network, None
    metrics = _METRICS_OF_PAIRS if folder.holds_pairs else _METRICS
    with steps(_N_STEPS[depth]), ThreadPoolExecutor(1) as pool:
        steps_left(_N_STEPS[depth])
        of_pretrained = pool.submit(_values, parts.data.frozen, parts.task, metrics)
        chosen: dict[str, Any] = {"known_only": known_only, "progress": progress}
        fit = choose_map(parts.of_fitted, parts.divisions, dim, fit_on=parts.to_fit, **chosen)
        if depth != "head":
            options = {"epochs": epochs, "known_only": known_only, "random_state": random_state, **places}
            with nullcontext(state_folder) if state_folder else tempfile.TemporaryDirectory() as kept_in:
                layers, parts = _with_layers(
                    parts,
                    entry,
                    dim,
                    n_map_views,
                    depth=depth,
                    loss=loss or (DEFAULT_LOSS_OF_PAIRS if folder.holds_pairs else DEFAULT_LOSS),
                    augment=augment,
                    n_views=n_views or DEFAULT_VIEWS_LAST,
                    folder=Path(kept_in),
                    **options,
                )
    if layers is not None and layers.network is not None and layers.fit is not None:
        network, fit = layers.network, layers.fit
    maps = fit.maps or [fit.map(data) for data in parts.to_fit]
    of_trained = _values(maps[0].apply(parts.data.views[0]), parts.task, metrics)
    return Training(
        base=network.base,
        network=network,
        map=maps[-1],
        setting=fit.setting,
        settings=fit.settings,
        dimensions=fit.dimensions,
        unseen=fit.unseen,
        figures=_figures(of_pretrained.result(), of_trained, parts.task),
        augmentation=augment,
        n_views=n_map_views,
        known_only=known_only,
        layers=None if layers is None else layers.record,
        **parts.facts(),
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _ImageParts:
    """The images that can be used, by what they are for.

    Attributes
    ----------
    folder : LabeledFolder
    contents : sequence of str
        `content_digest` of each image.
    failed : list of ImageFailure
    names : ndarray of str
        The classes.
    data : TrainingData
        Of all images.
    is_test : ndarray of bool
        Images that only judge.
    of_fitted : TrainingData
        Of the others.
    divisions : list of Draw
        Of the others, to choose settings.
    has_own_layers : bool
        Whether the features are those of layers that learned from the others.
    """

    folder: LabeledFolder
    contents: Sequence[str]
    failed: list[ImageFailure]
    names: NDArray[np.str_]
    data: TrainingData
    is_test: NDArray[np.bool_]
    of_fitted: TrainingData
    divisions: list[Draw]
    has_own_layers: bool = False

    @property
    def saved(self) -> TrainingData:
        """What the model that is written learns from."""
        # Trained layers have seen what was fitted, and nothing else. Else, without a folder of test images,
        # all images may serve, once the figures are known.
        return self.of_fitted if self.has_own_layers or self.folder.has_split else self.data

    @property
    def to_fit(self) -> list[TrainingData]:
        """What the map is fitted on: to judge it, and to save it."""
        return [self.of_fitted] if self.saved is self.of_fitted else [self.of_fitted, self.saved]

    @property
    def task(self) -> Task:
        """The task of finding what the test images show."""
        rows = np.flatnonzero(self.is_test)
        if self.folder.holds_pairs:
            return Task(rows, rows, self.data.y, self.data.groups)
        # Near-duplicates of what a folder named test holds are not learned from, and not searched for.
        if self.folder.has_split:
            rows = np.flatnonzero([split == "test" for split in self.folder.splits])
        return Task(rows, np.flatnonzero(~self.is_test), self.data.y, self.data.groups)

    def facts(self) -> dict[str, Any]:
        """Return what a `Training` says of its images."""
        contents, saved = self.contents, self.saved
        is_learned = np.ones(len(contents), bool) if saved is self.data else ~self.is_test
        classes = np.unique(saved.y)
        return {
            "n_fitted": len(saved.y),
            "n_test": len(self.task.queries),
            "n_classes": len(classes),
            "has_test_split": self.folder.has_split,
            "holds_pairs": self.folder.holds_pairs,
            "data_sha256": _data_sha256(self.folder, contents),
            "failed": [*self.folder.failed, *self.failed],
            "classes": [] if self.folder.holds_pairs else self.names[classes].tolist(),
            "learned": [content for content, is_one in zip(contents, is_learned, strict=True) if is_one],
        }


def _divided(
    folder: LabeledFolder,
    groups: NDArray[np.integer],
    embedder: FeatureEmbedder,
    *,
    known_only: bool,
    random_state: int,
) -> _ImageParts:
    """Embed the images, and divide those that can be used."""
    # Read now, and not at the end of what may take hours: then a file that vanished would cost all of it.
    digests, vanished = _content_digests(folder.paths)
    groups = np.asarray(groups)[[path in digests for path in folder.paths]]
    folder = folder.without({failure.path for failure in vanished})
    # What a folder named test holds is never learned from, so that one view of it is enough.
    is_judge = [folder.has_split and split == "test" for split in folder.splits]
    views, kept, failed = embedder.views(folder.paths, is_judge)
    folder = folder.without({failure.path for failure in failed})
    names, y = np.unique(folder.labels, return_inverse=True)
    data = TrainingData(views, embedder.network.base.dim, y, groups[kept])
    chosen: dict[str, Any] = {"whole_classes": folder.holds_pairs, "random_state": random_state}
    is_test = rows_of_test(data.y, data.groups, folder.splits, **chosen)
    of_fitted = data.rows(np.flatnonzero(~is_test))
    _require_enough(of_fitted, is_test, folder.holds_pairs)
    divisions = list(draws(of_fitted.y, of_fitted.groups, known_only=known_only, **chosen))
    if not all(len(draw.validation) for draw in divisions):
        raise InvalidParameterError(
            f"{len(of_fitted.y):,} images of {len(np.unique(of_fitted.y)):,} classes are left to learn from, "
            "too few to choose settings by; give five different images or more of each class. "
            "Near-duplicates count as one"
        )
    contents = [digests[path] for path in folder.paths]
    return _ImageParts(folder, contents, [*vanished, *failed], names, data, is_test, of_fitted, divisions)


def _with_layers(
    parts: _ImageParts, entry: ModelEntry, dim: int | None, n_map_views: int, **options: Any
) -> "tuple[TrainedLayers, _ImageParts]":
    """Train layers; return them, and the images with the features of the network that is better."""
    from nearsight.training.backbone.depth import Options, train_layers

    how = Options(**options)
    fitted, test = np.flatnonzero(~parts.is_test), np.flatnonzero(parts.is_test)

    def embedded(network: FeatureNetwork, rows: NDArray[np.integer], n: int) -> list[NDArray[np.float32]]:
        again = FeatureEmbedder(network, how.augment, n, cache_dir=how.cache_dir, progress=how.progress)
        return again.all_views([parts.folder.paths[row] for row in rows])

    layers = train_layers(
        entry,
        [parts.folder.paths[row] for row in fitted],
        parts.of_fitted,
        parts.divisions[0],
        how,
        lambda network: embedded(network, fitted, n_map_views),
        dim,
    )
    if layers.network is None or layers.fit is None:
        return layers, parts
    X = np.empty((len(parts.data.y), layers.network.dim), np.float32)
    X[fitted], X[test] = layers.views[0], embedded(layers.network, test, 1)[0]
    data = replace(parts.data, views=[X], pretrained=parts.data.frozen)
    of_fitted = replace(parts.of_fitted, views=layers.views, pretrained=parts.of_fitted.frozen)
    return layers, replace(parts, data=data, of_fitted=of_fitted, has_own_layers=True)


def count_steps(depth: str, model: str = DEFAULT_MODEL) -> int:
    """Return how many bars `train` opens at most when the images have been embedded.

    Parameters
    ----------
    depth, model
        See `train`.

    Raises
    ------
    InvalidParameterError, MissingExtraError
        This depth cannot be trained; better known before images are embedded.
    """
    entry = find_model(model)
    _require_depth(depth, entry)
    if depth == "auto":
        depth = "last" if _has_torch() and entry.trainable else "head"
    return _N_STEPS[depth]


def feature_embedder(
    model: str = DEFAULT_MODEL,
    augment: str = "photos",
    n_views: int | None = None,
    *,
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> FeatureEmbedder:
    """Return what embeds images for `train`, and may embed them before, see there.

    Parameters
    ----------
    model, augment, n_views, cache_dir, progress
        See `train`.

    Raises
    ------
    UnknownModelError, InvalidParameterError
        See `train`.
    """
    augmentation(augment)
    if "+" in model and find_model(model).variants is None:
        raise InvalidParameterError(
            f"{model} is several networks, and training learns a map behind one. Train on one of them, such "
            f"as {model.split('+')[0]}, and compare the result with {model} by nearsight eval"
        )
    network = feature_network(model, cache_dir or user_cache_dir())
    return FeatureEmbedder(network, augment, n_views or DEFAULT_VIEWS, cache_dir=cache_dir, progress=progress)


def _require_valid(
    folder: LabeledFolder,
    entry: ModelEntry,
    depth: str,
    loss: str | None,
    n_views: int | None,
    known_only: bool,
) -> None:
    require_whole("n_views", n_views, optional=True)
    if loss is not None:
        loss_facts(loss)
    _require_depth(depth, entry)
    if known_only and folder.holds_pairs:
        raise InvalidParameterError(
            "known_only was given with pairs, of which whole things always judge; leave it out"
        )


def _require_depth(depth: str, entry: ModelEntry) -> None:
    if depth not in DEPTHS:
        raise InvalidParameterError(f"depth is {depth!r}; it must be one of {', '.join(DEPTHS)}")
    if depth not in ("last", "all"):
        return
    if entry.trainable is None:
        raise InvalidParameterError(
            f"the layers of {entry.spec.id} cannot be trained; use the depth head, or an EfficientNet-Lite "
            "such as efficientnet-lite0"
        )
    if not _has_torch():
        raise MissingExtraError(
            f"The depth {depth} needs PyTorch. Run: pip install 'nearsight[train]', or use the depth head"
        )


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _resolved(depth: str, entry: ModelEntry, y: NDArray[np.integer], holds_pairs: bool) -> str:
    """Return what ``auto`` is with these images on this machine."""
    if depth != "auto":
        return depth
    n_large = int((np.bincount(y) >= _MIN_IMAGES).sum())
    is_enough = len(y) >= _MIN_CLASSES * _MIN_IMAGES if holds_pairs else n_large >= _MIN_CLASSES
    if entry.trainable is None or not _has_torch() or not is_enough:
        return "head"
    from nearsight.training.backbone.depth import device

    return "all" if device() == "cuda" else "last"


def _require_enough(fitted: TrainingData, is_test: NDArray[np.bool_], holds_pairs: bool) -> None:
    counts = np.bincount(fitted.y)
    n_usable = int((counts >= 2).sum())
    if holds_pairs:
        if n_usable < _MIN_THINGS:
            raise InvalidParameterError(
                f"pairs of {n_usable} different things are left to learn from; training needs {_MIN_THINGS} "
                "or more, and a fifth of all things only judges. Give more pairs"
            )
        return
    if n_usable < 2 or not is_test.any():
        raise InvalidParameterError(
            f"{len(fitted.y):,} images of {int((counts > 0).sum())} classes are left to learn from and "
            f"{int(is_test.sum()):,} to judge; training needs two classes of five different images each. "
            "Near-duplicates count as one"
        )


def _values(X: NDArray[np.float32], task: Task, metrics: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return metrics of each query."""
    values = {name: v for name, v in retrieval(X, task).values.items() if name in metrics}
    if "probe_accuracy" in metrics:
        values["probe_accuracy"] = probe_accuracy(X, task)
    return values


def _figures(
    pretrained: Mapping[str, NDArray[np.float64]], trained: Mapping[str, NDArray[np.float64]], task: Task
) -> dict[str, Figure]:
    groups = task.groups[task.queries]
    old, new = (np.stack(list(of_model.values())) for of_model in (pretrained, trained))
    # Where every query counts in every metric, all metrics share their draws of groups.
    is_whole = np.isfinite(old).all() and np.isfinite(new).all()
    parts = [slice(None)] if is_whole else [slice(row, row + 1) for row in range(len(old))]
    figures = [
        Figure(*of_metric)
        for part in parts
        for of_metric in zip(
            estimates(old[part], groups),
            estimates(new[part], groups),
            paired_differences(new[part], old[part], groups),
            strict=True,
        )
    ]
    return dict(zip(pretrained, figures, strict=True))


def _content_digests(paths: Sequence[str]) -> tuple[dict[str, str], list[ImageFailure]]:
    """Return `content_digest` by path, and the files that cannot be read."""

    def digest(path: str) -> str | ImageFailure:
        try:
            return content_digest(path)
        except OSError as error:
            return ImageFailure(path, error.strerror or str(error))

    results = {path: digest(path) for path in paths}
    failed = [result for result in results.values() if isinstance(result, ImageFailure)]
    return {path: result for path, result in results.items() if isinstance(result, str)}, failed


def _data_sha256(folder: LabeledFolder, contents: Sequence[str]) -> str:
    """Return a hash of every image's class, split and content, in an order that paths do not change."""
    digests = [
        f"{split}\0{label}\0{content}"
        for content, label, split in zip(contents, folder.labels, folder.splits, strict=True)
    ]
    return hashlib.sha256("\n".join(sorted(digests)).encode("utf-8", "surrogatepass")).hexdigest()
