"""Enrollment: which face of each image is added to the bank, and what to check."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.estimators.faces.impostor_quantiles import ImpostorQuantiles
from nearsight.faces.groups import unnamed_groups
from nearsight.faces.models import POOR
from nearsight.faces.pipeline import Face, ImageFaces
from nearsight.faces.schema import face_id
from nearsight.text_format import nfc

if TYPE_CHECKING:
    from nearsight.estimators.faces.identifier import FaceIdentifier

# Of two images that differ, nobody can say which one is wrong.
_MIN_OTHERS = 2
# In two images, somebody else may be by chance.
_MIN_COMMON = 3
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
    kind : {"several faces", "poor quality", "like someone else", "unlike the others"}
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
    skipped : dict of str to int
        Number of those images by reason: ``unreadable``, ``without a name``, ``without a face``, ``with
        several faces of similar size`` or ``of poor quality``.
    """

    enrolled: dict[str, int] = field(default_factory=dict)
    already: int = 0
    cautions: list[Caution] = field(default_factory=list)
    failed: list[ImageFailure] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)


class PersonName:
    """The name of the person in an image: one name for all images, or that of each image's folder."""

    def __init__(self, name: str | None) -> None:
        if name is not None and not name.strip():
            raise InvalidParameterError(
                f"name is {name!r}; give one with at least one letter, or none to use the folders' names"
            )
        self._name = None if name is None else nfc(name)

    def of(self, image: ImageFaces) -> str:
        """Return the name; empty for an image in memory without a name."""
        if self._name is not None:
            return self._name
        # The key is absolute, so that `enroll anna/1.jpg` from anywhere finds the folder's name.
        return nfc(PurePath(image.source.key).parent.name) if image.source.key else ""


class Enrollment:
    """One run of `FaceBank.enroll`: `add` each image, then `choose_faces`, then `compare`.

    Parameters
    ----------
    person_name : PersonName
    known : mapping of str to str
        The person of each named face of the bank, by the face's id.
    allow_poor : bool
        Whether faces of poor quality are enrolled.
    """

    def __init__(self, person_name: PersonName, known: Mapping[str, str], *, allow_poor: bool) -> None:
        self.accepted: list[tuple[ImageFaces, Face, str]] = []
        self._person_name, self._known, self._allow_poor = person_name, dict(known), allow_poor
        self._already = 0
        self._with_several_faces: list[tuple[ImageFaces, str]] = []
        self._cautions: list[Caution] = []
        self._failed: list[ImageFailure] = []
        self._skipped: Counter[str] = Counter()

    def add(self, image: ImageFaces | ImageFailure) -> None:
        """Accept the face of one image, keep an image of several faces for later, or record the failure."""
        if isinstance(image, ImageFailure):
            self._skip("unreadable", image.path, image.reason)
            return
        path, person = image.source.path, self._person_name.of(image)
        if not person:
            reason = "whose face is it? Give a name, or put it into a folder with the person's name"
            self._skip("without a name", path, reason)
        elif not image.faces:
            self._skip("without a face", path, "no face was found in it")
        elif len(image.faces) > 1:
            self._with_several_faces.append((image, person))
        else:
            self._accept(image, image.faces[0], person)

    def choose_faces(
        self,
        examples: Mapping[str, NDArray[np.float32]],
        quantiles: ImpostorQuantiles | None,
        false_match_rate: float,
    ) -> None:
        """Accept from each image of several faces the one of the person, if it is clear which one that is.

        It is the only face that matches the person's other images. Where these show several faces, too, it is
        the one person in more than half of them. Otherwise it is the face that is clearly the largest.

        Parameters
        ----------
        examples : mapping of str to ndarray of shape (n, dim)
            Vectors of the faces that the bank has of each person.
        quantiles : ImpostorQuantiles or None
            How similar faces of different persons are.
        false_match_rate : float
            Share of images without the person in which a face may match the person.
        """
        vectors = {person: list(rows) for person, rows in examples.items()}
        for _, face, person in self.accepted:
            vectors.setdefault(person, []).append(face.vector)
        if quantiles is not None:
            images_of: dict[str, list[ImageFaces]] = {}
            for image, person in self._with_several_faces:
                if person not in vectors:
                    images_of.setdefault(person, []).append(image)
            for person, images in images_of.items():
                vectors[person] = _common_face(images, quantiles, false_match_rate)
        # Images with a clearly largest face first: they are examples for the others.
        for image, person in sorted(
            self._with_several_faces, key=lambda pair: not _is_largest_clear(pair[0].faces)
        ):
            chosen = self._chosen_face(image, person, vectors.get(person, []), quantiles, false_match_rate)
            if chosen is not None:
                vectors.setdefault(person, []).append(chosen.vector)

    def _chosen_face(
        self,
        image: ImageFaces,
        person: str,
        examples: list[NDArray[np.float32]],
        quantiles: ImpostorQuantiles | None,
        false_match_rate: float,
    ) -> Face | None:
        """Accept one face of an image and return it, or skip the image and return None."""
        from nearsight.estimators.faces.identifier import mean_faces

        faces, path, is_clear = image.faces, image.source.path, _is_largest_clear(image.faces)
        matching: list[int] = []
        if examples and quantiles is not None:
            mean = mean_faces(np.stack(examples), np.zeros(len(examples), np.int64), 1)[0]
            limit = quantiles.threshold(false_match_rate, [len(examples)] * len(faces))
            matching = np.flatnonzero(limit.exceeded([face.vector @ mean for face in faces])).tolist()
        if len(matching) == 1:
            face = faces[matching[0]]
            which = (
                "the largest" if is_clear and face is faces[0] else "the one that matches the other images"
            )
        elif is_clear:
            face, which = faces[0], "the largest"
        else:
            found = f", and {len(matching)} match the other images of {person}" if matching else ""
            reason = f"has {len(faces)} faces of similar size{found}; crop it to the person to enroll"
            self._skip("with several faces of similar size", path, reason)
            return None
        text = f"has {len(faces)} faces; {which} was enrolled as {person}"
        return face if self._accept(image, face, person, text) else None

    def _accept(self, image: ImageFaces, face: Face, person: str, several_faces: str = "") -> bool:
        """Accept a face unless it is known or too poor; return whether it is enrolled now."""
        path, id = image.source.path, face_id(image.id, face)
        if id in self._known:
            self._already += 1
            if self._known[id] != person:
                text = (
                    f"is enrolled as {self._known[id]} already, not as {person}; to change that, remove"
                    f" it first: nearsight faces rm --face {id}"
                )
                self._caution(path, person, "like someone else", text)
            return False
        quality = face.quality
        if quality.score < POOR:
            problems = ", ".join(quality.problems) or "poor"
            if not self._allow_poor:
                self._skip("of poor quality", path, f"the face is of poor quality: {problems}")
                return False
            self._caution(path, person, "poor quality", f"the face is {problems}; a better photograph helps")
        if several_faces:
            self._caution(path, person, "several faces", several_faces)
        self._known[id] = person
        self.accepted.append((image, face, person))
        return True

    def compare(self, identifier: "FaceIdentifier | None") -> None:
        """Add a caution for each new face that matches another person of the bank.

        Parameters
        ----------
        identifier : FaceIdentifier or None
            Fitted on the bank, the new faces included.
        """
        if identifier is None or identifier.threshold_ is None or not self.accepted:
            return
        found = identifier.identify(np.stack([face.vector for _, face, _ in self.accepted]))
        for i, (image, _, person) in enumerate(self.accepted):
            other, similarity = found.persons[i], found.similarity[i]
            if other == person:
                other, similarity = found.rivals[i], found.rival_similarity[i]
            if other != person and identifier.threshold_.exceeded(similarity):
                text = (
                    f"was enrolled as {person}, but resembles {other} (similarity {similarity:.3f}): one"
                    " person under two names, relatives, or a wrong name"
                )
                self._caution(image.source.path, person, "like someone else", text)

    def compare_with_own(
        self, vectors: Mapping[str, NDArray[np.float32]], quantiles: ImpostorQuantiles | None, rate: float
    ) -> None:
        """Add a caution for each new face that does not match the mean of the person's other faces.

        Parameters
        ----------
        vectors : mapping of str to ndarray of shape (n, dim)
            Vectors of all faces of each person, the new ones included.
        quantiles : ImpostorQuantiles or None
            How similar faces of different persons are.
        rate : float
            Share of wrong photographs that may pass.
        """
        if quantiles is None:
            return
        for image, face, person in self.accepted:
            n_others = len(vectors[person]) - 1
            if n_others < _MIN_OTHERS:
                continue
            others = vectors[person].sum(0) - face.vector
            similarity = float(others @ face.vector / max(float(np.linalg.norm(others)), 1e-9))
            if similarity <= quantiles.at_rate(rate, n_others):
                text = (
                    f"was enrolled as {person}, but does not resemble the other {n_others} images of {person}"
                    f" (similarity {similarity:.3f}): look whether it shows somebody else"
                )
                self._caution(image.source.path, person, "unlike the others", text)

    def report(self) -> EnrollReport:
        """Return the result."""
        names = [person for _, _, person in self.accepted]
        return EnrollReport(
            {name: names.count(name) for name in sorted(set(names))},
            self._already,
            self._cautions,
            self._failed,
            dict(self._skipped),
        )

    def _skip(self, kind: str, path: str, reason: str) -> None:
        self._skipped[kind] += 1
        self._failed.append(ImageFailure(path, reason))

    def _caution(self, path: str, person: str, kind: str, text: str) -> None:
        self._cautions.append(Caution(path, person, kind, text))


def _common_face(
    images: list[ImageFaces], quantiles: ImpostorQuantiles, false_match_rate: float
) -> list[NDArray[np.float32]]:
    """Return the vectors of the one person who is in most of the images; none if that is not clear."""
    X = np.stack([face.vector for image in images for face in image.faces])
    image_of = [image.id for image in images for _ in image.faces]
    labels = unnamed_groups(X, image_of, quantiles, np.empty(0), false_match_rate)
    sizes = np.append(np.bincount(labels), 0)
    is_common = sizes[0] >= _MIN_COMMON and sizes[0] > max(sizes[1], len(images) / 2)
    return list(X[labels == 0]) if is_common else []


def _is_largest_clear(faces: list[Face]) -> bool:
    """Return whether the first face is clearly larger than the second."""
    sides = [max(face.box[2] - face.box[0], face.box[3] - face.box[1]) for face in faces[:2]]
    return sides[0] >= _CLEARLY_LARGER * sides[1]
