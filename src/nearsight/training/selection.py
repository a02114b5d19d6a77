"""Chooses the settings of a linear map on images that it was not fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import InvalidParameterError
from nearsight.evaluation import Estimate, advised_dim, curve_dimensions, estimates
from nearsight.evaluation.metrics import Task, recalls, retrieval
from nearsight.progress import bar
from nearsight.training.closed_form import ONLY_BETWEEN, AffineMap, ClassScatter, WhitenedPoints
from nearsight.training.split import Draw

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

METRIC = "recall@1"
#: Must not fall either: of what is found, the first one is not all that is looked at.
WIDE_METRIC = "recall@5"
SHRINKAGES = (0.1, 0.3, 0.6)
STRETCHES = (0.0, 1.0, 3.0, ONLY_BETWEEN)
MAX_DIM = 512
# What few classes may have, because none can be held out to see what more would cost the others.
_STRETCHES_UNTESTED, _SHRINKAGES_UNTESTED = STRETCHES[:1], SHRINKAGES[-1:]
#: Classes that were not learned may get worse by as much at the lower end of the interval.
MAX_LOSS = 0.01
# Those of `METRIC` and `WIDE_METRIC`.
_RANKS = (1, 5)
_N_QUERIES_AT_ONCE = 1024
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
    pretrained : ndarray of shape (n, d), optional
        The pretrained model's vectors, where the features are of a network that was trained further.
    """

    views: Sequence[Floats]
    n_vector: int
    y: Ints
    groups: Ints
    pretrained: Floats | None = None

    def rows(self, rows: Ints) -> "TrainingData":
        """Return the data of some images."""
        return TrainingData(
            [view[rows] for view in self.views],
            self.n_vector,
            self.y[rows],
            self.groups[rows],
            None if self.pretrained is None else self.pretrained[rows],
        )

    @property
    def frozen(self) -> NDArray[np.float32]:
        """The pretrained model's vectors."""
        vectors = self.views[0][:, : self.n_vector] if self.pretrained is None else self.pretrained
        return np.asarray(vectors, np.float32)


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
class Quality:
    """What vectors reach on images that nothing was fitted on.

    Attributes
    ----------
    seen : Estimate
        Recall@1 of images of learned classes.
    wide : Estimate
        Of the same images, recall@5 minus that of the pretrained model.
    unseen : Estimate or None
        Of classes that were held out: recall@1 minus that of the pretrained model. None without any.
    """

    seen: Estimate
    wide: Estimate
    unseen: Estimate | None

    @property
    def worst(self) -> float:
        """The smaller of the differences to the pretrained model."""
        return min(self.wide.value, self.wide.value if self.unseen is None else self.unseen.value)

    @property
    def is_allowed(self) -> bool:
        """Whether recall@5 is not proven worse, and held-out classes, if any, keep their quality."""
        return self.wide.high >= 0 and (self.unseen is None or self.unseen.low > -MAX_LOSS)


@dataclass(frozen=True)
class SettingResult:
    """A setting, and what it reaches.

    Attributes
    ----------
    setting : Setting
    quality : Quality
    """

    setting: Setting
    quality: Quality

    @property
    def is_allowed(self) -> bool:
        """Whether nothing else gets worse; where other classes are untested, only the least is allowed."""
        return self.quality.is_allowed and (self.quality.unseen is not None or self.is_least)

    @property
    def is_least(self) -> bool:
        """Whether the setting tells learned classes apart as little as any."""
        return self.setting.stretch in _STRETCHES_UNTESTED and self.setting.shrinkage in _SHRINKAGES_UNTESTED


@dataclass(frozen=True)
class DimensionResult:
    """A length of the vectors, and what they reach.

    Attributes
    ----------
    dim : int
    quality : Quality
    """

    dim: int
    quality: Quality


class ScaledFit:
    """Scatter of features that are scaled to comparable lengths.

    Parameters
    ----------
    data : TrainingData
    uses_layers : bool
    precision : type
        See `ClassScatter`.
    """

    def __init__(
        self, data: TrainingData, uses_layers: bool, precision: type[np.floating] = np.float64
    ) -> None:
        n_used = data.views[0].shape[1] if uses_layers else data.n_vector
        self.scale = np.ones(n_used)
        if uses_layers and n_used > data.n_vector:
            spread = data.views[0][:, data.n_vector :].std(axis=0, dtype=np.float64)
            spread = np.maximum(spread, 1e-6 * max(spread.max(), 1e-30))
            self.scale[data.n_vector :] = _LAYER_LENGTH / (spread * np.sqrt(len(spread)))
        self.scale = self.scale.astype(precision)
        features = np.concatenate([view[:, :n_used] for view in data.views]) * self.scale
        self._scatter = ClassScatter(features, np.tile(data.y, len(data.views)), precision)

    @property
    def n_between(self) -> int:
        """Number of directions between classes."""
        return self._scatter.n_between

    def coordinates(self, features: Floats) -> NDArray[np.float32]:
        """Return features in the coordinates that `whitened` takes."""
        return self._scatter.coordinates(features[:, : len(self.scale)] * self.scale)

    def whitened(self, points: NDArray[np.float32], shrinkage: float) -> WhitenedPoints:
        """Whiten features; see `ClassScatter.whitened`."""
        return self._scatter.whitened(points, shrinkage)

    def map(self, setting: Setting, dim: int, n_features: int) -> AffineMap:
        """Return the map of all features, unscaled; see `ClassScatter.map`."""
        fitted = self._scatter.map(shrinkage=setting.shrinkage, stretch=setting.stretch, dim=dim)
        mean, components = np.zeros(n_features), np.zeros((dim, n_features))
        mean[: len(self.scale)] = fitted.mean / self.scale
        components[:, : len(self.scale)] = fitted.components * self.scale
        return AffineMap(mean.astype(np.float32), components.astype(np.float32))


@dataclass(frozen=True)
class FittedMap:
    """A map whose settings were chosen on images that it was not fitted on.

    Attributes
    ----------
    setting : SettingResult
    settings : list of SettingResult
        All that were compared.
    dimensions : list of DimensionResult
    dim : int
    """

    setting: SettingResult
    settings: list[SettingResult]
    dimensions: list[DimensionResult]
    dim: int

    @property
    def unseen(self) -> Estimate | None:
        """What vectors of this length (or of the next that was judged) cost classes that were held out."""
        return next((result.quality.unseen for result in self.dimensions if result.dim >= self.dim), None)

    def map(self, data: TrainingData) -> AffineMap:
        """Return the map of these settings, fitted on all of the data."""
        fit = ScaledFit(data, self.setting.setting.uses_layers)
        return fit.map(self.setting.setting, self.dim, data.views[0].shape[1])


def choose_map(
    data: TrainingData,
    divisions: Sequence[Draw],
    dim: int | None = None,
    *,
    progress: bool | None = None,
) -> FittedMap:
    """Choose the settings of a map on divisions of the data.

    Parameters
    ----------
    data : TrainingData
    divisions : sequence of Draw
        From `split.draws`.
    dim : int, optional
        Length of the vectors; by default it is chosen.
    progress : bool, optional
        See `nearsight.progress.bar`.

    Raises
    ------
    InvalidParameterError
        `dim` is longer than the data allow.
    """
    fits = DivisionFits(data, divisions)
    settings = compare_settings(data, fits, progress=progress)
    best = chosen(settings)
    curve = compare_dimensions(data, fits, best.setting)
    longest = curve[-1].dim
    if dim is not None and not 1 <= dim <= longest:
        raise InvalidParameterError(
            f"dim is {dim}; with these images and classes it must be between 1 and {longest}"
        )
    return FittedMap(best, settings, curve, dim or best_dim(curve))


class DivisionFits:
    """The scatter of each division's images, and what judges, computed once for all settings and dimensions.

    Parameters
    ----------
    data : TrainingData
    divisions : sequence of Draw
    """

    def __init__(self, data: TrainingData, divisions: Sequence[Draw]) -> None:
        self._data = data
        self.divisions = divisions
        self.judged = Judged(data.y, data.groups, data.frozen, divisions)
        self._fits: dict[bool, list[ScaledFit]] = {}

    def of(self, uses_layers: bool) -> list[ScaledFit]:
        """Return the fit of each division, with or without inner layers."""
        if uses_layers not in self._fits:
            self._fits[uses_layers] = [
                ScaledFit(self._data.rows(draw.fit), uses_layers, np.float32) for draw in self.divisions
            ]
        return self._fits[uses_layers]


def compare_settings(
    data: TrainingData, fits: DivisionFits, *, progress: bool | None = None
) -> list[SettingResult]:
    """Judge every setting that may be chosen on the images that each division leaves out.

    Parameters
    ----------
    data : TrainingData
    fits : DivisionFits
        Of these data.
    progress : bool, optional
        See `nearsight.progress.bar`.

    Returns
    -------
    list of SettingResult
        In no particular order.
    """
    layers = (False, True) if data.views[0].shape[1] > data.n_vector else (False,)
    shrinkages: Sequence[float] = SHRINKAGES
    stretches: Sequence[float] = STRETCHES
    if not fits.judged.has_unseen:
        shrinkages, stretches = _SHRINKAGES_UNTESTED, _STRETCHES_UNTESTED
    settings, answers = [], []
    total = len(layers) * len(shrinkages) * len(stretches)
    with bar("choosing settings", total, unit="settings", progress=progress) as shown:
        for uses_layers in layers:
            of_divisions = fits.of(uses_layers)
            points = [fit.coordinates(data.views[0]) for fit in of_divisions]
            for shrinkage in shrinkages:
                whitened = [fit.whitened(p, shrinkage) for fit, p in zip(of_divisions, points, strict=True)]
                settings += [Setting(stretch, uses_layers, shrinkage) for stretch in stretches]
                answers += fits.judged.answers_by_stretch(whitened, stretches)
                shown.update(len(stretches))
    return list(map(SettingResult, settings, fits.judged.qualities(answers)))


def chosen(results: Sequence[SettingResult]) -> SettingResult:
    """Return the best setting among those that are allowed; if none is, the one that costs least.

    Parameters
    ----------
    results : sequence of SettingResult
    """
    allowed = [result for result in results if result.is_allowed]
    if not allowed:
        return max(results, key=lambda r: (r.quality.unseen is not None or r.is_least, r.quality.worst))
    # Equal ones: the most cautious.
    return min(allowed, key=lambda result: (-result.quality.seen.value, result.setting))


def compare_dimensions(data: TrainingData, fits: DivisionFits, setting: Setting) -> list[DimensionResult]:
    """Judge one setting by dimension, on the images that each division leaves out.

    Parameters
    ----------
    data : TrainingData
    fits : DivisionFits
        Of these data.
    setting : Setting

    Returns
    -------
    list of DimensionResult
        The shortest first.
    """
    of_divisions = fits.of(setting.uses_layers)
    longest = min(
        _longest(fit, setting, len(draw.fit)) for fit, draw in zip(of_divisions, fits.divisions, strict=True)
    )
    maps = [fit.map(setting, longest, data.views[0].shape[1]) for fit in of_divisions]
    mapped = [map.apply(data.views[0]) for map in maps]
    dims = curve_dimensions(longest)
    answers = [fits.judged.answers([vectors[:, :dim] for vectors in mapped]) for dim in dims]
    return list(map(DimensionResult, dims, fits.judged.qualities(answers)))


def best_dim(curve: Sequence[DimensionResult]) -> int:
    """Return the shortest dimension within one standard error of the best that nothing speaks against.

    Recall@5 may not be proven worse than the pretrained model's, nor be lower by more than `MAX_LOSS` than
    that of the longest: few images prove little, and short vectors are only thrift. Without held-out classes,
    nothing shows what short vectors cost classes that were not learned, so the longest is returned.

    Parameters
    ----------
    curve : sequence of DimensionResult
    """
    least = curve[-1].quality.wide.value - MAX_LOSS
    qualities = [(result.dim, result.quality) for result in curve if result.quality.wide.value >= least]
    allowed = [(dim, q.seen) for dim, q in qualities if q.unseen is not None and q.is_allowed]
    return advised_dim(allowed) if allowed else curve[-1].dim


class Answers(NamedTuple):
    """Recall@1 of each query; recall@5, and recall@1 of held-out classes, minus the pretrained model's."""

    seen: NDArray[np.float64]
    wide: NDArray[np.float64]
    unseen: NDArray[np.float64]


class Judged:
    """The tasks of all divisions, and what the pretrained model reaches in them.

    Parameters
    ----------
    y, groups : ndarray of shape (n,), int
    frozen : ndarray of shape (n, d)
        The pretrained model's vectors.
    divisions : sequence of Draw
    """

    def __init__(self, y: Ints, groups: Ints, frozen: Floats, divisions: Sequence[Draw]) -> None:
        self._seen = [_task(draw.validation, draw.gallery, y, groups) for draw in divisions]
        self._unseen = [_task(draw.unseen, draw.unseen, y, groups) for draw in divisions if len(draw.unseen)]
        self._frozen_wide = _values(self._seen, [frozen] * len(self._seen))[WIDE_METRIC]
        self._frozen_unseen = _values(self._unseen, [frozen] * len(self._unseen))[METRIC]

    def seen(self, vectors: Sequence[Floats]) -> dict[str, NDArray[np.float64]]:
        """Return metrics of each validation image, given the vectors of all images in each division."""
        return _values(self._seen, vectors)

    def answers(self, vectors: Sequence[Floats]) -> "Answers":
        """Return what `qualities` sums up, given the vectors of all images in each division."""
        seen = self.seen(vectors)
        unseen = np.empty(0)
        if self._unseen:
            unseen = _values(self._unseen, vectors)[METRIC] - self._frozen_unseen
        return Answers(seen[METRIC], seen[WIDE_METRIC] - self._frozen_wide, unseen)

    def answers_by_stretch(
        self, whitened: Sequence[WhitenedPoints], stretches: Sequence[float]
    ) -> list["Answers"]:
        """Return `answers` for each stretch of all images' vectors in each division."""
        seen = _recalls(self._seen, whitened, stretches)
        unseen = _recalls(self._unseen, whitened, stretches) if self._unseen else [(np.empty(0),)] * len(seen)
        frozen_unseen = self._frozen_unseen if self._unseen else np.empty(0)
        return [
            Answers(first, wide - self._frozen_wide, of_unseen[0] - frozen_unseen)
            for (first, wide), of_unseen in zip(seen, unseen, strict=True)
        ]

    def qualities(self, answers: Sequence["Answers"]) -> list[Quality]:
        """Return what counts when settings are compared; intervals are of the same draws for all."""
        seen, wide, unseen = (np.stack(part) for part in zip(*answers, strict=True))
        of_unseen = estimates(unseen, _groups(self._unseen)) if self._unseen else [None] * len(answers)
        of_seen, of_wide = (estimates(part, self.seen_groups) for part in (seen, wide))
        return [Quality(*parts) for parts in zip(of_seen, of_wide, of_unseen, strict=True)]

    @property
    def has_unseen(self) -> bool:
        """Whether classes were held out."""
        return bool(self._unseen)

    @property
    def seen_groups(self) -> Ints:
        """Group of each validation image."""
        return _groups(self._seen)


def _values(tasks: Sequence[tuple[Ints, Task]], vectors: Sequence[Floats]) -> dict[str, NDArray[np.float64]]:
    """Return metrics of the queries of all tasks, one after the other."""
    found = [retrieval(X[rows], task).values for (rows, task), X in zip(tasks, vectors, strict=True)]
    names = found[0] if found else (METRIC,)
    return {name: np.concatenate([[], *(values[name] for values in found)]) for name in names}


def _recalls(
    tasks: Sequence[tuple[Ints, Task]], whitened: Sequence[WhitenedPoints], stretches: Sequence[float]
) -> list[tuple[NDArray[np.float64], ...]]:
    """Return for each stretch recall@1 and recall@5 of the queries of all tasks, one after the other."""
    parts: list[list[list[NDArray[np.float64]]]] = [[] for _ in stretches]
    for (rows, task), points in zip(tasks, whitened, strict=True):
        for start in range(0, len(task.queries), _N_QUERIES_AT_ONCE):
            queries = task.queries[start : start + _N_QUERIES_AT_ONCE]
            cosines = points.cosines(rows[queries], rows[task.gallery], stretches)
            for of_stretch, similarities in zip(parts, cosines, strict=True):
                of_stretch.append(recalls(similarities, queries, task, _RANKS))
    return [tuple(map(np.concatenate, zip(*of_stretch, strict=True))) for of_stretch in parts]


def _groups(tasks: Sequence[tuple[Ints, Task]]) -> Ints:
    return np.concatenate([task.groups[task.queries] for _, task in tasks])


def _task(queries: Ints, gallery: Ints, y: Ints, groups: Ints) -> tuple[Ints, Task]:
    """Return the rows of a task, and the task with positions among them."""
    rows = np.unique(np.concatenate([queries, gallery]))
    return rows, Task(np.searchsorted(rows, queries), np.searchsorted(rows, gallery), y[rows], groups[rows])


def _longest(fit: ScaledFit, setting: Setting, n: int) -> int:
    most = fit.n_between if setting.stretch == ONLY_BETWEEN else min(n - 1, len(fit.scale))
    return min(most, MAX_DIM)
