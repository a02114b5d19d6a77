"""Groups of faces of one person, with names that stay the same from run to run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal import from_nonmatching_pairs
from nearsight.estimators.faces.clusters import FaceGrouper, same_image_similarities
from nearsight.estimators.faces.identifier import FaceIdentifier
from nearsight.estimators.faces.impostor_quantiles import ImpostorQuantiles
from nearsight.faces.schema import BankedFace


@dataclass(frozen=True, slots=True)
class FaceGroup:
    """Faces that are taken to be of one person.

    Attributes
    ----------
    group : str
        Name of a group without a person: ``g1``, ``g2``, ...; empty for a person.
    person : str
        Name of the person; empty for a group without one.
    faces : list of BankedFace
        Enrolled faces first, then those that match them.
    """

    group: str
    person: str
    faces: list[BankedFace]


def group_faces(
    faces: list[BankedFace],
    X: NDArray[np.float32],
    identifier: FaceIdentifier | None,
    quantiles: ImpostorQuantiles | None,
    false_match_rate: float,
) -> tuple[list[FaceGroup], dict[str, str]]:
    """Return the groups, and the group of each face by its id.

    Parameters
    ----------
    faces : list of BankedFace
    X : ndarray of shape (n, dim)
    identifier : FaceIdentifier or None
        Fitted on the faces with a person; None if there are none.
    quantiles : ImpostorQuantiles or None
        How similar faces of different persons are.
    false_match_rate : float
    """
    rows_of_person: dict[str, list[int]] = {}
    for row, face in enumerate(faces):
        if face.person:
            rows_of_person.setdefault(face.person, []).append(row)
    unnamed = np.array([row for row, face in enumerate(faces) if not face.person], np.int64)
    images = [faces[row].image for row in unnamed]
    same_image = same_image_similarities(X, [face.image for face in faces])
    refusal: InvalidParameterError | None = None
    try:
        labels = unnamed_groups(X[unnamed], images, quantiles, same_image, false_match_rate)
    except InvalidParameterError as error:
        # Each face may still match a person by itself.
        labels, refusal = np.arange(len(unnamed)), error
    enrolled = {(faces[row].image, person) for person, rows in rows_of_person.items() for row in rows}
    joined = _joined_persons(labels, X[unnamed], images, enrolled, identifier)
    if refusal is not None and not all(joined):
        raise refusal
    for row, person in zip(unnamed, joined, strict=True):
        if person:
            rows_of_person[person].append(int(row))
    groups: list[FaceGroup] = [
        FaceGroup("", person, [faces[row] for row in rows]) for person, rows in rows_of_person.items()
    ]
    group_of_face: dict[str, str] = {}
    is_unknown = np.array([not person for person in joined], bool)
    unknown, labels = unnamed[is_unknown], labels[is_unknown]
    for label, name in _group_names(labels, [faces[row].group for row in unknown]).items():
        rows = unknown[labels == label]
        groups.append(FaceGroup(name, "", [faces[row] for row in rows]))
        group_of_face |= {faces[row].id: name for row in rows}
    return sorted(groups, key=lambda group: -len(group.faces)), group_of_face


def _joined_persons(
    labels: NDArray[np.int64],
    X: NDArray[np.float32],
    images: Sequence[str],
    enrolled: set[tuple[str, str]],
    identifier: FaceIdentifier | None,
) -> list[str]:
    """Return for each face the person that its group matches, or an empty string.

    A group matches a person if the mean of its faces' similarities is above the threshold: several faces are
    more certain than one. A face stays out if its image has a face of that person already.
    """
    joined = [""] * len(labels)
    if identifier is None or identifier.threshold_ is None or not len(labels):
        return joined
    taken = set(enrolled)
    sizes = np.bincount(labels)
    sums = np.zeros((len(sizes), len(identifier.classes_)))
    np.add.at(sums, labels, identifier.similarities(X))
    means = sums / sizes[:, None]
    for label in np.argsort(-means.max(1), kind="stable"):
        person = str(identifier.classes_[means[label].argmax()])
        if not identifier.threshold_.exceeded(means[label].max()):
            break
        for i in np.flatnonzero(labels == label).tolist():
            if (images[i], person) not in taken:
                taken.add((images[i], person))
                joined[i] = person
    return joined


def unnamed_groups(
    X: NDArray[np.floating],
    images: Sequence[str],
    quantiles: ImpostorQuantiles | None,
    same_image: NDArray[np.float64],
    false_match_rate: float,
) -> NDArray[np.int64]:
    """Return the group of each face; 0 is the largest.

    *Method*: `FaceGrouper`, twice. A face is compared with every group, so the rate of one comparison depends
    on their number, which the first pass estimates at the rate of single pairs. Faces of one image are of
    different persons, with few exceptions, such as a mirror: if there are enough, their similarities give a
    second threshold, and the higher one is used.

    Parameters
    ----------
    X : ndarray of shape (n, dim), unit length
    images : sequence of n str
        The image of each face.
    quantiles : ImpostorQuantiles or None
    same_image : ndarray
        Similarities of pairs of faces in one image.
    false_match_rate : float
        Share of faces that may match a group of another person, in (0, 1).

    Raises
    ------
    InvalidParameterError
        Without quantiles, the pairs in one image are too few for the rate.
    """
    if not len(X):
        return np.empty(0, np.int64)
    least = -1.0
    try:
        least = from_nonmatching_pairs(same_image, false_alarm_rate=false_match_rate).value
    except CalibrationError as error:
        if quantiles is None:
            raise InvalidParameterError(
                f"there are no impostor quantiles for this bank's models, and {len(same_image)} pairs of"
                f" faces in one image are too few for a false match rate of {false_match_rate:g}; scan more"
                " images with several people, or allow a higher rate"
            ) from error
    n_groups = 1
    for _ in range(1 if quantiles is None else 2):
        shipped = -1.0 if quantiles is None else quantiles.threshold(false_match_rate, [1] * n_groups).value
        labels = FaceGrouper(min_similarity=max(least, shipped)).fit_predict(X, images=images)
        n_groups = int(labels.max()) + 1
    return labels


def _group_names(labels: NDArray[np.int64], old_names: list[str]) -> dict[int, str]:
    """Return a name for each label: the name that most of its faces had before, or a new one."""
    votes = {
        int(label): Counter(old_names[i] for i in np.flatnonzero(labels == label) if old_names[i])
        for label in np.unique(labels)
    }
    claims = sorted(
        ((n, label, name) for label, count in votes.items() for name, n in count.items()),
        key=lambda claim: (-claim[0], claim[1]),
    )
    names: dict[int, str] = {}
    for _, label, name in claims:
        if label not in names and name not in names.values():
            names[label] = name
    last_number = max((int(name[1:]) for name in old_names if name[1:].isdigit()), default=0)
    for label in votes:
        if label not in names:
            last_number += 1
            names[label] = f"g{last_number}"
    return dict(sorted(names.items()))
