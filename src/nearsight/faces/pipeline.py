"""Images in, faces with vectors out: decoding, finding, aligning and embedding, overlapped and in order."""

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.faces.models import (
    DEFAULT_DETECTOR,
    DEFAULT_RECOGNIZER,
    SCAN_VERSION,
    FaceDetector,
    FaceQuality,
    FaceRecognizer,
    FoundFace,
    chip,
    detect,
    load_detector,
    load_recognizer,
    quality_of,
    similarity_transform,
)
from nearsight.images import ImageSource, Limits, content_id, count, decode, find
from nearsight.models import Fingerprint
from nearsight.processor import n_cores


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one image.

    Attributes
    ----------
    box : tuple of float
        Left, top, right, bottom in pixels of the full upright image.
    landmarks : ndarray of shape (5, 2), float32
        Eyes, nose and corners of the mouth, left before right as seen in the image; same pixels.
    confidence : float
        How sure the detector is that this is a face, in 0..1.
    vector : ndarray of shape (dim,), float32
        Unit length; the cosine of two says how alike the faces are.
    quality : FaceQuality
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    confidence: float
    vector: NDArray[np.float32]
    quality: FaceQuality


@dataclass(frozen=True, slots=True)
class ImageFaces:
    """What was found in one image.

    Attributes
    ----------
    source : ImageSource
        Where the image came from.
    id : str
        Hash of its content, 32 hex digits.
    width, height : int
        Size of the upright image in pixels.
    faces : list of Face
        The largest first.
    """

    source: ImageSource
    id: str
    width: int
    height: int
    faces: list[Face] = field(default_factory=list)


class FaceReader:
    """Finds the faces in images and turns each into a vector.

    *Method.* Each worker thread takes an image from bytes to vectors by itself, as in `Embedder`.

    Parameters
    ----------
    detector, recognizer : str or model, default "centerface" and "dlib-resnet29"
        Names (see `models.faces.load_detector` and `load_recognizer`) or loaded models.
    min_confidence : float, default 0.5
        Fainter faces are left out; in 0..1.
    smallest_px : float, optional
        Side of the smallest face that is looked for, in pixels; by default a 64th of the image's longer
        side, and at least 20.
    n_threads : int, optional
        Worker threads; by default as many as the cores this process may use.
    limits : Limits, optional
        Pixels, bytes and seconds one image may cost.
    cache_dir : Path, optional
        Where converted models are kept.
    progress : bool, optional
        Show a progress bar on stderr; by default only when that is a terminal.

    Raises
    ------
    MissingExtraError
        The models are not installed; the message holds the command.
    UnknownModelError
        There is no such model.
    """

    def __init__(
        self,
        detector: str | FaceDetector = DEFAULT_DETECTOR,
        recognizer: str | FaceRecognizer = DEFAULT_RECOGNIZER,
        *,
        min_confidence: float = 0.5,
        smallest_px: float | None = None,
        n_threads: int | None = None,
        limits: Limits | None = None,
        cache_dir: Path | None = None,
        progress: bool | None = None,
    ) -> None:
        if n_threads is not None and n_threads < 1:
            raise InvalidParameterError(f"n_threads is {n_threads}; it must be at least 1")
        self.detector = load_detector(detector) if isinstance(detector, str) else detector
        self.recognizer = (
            load_recognizer(recognizer, cache_dir=cache_dir) if isinstance(recognizer, str) else recognizer
        )
        self.min_confidence = min_confidence
        self.smallest_px = smallest_px
        self.n_threads = n_threads or n_cores()
        self.limits = limits or Limits()
        self.progress = progress

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes vectors comparable: both models, and how a face gets from the one to the other."""
        recognizer, own = self.recognizer, self.recognizer.spec.fingerprint
        facts: dict[str, Any] = {
            **own.preprocessing,
            "scan": SCAN_VERSION,
            "detector_sha256": self.detector.spec.weights_sha256,
            "template": recognizer.template.tolist(),
            "template_weights": recognizer.weights.tolist(),
            "mirrored": bool(getattr(recognizer, "is_mirrored", False)),
        }
        return Fingerprint(
            model=own.model,
            weights_sha256=own.weights_sha256,
            preprocessing=facts,
            decoder=own.decoder,
            output=own.output,
        )

    def faces(self, image: Image.Image) -> list[Face]:
        """Return the faces in an upright RGB image, the largest first."""
        found = detect(self.detector, image, min_confidence=self.min_confidence, smallest_px=self.smallest_px)
        chips = [self._chip(image, face) for face in found]
        return [
            Face(
                face.box,
                face.landmarks,
                face.confidence,
                vector,
                quality_of(made, face.landmarks, face.side_px),
            )
            for face, made, vector in zip(found, chips, self.recognizer.embed(chips), strict=True)
            if vector.any()
        ]

    def read(
        self, source: ImageSource, *, known: Callable[[str], bool] | None = None
    ) -> ImageFaces | ImageFailure:
        """Return the faces in one image, or what is wrong with it.

        Where `known` says so of the hash of its content, it is not looked into, and no face is returned.
        """
        try:
            data = source.read(self.limits)
            if known is not None and known(content_id(data)):
                return ImageFaces(source, content_id(data), 0, 0)
            image = decode(data, path=source.path, limits=self.limits)
            faces = self.faces(image.image)
            return ImageFaces(source, content_id(data), image.width, image.height, faces)
        except ImageError as error:
            return ImageFailure(error.path, error.reason)
        except MemoryError:
            return ImageFailure(source.path, "there is not enough memory to look for faces in it")

    def stream(
        self, sources: Iterable[ImageSource | ImageFailure], *, known: Callable[[str], bool] | None = None
    ) -> Generator[ImageFaces | ImageFailure, None, None]:
        """Read images one after another, in input order and bounded memory; failures pass through."""
        pending: deque[Future[ImageFaces | ImageFailure]] = deque()
        pool = ThreadPoolExecutor(self.n_threads, thread_name_prefix="nearsight-faces")
        try:
            for source in sources:
                pending.append(pool.submit(self._read, source, known))
                if len(pending) > 2 * self.n_threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def read_all(
        self, inputs: Any, *, allow_remote: bool = False, known: Callable[[str], bool] | None = None
    ) -> Iterator[ImageFaces | ImageFailure]:
        """Find and read images with a progress bar.

        Parameters
        ----------
        inputs : path, URL, PIL image, uint8 array, bytes, or iterable of those
            Folders, globs and tar shards are walked.
        allow_remote : bool, default False
            Whether http and https addresses may be fetched.
        known : callable, optional
            See `read`; called from worker threads.
        """
        watched = sys.stderr.isatty() if self.progress is None else self.progress
        countable = watched and not isinstance(inputs, Iterator)
        total = count(inputs, allow_remote=allow_remote) if countable else None
        with tqdm(
            total=total, unit=" images", dynamic_ncols=True, smoothing=0.05, disable=not watched
        ) as bar:
            for result in self.stream(find(inputs, allow_remote=allow_remote), known=known):
                bar.update()
                yield result

    def _read(
        self, source: ImageSource | ImageFailure, known: Callable[[str], bool] | None
    ) -> ImageFaces | ImageFailure:
        return source if isinstance(source, ImageFailure) else self.read(source, known=known)

    def _chip(self, image: Image.Image, face: FoundFace) -> NDArray[np.uint8]:
        model = self.recognizer
        matrix = similarity_transform(face.landmarks, model.template, model.weights)
        return chip(image, matrix, model.spec.input_px)
