"""Trains layers of a pretrained network, and decides whether they are worth it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nearsight import processor
from nearsight._version import __version__
from nearsight.artifacts import exported
from nearsight.errors import InvalidParameterError, ParityError
from nearsight.evaluation import Estimate, estimate
from nearsight.models.base import ModelEntry, TrainableNetwork
from nearsight.models.onnx_graph import extract_layer, layer_shapes, make_node, with_nodes
from nearsight.models.preprocess import normalize, resize_and_crop
from nearsight.models.runtimes.onnx import OnnxBackend
from nearsight.models.synthetic_images import synthetic_images
from nearsight.training.augmentation import augmentation
from nearsight.training.backbone.map_features import features_of_maps
from nearsight.training.backbone.network import EfficientNetLite
from nearsight.training.backbone.optimization import LayerTraining, LearningSchedule, Outcome, Source, mixed
from nearsight.training.backbone.processes import train_network
from nearsight.training.backbone.sources import StoredMaps, cached_maps, stored_images
from nearsight.training.backbone.validation import EpochResult, Judge
from nearsight.training.judgement import METRIC, DivisionJudge
from nearsight.training.network_features import FeatureNetwork, features_of
from nearsight.training.selection import FittedMap, TrainingData, choose_map
from nearsight.training.split import MIN_CLASSES_FOR_UNSEEN, Draw

Ints = NDArray[np.integer]
State = dict[str, NDArray[Any]]

#: By depth. Frozen batch statistics allow the same rates at any batch size.
SCHEDULES = {
    "last": LearningSchedule(epochs=5, shares=(1.0, 0.5)),
    "all": LearningSchedule(epochs=30, max_averaging=0.995, shares=(1.0, 0.5)),
}
#: Less coarse than recall@1 where few images judge.
SECOND_METRIC = "map@10"
_MAX_DIFFERENCE = 1e-4
_N_COMPARED = 4
_UNTESTED = (
    f"with fewer than {MIN_CLASSES_FOR_UNSEEN} classes none can be held out, and trained layers may be worse "
    "for other classes; where these do not matter, --known-only trains them"
)
_NOTHING_RUN = Outcome({}, None, [], [])


@dataclass(frozen=True)
class Options:
    """How layers are trained.

    Attributes
    ----------
    depth : str
        A key of `SCHEDULES`.
    loss : str
    augment : str
    n_views : int
        Views whose feature maps are learned from, with the depth ``last``.
    folder : Path
        Takes what a training that goes on needs.
    epochs : int or None
        Instead of the schedule's.
    known_only : bool
        Whether classes that were not learned do not matter.
    random_state : int
    cache_dir, progress
        See `nearsight.Embedder`.
    """

    depth: str
    loss: str
    augment: str
    n_views: int
    folder: Path
    epochs: int | None = None
    known_only: bool = False
    random_state: int = 0
    cache_dir: Path | None = None
    progress: bool | None = None


@dataclass(frozen=True)
class TrainedLayers:
    """A network whose layers were trained, and the map behind it; or why the pretrained one is kept.

    Attributes
    ----------
    network : FeatureNetwork or None
        None where the pretrained network is kept.
    views : sequence of ndarray
        Features of the images that were learned from, by the trained network.
    fit : FittedMap or None
    record : dict
        Plain data about the epochs.
    """

    network: FeatureNetwork | None
    views: Sequence[NDArray[np.float32]]
    fit: FittedMap | None
    record: dict[str, Any]


def device() -> str:
    """Return the device that trains: an NVIDIA GPU, Apple's, or the processor."""
    if torch.cuda.is_available() and not processor.is_hidden("gpu"):
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def train_layers(
    entry: ModelEntry,
    paths: Sequence[str],
    data: TrainingData,
    draw: Draw,
    options: Options,
    embed: Callable[[FeatureNetwork], Sequence[NDArray[np.float32]]],
    dim: int | None = None,
) -> TrainedLayers:
    """Train layers twice: without the images that judge, to choose the epoch; then with them.

    Without held-out classes, layers that learn a few classes make others worse, and nothing shows it; so they
    are trained only where other classes do not matter.

    Parameters
    ----------
    entry : ModelEntry
        With `trainable`.
    paths : sequence of str, length n
        Images that may be learned from.
    data : TrainingData
        Their features by the pretrained network.
    draw : Draw
    options : Options
    embed : callable
        Returns the features of these images' views by a network; not needed where feature maps are stored.
    dim : int, optional
        See `choose_map`.

    Raises
    ------
    ParityError
        The network in ONNX computes other vectors than the one that was trained.
    """
    trainable = _trainable(entry)
    if not (options.known_only or len(draw.unseen)):
        return _kept(_UNTESTED, options)
    _claim(options, entry, paths, data, draw)
    source = _source(entry, paths, options)
    judge = Judge(draw, data.y, data.groups, data.frozen)
    job = _job(trainable, source, options)

    def trained(state: State) -> tuple[FeatureNetwork, TrainingData]:
        network = _network(entry, trainable, state, job.first_block)
        views: Sequence[NDArray[np.float32]]
        if isinstance(source, StoredMaps):
            tail = EfficientNetLite(trainable, job.first_block, {**trainable.state(), **state})
            views = features_of_maps(tail, source, network, data.views, job.device)
        else:
            views = embed(network)
        return network, replace(data, views=views, pretrained=data.frozen)

    first = train_network(
        replace(
            job,
            rows=draw.fit,
            y=data.y[draw.fit],
            judge=judge,
            file=options.folder / "choice.pt",
        )
    )
    if first.best is None:
        return _kept("held-out classes got worse after every epoch", options, first)
    _, with_layers = trained(first.state)
    fit = choose_map(with_layers, [draw], dim, known_only=options.known_only, progress=False)
    head = choose_map(data, [draw], dim, known_only=options.known_only, progress=False)
    if not fit.setting.is_allowed and head.setting.is_allowed:
        return _kept("held-out classes got worse", options, first)
    new, old = _left_out(with_layers, fit, draw), _left_out(data, head, draw)
    if not is_better(new, old):
        reason = ", ".join(
            f"{name} {new[name].value:.3f} instead of {old[name].value:.3f}"
            for name in (METRIC, SECOND_METRIC)
        )
        return _kept(f"on images left out the map alone is as good ({reason})", options, first)

    second = train_network(
        replace(
            job,
            rows=np.arange(len(data.y)),
            y=data.y,
            stop_after=first.best.epoch,
            file=options.folder / "final.pt",
        )
    )
    network, of_all = trained(_mixed(trainable, second.state, first.best.share))
    return TrainedLayers(network, of_all.views, fit, _record(options, first, kept=None))


def is_better(new: Mapping[str, Estimate], old: Mapping[str, Estimate]) -> bool:
    """Whether trained layers are better than the map alone; where recall@1 does not say, mAP@10 does.

    Parameters
    ----------
    new, old : mapping of str to Estimate
        Of the same images.
    """
    gain = new[METRIC].value - old[METRIC].value
    # Half of the 95 % interval is two standard errors.
    if abs(gain) > (old[METRIC].high - old[METRIC].low) / 4:
        return gain > 0
    return new[SECOND_METRIC].value > old[SECOND_METRIC].value


def _left_out(data: TrainingData, fit: FittedMap, draw: Draw) -> dict[str, Estimate]:
    """Return metrics of the validation images, of a map that is fitted on others."""
    X = fit.map(data.rows(draw.fit)).apply(data.views[0])
    judge = DivisionJudge(data.y, data.groups, data.frozen, draw)
    found, groups = judge.seen(X), judge.groups[0]
    return {name: estimate(found[name], groups) for name in (METRIC, SECOND_METRIC)}


def _trainable(entry: ModelEntry) -> TrainableNetwork:
    if entry.trainable is None:
        raise InvalidParameterError(f"the layers of {entry.spec.id} cannot be trained; use another model")
    return entry.trainable


def _claim(options: Options, entry: ModelEntry, paths: Sequence[str], data: TrainingData, draw: Draw) -> None:
    """Empty the folder unless the same training left it."""
    facts = {
        "nearsight": __version__,
        "torch": torch.__version__,
        "model": entry.spec.fingerprint.digest,
        "depth": options.depth,
        "loss": options.loss,
        "augment": options.augment,
        "views": options.n_views,
        "epochs": options.epochs,
        "random_state": options.random_state,
        "images": hashlib.sha256("\0".join(paths).encode("utf-8", "surrogatepass")).hexdigest(),
        "labels": hashlib.sha256(
            b"".join(part.astype(np.int64).tobytes() for part in (data.y, data.groups, draw.fit))
        ).hexdigest(),
        # The same files may hold other images.
        "vectors": hashlib.sha256(np.round(data.frozen, 3).tobytes()).hexdigest(),
    }
    file = options.folder / "training.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    if {name: before.get(name) for name in facts} == facts:
        return
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    with exported(file) as out:
        out.write(json.dumps({**facts, "threads": _free_cores()}, indent=2).encode())


def _free_cores() -> int:
    """Return how many cores nobody uses: two busy threads that share a core are slower than one."""
    n_cores = processor.n_cores()
    try:
        busy = os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        busy = 0.0
    return max(1, min(n_cores, round(n_cores - busy)))


def _schedule(options: Options) -> LearningSchedule:
    schedule = SCHEDULES[options.depth]
    return replace(schedule, epochs=options.epochs or schedule.epochs)


def _job(trainable: TrainableNetwork, source: Source, options: Options) -> LayerTraining:
    facts = json.loads((options.folder / "training.json").read_text())
    return LayerTraining(
        trainable,
        first_block=len(trainable.blocks) - 1 if options.depth == "last" else 0,
        source=source,
        rows=np.arange(0),
        y=np.arange(0),
        loss=options.loss,
        schedule=_schedule(options),
        file=options.folder,
        device=device(),
        n_threads=facts["threads"],
        random_state=options.random_state,
        progress=options.progress,
    )


def _source(entry: ModelEntry, paths: Sequence[str], options: Options) -> Source:
    kind = augmentation(options.augment)
    if options.depth == "all":
        return stored_images(options.folder, paths, kind, entry.spec, progress=options.progress)
    trainable = _trainable(entry)
    graph = trainable.build(trainable.state())
    number = len(trainable.blocks) - 2
    shapes = layer_shapes(graph, entry.spec.input_px)
    layer = f"block{number}.add" if f"block{number}.add" in shapes else f"block{number}.project"
    _, *shape = shapes[layer]
    channels, height, width = (int(n or 0) for n in shape)
    size = channels * height * width
    cut = with_nodes(
        extract_layer(graph, layer), [make_node("Flatten", [layer], "map", axis=1)], {}, {"map": size}
    )
    spec = replace(entry.spec, dim=size, layer="map", pooling="mean", normalize=False)
    return cached_maps(
        options.folder,
        OnnxBackend(spec, cut),
        (channels, height, width),
        paths,
        kind,
        options.n_views,
        cache_dir=options.cache_dir,
        progress=options.progress,
    )


def _network(
    entry: ModelEntry, trainable: TrainableNetwork, state: State, first_block: int
) -> FeatureNetwork:
    """Return trained weights as a network with features, after a comparison of their vectors."""
    merged = {**trainable.state(), **state}
    graph = trainable.build(merged)
    written = OnnxBackend(replace(entry.spec, normalize=False), graph)
    tiles = [resize_and_crop(image, entry.spec) for image in synthetic_images(_N_COMPARED, seed=0)]
    pixels = np.stack([normalize(tile, entry.spec) for tile in tiles])
    with torch.no_grad():
        expected = EfficientNetLite(trainable, 0, merged)(torch.from_numpy(pixels)).numpy()
    difference = float(np.abs(written.embed(tiles) - expected).max() / max(1.0, np.abs(expected).max()))
    if not difference <= _MAX_DIFFERENCE:
        raise ParityError(
            f"the network in ONNX computes vectors that differ by {difference:.1e} from those of PyTorch; at "
            f"most {_MAX_DIFFERENCE:.0e} is allowed. Train again with another seed or loss"
        )
    return features_of(entry.spec, graph)


def _mixed(trainable: TrainableNetwork, state: State, share: float) -> State:
    if share == 1.0:
        return state
    start = trainable.state()
    ends = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
    starts = {name: torch.from_numpy(np.array(start[name])) for name in state}
    return {name: value.numpy() for name, value in mixed(starts, ends, share).items()}


def _kept(reason: str, options: Options, first: Outcome = _NOTHING_RUN) -> TrainedLayers:
    return TrainedLayers(None, [], None, _record(options, first, kept=reason))


def _record(options: Options, first: Outcome, *, kept: str | None) -> dict[str, Any]:
    best: EpochResult | None = first.best
    schedule = _schedule(options)
    return {
        "depth": options.depth,
        "loss": options.loss,
        "device": device(),
        "views": options.n_views if options.depth == "last" else schedule.epochs,
        "pretrained_layers_kept": kept,
        "epoch": None if best is None or kept else best.epoch,
        "share_of_trained_weights": None if best is None or kept else best.share,
        "schedule": asdict(schedule),
        "epochs": [asdict(result) for result in first.epochs],
        "losses": [round(value, 5) for value in first.losses],
    }
