"""Finds what is wrong with images, having seen only good ones."""

import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from nearsight.anomaly import artifact
from nearsight.anomaly.tiling import Grid, cut, grid_for, resized, stitch
from nearsight.errors import CalibrationError, ImageError, ImageFailure, InvalidParameterError
from nearsight.estimators.anomaly import Level, MultiLevelAnomaly, combined
from nearsight.estimators.conformal import Threshold
from nearsight.images import ImageSource, Limits, content_id, decode, find
from nearsight.models import DEFAULT_MODEL, Fingerprint
from nearsight.models.dense_features import FeatureMaps, load_features
from nearsight.processor import n_cores

# An image's features take about a megabyte a tile while they wait.
_MAX_TILES = 16


@dataclass(frozen=True, slots=True)
class AnomalyResult:
    """What was found on one image.

    Attributes
    ----------
    path : str
        The image, as it was given.
    score : float
        Higher is more alarming; about 0 for what is usual.
    threshold : float
        A score above it is a defect.
    defect : bool
    levels : dict of str to float
        What the score is made of, in standard deviations of good images: ``image`` for the image as a
        whole, and each layer by its name.
    heatmap : ndarray of shape (height, width), float32, or None
        At the image's size, in the unit of the score: where a hundredth of the image is at `threshold`,
        there is an alarm. None where it was not asked for, or the detector looks at whole images only.
    image : PIL.Image.Image or None
        The image, where a heatmap was asked for.
    """

    path: str
    score: float
    threshold: float
    defect: bool
    levels: dict[str, float]
    heatmap: NDArray[np.float32] | None = field(default=None, repr=False)
    image: Image.Image | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One image as the network sees it."""

    path: str
    id: str
    grid: Grid
    layers: list[NDArray[np.float32]] = field(repr=False)
    image: Image.Image = field(repr=False)


class AnomalyDetector:
    """Detects what is unlike good images.

    *Method*: see `nearsight.estimators.anomaly.MultiLevelAnomaly`. An image is cut into overlapping squares
    of the network's input, so that nothing of it is cropped and no detail is lost to scaling, as far as
    `max_tiles` allow; beyond that it is shrunk.

    Parameters
    ----------
    model : str, default "efficientnet-lite0"
        A model that is an ONNX network inside.
    layers : sequence of str, optional
        See `nearsight.models.dense_features.load_features`.
    false_alarm_rate : float, default 0.05
        Share of good images that may be called defective. Some 1 / rate good images are held out for
        the threshold.
    confidence : float, optional
        The chance that the rate holds for this very detector; without it, it holds on average.
    level : {"combined", "image", "patch"}
        Whether images are judged as wholes, place by place, or both.
    max_tiles : int, default 16
    n_patches : int, default 2000
        Places remembered of each layer: memory and time of a score grow with it.
    n_threads : int, optional
        Worker threads; by default as many as the cores this process may use.
    limits : Limits, optional
    cache_dir : Path, optional
    progress : bool, optional
        Show a progress bar on stderr; by default only when that is a terminal.
    random_state : int, default 0
        Orders the good images, and chooses what is remembered.

    Attributes
    ----------
    threshold_ : Threshold
    failed_ : list of ImageFailure
        Good images that could not be used.
    copies_ : list of str
        Good images left out because another has the same content: held out from what was learned, a copy
        would make the threshold too low.

    Raises
    ------
    UnknownModelError
        There is no such model or layer.

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
        self._start(load_features(model, tuple(layers), cache_dir=cache_dir), max_tiles)
        self._task = MultiLevelAnomaly(
            level=level,
            false_alarm_rate=false_alarm_rate,
            confidence=confidence,
            n_patches=n_patches,
            random_state=random_state,
        )
        self.n_threads = n_threads or n_cores()
        self.limits = limits or Limits()
        self.progress = progress

    def _start(self, features: FeatureMaps, max_tiles: int) -> None:
        self.features = features
        self.max_tiles = max_tiles
        self.failed_: list[ImageFailure] = []
        self.copies_: list[str] = []

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes scores comparable: model, layers, and every rule between a file and them."""
        return self.features.fingerprint

    @property
    def threshold_(self) -> Threshold:
        """Where an alarm begins."""
        return self._task.threshold_

    @property
    def n_images_seen_(self) -> int:
        """Good images that were learned or held out."""
        return self._task.n_images_seen_

    def fit(self, images: Any, *, allow_remote: bool = False) -> "AnomalyDetector":
        """Learn what good images look like.

        Parameters
        ----------
        images : path, PIL image, uint8 array, bytes, or iterable of those
            Good ones only. Folders, globs and tar shards are walked. Their order does not matter: it is
            drawn at random. Those that cannot be used are listed in `failed_`.

        Raises
        ------
        CalibrationError
            There are too few for the rate; the message says how many are needed.
        """
        sources, self.failed_ = _sorted_out(find(images, allow_remote=allow_remote))
        self.copies_ = []
        self._task.split(len(sources))
        order = np.random.default_rng(self._task.random_state).permutation(len(sources))
        shuffled, used = [sources[i] for i in order], list[ImageSource]()
        try:
            self._task.fit(self._good(shuffled, used), n=len(shuffled))
        except (CalibrationError, InvalidParameterError):
            if len(used) == len(shuffled):
                raise
            # So many were copies or unusable that too few were left to hold out: now their number is known.
            self._fit_again(used, len(shuffled) - len(used))
        return self

    def _fit_again(self, sources: list[ImageSource], n_left_out: int) -> None:
        try:
            self._task.split(len(sources))
        except CalibrationError as error:
            raise CalibrationError(
                f"{error}. Not counted: {n_left_out} copies of the same bytes or images that cannot be used"
            ) from None
        self._task.fit(self._good(sources, []), n=len(sources))

    def partial_fit(self, images: Any, *, allow_remote: bool = False) -> "AnomalyDetector":
        """Learn from more good images, in memory that does not grow with them.

        Each is scored before it is learned, and its score joins those the threshold rests on.
        """
        sources, self.failed_ = _sorted_out(find(images, allow_remote=allow_remote))
        self.copies_ = []
        self._task.partial_fit(self._good(sources, []))
        return self

    def score(
        self, images: Any, *, heatmaps: bool = False, allow_remote: bool = False
    ) -> list[AnomalyResult | ImageFailure]:
        """Judge images.

        Parameters
        ----------
        images : path, PIL image, uint8 array, bytes, or iterable of those
        heatmaps : bool, default False
            Whether to say where.

        Returns
        -------
        list of AnomalyResult or ImageFailure
            In input order; a failure for an image that cannot be used.
        """
        return list(self.stream(find(images, allow_remote=allow_remote), heatmaps=heatmaps))

    def stream(
        self, sources: Iterable[ImageSource | ImageFailure], *, heatmaps: bool = False
    ) -> Generator[AnomalyResult | ImageFailure, None, None]:
        """Judge sources as `images.find` yields them, one after another, in memory that does not grow."""

        def judge(source: ImageSource) -> AnomalyResult:
            return self._judged(self._see(source), heatmaps)

        yield from _in_order(sources, judge, self.n_threads)

    def save(self, path: str | Path) -> None:
        """Write the fitted detector to one file, whole or not at all.

        Raises
        ------
        StorageError
            The disk refuses.
        """
        artifact.write(Path(path), self.features, self.max_tiles, *self._task.state())

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
        """Read what `save` wrote; it scores as before, and can learn on.

        Parameters
        ----------
        model : str, optional
            Where the model lies now, if it was a file or folder that has moved.

        Raises
        ------
        DetectorFileError
            There is no such file, it is damaged, or something else.
        FingerprintMismatchError
            The model here gives other features than the detector was fitted on.
        NewerFormatError
            It was written by a newer nearsight.
        """
        found = artifact.read(Path(path), model, cache_dir)
        detector = cls.__new__(cls)
        detector._start(found.features, found.max_tiles)
        detector._task = found.task
        detector.n_threads = n_threads or n_cores()
        detector.limits = limits or Limits()
        detector.progress = progress
        return detector

    def bar(self, total: int | None) -> Any:
        """Return a progress bar with rate and time left, silent where stderr is no terminal."""
        return tqdm(
            total=total, unit=" images", dynamic_ncols=True, smoothing=0.05, disable=not self.is_watched
        )

    @property
    def is_watched(self) -> bool:
        """Whether somebody sees the progress bar."""
        return sys.stderr.isatty() if self.progress is None else self.progress

    def _good(
        self, sources: list[ImageSource], used: list[ImageSource]
    ) -> Iterator[list[NDArray[np.float32]]]:
        """Yield what the network sees of each image that counts, and put its source into `used`."""
        known: set[str] = set()
        with self.bar(len(sources)) as bar:
            for source, seen in zip(sources, _in_order(sources, self._see, self.n_threads), strict=True):
                bar.update()
                if isinstance(seen, ImageFailure):
                    self.failed_.append(seen)
                elif seen.id in known:
                    self.copies_.append(seen.path)
                else:
                    known.add(seen.id)
                    used.append(source)
                    yield seen.layers

    def _see(self, source: ImageSource) -> _Seen:
        data = source.read(self.limits)
        image = decode(data, path=source.path, limits=self.limits).image
        spec = self.features.spec
        grid = grid_for((image.height, image.width), spec.input_px, self.max_tiles)
        tiles = [self.features.maps(tile) for tile in cut(image, spec, grid)]
        return _Seen(
            source.path, content_id(data), grid, [np.stack(maps) for maps in zip(*tiles, strict=True)], image
        )

    def _judged(self, seen: _Seen, heatmaps: bool) -> AnomalyResult:
        found = self._task.assess(seen.layers)
        threshold = self._task.threshold_
        heatmap = None
        if heatmaps and found.heat:
            sheet = combined([stitch(maps, seen.grid) for maps in found.heat]).astype(np.float32)
            heatmap = resized(sheet, seen.grid.image_px)
        names = {str(i): layer for i, layer in enumerate(self.features.layers)}
        return AnomalyResult(
            path=seen.path,
            score=found.score,
            threshold=threshold.value,
            defect=bool(threshold.exceeded([found.score])[0]),
            levels={names.get(name, name): value for name, value in found.levels.items()},
            heatmap=heatmap,
            image=seen.image if heatmaps else None,
        )


def _sorted_out(found: Iterable[ImageSource | ImageFailure]) -> tuple[list[ImageSource], list[ImageFailure]]:
    sources: list[ImageSource] = []
    failed: list[ImageFailure] = []
    for one in found:
        if isinstance(one, ImageFailure):
            failed.append(one)
        else:
            sources.append(one)
    return sources, failed


def _in_order(sources: Iterable[ImageSource | ImageFailure], work: Any, n_threads: int) -> Iterator[Any]:
    """Work on sources in threads and yield in order; what cannot be used becomes a `ImageFailure`."""

    def one(source: ImageSource | ImageFailure) -> Any:
        if isinstance(source, ImageFailure):
            return source
        try:
            return work(source)
        except ImageError as error:
            return ImageFailure(error.path, error.reason)
        except MemoryError:
            return ImageFailure(source.path, "there is not enough memory to look at it")

    pending: deque[Future[Any]] = deque()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nearsight-inspect")
    # Threads that share every product of matrices wait for each other: it costs half of the time.
    with threadpool_limits(1, "blas"):
        try:
            for source in sources:
                pending.append(pool.submit(one, source))
                if len(pending) > 2 * n_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
