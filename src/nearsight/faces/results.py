"""Who faces are, and whether two are the same person's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.estimators.conformal import Threshold, from_nonmatching_pairs, required_examples
from nearsight.estimators.faces.identifier import FaceIdentifier
from nearsight.faces.impostor_scores import background_of
from nearsight.faces.pipeline import Face, FaceReader, ImageFaces
from nearsight.images import find

DEFAULT_RATE = 0.01
# A background is of few persons.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class IdentifiedFace:
    """A face in an image, and who it is.

    Attributes
    ----------
    face : Face
        Where it is and how good its image is.
    person : str or None
        None where the face is unknown.
    nearest : str or None
        The most similar person of the bank, known or not; None where the bank is empty.
    similarity : float
        Cosine to that person's nearest face; higher is closer. -1 where the bank is empty.
    rival : str or None
        The second most similar person.
    rival_similarity : float
    ambiguous : bool
        The rival would be accepted as well: siblings, or one person under two names.
    """

    face: Face
    person: str | None
    nearest: str | None
    similarity: float
    rival: str | None
    rival_similarity: float
    ambiguous: bool


@dataclass(frozen=True, slots=True)
class Identified:
    """Who is in one image: `faces`, the largest first."""

    reading: ImageFaces
    faces: list[IdentifiedFace]


@dataclass(frozen=True, slots=True)
class FaceVerification:
    """Whether the largest faces of two images are of one person.

    Attributes
    ----------
    same : bool
    similarity : float
        Cosine; higher is closer.
    threshold : Threshold
        Above its `value`, they count as one person.
    """

    same: bool
    similarity: float
    threshold: Threshold


def verify(reader: FaceReader, a: Any, b: Any, *, false_match_rate: float = DEFAULT_RATE) -> FaceVerification:
    """Say whether the largest faces of two images are of one person.

    Parameters
    ----------
    reader : FaceReader
    a, b : path, URL, PIL image, uint8 array or bytes
    false_match_rate : float, default 0.01
        In (0, 1): the share of pairs of strangers that may be called the same.

    Raises
    ------
    ImageError
        An image cannot be used, or has no face.
    InvalidParameterError
        Nothing is known about strangers under these models.
    CalibrationError
        The background cannot promise that rate.
    """
    background = background_of(reader.fingerprint)
    if background is None:
        raise InvalidParameterError(
            f"no background of strangers is known for {reader.recognizer.spec.id} with faces found by "
            f"{reader.detector.spec.id}; enroll the two persons in a bank with others and identify, or use "
            "the built-in models"
        )
    first, second = (_largest(reader, image) for image in (a, b))
    threshold = _pair_threshold(background, false_match_rate)
    similarity = float(first @ second)
    return FaceVerification(bool(threshold.exceeded(similarity)), similarity, threshold)


def _pair_threshold(background: NDArray[np.float64], rate: float) -> Threshold:
    """Return the threshold for one comparison, held with confidence where there are pairs enough."""
    n_needed = required_examples(rate, confidence=CONFIDENCE)
    confidence = CONFIDENCE if len(background) >= n_needed else None
    return from_nonmatching_pairs(background, false_alarm_rate=rate, confidence=confidence)


def _largest(reader: FaceReader, image: Any) -> NDArray[np.float32]:
    source = next(iter(find([image])))
    reading = source if isinstance(source, ImageFailure) else reader.read(source)
    if isinstance(reading, ImageFailure):
        raise ImageError(reading.path, reading.reason)
    if not reading.faces:
        raise ImageError(reading.source.path, "no face was found in it")
    return reading.faces[0].vector


def identified(identifier: FaceIdentifier | None, faces: list[Face]) -> list[IdentifiedFace]:
    """Return who the faces of an image are; everybody is unknown to no identifier."""
    if identifier is None or not faces:
        return [IdentifiedFace(face, None, None, -1.0, None, -1.0, False) for face in faces]
    found = identifier.identify(np.stack([face.vector for face in faces]))
    has_rival = len(identifier.classes_) > 1
    return [
        IdentifiedFace(
            face,
            None if found.unknown[i] else str(found.persons[i]),
            str(found.persons[i]),
            float(found.similarity[i]),
            str(found.rivals[i]) if has_rival else None,
            float(found.rival_similarity[i]),
            bool(found.ambiguous[i]),
        )
        for i, face in enumerate(faces)
    ]
