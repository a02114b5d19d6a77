"""Detect defects in images, with a model fitted on good images only."""

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from nearsight import progress as progress_display
from nearsight.anomaly.artifact import read_detector, write_detector
from nearsight.anomaly.tiling import TileGrid, cut_tiles, plan_tiles, resize_map, stitch_maps
from nearsight.errors import CalibrationError, ImageError, ImageFailure, InvalidParameterError
from nearsight.estimators.anomaly import Level, MultiLevelAnomaly, combine_scores
from nearsight.estimators.conformal import Threshold
from nearsight.images import ImageSource, Limits, content_id, decode, find
from nearsight.models import DEFAULT_MODEL, Fingerprint
from nearsight.models.dense_features import FeatureMaps, find_network, load_features
from nearsight.parallel import ordered_map
from nearsight.processor import n_cores

# The features of one tile take about a megabyte.
_MAX_TILES = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AnomalyResult:
    """The result of scoring one image.

    Attributes
    ----------
    path : str
        The image, as it was passed.
    score : float
        Higher is more anomalous; about 0 for a good image.
    threshold : float
        A score above it is a defect.
    defect : bool
    levels : dict of str to float
        Parts of the score, in standard deviations of good images: ``image`` for the image as a whole, and
        each layer by its name.
    heatmap : ndarray of shape (height, width), float32, or None
        At the image's size, in the unit of the score: there is an alarm where a hundredth of the image
        reaches `threshold`. None without ``heatmaps=True``, and for ``level="image"``.
    image : PIL.Image.Image or None
        The image, with ``heatmaps=True``.
    """

    path: str
    score: float
    threshold: float
    defect: bool
    levels: dict[str, float]
    heatmap: NDArray[np.float32] | None = field(default=None, repr=False)
    image: Image.Image | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _ImageFeatures:
    """Feature maps of one image, tile by tile."""

    path: str
    id: str
    grid: TileGrid
    layers: list[NDArray[np.float32]] = field(repr=False)
    image: Image.Image = field(repr=False)


class AnomalyDetector:
    """Detect images that differ from good images.

    *Method*: see `nearsight.estimators.anomaly.MultiLevelAnomaly`. An image is cut into overlapping tiles of
    the network's input size, so that nothing of it is cropped and no detail is lost to scaling. An image that
    needs more than `max_tiles` is reduced.

    Parameters
    ----------
    model : str, default "efficientnet-lite0"
        Name of an embedding model that is an ONNX network. It is loaded on first use.
    layers : sequence of str, optional
        See `nearsight.models.dense_features.load_features`.
    false_alarm_rate : float, default 0.05
        Share of good images that may be called defective, in (0, 1). At least about 1 / rate good images are
        held out to set the threshold.
    confidence : float, optional
        Probability that the rate holds for this detector; by default the rate holds on average.
    level : {"combined", "image", "patch"}
        Score images as a whole, patch by patch, or both.
    max_tiles : int, default 16
        Tiles of an image, at most.
    n_patches : int, default 2000
        Patches stored of each layer; memory and time of a score grow with it.
    n_threads : int, optional
        Worker threads; by default as many as the cores this process may use.
    limits : Limits, optional
    cache_dir : Path, optional
    progress : bool, optional
        Show a progress bar on stderr; by default only if stderr is a terminal.
    random_state : int, default 0
        Seed for the order of the good images and the choice of patches.

    Attributes
    ----------
    threshold_ : Threshold
    failed_ : list of ImageFailure
        Good images that could not be used.
    duplicates_ : list of str
        Good images left out because another has the same content: a held-out duplicate of a learned image
        would make the threshold too low.

    Raises
    ------
    InvalidParameterError
        A parameter is out of its range.
    UnknownModelError
        There is no such model. A layer that does not exist is reported on first use.

    Notes
    -----
    About 10 ms a tile for the network and 7 ms for the comparison, on one core. Memory does not grow with the
    number of images.

    Examples
    --------
    >>> import numpy as np
    >>> from nearsight import AnomalyDetector
    >>> rng = np.random.default_rng(0)
    >>> good = [rng.integers(90, 160, (96, 96), np.uint8) for _ in range(24)]
    >>> bad = good[0].copy()
    >>> bad[40:60, 30:70] = 255
    >>> detector = AnomalyDetector(false_alarm_rate=0.1, n_patches=200).fit(good[1:])
    >>> detector.score([bad])[0].defect
    True
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        layers: Iterable[str] = (),
        false_alarm_rate: float = 0.05,
        confidence: float | None = None,
        level: Level = "combined",
        max_tiles: int = _MAX_TILES,
        n_patches: int = 2000,
        n_threads: int | None = None,
        limits: Limits | None = None,
        cache_dir: Path | None = None,
        progress: bool | None = None,
        random_state: int = 0,
    ) -> None:
        for name, value in (("max_tiles", max_tiles), ("n_patches", n_patches), ("n_threads", n_threads)):
            if value is not None and value < 1:
                raise InvalidParameterError(f"{name} is {value}; it must be at least 1")
        if ":" not in model:  # other names may have to be downloaded
            find_network(model)
        self._load_features = partial(load_features, model, tuple(layers), cache_dir=cache_dir)
        self._estimator = MultiLevelAnomaly(
            level=level,
            false_alarm_rate=false_alarm_rate,
            confidence=confidence,
            n_patches=n_patches,
            random_state=random_state,
        )
        self.max_tiles = max_tiles
        self._set_runtime(n_threads, limits, progress)

    def _set_runtime(self, n_threads: int | None, limits: Limits | None, progress: bool | None) -> None:
        self.n_threads = n_threads or n_cores()
        self.limits = limits or Limits()
        self.progress = progress
        self.failed_: list[ImageFailure] = []
        self.duplicates_: list[str] = []

    @cached_property
    def features(self) -> FeatureMaps:
        """The model's inner layers, loaded on first use."""
        return self._load_features()

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, layers and every rule between a file and features; equal ones give comparable scores."""
        return self.features.fingerprint

    @property
    def threshold_(self) -> Threshold:
        """The score above which an image is a defect."""
        return self._estimator.threshold_

    @property
    def n_images_seen_(self) -> int:
        """Good images that were learned or held out."""
        return self._estimator.n_images_seen_

    def fit(self, images: Any, *, allow_remote: bool = False) -> "AnomalyDetector":
        """Learn from good images.

        Parameters
        ----------
        images : path, PIL image, uint8 array, bytes, or iterable of those
            Good images only. Folders, globs and tar shards are walked. The images are shuffled, so their
            order does not matter. Images that cannot be used are listed in `failed_`.
        allow_remote : bool, default False
            Whether addresses such as ``https://`` may be fetched.

        Raises
        ------
        CalibrationError
            There are too few images for the false-alarm rate; the message says how many are needed.
        """
        sources, self.failed_ = _split_failures(find(images, allow_remote=allow_remote))
        self.duplicates_ = []
        self._estimator.split(len(sources))
        order = np.random.default_rng(self._estimator.random_state).permutation(len(sources))
        shuffled, used = [sources[i] for i in order], list[ImageSource]()
        try:
            self._estimator.fit(self._learnable(shuffled, used), n=len(shuffled))
        except (CalibrationError, InvalidParameterError):
            if len(used) == len(shuffled):
                raise
            # Too few images were left to hold out, because many were duplicates or unusable. Now their number
            # is known.
            self._fit_again(used, len(shuffled) - len(used))
        return self

    def _fit_again(self, sources: list[ImageSource], n_left_out: int) -> None:
        try:
            self._estimator.split(len(sources))
        except CalibrationError as error:
            raise CalibrationError(
                f"{error}. Not counted: {n_left_out} duplicates or images that cannot be used"
            ) from None
        self._estimator.fit(self._learnable(sources, []), n=len(sources))

    def partial_fit(self, images: Any, *, allow_remote: bool = False) -> "AnomalyDetector":
        """Learn from more good images, in memory that does not grow with their number.

        Each image is scored before it is learned, and the threshold is updated with its score.
        """
        sources, self.failed_ = _split_failures(find(images, allow_remote=allow_remote))
        self.duplicates_ = []
        self._estimator.partial_fit(self._learnable(sources, []))
        return self

    def score(
        self, images: Any, *, heatmaps: bool = False, allow_remote: bool = False
    ) -> list[AnomalyResult | ImageFailure]:
        """Score images.

        Parameters
        ----------
        images : path, PIL image, uint8 array, bytes, or iterable of those
        heatmaps : bool, default False
            Whether to compute the score of each pixel.
        allow_remote : bool, default False
            Whether addresses such as ``https://`` may be fetched.

        Returns
        -------
        list of AnomalyResult or ImageFailure
            In input order; a failure for an image that cannot be used.
        """
        return list(self.stream(find(images, allow_remote=allow_remote), heatmaps=heatmaps))

    def stream(
        self, sources: Iterable[ImageSource | ImageFailure], *, heatmaps: bool = False
    ) -> Generator[AnomalyResult | ImageFailure, None, None]:
        """Score the sources that `images.find` yields, in memory that does not grow with their number."""
        extract = partial(self._extract, self.features)
        yield from _map_sources(
            lambda source: self._result(extract(source), heatmaps), sources, self.n_threads
        )

    def save(self, path: str | Path) -> None:
        """Write the fitted detector to one file, whole or not at all.

        Raises
        ------
        StorageError
            The file cannot be written; the message says what to do.
        """
        write_detector(Path(path), self.features, self.max_tiles, *self._estimator.state())

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: str | None = None,
        n_threads: int | None = None,
        limits: Limits | None = None,
        cache_dir: Path | None = None,
        progress: bool | None = None,
    ) -> "AnomalyDetector":
        """Read a detector that `save` wrote. It scores as before, and can learn from more images.

        Parameters
        ----------
        path : path
        model : str, optional
            New name of the model, if it is a file or folder that was moved.
        n_threads, limits, cache_dir, progress
            As for the constructor.

        Raises
        ------
        DetectorFileError
            The file does not exist, is damaged, or holds no detector.
        FingerprintMismatchError
            The model here gives other features than the detector was fitted on.
        NewerFormatError
            A newer nearsight wrote it.
        """
        saved = read_detector(Path(path), model, cache_dir)
        detector = cls.__new__(cls)
        detector.features, detector.max_tiles = saved.features, saved.max_tiles
        detector._estimator = saved.estimator
        detector._set_runtime(n_threads, limits, progress)
        return detector

    def _learnable(
        self, sources: list[ImageSource], used: list[ImageSource]
    ) -> Iterator[list[NDArray[np.float32]]]:
        """Yield the feature maps of each usable image, without duplicates, and add its source to `used`."""
        known_ids: set[str] = set()
        results = _map_sources(partial(self._extract, self.features), sources, self.n_threads)
        with progress_display.bar("learning from good images", len(sources), progress=self.progress) as bar:
            for source, features in zip(sources, results, strict=True):
                bar.update()
                if isinstance(features, ImageFailure):
                    self.failed_.append(features)
                elif features.id in known_ids:
                    self.duplicates_.append(features.path)
                else:
                    known_ids.add(features.id)
                    used.append(source)
                    yield features.layers

    def _extract(self, model: FeatureMaps, source: ImageSource) -> _ImageFeatures:
        data = source.read(self.limits)
        image = decode(data, path=source.path, limits=self.limits).image
        grid = plan_tiles((image.height, image.width), model.spec.input_px, self.max_tiles)
        tiles = [model.maps(tile) for tile in cut_tiles(image, model.spec, grid)]
        layers = [np.stack(maps) for maps in zip(*tiles, strict=True)]
        return _ImageFeatures(source.path, content_id(data), grid, layers, image)

    def _result(self, features: _ImageFeatures, heatmaps: bool) -> AnomalyResult:
        assessment = self._estimator.score_levels(features.layers)
        threshold = self.threshold_
        heatmap = None
        if heatmaps and assessment.heat:
            maps = [stitch_maps(maps, features.grid) for maps in assessment.heat]
            heatmap = resize_map(combine_scores(maps).astype(np.float32), features.grid.image_px)
        names = {str(i): layer for i, layer in enumerate(self.features.layers)}
        return AnomalyResult(
            path=features.path,
            score=assessment.score,
            threshold=threshold.value,
            defect=bool(threshold.exceeded([assessment.score])[0]),
            levels={names.get(name, name): value for name, value in assessment.levels.items()},
            heatmap=heatmap,
            image=features.image if heatmaps else None,
        )


def _split_failures(
    entries: Iterable[ImageSource | ImageFailure],
) -> tuple[list[ImageSource], list[ImageFailure]]:
    sources: list[ImageSource] = []
    failures: list[ImageFailure] = []
    for entry in entries:
        if isinstance(entry, ImageFailure):
            failures.append(entry)
        else:
            sources.append(entry)
    return sources, failures


def _map_sources(
    function: Callable[[ImageSource], T], sources: Iterable[ImageSource | ImageFailure], n_threads: int
) -> Iterator[T | ImageFailure]:
    """Apply a function to sources in threads, and yield in order; an unusable image becomes a failure."""

    def attempt(source: ImageSource | ImageFailure) -> T | ImageFailure:
        if isinstance(source, ImageFailure):
            return source
        try:
            return function(source)
        except ImageError as error:
            return ImageFailure(error.path, error.reason)
        except MemoryError:
            return ImageFailure(source.path, "there is not enough memory to score it")

    # BLAS threads inside of threads wait for each other, which takes half of the time.
    with threadpool_limits(1, "blas"):
        yield from ordered_map(attempt, sources, n_threads=n_threads)
