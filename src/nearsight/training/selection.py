"""Chooses the settings of a linear map on images that it was not fitted on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nearsight import processor
from nearsight.errors import InvalidParameterError
from nearsight.evaluation import Estimate, advised_dim, curve_dimensions
from nearsight.progress import bar
from nearsight.training.closed_form import ONLY_BETWEEN, AffineMap, ClassScatter, WhitenedPoints
from nearsight.training.judgement import MAX_LOSS, Answers, Judged, Quality
from nearsight.training.split import Draw

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

SHRINKAGES = (0.1, 0.3, 0.6)
STRETCHES = (0.0, 1.0, 3.0, ONLY_BETWEEN)
MAX_DIM = 512
# What few classes may have, because none can be held out to see what more would cost the others.
_STRETCHES_UNTESTED, _SHRINKAGES_UNTESTED = STRETCHES[:1], SHRINKAGES[-1:]
# Each holds copies of the features.
_MAX_THREADS = 2
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
        return self.quality.is_allowed and (self.quality.is_tested or self.is_least)

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
    """Scatter of features that are scaled to comparable lengths, in float32.

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
        self.scale = self.scale.astype(np.float32)
        features = np.concatenate([view[:, :n_used] for view in data.views]) * self.scale
        self._scatter = ClassScatter(features, np.tile(data.y, len(data.views)), np.float32)

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
    maps : list of AffineMap
        On the data that `choose_map` was told to fit it on.
    """

    setting: SettingResult
    settings: list[SettingResult]
    dimensions: list[DimensionResult]
    dim: int
    maps: list[AffineMap] = field(default_factory=list, compare=False)

    @property
    def unseen(self) -> Estimate | None:
        """What vectors of this length (or of the next that was judged) cost classes that were held out."""
        return next((result.quality.unseen for result in self.dimensions if result.dim >= self.dim), None)

    def map(self, data: TrainingData) -> AffineMap:
        """Return the map of these settings, fitted on all of the data."""
        return _fitted(self.setting.setting, self.dim, data)


def choose_map(
    data: TrainingData,
    divisions: Sequence[Draw],
    dim: int | None = None,
    *,
    fit_on: Sequence[TrainingData] = (),
    known_only: bool = False,
    progress: bool | None = None,
) -> FittedMap:
    """Choose the settings of a map on divisions of the data, and fit it.

    Parameters
    ----------
    data : TrainingData
    divisions : sequence of Draw
        From `split.draws`.
    dim : int, optional
        Length of the vectors; by default it is chosen.
    fit_on : sequence of TrainingData
        What the map is fitted on, once for each.
    known_only : bool
        Whether classes that were not learned do not matter.
    progress : bool, optional
        See `nearsight.progress.bar`.

    Raises
    ------
    InvalidParameterError
        `dim` is longer than the data allow.
    """
    fits = DivisionFits(data, divisions, known_only=known_only)
    settings = compare_settings(data, fits, progress=progress)
    best = chosen(settings)
    curve, maps = compare_dimensions(data, fits, best.setting, fit_on)
    longest = curve[-1].dim
    if dim is not None and not 1 <= dim <= longest:
        raise InvalidParameterError(
            f"dim is {dim}; with these images and classes it must be between 1 and {longest}"
        )
    dim = dim or best_dim(curve)
    return FittedMap(best, settings, curve, dim, [longest_map.truncated(dim) for longest_map in maps])


class DivisionFits:
    """The scatter of each division's images, and what judges, computed once for all settings and dimensions.

    Parameters
    ----------
    data : TrainingData
    divisions : sequence of Draw
    known_only : bool
        See `choose_map`.
    """

    def __init__(self, data: TrainingData, divisions: Sequence[Draw], *, known_only: bool = False) -> None:
        self._data = data
        self.divisions = divisions
        self.judged = Judged(data.y, data.groups, data.frozen, divisions, known_only=known_only)
        self._fits: dict[tuple[int, bool], ScaledFit] = {}

    def of(self, division: int, uses_layers: bool) -> ScaledFit:
        """Return the fit of a division, with or without inner layers."""
        key = division, uses_layers
        if key not in self._fits:
            rows = self._data.rows(self.divisions[division].fit)
            self._fits[key] = ScaledFit(rows, uses_layers)
        return self._fits[key]


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
    if not fits.judged.is_tested:
        shrinkages, stretches = _SHRINKAGES_UNTESTED, _STRETCHES_UNTESTED
    numbers = range(len(fits.divisions))

    def answers(part: tuple[bool, int]) -> list[Answers]:
        uses_layers, division = part
        fit, judge = fits.of(division, uses_layers), fits.judged.judges[division]
        points = fit.coordinates(data.views[0])
        whitened = (fit.whitened(points, shrinkage) for shrinkage in shrinkages)
        return [found for X in whitened for found in judge.answers_by_stretch(X, stretches)]

    # The longest first, so that no thread waits for it at the end.
    parts = list(product(reversed(layers), numbers))
    of_divisions: list[list[Answers]] = [[] for _ in numbers]
    with bar("choosing settings", len(parts), unit="fits", progress=progress) as shown, _threads() as pool:
        for (_, division), found in zip(parts, pool.map(answers, parts), strict=True):
            of_divisions[division] += found
            shown.update()
    settings = [
        Setting(stretch, uses_layers, shrinkage)
        for uses_layers, shrinkage, stretch in product(reversed(layers), shrinkages, stretches)
    ]
    return list(map(SettingResult, settings, fits.judged.qualities(of_divisions)))


def chosen(results: Sequence[SettingResult]) -> SettingResult:
    """Return the best setting among those that are allowed; if none is, the one that costs least.

    Parameters
    ----------
    results : sequence of SettingResult
    """
    allowed = [result for result in results if result.is_allowed]
    if not allowed:
        return max(results, key=lambda r: (r.quality.is_tested or r.is_least, r.quality.worst))
    # Equal ones: the most cautious.
    return min(allowed, key=lambda result: (-result.quality.seen.value, result.setting))


def compare_dimensions(
    data: TrainingData, fits: DivisionFits, setting: Setting, fit_on: Sequence[TrainingData] = ()
) -> tuple[list[DimensionResult], list[AffineMap]]:
    """Judge one setting by dimension, on the images that each division leaves out, and fit its longest map.

    Parameters
    ----------
    data : TrainingData
    fits : DivisionFits
        Of these data.
    setting : Setting
    fit_on : sequence of TrainingData

    Returns
    -------
    curve : list of DimensionResult
        The shortest first.
    maps : list of AffineMap
        Of the longest of them, on each of `fit_on`.
    """
    numbers = range(len(fits.divisions))
    longest = min(
        _longest(
            fits.of(number, setting.uses_layers),
            setting,
            len(fits.divisions[number].fit),
            is_tested=fits.judged.is_tested,
        )
        for number in numbers
    )
    dims = curve_dimensions(longest)

    def answers(division: int) -> list[Answers]:
        map = fits.of(division, setting.uses_layers).map(setting, longest, data.views[0].shape[1])
        mapped = map.apply(data.views[0])
        return [fits.judged.judges[division].answers(mapped[:, :dim]) for dim in dims]

    with _threads() as pool:
        # The longest first, so that no thread waits for it at the end.
        maps = pool.map(partial(_fitted, setting, longest), fit_on)
        of_divisions = list(pool.map(answers, numbers))
        curve = list(map(DimensionResult, dims, fits.judged.qualities(of_divisions)))
        return curve, list(maps)


def best_dim(curve: Sequence[DimensionResult]) -> int:
    """Return the shortest dimension within one standard error of the best that nothing speaks against.

    Recall@5 may not be proven worse than the pretrained model's, nor be lower by more than `MAX_LOSS` than
    that of the longest: few images prove little, and short vectors are only thrift. Where other classes
    matter and none were held out, nothing shows what short vectors cost them, so the longest is returned.

    Parameters
    ----------
    curve : sequence of DimensionResult
    """
    least = curve[-1].quality.wide.value - MAX_LOSS
    qualities = [(result.dim, result.quality) for result in curve if result.quality.wide.value >= least]
    allowed = [(dim, q.seen) for dim, q in qualities if q.is_tested and q.is_allowed]
    return advised_dim(allowed) if allowed else curve[-1].dim


def _fitted(setting: Setting, dim: int, data: TrainingData) -> AffineMap:
    return ScaledFit(data, setting.uses_layers).map(setting, dim, data.views[0].shape[1])


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Open threads; linear algebra takes one thread a core in all.

    Where other programs run, threads of linear algebra that wait for each other take several times as long.
    """
    n_cores = processor.n_cores()
    n_threads = min(n_cores, _MAX_THREADS)
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nearsight-fit")
    try:
        with threadpool_limits(n_cores // n_threads, "blas"):
            yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _longest(fit: ScaledFit, setting: Setting, n: int, *, is_tested: bool) -> int:
    """Return the most numbers that vectors may have, given how many images are fitted."""
    if setting.stretch == ONLY_BETWEEN:
        return min(fit.n_between, MAX_DIM)
    if not is_tested and n <= MAX_DIM:
        # What other classes differ in, few images do not show.
        return len(fit.scale)
    return min(n - 1, len(fit.scale), MAX_DIM)
