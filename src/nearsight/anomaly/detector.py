"""Detect defects in images, with a model fitted on good images only."""

import copy
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight import progress as progress_display
from nearsight.anomaly.artifact import SavedDetector, read_detector, write_detector
from nearsight.anomaly.conditions import Capture, Conditions
from nearsight.anomaly.known_images import image_hashes
from nearsight.anomaly.streams import map_sources, split_failures
from nearsight.anomaly.templates import Templates, template_difference
from nearsight.anomaly.views import View, ViewExtractor, ViewMaps, combined_heat, default_views
from nearsight.errors import CalibrationError, ImageFailure, InvalidParameterError
from nearsight.estimators.conformal import Threshold
from nearsight.images import ImageSource, Limits, decode, find
from nearsight.models import DEFAULT_MODEL, Fingerprint
from nearsight.models.dense_features import FeatureMaps, find_network, load_features
from nearsight.parameters import require_number, require_whole
from nearsight.processor import n_cores

if TYPE_CHECKING:
    from nearsight.estimators.anomaly import Level

# The features of one tile take about a megabyte.
_MAX_TILES = 16
_MOST_SCALE = 8


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
        Parts of the score, in standard deviations of good images: ``image`` for the image as a whole,
        ``places`` for its places, and what that consists of: each layer by its view and name, such as
        ``tiles block2.add``, and ``template``.
    heatmap : ndarray of shape (height, width), float32, or None
        At the image's size, in the unit of the score: there is an alarm where a hundredth of the image
        reaches `threshold`. None without ``heatmaps=True``, and for ``level="image"``.
    image : PIL.Image.Image or None
        The image, with ``heatmaps=True``.
    notes : tuple of str
        How the image differed from the good ones in size, channels or compression, and what was done.
    """

    path: str
    score: float
    threshold: float
    defect: bool
    levels: dict[str, float]
    heatmap: NDArray[np.float32] | None = field(default=None, repr=False)
    image: Image.Image | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _ImageFeatures:
    """Feature maps of one image."""

    path: str
    hashes: frozenset[int]
    capture: Capture
    views: ViewMaps
    image: Image.Image = field(repr=False)
    notes: tuple[str, ...]


class AnomalyDetector:
    """Detect images that differ from good images.

    *Method*: see `nearsight.estimators.anomaly.MultiLevelAnomaly`. The network sees an image twice: cut
    into overlapping tiles, enlarged, for details; and whole, stretched to the network's input, for its
    layout. An image that needs more than `max_tiles` is reduced. The size, channels and compression of the
    good images are learned, too: an image of another size is resampled, and one that cannot be compared is
    refused.

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
    scale : float, default 2
        Above 0: how much tiles enlarge the image, as far as `max_tiles` are enough.
    max_tiles : int, default 16
        Tiles of an image, at most.
    n_patches : int, default 2000
        Patches stored of each level; memory and time of a score grow with it.
    templates : path, optional
        For parts in one pose: a defect-free image that every image is compared with, pixel by pixel, beside
        what is learned; or a folder of them, in which the template of an image has its name.
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
        Good images left out because another has the same bytes or the same pixels, or was learned before: a
        held-out duplicate of a learned image would make the threshold too low.

    Raises
    ------
    InvalidParameterError
        A parameter is out of its range.
    UnknownModelError
        There is no such model. A layer that does not exist is reported on first use.

    Notes
    -----
    About 6 ms a tile for the network and 5 ms for the comparison, on one core. Memory does not grow with the
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
        level: "Level" = "combined",
        scale: float = 2.0,
        max_tiles: int = _MAX_TILES,
        n_patches: int = 2000,
        templates: str | Path | None = None,
        n_threads: int | None = None,
        limits: Limits | None = None,
        cache_dir: Path | None = None,
        progress: bool | None = None,
        random_state: int = 0,
    ) -> None:
        from nearsight.estimators.anomaly import MultiLevelAnomaly

        for name, value in (("max_tiles", max_tiles), ("n_patches", n_patches), ("n_threads", n_threads)):
            require_whole(name, value, optional=True)
        require_number("scale", scale)
        if not 0 < scale <= _MOST_SCALE:
            raise InvalidParameterError(f"scale is {scale}; it must be above 0, and at most {_MOST_SCALE}")
        if ":" not in model:  # other names may have to be downloaded
            find_network(model)
        self._load_features = partial(load_features, model, tuple(layers), cache_dir=cache_dir)
        self._estimator = MultiLevelAnomaly(
            level=level,
            false_alarm_rate=false_alarm_rate,
            confidence=confidence,
            n_patches=n_patches,
            n_given=int(templates is not None),
            random_state=random_state,
        )
        self.templates = Templates(templates, limits or Limits()) if templates is not None else None
        self.scale = scale
        self.max_tiles = max_tiles
        self.conditions_ = Conditions()
        self._known_ids: set[int] = set()
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

    @cached_property
    def _extractor(self) -> ViewExtractor:
        return ViewExtractor(self.features, self._views(), self.max_tiles)

    def _views(self) -> tuple[View, ...]:
        return default_views(self.features.layers, self.scale)

    @property
    def fingerprint(self) -> Fingerprint:
        """Model, layers and every rule between a file and features; equal ones give comparable scores."""
        return self.features.fingerprint

    @property
    def threshold_(self) -> Threshold:
        """The score above which an image is a defect."""
        return self._estimator.threshold_

    @property
    def good_scores_(self) -> NDArray[np.float64]:
        """The scores of the good images that were held out, which the threshold rests on."""
        return self._estimator.good_scores_

    @property
    def n_images_seen_(self) -> int:
        """Good images that were learned or held out."""
        return self._estimator.n_images_seen_

    def fit(self, images: Any, *, also_learn: Sequence[str] = (), **walk: Any) -> "AnomalyDetector":
        """Learn from good images.

        Parameters
        ----------
        images : path, PIL image, uint8 array, bytes, or iterable of those
            Good images only. Folders, globs and tar shards are walked. The images are shuffled, so their
            order does not matter. Images that cannot be used are listed in `failed_`.
        also_learn : sequence of str
            Files of good images that are learned and never held out, such as false alarms: they are no random
            sample of good images, so the threshold must not rest on them. Of more than half as many as
            `images`, the last ones count.
        **walk
            `allow_remote`, `exclusions` and `skipped`; see `images.find`.

        Raises
        ------
        CalibrationError
            There are too few images for the false-alarm rate; the message says how many are needed.
        """
        sources, self.failed_ = split_failures(find(images, **walk))
        learned, failures = split_failures(find(also_learn[max(0, len(also_learn) - len(sources) // 2) :]))
        self.failed_ += failures
        self._forget()
        self._estimator.split(len(sources))
        order = np.random.default_rng(self._estimator.random_state).permutation(len(sources))
        # The estimator learns the first and holds the last out.
        shuffled, used = [*learned, *(sources[i] for i in order)], list[ImageSource]()
        try:
            self._estimator.fit(self._learnable(shuffled, used), n=len(shuffled))
        except (CalibrationError, InvalidParameterError):
            if len(used) == len(shuffled):
                raise
            # Too few images were left to hold out, because many were duplicates or unusable. Now their number
            # is known.
            self._fit_again(used, len(shuffled) - len(used))
        return self

    def _forget(self) -> None:
        self.duplicates_ = []
        self.conditions_ = Conditions()
        self._known_ids = set()

    def _fit_again(self, sources: list[ImageSource], n_left_out: int) -> None:
        try:
            self._estimator.split(len(sources))
        except CalibrationError as error:
            raise CalibrationError(
                f"{error}. Not counted: {n_left_out} duplicates or images that cannot be used"
            ) from None
        duplicates = self.duplicates_
        self._forget()
        self.duplicates_ = duplicates
        self._estimator.fit(self._learnable(sources, []), n=len(sources))

    def partial_fit(self, images: Any, **walk: Any) -> "AnomalyDetector":
        """Learn from more good images, in memory that does not grow with their number.

        Each image is scored before it is learned, and the threshold is updated with its score. Images that
        were learned before are left out, and listed in `duplicates_`. For `walk` see `fit`.
        """
        sources, self.failed_ = split_failures(find(images, **walk))
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
        extract = partial(self._extract, self._extractor, self.conditions_)
        yield from map_sources(
            lambda source: self._result(extract(source), heatmaps), sources, self.n_threads
        )

    def save(self, path: str | Path) -> None:
        """Write the fitted detector to one file, whole or not at all.

        Raises
        ------
        StorageError
            The file cannot be written; the message says what to do.
        """
        write_detector(
            Path(path),
            SavedDetector(
                self.features,
                self._extractor.views,
                self.max_tiles,
                self._estimator,
                self.conditions_,
                self._known_ids,
                self.templates,
            ),
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: str | None = None,
        templates: str | Path | None = None,
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
        templates : path, optional
            Folder of the templates, if the detector was fitted with one for each image. A single template is
            in the file; this one replaces it.
        n_threads, limits, cache_dir, progress
            As for the constructor.

        Raises
        ------
        DetectorFileError
            The file does not exist, is damaged, or holds no detector.
        InvalidParameterError
            Templates are missing, or the detector was fitted without.
        FingerprintMismatchError
            The model here gives other features than the detector was fitted on.
        NewerFormatError
            A newer nearsight wrote it.
        """
        saved = read_detector(Path(path), model, cache_dir)
        detector = cls.__new__(cls)
        detector.features, detector.max_tiles = saved.features, saved.max_tiles
        detector._extractor = ViewExtractor(saved.features, saved.views, saved.max_tiles)
        detector.scale = max(view.scale for view in saved.views)
        detector._estimator, detector.conditions_ = saved.estimator, saved.conditions
        detector._known_ids = saved.known_ids
        detector.templates = saved.templates
        if templates is not None:
            if not saved.estimator.n_given:
                raise InvalidParameterError(
                    f"{path} was fitted without templates; leave {templates} out, or fit a detector with it"
                )
            detector.templates = Templates(templates, limits or Limits())
        elif saved.estimator.n_given and saved.templates is None:
            raise InvalidParameterError(
                f"{path} was fitted with a template for each image; name the folder of the templates"
            )
        detector._set_runtime(n_threads, limits, progress)
        return detector

    def _learnable(
        self, sources: list[ImageSource], used: list[ImageSource]
    ) -> Iterator[list[NDArray[np.float32]]]:
        """Yield the feature maps of each usable image, without duplicates, and add its source to `used`."""
        # New images are brought under the conditions of those that were learned before.
        conditions = copy.copy(self.conditions_) if self.conditions_.n_images else None
        extract = partial(self._extract, self._extractor, conditions, is_learning=True)
        results = map_sources(extract, sources, self.n_threads)
        with progress_display.bar("learning from good images", len(sources), progress=self.progress) as bar:
            for source, features in zip(sources, results, strict=True):
                bar.update()
                if isinstance(features, ImageFailure):
                    self.failed_.append(features)
                    continue
                if features.hashes & self._known_ids:
                    self.duplicates_.append(features.path)
                    continue
                self._known_ids |= features.hashes
                if not features.notes:
                    self.conditions_.add(features.capture)
                used.append(source)
                yield features.views.maps

    def _extract(
        self,
        extractor: ViewExtractor,
        conditions: Conditions | None,
        source: ImageSource,
        *,
        is_learning: bool = False,
    ) -> _ImageFeatures:
        data = source.read(self.limits)
        image = decode(data, path=source.path, limits=self.limits).image
        capture = Capture.of(image, data)
        hashes = image_hashes(data, image) if is_learning else frozenset[int]()
        notes: tuple[str, ...] = ()
        if conditions is not None:
            image, notes = conditions.adapted(image, capture, source.path)
        views = extractor.extract(image)
        if self.templates is not None:
            views.maps.append(template_difference(image, self.templates.of(source.path)))
        return _ImageFeatures(source.path, hashes, capture, views, image, notes)

    def _result(self, features: _ImageFeatures, heatmaps: bool) -> AnomalyResult:
        assessment = self._estimator.score_levels(features.views.maps)
        threshold = self.threshold_
        heatmap = None
        if heatmaps and assessment.places is not None:
            heatmap = combined_heat(assessment.heat, assessment.places, features.views.image_px)
        names = {str(i): level for i, level in enumerate([*self._extractor.levels, "template"])}
        return AnomalyResult(
            path=features.path,
            score=assessment.score,
            threshold=threshold.value,
            defect=bool(threshold.exceeded([assessment.score])[0]),
            levels={names.get(name, name): value for name, value in assessment.levels.items()},
            heatmap=heatmap,
            image=features.image if heatmaps else None,
            notes=features.notes,
        )
