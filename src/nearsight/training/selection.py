"""Chooses the settings of a linear map on images that it was not fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import InvalidParameterError
from nearsight.evaluation import Estimate, PairedDifference, advised_dim, estimate, paired_difference
from nearsight.evaluation.metrics import Task, retrieval
from nearsight.progress import bar
from nearsight.training.closed_form import ONLY_BETWEEN, AffineMap, ClassScatter, WhitenedPoints
from nearsight.training.split import Draw

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

METRIC = "recall@1"
SHRINKAGES = (0.1, 0.3, 0.6)
STRETCHES = (0.0, 1.0, 3.0, ONLY_BETWEEN)
DIMENSIONS = (16, 32, 64, 128, 256, 512)
# What few classes may have, because none can be held out to see what more would cost the others.
_STRETCH_UNTESTED, _SHRINKAGE_UNTESTED = 0.0, max(SHRINKAGES)
#: Classes that were not learned may get worse by as much at the lower end of the interval.
MAX_LOSS = 0.01
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
class SettingResult:
    """A setting, judged on images that it was not fitted on.

    Attributes
    ----------
    setting : Setting
    seen : float
        Recall@1 of images of learned classes.
    unseen : PairedDifference or None
        Of classes that were held out: recall@1 minus that of the pretrained model. None without any.
    """

    setting: Setting
    seen: float
    unseen: PairedDifference | None

    @property
    def is_allowed(self) -> bool:
        """Whether classes that were not learned keep their quality; untested, only the least is allowed."""
        if self.unseen is None:
            return self.setting.stretch <= _STRETCH_UNTESTED and self.setting.shrinkage >= _SHRINKAGE_UNTESTED
        return allows(self.unseen)


def allows(unseen: PairedDifference | None) -> bool:
    """Whether classes that were held out, if any, keep their quality."""
    return unseen is None or unseen.low > -MAX_LOSS


@dataclass(frozen=True)
class DimensionResult:
    """A length of the vectors, judged on images that the map was not fitted on.

    Attributes
    ----------
    dim : int
    seen : Estimate
        Recall@1 of images of learned classes.
    unseen : PairedDifference or None
        As in `SettingResult`.
    """

    dim: int
    seen: Estimate
    unseen: PairedDifference | None


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

    def coordinates(self, features: Floats) -> NDArray[np.float32]:
        """Return features in the coordinates that `whitened` takes."""
        return self._scatter.coordinates(features[:, : len(self.scale)] * self.scale)

    def whitened(self, points: NDArray[np.float32], shrinkage: float) -> WhitenedPoints:
        """Whiten features; see `ClassScatter.whitened`."""
        return self._scatter.whitened(points, shrinkage)

    def map(self, setting: Setting, dim: int, n_features: int) -> AffineMap:
        """Return the map of all features, unscaled."""
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
    def unseen(self) -> PairedDifference | None:
        """What vectors of this length (or of the next that was judged) cost classes that were held out."""
        return next((result.unseen for result in self.dimensions if result.dim >= self.dim), None)

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
    settings = compare_settings(data, divisions, fits, progress=progress)
    best = chosen(settings)
    curve = dimension_curve(data, divisions, best.setting, fits)
    longest = curve[-1].dim
    if dim is not None and not 1 <= dim <= longest:
        raise InvalidParameterError(
            f"dim is {dim}; with these images and classes it must be between 1 and {longest}"
        )
    return FittedMap(best, settings, curve, dim or best_dim(curve))


class DivisionFits:
    """The scatter of each division's images, computed once for all settings and dimensions.

    Parameters
    ----------
    data : TrainingData
    divisions : sequence of Draw
    """

    def __init__(self, data: TrainingData, divisions: Sequence[Draw]) -> None:
        self._data = data
        self._divisions = divisions
        self._fits: dict[bool, list[ScaledFit]] = {}

    def of(self, uses_layers: bool) -> list[ScaledFit]:
        """Return the fit of each division, with or without inner layers."""
        if uses_layers not in self._fits:
            self._fits[uses_layers] = [
                ScaledFit(self._data.rows(draw.fit), uses_layers) for draw in self._divisions
            ]
        return self._fits[uses_layers]


def compare_settings(
    data: TrainingData,
    divisions: Sequence[Draw],
    fits: DivisionFits | None = None,
    *,
    progress: bool | None = None,
) -> list[SettingResult]:
    """Judge every setting on the images that each division leaves out.

    Parameters
    ----------
    data : TrainingData
    divisions : sequence of Draw
    fits : DivisionFits, optional
        Of these divisions, to be used again.
    progress : bool, optional
        See `nearsight.progress.bar`.

    Returns
    -------
    list of SettingResult
        In no particular order.
    """
    judged = Judged(data.y, data.groups, data.frozen, divisions)
    all_fits = fits or DivisionFits(data, divisions)
    layers = (False, True) if data.views[0].shape[1] > data.n_vector else (False,)
    results = []
    total = len(layers) * len(SHRINKAGES) * len(STRETCHES)
    with bar("choosing settings", total, unit="settings", progress=progress) as shown:
        for uses_layers in layers:
            of_divisions = all_fits.of(uses_layers)
            points = [fit.coordinates(data.views[0]) for fit in of_divisions]
            for shrinkage in SHRINKAGES:
                whitened = [fit.whitened(p, shrinkage) for fit, p in zip(of_divisions, points, strict=True)]
                for stretch in STRETCHES:
                    mapped = [of_draw.stretched(stretch) for of_draw in whitened]
                    seen = float(np.nanmean(judged.seen(mapped)))
                    setting = Setting(stretch, uses_layers, shrinkage)
                    results.append(SettingResult(setting, seen, judged.unseen(mapped)))
                    shown.update()
    return results


def chosen(results: Sequence[SettingResult]) -> SettingResult:
    """Return the best setting among those that are allowed; if none is, the one that costs least.

    Parameters
    ----------
    results : sequence of SettingResult
    """
    allowed = [result for result in results if result.is_allowed]
    if not allowed:
        return max(results, key=lambda r: (r.unseen.value if r.unseen else 0.0, r.seen))
    # Equal ones: the most cautious.
    return min(allowed, key=lambda result: (-result.seen, result.setting))


def dimension_curve(
    data: TrainingData, divisions: Sequence[Draw], setting: Setting, fits: DivisionFits | None = None
) -> list[DimensionResult]:
    """Judge one setting by dimension, on the images that each division leaves out.

    Parameters
    ----------
    data : TrainingData
    divisions : sequence of Draw
    setting : Setting
    fits : DivisionFits, optional
        Of these divisions, to be used again.

    Returns
    -------
    list of DimensionResult
        The shortest first.
    """
    judged = Judged(data.y, data.groups, data.frozen, divisions)
    of_divisions = (fits or DivisionFits(data, divisions)).of(setting.uses_layers)
    longest = min(
        _longest(fit, setting, len(draw.fit)) for fit, draw in zip(of_divisions, divisions, strict=True)
    )
    maps = [fit.map(setting, longest, data.views[0].shape[1]) for fit in of_divisions]
    mapped = [map.apply(data.views[0]) for map in maps]
    return [
        DimensionResult(dim, *judged.figures([vectors[:, :dim] for vectors in mapped]))
        for dim in (*(dim for dim in DIMENSIONS if dim < longest), longest)
    ]


def best_dim(curve: Sequence[DimensionResult]) -> int:
    """Return the shortest dimension within one standard error of the best that unseen classes allow.

    Without held-out classes, nothing shows what short vectors cost classes that were not learned, so the
    longest is returned.

    Parameters
    ----------
    curve : sequence of DimensionResult
    """
    allowed = [r for r in curve if r.unseen is not None and allows(r.unseen)] or [curve[-1]]
    return advised_dim([(result.dim, result.seen) for result in allowed])


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
        self._frozen = self._recalls(self._unseen, [frozen] * len(self._unseen))

    def seen(self, vectors: Sequence[Floats], metric: str = METRIC) -> NDArray[np.float64]:
        """Return a metric of each validation image, given the vectors of all images in each division."""
        return self._recalls(self._seen, vectors, metric)

    def unseen(self, vectors: Sequence[Floats]) -> PairedDifference | None:
        """Compare recall@1 of the held-out classes with that of the pretrained model."""
        if not self._unseen:
            return None
        recalls = self._recalls(self._unseen, vectors)
        return paired_difference(recalls, self._frozen, self._groups(self._unseen))

    def figures(self, vectors: Sequence[Floats]) -> tuple[Estimate, PairedDifference | None]:
        """Return both, the first with its interval."""
        return estimate(self.seen(vectors), self.seen_groups), self.unseen(vectors)

    @property
    def seen_groups(self) -> Ints:
        """Group of each validation image."""
        return self._groups(self._seen)

    @staticmethod
    def _recalls(
        tasks: Sequence[tuple[Ints, Task]], vectors: Sequence[Floats], metric: str = METRIC
    ) -> NDArray[np.float64]:
        pairs = zip(tasks, vectors, strict=True)
        recalls = [retrieval(X[rows], task).values[metric] for (rows, task), X in pairs]
        return np.concatenate(recalls) if recalls else np.empty(0)

    @staticmethod
    def _groups(tasks: Sequence[tuple[Ints, Task]]) -> Ints:
        return np.concatenate([task.groups[task.queries] for _, task in tasks])


def _task(queries: Ints, gallery: Ints, y: Ints, groups: Ints) -> tuple[Ints, Task]:
    """Return the rows of a task, and the task with positions among them."""
    rows = np.unique(np.concatenate([queries, gallery]))
    return rows, Task(np.searchsorted(rows, queries), np.searchsorted(rows, gallery), y[rows], groups[rows])


def _longest(fit: ScaledFit, setting: Setting, n: int) -> int:
    most = fit.n_between if setting.stretch == ONLY_BETWEEN else min(n - 1, len(fit.scale))
    return min(most, DIMENSIONS[-1])
