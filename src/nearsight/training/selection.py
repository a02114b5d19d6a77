"""Chooses the settings of a linear map on images that it was not fitted on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.neighbors import unit_length
from nearsight.evaluation import Estimate, PairedDifference, advised_dim, estimate, paired_difference
from nearsight.evaluation.metrics import Task, retrieval
from nearsight.progress import bar
from nearsight.training.closed_form import ONLY_BETWEEN, AffineMap, ClassScatter
from nearsight.training.split import Draw

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

METRIC = "recall@1"
SHRINKAGES = (0.1, 0.3, 0.6)
STRETCHES = (0.0, 1.0, 3.0, ONLY_BETWEEN)
DIMENSIONS = (16, 32, 64, 128, 256, 512)
# The stretch that few classes may have, because none can be held out to see what it costs.
_MAX_STRETCH_UNTESTED = 1.0
# Classes that were not learned may get worse by as much at the lower end of the interval.
_MAX_LOSS = 0.01
# Length of the inner layers' features beside the model's vector of length 1.
_LAYER_LENGTH = 0.5


@dataclass(frozen=True)
class TrainingData:
    """Features of labeled images.

    Attributes
    ----------
    views : sequence of ndarray of shape (n, d)
        Features of each view; the first is the image itself.
    n_vector : int
        The first features, which are the model's own vector; the rest come from inner layers.
    y, groups : ndarray of shape (n,), int
    """

    views: Sequence[Floats]
    n_vector: int
    y: Ints
    groups: Ints

    def rows(self, rows: Ints) -> "TrainingData":
        """Return the data of some images."""
        return TrainingData(
            [view[rows] for view in self.views], self.n_vector, self.y[rows], self.groups[rows]
        )

    @property
    def frozen(self) -> NDArray[np.float32]:
        """The pretrained model's vectors."""
        return np.asarray(self.views[0][:, : self.n_vector], np.float32)


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """A setting of the map, the more cautious the smaller.

    Attributes
    ----------
    stretch, shrinkage : float
        See `ClassScatter.mapped`.
    uses_layers : bool
        Whether inner layers count beside the model's vector.
    """

    stretch: float
    uses_layers: bool
    shrinkage: float


@dataclass(frozen=True)
class SettingResult:
    """A setting, judged on images that it was not fitted on.

    Attributes
    ----------
    setting : Setting
    seen : Estimate
        Recall@1 of images of learned classes.
    unseen : PairedDifference or None
        Of classes that were held out: recall@1 minus that of the pretrained model. None without any.
    """

    setting: Setting
    seen: Estimate
    unseen: PairedDifference | None

    @property
    def is_allowed(self) -> bool:
        """Whether classes that were not learned keep their quality."""
        if self.unseen is None:
            return self.setting.stretch <= _MAX_STRETCH_UNTESTED
        return self.unseen.low > -_MAX_LOSS


class ScaledFit:
    """Scatter of features that are scaled to comparable lengths.

    Parameters
    ----------
    data : TrainingData
    uses_layers : bool
    """

    def __init__(self, data: TrainingData, uses_layers: bool) -> None:
        n_used = data.views[0].shape[1] if uses_layers else data.n_vector
        self.scale = np.ones(n_used)
        if uses_layers and n_used > data.n_vector:
            spread = data.views[0][:, data.n_vector :].std(axis=0, dtype=np.float64)
            spread = np.maximum(spread, 1e-6 * max(spread.max(), 1e-30))
            self.scale[data.n_vector :] = _LAYER_LENGTH / (spread * np.sqrt(len(spread)))
        features = np.concatenate([view[:, :n_used] for view in data.views]) * self.scale
        self._scatter = ClassScatter(features, np.tile(data.y, len(data.views)))

    @property
    def n_between(self) -> int:
        """Number of directions between classes."""
        return self._scatter.n_between

    def mapped(self, features: Floats, setting: Setting) -> NDArray[np.float32]:
        """Map features without shortening them."""
        scaled = features[:, : len(self.scale)] * self.scale
        return self._scatter.mapped(scaled, shrinkage=setting.shrinkage, stretch=setting.stretch)

    def map(self, setting: Setting, dim: int, n_features: int) -> AffineMap:
        """Return the map of all features, unscaled."""
        fitted = self._scatter.map(shrinkage=setting.shrinkage, stretch=setting.stretch, dim=dim)
        mean, components = np.zeros(n_features), np.zeros((dim, n_features))
        mean[: len(self.scale)] = fitted.mean / self.scale
        components[:, : len(self.scale)] = fitted.components * self.scale
        return AffineMap(mean.astype(np.float32), components.astype(np.float32))


def compare_settings(
    data: TrainingData, divisions: Sequence[Draw], *, progress: bool | None = None
) -> list[SettingResult]:
    """Judge every setting on the images that each division leaves out.

    Parameters
    ----------
    data : TrainingData
    divisions : sequence of Draw
    progress : bool, optional
        See `nearsight.progress.bar`.

    Returns
    -------
    list of SettingResult
        In no particular order.
    """
    seen: dict[Setting, list[NDArray[np.float64]]] = {}
    unseen: dict[Setting, list[NDArray[np.float64]]] = {}
    frozen_unseen, seen_groups, unseen_groups = [], [], []
    layers = (False, True) if data.views[0].shape[1] > data.n_vector else (False,)
    total = len(divisions) * len(layers) * len(SHRINKAGES) * len(STRETCHES)
    with bar("choosing settings", total, unit="settings", progress=progress) as shown:
        for draw in divisions:
            seen_task, unseen_task = _tasks(data, draw)
            seen_groups.append(data.groups[seen_task.queries])
            if unseen_task is not None:
                unseen_groups.append(data.groups[unseen_task.queries])
                frozen_unseen.append(_recalls(data.frozen, unseen_task))
            for uses_layers in layers:
                fit = ScaledFit(data.rows(draw.fit), uses_layers)
                for setting in _settings(uses_layers):
                    mapped = fit.mapped(data.views[0], setting)
                    seen.setdefault(setting, []).append(_recalls(mapped, seen_task))
                    if unseen_task is not None:
                        unseen.setdefault(setting, []).append(_recalls(mapped, unseen_task))
                    shown.update()
    groups = np.concatenate(seen_groups)
    return [
        SettingResult(
            setting,
            estimate(np.concatenate(values), groups),
            paired_difference(
                np.concatenate(unseen[setting]), np.concatenate(frozen_unseen), np.concatenate(unseen_groups)
            )
            if unseen
            else None,
        )
        for setting, values in seen.items()
    ]


def chosen(results: Sequence[SettingResult]) -> SettingResult:
    """Return the best setting among those that are allowed; if none is, the one that costs least.

    Parameters
    ----------
    results : sequence of SettingResult
    """
    allowed = [result for result in results if result.is_allowed]
    if not allowed:
        return max(results, key=lambda r: (r.unseen.value if r.unseen else 0.0, r.seen.value))
    # Equal ones: the most cautious.
    return min(allowed, key=lambda result: (-result.seen.value, result.setting))


def dimension_curve(
    data: TrainingData, divisions: Sequence[Draw], setting: Setting
) -> list[tuple[int, Estimate]]:
    """Return recall@1 of learned classes by dimension, on the images that each division leaves out.

    Parameters
    ----------
    data : TrainingData
    divisions : sequence of Draw
    setting : Setting
    """
    values: dict[int, list[NDArray[np.float64]]] = {}
    groups = []
    n_features = data.views[0].shape[1]
    for draw in divisions:
        task, _ = _tasks(data, draw)
        groups.append(data.groups[task.queries])
        fit = ScaledFit(data.rows(draw.fit), setting.uses_layers)
        longest = _longest(fit, setting, len(draw.fit))
        mapped = fit.map(setting, longest, n_features).apply(data.views[0])
        for dim in (*(dim for dim in DIMENSIONS if dim < longest), longest):
            values.setdefault(dim, []).append(_recalls(mapped[:, :dim], task))
    # Where divisions differ in what they can reach, only what all of them can.
    complete = {dim: of_dim for dim, of_dim in values.items() if len(of_dim) == len(divisions)}
    joined = np.concatenate(groups)
    return [(dim, estimate(np.concatenate(complete[dim]), joined)) for dim in sorted(complete)]


def _longest(fit: ScaledFit, setting: Setting, n: int) -> int:
    most = fit.n_between if setting.stretch == ONLY_BETWEEN else min(n - 1, len(fit.scale))
    return min(most, DIMENSIONS[-1])


def best_dim(curve: Sequence[tuple[int, Estimate]]) -> int:
    """Return the shortest dimension within one standard error of the best."""
    return advised_dim(curve)


def _settings(uses_layers: bool) -> Iterator[Setting]:
    for stretch, shrinkage in product(STRETCHES, SHRINKAGES):
        yield Setting(stretch, uses_layers, shrinkage)


def _tasks(data: TrainingData, draw: Draw) -> tuple[Task, Task | None]:
    seen = Task(draw.validation, draw.fit, data.y, data.groups)
    return seen, Task(draw.unseen, draw.unseen, data.y, data.groups) if len(draw.unseen) else None


def _recalls(X: Floats, task: Task) -> NDArray[np.float64]:
    return retrieval(unit_length(X), task).values[METRIC]
