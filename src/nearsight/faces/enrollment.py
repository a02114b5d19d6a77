"""What comes into the bank, and what is said about it."""

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

# The largest face is the one meant if the next is smaller by this.
_CLEARLY_LARGER = 1.5


@dataclass(frozen=True, slots=True)
class Caution:
    """What should be looked at, though the face was enrolled.

    Attributes
    ----------
    path : str
        The image.
    person : str
        Under whose name it was enrolled.
    kind : {"several faces", "poor quality", "like someone else"}
    text : str
        For a person.
    """

    path: str
    person: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class EnrollReport:
    """What `FaceBank.enroll` did.

    Attributes
    ----------
    enrolled : dict of str to int
        New faces of each person.
    already : int
        Faces that were in the bank.
    cautions : list of Caution
    failed : list of ImageFailure
        Images of which nothing was enrolled.
    """

    enrolled: dict[str, int] = field(default_factory=dict)
    already: int = 0
    cautions: list[Caution] = field(default_factory=list)
    failed: list[ImageFailure] = field(default_factory=list)


class Naming:
    """Whose face is in an image: a given name, or that of its folder."""

    def __init__(self, name: str | None) -> None:
        if name is not None and not name.strip():
            raise InvalidParameterError("name is empty; give one with at least one letter, or none at all")
        self._name = name

    def __call__(self, reading: ImageFaces) -> str:
        """Return the name; empty where there is none."""
        if self._name is not None:
            return self._name
        # The key is absolute, so that `enroll anna/1.jpg` from anywhere finds the folder's name.
        return PurePath(reading.source.key).parent.name if reading.source.key else ""


class Enrollment:
    """One run of enrolling, image by image.

    Parameters
    ----------
    naming : Naming
    known : iterable of str
        Ids of the faces in the bank.
    allow_poor : bool
        Whether poor faces come in.
    """

    def __init__(self, naming: Naming, known: Iterable[str], *, allow_poor: bool) -> None:
        self.accepted: list[tuple[ImageFaces, Face, str]] = []
        self._naming, self._known, self._allow_poor = naming, set(known), allow_poor
        self._already = 0
        self._cautions: list[Caution] = []
        self._failed: list[ImageFailure] = []

    def take(self, reading: ImageFaces | ImageFailure) -> None:
        """Take the face that is meant in one image, or say why not."""
        if isinstance(reading, ImageFailure):
            self._failed.append(reading)
            return
        path, person = reading.source.path, self._naming(reading)
        if not person:
            self._failed.append(
                ImageFailure(path, "whose face is it? Give a name, or a folder called after the person")
            )
        elif not reading.faces:
            self._failed.append(ImageFailure(path, "no face was found in it"))
        elif len(reading.faces) > 1 and not _is_clear(reading.faces):
            self._failed.append(
                ImageFailure(
                    path, f"has {len(reading.faces)} faces of like size; cut out the one that is meant"
                )
            )
        else:
            self._accept(reading, person)

    def _accept(self, reading: ImageFaces, person: str) -> None:
        face, path = reading.faces[0], reading.source.path
        id = face_id(reading.id, face)
        if id in self._known:
            self._already += 1
            return
        quality = face.quality
        if quality.score < POOR:
            problems = ", ".join(quality.problems) or "poor"
            if not self._allow_poor:
                self._failed.append(ImageFailure(path, f"the face is of poor quality: {problems}"))
                return
            self._caution(path, person, "poor quality", f"the face is {problems}; a better photograph helps")
        if len(reading.faces) > 1:
            text = f"has {len(reading.faces)} faces; the largest was enrolled as {person}"
            self._caution(path, person, "several faces", text)
        self._known.add(id)
        self.accepted.append((reading, face, person))

    def compare(self, faces: list[BankedFace], X: NDArray[np.float32], threshold: Threshold | None) -> None:
        """Say which new faces resemble somebody else, in the bank as it is now."""
        if threshold is None:
            return
        persons = np.array([face.person for face in faces])
        named = persons != ""
        X, persons = X[named], persons[named]
        for reading, face, person in self.accepted:
            similarity = X @ face.vector
            others = np.where(persons == person, -1.0, similarity)
            best = int(others.argmax())
            if others[best] > threshold.value:
                text = (
                    f"was enrolled as {person}, but resembles {persons[best]} (similarity "
                    f"{others[best]:.3f}): one person under two names, relatives, or a wrong name"
                )
                self._caution(reading.source.path, person, "like someone else", text)

    def report(self) -> EnrollReport:
        """Return what was done."""
        names = [person for _, _, person in self.accepted]
        return EnrollReport(
            {name: names.count(name) for name in sorted(set(names))},
            self._already,
            self._cautions,
            self._failed,
        )

    def _caution(self, path: str, person: str, kind: str, text: str) -> None:
        self._cautions.append(Caution(path, person, kind, text))


def _is_clear(faces: list[Face]) -> bool:
    """Tell whether the first, largest face is clearly the one meant."""
    sides = [max(face.box[2] - face.box[0], face.box[3] - face.box[1]) for face in faces[:2]]
    return sides[0] >= _CLEARLY_LARGER * sides[1]
