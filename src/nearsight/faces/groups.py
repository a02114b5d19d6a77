"""Groups of faces of one person, with names that stay the same from run to run."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.conformal import from_nonmatching_pairs
from nearsight.estimators.faces.impostor_quantiles import ImpostorQuantiles
from nearsight.faces.decisions import FaceDecisions, PersonKey
from nearsight.faces.schema import BankedFace
from nearsight.faces.suggestions import MOST_ANCHORS, Suggestions

if TYPE_CHECKING:
    from nearsight.estimators.faces.identifier import FaceIdentifier


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
        Enrolled faces first, then those that match them, the most similar first.
    suggested : dict of str to float
        The similarity of each face that matches the person and does not have the name, by its id.
    hidden : bool
        Whether somebody decided that it need not be shown.
    """

    group: str
    person: str
    faces: list[BankedFace]
    suggested: dict[str, float] = field(default_factory=dict)
    hidden: bool = False

    @property
    def key(self) -> PersonKey:
        """The group and the person."""
        return PersonKey(self.group, self.person)


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups of faces without a name.

    Attributes
    ----------
    groups : dict of str to str
        The group of each face by its id.
    suggestions : Suggestions
        The faces that match a person.
    """

    groups: dict[str, str]
    suggestions: Suggestions


def group_faces(
    faces: list[BankedFace],
    X: NDArray[np.float32],
    identifier: "FaceIdentifier | None",
    quantiles: ImpostorQuantiles | None,
    false_match_rate: float,
    decisions: FaceDecisions,
) -> Grouping:
    """Group the faces without a name.

    Parameters
    ----------
    faces : list of BankedFace
    X : ndarray of shape (n, dim)
    identifier : FaceIdentifier or None
        Fitted on the faces with a person; None if there are none.
    quantiles : ImpostorQuantiles or None
        How similar faces of different persons are.
    false_match_rate : float
    decisions : FaceDecisions
        They hold, whatever the vectors say.
    """
    from nearsight.estimators.faces.clusters import same_image_similarities

    enrolled = {(face.image, face.person) for face in faces if face.person}
    unnamed = np.array([row for row, face in enumerate(faces) if not face.person], np.int64)
    images = [faces[row].image for row in unnamed]
    same_image = same_image_similarities(X, [face.image for face in faces])
    constraints = _constraints([faces[row].id for row in unnamed], decisions)
    refusal: InvalidParameterError | None = None
    try:
        labels = unnamed_groups(X[unnamed], images, quantiles, same_image, false_match_rate, **constraints)
    except InvalidParameterError as error:
        # Each face may still match a person by itself.
        labels, refusal = np.arange(len(unnamed)), error
    refused = _refused_persons(faces, decisions)
    joined = _joined_persons(
        labels,
        X[unnamed],
        images,
        enrolled,
        identifier,
        [refused.get(faces[row].id, set()) for row in unnamed],
    )
    if refusal is not None and not all(person for person, _ in joined):
        raise refusal
    suggestions = _suggestions(
        faces, {faces[row].id: match for row, match in zip(unnamed, joined, strict=True)}
    )
    is_unknown = np.array([not person for person, _ in joined], bool)
    unknown, labels = unnamed[is_unknown], labels[is_unknown]
    names = _group_names(labels, [faces[row].group for row in unknown], decisions.group_numbers())
    return Grouping(
        {faces[row].id: names[int(label)] for row, label in zip(unknown, labels, strict=True)}, suggestions
    )


def listed_groups(
    faces: Sequence[BankedFace], suggestions: Suggestions, decisions: FaceDecisions
) -> list[FaceGroup]:
    """Return the persons and groups of a bank, the largest first, without faces that were never grouped."""
    person_of = {face.id: face.person for face in faces if face.person}
    suggested = suggestions.persons(person_of)
    refused = _refused_persons(faces, decisions)
    hidden = set(decisions.hidden)
    members: dict[PersonKey, list[BankedFace]] = {}
    matches: dict[PersonKey, dict[str, float]] = {}
    for face in faces:
        person, similarity = suggested.get(face.id, ("", 0.0))
        if face.person:
            members.setdefault(PersonKey("", face.person), []).append(face)
        elif face.group:
            members.setdefault(PersonKey(face.group, ""), []).append(face)
        elif person and person not in refused.get(face.id, ()):
            matches.setdefault(PersonKey("", person), {})[face.id] = similarity
    by_id = {face.id: face for face in faces}
    groups = []
    for key, own in members.items():
        ranked = dict(sorted(matches.get(key, {}).items(), key=lambda match: -match[1]))
        groups.append(FaceGroup(*key, own + [by_id[id] for id in ranked], ranked, key in hidden))
    return sorted(groups, key=lambda group: -len(group.faces))


def _suggestions(faces: Sequence[BankedFace], matches: Mapping[str, tuple[str, float]]) -> Suggestions:
    """Return the faces that match a person, from the person and the similarity of each face."""
    anchors: dict[str, list[str]] = {person: [] for person, _ in matches.values() if person}
    for face in faces:
        if face.person in anchors and len(anchors[face.person]) < MOST_ANCHORS:
            anchors[face.person].append(face.id)
    places = {person: place for place, person in enumerate(anchors)}
    return Suggestions(
        list(anchors.values()),
        {id: (places[person], similarity) for id, (person, similarity) in matches.items() if person},
    )


def _constraints(ids: Sequence[str], decisions: FaceDecisions) -> dict[str, Any]:
    """Return the decisions about rows, for `FaceGrouper`."""
    row_of = {id: row for row, id in enumerate(ids)}

    def rows(faces: Sequence[str]) -> list[int]:
        return [row_of[id] for id in faces if id in row_of]

    return {
        "together": [rows(faces) for faces in decisions.together],
        "apart": [(rows(some), rows(others)) for some, others in decisions.apart],
    }


def _refused_persons(faces: Sequence[BankedFace], decisions: FaceDecisions) -> dict[str, set[str]]:
    """Return the persons that a face is not, by the face's id."""
    person_of = {face.id: face.person for face in faces if face.person}
    refused: dict[str, set[str]] = {}
    for sides in decisions.apart:
        for some, others in (sides, sides[::-1]):
            persons = {person_of[id] for id in others if id in person_of}
            for id in some if persons else ():
                refused.setdefault(id, set()).update(persons)
    return refused


def _joined_persons(
    labels: NDArray[np.int64],
    X: NDArray[np.float32],
    images: Sequence[str],
    enrolled: set[tuple[str, str]],
    identifier: "FaceIdentifier | None",
    refused: Sequence[set[str]],
) -> list[tuple[str, float]]:
    """Return for each face the person that its group matches, or an empty string, and the similarity.

    A group matches a person if the mean of its faces' similarities is above the threshold: several faces are
    more certain than one. A face stays out if its image has a face of that person already, or if somebody
    decided that it is not that person.
    """
    joined = [("", 0.0)] * len(labels)
    if identifier is None or identifier.threshold_ is None or not len(labels):
        return joined
    taken = set(enrolled)
    sizes = np.bincount(labels)
    sums = np.zeros((len(sizes), len(identifier.classes_)))
    similarities = identifier.similarities(X)
    np.add.at(sums, labels, similarities)
    means = sums / sizes[:, None]
    for label in np.argsort(-means.max(1), kind="stable"):
        column = int(means[label].argmax())
        person = str(identifier.classes_[column])
        if not identifier.threshold_.exceeded(means[label].max()):
            break
        for i in np.flatnonzero(labels == label).tolist():
            if (images[i], person) not in taken and person not in refused[i]:
                taken.add((images[i], person))
                joined[i] = person, float(similarities[i, column])
    return joined


def unnamed_groups(
    X: NDArray[np.floating],
    images: Sequence[str],
    quantiles: ImpostorQuantiles | None,
    same_image: NDArray[np.float64],
    false_match_rate: float,
    *,
    together: Sequence[Sequence[int]] = (),
    apart: Sequence[tuple[Sequence[int], Sequence[int]]] = (),
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
    together, apart
        See `FaceGrouper.fit`.

    Raises
    ------
    InvalidParameterError
        Without quantiles, the pairs in one image are too few for the rate.
    """
    from nearsight.estimators.faces.clusters import FaceGrouper

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
        grouper = FaceGrouper(min_similarity=max(least, shipped))
        labels = grouper.fit_predict(X, images=images, together=together, apart=apart)
        n_groups = int(labels.max()) + 1
    return labels


def _group_names(
    labels: NDArray[np.int64], old_names: list[str], reserved: Iterable[int] = ()
) -> dict[int, str]:
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
    old_numbers = (int(name[1:]) for name in old_names if name[1:].isdigit())
    last_number = max((*old_numbers, *reserved), default=0)
    for label in votes:
        if label not in names:
            last_number += 1
            names[label] = f"g{last_number}"
    return dict(sorted(names.items()))
