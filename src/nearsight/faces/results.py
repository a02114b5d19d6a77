"""Results of identification and verification, and verification of two images."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import CalibrationError, ImageError, ImageFailure, InvalidParameterError
from nearsight.estimators.conformal import Threshold
from nearsight.estimators.faces.impostor_quantiles import DEFAULT_FALSE_MATCH_RATE
from nearsight.faces.conditions import BankConditions
from nearsight.faces.impostor_quantiles import impostor_quantiles
from nearsight.faces.pipeline import Face, FaceReader, ImageFaces
from nearsight.images import find

if TYPE_CHECKING:
    from nearsight.estimators.faces.identifier import FaceIdentifier


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
        Cosine to the mean of that person's faces; higher is closer. -1 if the bank is empty.
    rival : str or None
        The second most similar person.
    rival_similarity : float
    ambiguous : bool
        Whether a person should look at it, for the reason in `doubt`.
    doubt : str
        ``"rival"``: the rival is above the threshold as well: siblings, or one person under two names.
        ``"same image"``: a more similar face of the same image has the name, too: relatives, a mirror, or a
        collage. Empty if there is no doubt.
    differs : tuple of str
        What no enrolled face is, such as ``"blurred"``, ``"small"`` or ``"gray"``: the similarity of such a
        face is less certain.
    """

    face: Face
    person: str | None
    nearest: str | None
    similarity: float
    rival: str | None
    rival_similarity: float
    ambiguous: bool
    doubt: str = ""
    differs: tuple[str, ...] = ()


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


def verify(
    reader: FaceReader, a: Any, b: Any, *, false_match_rate: float = DEFAULT_FALSE_MATCH_RATE
) -> FaceVerification:
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
        There are no impostor quantiles for these models: use the built-in models, or identify with a bank.
    CalibrationError
        The impostor quantiles do not reach that rate; the message says which rate they allow.
    """
    quantiles = impostor_quantiles(reader.fingerprint)
    if quantiles is None:
        raise InvalidParameterError(
            f"there are no impostor quantiles for {reader.recognizer.spec.id} with faces found by "
            f"{reader.detector.spec.id}; enroll the two persons in a bank with others and identify, or use "
            "the built-in models"
        )
    threshold = quantiles.threshold(false_match_rate, [1])
    if threshold.false_alarm_rate > false_match_rate:
        raise CalibrationError(
            f"{threshold.n_examples:,} comparisons of different persons cannot calibrate a false match rate"
            f" of {false_match_rate:g}; ask for a rate of at least {threshold.false_alarm_rate:.2g}"
        )
    first, second = (_largest_face(reader, image) for image in (a, b))
    similarity = float(first @ second)
    return FaceVerification(bool(threshold.exceeded(similarity)), similarity, threshold)


def _largest_face(reader: FaceReader, image: Any) -> NDArray[np.float32]:
    source = next(iter(find([image])))
    result = source if isinstance(source, ImageFailure) else reader.read(source)
    if isinstance(result, ImageFailure):
        raise ImageError(result.path, result.reason)
    if not result.faces:
        raise ImageError(result.source.path, "no face was found in it")
    return result.faces[0].vector


def identify_faces(
    identifier: "FaceIdentifier | None", faces: list[Face], conditions: BankConditions
) -> list[IdentifiedFace]:
    """Identify the faces of an image; without an identifier, all are unknown.

    If several faces get the same name, only the most similar one does so without doubt.
    """
    if identifier is None or not faces:
        return [IdentifiedFace(face, None, None, -1.0, None, -1.0, False) for face in faces]
    identities = identifier.identify(np.stack([face.vector for face in faces]))
    has_rival = len(identifier.classes_) > 1
    doubts = ["rival" if ambiguous else "" for ambiguous in identities.ambiguous]
    named: set[Any] = set()
    for i in np.argsort(-identities.similarity, kind="stable"):
        if identities.unknown[i]:
            continue
        if identities.persons[i] in named:
            doubts[i] = "same image"
        named.add(identities.persons[i])
    return [
        IdentifiedFace(
            face,
            None if identities.unknown[i] else str(identities.persons[i]),
            str(identities.persons[i]),
            float(identities.similarity[i]),
            str(identities.rivals[i]) if has_rival else None,
            float(identities.rival_similarity[i]),
            bool(doubts[i]),
            doubts[i],
            conditions.differences(face),
        )
        for i, face in enumerate(faces)
    ]
