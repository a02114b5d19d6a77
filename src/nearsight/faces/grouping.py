"""Which faces of the bank are of one person, and what their groups are called from run to run."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal import from_nonmatching_pairs
from nearsight.estimators.faces.grouping import FaceGrouper, same_image_similarities
from nearsight.estimators.faces.identifier import FaceIdentifier
from nearsight.faces.schema import BankedFace


@dataclass(frozen=True, slots=True)
class FaceGroup:
    """Faces of one person, as far as can be told.

    Attributes
    ----------
    group : str
        Its name while nobody has said who it is: ``g1``, ``g2``, ...; empty where a person is known.
    person : str
        Who it is; empty where nobody has said so.
    faces : list of BankedFace
        Those enrolled first, then those that resemble them.
    """

    group: str
    person: str
    faces: list[BankedFace]


def groups_of(
    faces: list[BankedFace],
    X: NDArray[np.float32],
    identifier: FaceIdentifier | None,
    background: NDArray[np.float64] | None,
    rate: float,
) -> tuple[list[FaceGroup], dict[str, str]]:
    """Return the groups, and the group of each face by its id.

    Parameters
    ----------
    faces : list of BankedFace
    X : ndarray of shape (n, dim)
    identifier : FaceIdentifier or None
        Fitted on those that have a person.
    background : ndarray or None
        Similarities of pairs of different persons.
    rate : float
        Of false matches.
    """
    by_person: dict[str, list[int]] = {}
    for row, face in enumerate(faces):
        if face.person:
            by_person.setdefault(face.person, []).append(row)
    unnamed = np.array([row for row, face in enumerate(faces) if not face.person], np.int64)
    rest = _put_to_persons(by_person, unnamed, faces, X, identifier)
    groups: list[FaceGroup] = [
        FaceGroup("", person, [faces[row] for row in rows]) for person, rows in by_person.items()
    ]
    names: dict[str, str] = {}
    if len(rest):
        images = [faces[row].image for row in rest]
        labels = FaceGrouper(min_similarity=_least(X, faces, background, rate)).fit_predict(
            X[rest], images=images
        )
        called = _called(labels, [faces[row].group for row in rest])
        for label, name in called.items():
            rows = rest[labels == label]
            groups.append(FaceGroup(name, "", [faces[row] for row in rows]))
            names |= {faces[row].id: name for row in rows}
    return sorted(groups, key=lambda group: -len(group.faces)), names


def _put_to_persons(
    by_person: dict[str, list[int]],
    unnamed: NDArray[np.int64],
    faces: list[BankedFace],
    X: NDArray[np.float32],
    identifier: FaceIdentifier | None,
) -> NDArray[np.int64]:
    """Put faces to the persons they resemble, one face of an image at most; return the others."""
    if identifier is None or not len(unnamed):
        return unnamed
    found = identifier.identify(X[unnamed])
    taken = {(faces[row].image, person) for person, rows in by_person.items() for row in rows}
    rest = []
    for i in np.argsort(-found.similarity):
        row, person = int(unnamed[i]), str(found.persons[i])
        if found.unknown[i] or (faces[row].image, person) in taken:
            rest.append(row)
        else:
            taken.add((faces[row].image, person))
            by_person[person].append(row)
    return np.sort(np.array(rest, np.int64))


def _least(
    X: NDArray[np.float32], faces: list[BankedFace], background: NDArray[np.float64] | None, rate: float
) -> float:
    """Return how similar faces of one person are at least: faces of one image and the background tell."""
    # Faces that are in one image twice, in a mirror say, are few; the higher of two thresholds is kept.
    own = same_image_similarities(X, [face.image for face in faces])
    found = []
    for scores in (own, background):
        if scores is not None:
            try:
                found.append(from_nonmatching_pairs(scores, false_alarm_rate=rate).value)
            except CalibrationError:
                continue
    if not found:
        raise InvalidParameterError(
            f"nothing is known about strangers under this bank's models, and {len(own)} pairs of faces in "
            f"one image are too few for a rate of {rate:g}; scan more images with several people, "
            "or allow a higher rate"
        )
    return max(found)


def _called(labels: NDArray[np.int64], before: list[str]) -> dict[int, str]:
    """Return a name for each label: the one that most of its faces had before, else a new one."""
    votes = {
        label: Counter(before[i] for i in np.flatnonzero(labels == label) if before[i])
        for label in range(int(labels.max()) + 1)
    }
    claims = sorted(
        ((n, label, name) for label, count in votes.items() for name, n in count.items()),
        key=lambda claim: (-claim[0], claim[1]),
    )
    names: dict[int, str] = {}
    taken: set[str] = set()
    for _, label, name in claims:
        if label not in names and name not in taken:
            names[label] = name
            taken.add(name)
    numbers = [int(name[1:]) for name in before if name[1:].isdigit()]
    fresh = max(numbers, default=0)
    for label in votes:
        if label not in names:
            fresh += 1
            names[label] = f"g{fresh}"
    return dict(sorted(names.items()))
