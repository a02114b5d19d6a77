"""From images to faces with vectors: decode, detect, align and embed, in threads and in input order."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nearsight import progress as progress_display
from nearsight.errors import ImageError, ImageFailure
from nearsight.faces.models import (
    DEFAULT_DETECTOR,
    DEFAULT_RECOGNIZER,
    MIN_CONFIDENCE,
    SCAN_VERSION,
    DetectedFace,
    FaceDetector,
    FaceQuality,
    FaceRecognizer,
    assess_quality,
    chip,
    detect,
    load_detector,
    load_recognizer,
    similarity_transform,
)
from nearsight.images import Exclusions, ImageSource, Limits, content_id, count, decode, find
from nearsight.models import Fingerprint
from nearsight.models.pooling import unit_length
from nearsight.parallel import ordered_map
from nearsight.parameters import require_whole
from nearsight.processor import n_cores


@dataclass(frozen=True, slots=True)
class Face:
    """One face in one image.

    Attributes
    ----------
    box : tuple of float
        Left, top, right, bottom in pixels of the full upright image.
    landmarks : ndarray of shape (5, 2), float32
        x and y of eyes, nose and corners of the mouth, left before right as seen in the image; same pixels.
    confidence : float
        The detector's confidence that this is a face, in 0..1.
    vector : ndarray of shape (dim,), float32
        Unit length; the cosine of two vectors is the similarity of the faces.
    quality : FaceQuality
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float32]
    confidence: float
    vector: NDArray[np.float32]
    quality: FaceQuality


@dataclass(frozen=True, slots=True)
class ImageFaces:
    """The faces in one image.

    Attributes
    ----------
    source : ImageSource
        The image's path and bytes.
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
    """Find the faces in images, and embed each as a vector.

    *Method*: each worker thread takes an image from bytes to vectors, as in `Embedder`. A vector is the sum
    of the unit vectors of the aligned face and of its mirror image, scaled to unit length: a face turned to
    one side resembles its mirror image turned to the other.

    Parameters
    ----------
    detector, recognizer : str or model, default "centerface" and "dlib-resnet29"
        Names (see `faces.models.load_detector` and `load_recognizer`) or loaded models.
    min_confidence : float, default 0.5
        Faces of less confidence are left out; in 0..1.
    smallest_px : float, optional
        Side of the smallest face to detect, in pixels; by default a 64th of the image's longer side, and at
        least 20.
    n_threads : int, optional
        Worker threads; by default as many as the cores this process may use.
    limits : Limits, optional
        Pixels, bytes and seconds one image may cost.
    cache_dir : Path, optional
        Where converted models are kept.
    progress : bool, optional
        Show a progress bar on stderr; by default only if stderr is a terminal.

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
        min_confidence: float = MIN_CONFIDENCE,
        smallest_px: float | None = None,
        n_threads: int | None = None,
        limits: Limits | None = None,
        cache_dir: Path | None = None,
        progress: bool | None = None,
    ) -> None:
        require_whole("n_threads", n_threads, optional=True)
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
        """Both models and the alignment between them; vectors of equal fingerprints are comparable."""
        recognizer, own = self.recognizer, self.recognizer.spec.fingerprint
        facts: dict[str, Any] = {
            **own.preprocessing,
            "scan": SCAN_VERSION,
            "detector_sha256": self.detector.spec.weights_sha256,
            "template": recognizer.template.tolist(),
            "template_weights": recognizer.weights.tolist(),
            "mirrored": True,
        }
        return Fingerprint(
            model=own.model,
            weights_sha256=own.weights_sha256,
            preprocessing=facts,
            decoder=own.decoder,
            output=own.output,
        )

    def faces(self, image: Image.Image) -> list[Face]:
        """Detect and embed the faces in an upright RGB image, the largest first."""
        detected = detect(
            self.detector, image, min_confidence=self.min_confidence, smallest_px=self.smallest_px
        )
        return self.embed(image, detected)

    def embed(self, image: Image.Image, detected: Sequence[DetectedFace]) -> list[Face]:
        """Align and embed detected faces of an upright RGB image; those without any feature are left out."""
        chips = [self._chip(image, face) for face in detected]
        mirrored = [np.ascontiguousarray(chip[:, ::-1]) for chip in chips]
        # One call for both, which a recognizer may run as one batch.
        both = self.recognizer.embed([*chips, *mirrored])
        vectors = unit_length(both[: len(chips)] + both[len(chips) :])
        return [
            Face(
                face.box,
                face.landmarks,
                face.confidence,
                vector,
                assess_quality(face_chip, face.landmarks, face.side_px),
            )
            for face, face_chip, vector in zip(detected, chips, vectors, strict=True)
            if vector.any()
        ]

    def read(
        self, source: ImageSource, *, known: Callable[[str], bool] | None = None
    ) -> ImageFaces | ImageFailure:
        """Return the faces in one image, or a failure if it cannot be used.

        If `known` is true for the hash of its content, the image is not decoded and no face is returned.
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
        """Read images in threads, in input order and bounded memory; failures pass through."""

        def read(source: ImageSource | ImageFailure) -> ImageFaces | ImageFailure:
            return source if isinstance(source, ImageFailure) else self.read(source, known=known)

        yield from ordered_map(read, sources, n_threads=self.n_threads)

    def read_all(
        self,
        inputs: Any,
        *,
        allow_remote: bool = False,
        exclusions: Exclusions | None = None,
        skipped: Counter[str] | None = None,
        known: Callable[[str], bool] | None = None,
    ) -> Iterator[ImageFaces | ImageFailure]:
        """Find and read images with a progress bar.

        Parameters
        ----------
        inputs : path, URL, PIL image, uint8 array, bytes, or iterable of those
            Folders, globs and tar shards are walked.
        allow_remote : bool, default False
            Whether http and https addresses may be fetched.
        exclusions, skipped
            See `images.find`.
        known : callable, optional
            See `read`; called from worker threads.
        """
        is_watched = progress_display.is_watched(self.progress)
        walk: dict[str, Any] = {"allow_remote": allow_remote, "exclusions": exclusions}
        total = count(inputs, **walk) if is_watched else None
        results = self.stream(find(inputs, **walk, skipped=skipped), known=known)
        yield from progress_display.track(results, "reading faces", total=total, progress=self.progress)

    def _chip(self, image: Image.Image, face: DetectedFace) -> NDArray[np.uint8]:
        model = self.recognizer
        matrix = similarity_transform(face.landmarks, model.template, model.weights)
        return chip(image, matrix, model.spec.input_px)
