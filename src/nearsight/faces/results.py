"""Results of identification and verification, and verification of two images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.estimators.conformal import Threshold, from_nonmatching_pairs, required_examples
from nearsight.estimators.faces.identifier import FaceIdentifier
from nearsight.faces.impostor_scores import impostor_similarities
from nearsight.faces.pipeline import Face, FaceReader, ImageFaces
from nearsight.images import find

DEFAULT_RATE = 0.01
# The false match rate of a verification holds with this confidence, because the impostor scores are of few
# persons.
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class IdentifiedFace:
    """A face in an image, and the person it was identified as.

    Attributes
    ----------
    face : Face
        Its box, landmarks, vector and quality.
    person : str or None
        None if the face is unknown.
    nearest : str or None
        The most similar person of the bank, also if the face is unknown; None if the bank is empty.
    similarity : float
        Cosine to that person's most similar face; higher is closer. -1 if the bank is empty.
    rival : str or None
        The second most similar person.
    rival_similarity : float
    ambiguous : bool
        Whether the rival is above the threshold as well: siblings, or one person under two names.
    """

    face: Face
    person: str | None
    nearest: str | None
    similarity: float
    rival: str | None
    rival_similarity: float
    ambiguous: bool


@dataclass(frozen=True, slots=True)
class IdentifiedImage:
    """The persons in one image.

    Attributes
    ----------
    image : ImageFaces
        The image, and the faces in it.
    faces : list of IdentifiedFace
        The largest first.
    """

    image: ImageFaces
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
        A similarity above its `value` is a match.
    """

    same: bool
    similarity: float
    threshold: Threshold


def verify(reader: FaceReader, a: Any, b: Any, *, false_match_rate: float = DEFAULT_RATE) -> FaceVerification:
    """Decide whether the largest faces of two images are of the same person.

    Parameters
    ----------
    reader : FaceReader
    a, b : path, URL, PIL image, uint8 array or bytes
    false_match_rate : float, default 0.01
        Share of pairs of different persons that may be called the same, in (0, 1).

    Raises
    ------
    ImageError
        An image cannot be used, or has no face.
    InvalidParameterError
        There are no impostor scores for these models: use the built-in models, or identify with a bank.
    CalibrationError
        The impostor scores are too few for that rate; the message says which rate they allow.
    """
    impostors = impostor_similarities(reader.fingerprint)
    if impostors is None:
        raise InvalidParameterError(
            f"there are no impostor scores for {reader.recognizer.spec.id} with faces found by "
            f"{reader.detector.spec.id}; enroll the two persons in a bank with others and identify, or use "
            "the built-in models"
        )
    first, second = (_largest_face(reader, image) for image in (a, b))
    threshold = _pair_threshold(impostors, false_match_rate)
    similarity = float(first @ second)
    return FaceVerification(bool(threshold.exceeded(similarity)), similarity, threshold)


def _pair_threshold(impostors: NDArray[np.float64], rate: float) -> Threshold:
    """Return the threshold for one comparison; it holds with `CONFIDENCE` if there are enough pairs."""
    n_required = required_examples(rate, confidence=CONFIDENCE)
    confidence = CONFIDENCE if len(impostors) >= n_required else None
    return from_nonmatching_pairs(impostors, false_alarm_rate=rate, confidence=confidence)


def _largest_face(reader: FaceReader, image: Any) -> NDArray[np.float32]:
    source = next(iter(find([image])))
    result = source if isinstance(source, ImageFailure) else reader.read(source)
    if isinstance(result, ImageFailure):
        raise ImageError(result.path, result.reason)
    if not result.faces:
        raise ImageError(result.source.path, "no face was found in it")
    return result.faces[0].vector


def identify_faces(identifier: FaceIdentifier | None, faces: list[Face]) -> list[IdentifiedFace]:
    """Identify the faces of an image; without an identifier, all are unknown."""
    if identifier is None or not faces:
        return [IdentifiedFace(face, None, None, -1.0, None, -1.0, False) for face in faces]
    identities = identifier.identify(np.stack([face.vector for face in faces]))
    has_rival = len(identifier.classes_) > 1
    return [
        IdentifiedFace(
            face,
            None if identities.unknown[i] else str(identities.persons[i]),
            str(identities.persons[i]),
            float(identities.similarity[i]),
            str(identities.rivals[i]) if has_rival else None,
            float(identities.rival_similarity[i]),
            bool(identities.ambiguous[i]),
        )
        for i, face in enumerate(faces)
    ]
