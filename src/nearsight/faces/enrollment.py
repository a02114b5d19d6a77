"""Enrollment: which face of each image is added to the bank, and what to check."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.estimators.conformal import Threshold
from nearsight.faces.models import POOR
from nearsight.faces.pipeline import Face, ImageFaces
from nearsight.faces.schema import BankedFace, face_id

# The largest face of an image is enrolled if it is larger than the next by this factor.
_CLEARLY_LARGER = 1.5


@dataclass(frozen=True, slots=True)
class Caution:
    """A reason to check a face that was enrolled.

    Attributes
    ----------
    path : str
        The image.
    person : str
        The person under whose name the face was enrolled.
    kind : {"several faces", "poor quality", "like someone else"}
    text : str
        The reason, and what to do.
    """

    path: str
    person: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class EnrollReport:
    """The result of `FaceBank.enroll`.

    Attributes
    ----------
    enrolled : dict of str to int
        Number of new faces of each person.
    already : int
        Number of faces that were in the bank before.
    cautions : list of Caution
    failed : list of ImageFailure
        Images of which no face was enrolled.
    """

    enrolled: dict[str, int] = field(default_factory=dict)
    already: int = 0
    cautions: list[Caution] = field(default_factory=list)
    failed: list[ImageFailure] = field(default_factory=list)


class PersonName:
    """The name of the person in an image: one name for all images, or that of each image's folder."""

    def __init__(self, name: str | None) -> None:
        if name is not None and not name.strip():
            raise InvalidParameterError(
                f"name is {name!r}; give one with at least one letter, or none to use the folders' names"
            )
        self._name = name

    def of(self, image: ImageFaces) -> str:
        """Return the name; empty for an image in memory without a name."""
        if self._name is not None:
            return self._name
        # The key is absolute, so that `enroll anna/1.jpg` from anywhere finds the folder's name.
        return PurePath(image.source.key).parent.name if image.source.key else ""


class Enrollment:
    """One run of `FaceBank.enroll`, image by image.

    Parameters
    ----------
    person_name : PersonName
    known_ids : iterable of str
        Ids of the faces in the bank.
    allow_poor : bool
        Whether faces of poor quality are enrolled.
    """

    def __init__(self, person_name: PersonName, known_ids: Iterable[str], *, allow_poor: bool) -> None:
        self.accepted: list[tuple[ImageFaces, Face, str]] = []
        self._person_name, self._known_ids, self._allow_poor = person_name, set(known_ids), allow_poor
        self._already = 0
        self._cautions: list[Caution] = []
        self._failed: list[ImageFailure] = []

    def add(self, image: ImageFaces | ImageFailure) -> None:
        """Accept the clearly largest face of one image, or record why there is none."""
        if isinstance(image, ImageFailure):
            self._failed.append(image)
            return
        path, person = image.source.path, self._person_name.of(image)
        if not person:
            self._failed.append(
                ImageFailure(
                    path, "whose face is it? Give a name, or put it into a folder with the person's name"
                )
            )
        elif not image.faces:
            self._failed.append(ImageFailure(path, "no face was found in it"))
        elif len(image.faces) > 1 and not _is_largest_clear(image.faces):
            self._failed.append(
                ImageFailure(
                    path, f"has {len(image.faces)} faces of similar size; crop it to the person to enroll"
                )
            )
        else:
            self._accept(image, person)

    def _accept(self, image: ImageFaces, person: str) -> None:
        face, path = image.faces[0], image.source.path
        id = face_id(image.id, face)
        if id in self._known_ids:
            self._already += 1
            return
        quality = face.quality
        if quality.score < POOR:
            problems = ", ".join(quality.problems) or "poor"
            if not self._allow_poor:
                self._failed.append(ImageFailure(path, f"the face is of poor quality: {problems}"))
                return
            self._caution(path, person, "poor quality", f"the face is {problems}; a better photograph helps")
        if len(image.faces) > 1:
            text = f"has {len(image.faces)} faces; the largest was enrolled as {person}"
            self._caution(path, person, "several faces", text)
        self._known_ids.add(id)
        self.accepted.append((image, face, person))

    def compare(self, faces: list[BankedFace], X: NDArray[np.float32], threshold: Threshold | None) -> None:
        """Add a caution for each new face that matches another person of the bank."""
        if threshold is None:
            return
        persons = np.array([face.person for face in faces])
        named = persons != ""
        X, persons = X[named], persons[named]
        for image, face, person in self.accepted:
            similarity = X @ face.vector
            others = np.where(persons == person, -1.0, similarity)
            best = int(others.argmax())
            if others[best] > threshold.value:
                text = (
                    f"was enrolled as {person}, but resembles {persons[best]} (similarity "
                    f"{others[best]:.3f}): one person under two names, relatives, or a wrong name"
                )
                self._caution(image.source.path, person, "like someone else", text)

    def report(self) -> EnrollReport:
        """Return the result."""
        names = [person for _, _, person in self.accepted]
        return EnrollReport(
            {name: names.count(name) for name in sorted(set(names))},
            self._already,
            self._cautions,
            self._failed,
        )

    def _caution(self, path: str, person: str, kind: str, text: str) -> None:
        self._cautions.append(Caution(path, person, kind, text))


def _is_largest_clear(faces: list[Face]) -> bool:
    """Return whether the first face is clearly larger than the second."""
    sides = [max(face.box[2] - face.box[0], face.box[3] - face.box[1]) for face in faces[:2]]
    return sides[0] >= _CLEARLY_LARGER * sides[1]
