"""Which faces without a name match a person: what the latest grouping suggests."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nearsight.artifacts import exported

FILENAME = "suggestions.json"
_FORMAT = 1
# Enrolled faces that stand for a person.
MOST_ANCHORS = 9


@dataclass(frozen=True, slots=True)
class Suggestions:
    """Faces that match a person. Some of the person's faces stand for the name, so that it may change.

    Attributes
    ----------
    anchors : list of list of str
        Ids of enrolled faces of each person.
    matches : dict of str to tuple
        For each face that matches: the position of the person in `anchors`, and the similarity.
    """

    anchors: list[list[str]] = field(default_factory=list)
    matches: dict[str, tuple[int, float]] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> "Suggestions":
        """Read the suggestions of a bank; a damaged file counts as none, until the next grouping."""
        try:
            content = json.loads((directory / FILENAME).read_text(encoding="utf-8"))
            anchors = [list(map(str, ids)) for ids in content["anchors"]]
            matches = {id: (int(place), float(value)) for id, (place, value) in content["matches"].items()}
            return cls(
                anchors, {id: match for id, match in matches.items() if match[0] in range(len(anchors))}
            )
        except (OSError, KeyError, TypeError, ValueError, AttributeError):
            return cls()

    def write(self, directory: Path) -> None:
        """Replace the suggestions of a bank.

        Raises
        ------
        StorageError
            The disk is full or read-only.
        """
        content = {"format": _FORMAT, "anchors": self.anchors, "matches": self.matches}
        with exported(directory / FILENAME) as file:
            file.write(json.dumps(content).encode())

    def persons(self, person_of: Mapping[str, str]) -> dict[str, tuple[str, float]]:
        """Return for each face the person that most of the anchors are now, and the similarity."""
        counts = (Counter(person_of[id] for id in ids if id in person_of) for ids in self.anchors)
        names = [count.most_common(1)[0][0] if count else "" for count in counts]
        return {
            id: (names[place], similarity) for id, (place, similarity) in self.matches.items() if names[place]
        }

    def without(self, faces: Collection[str]) -> "Suggestions":
        """Return the suggestions without some faces."""
        return Suggestions(
            [[id for id in ids if id not in faces] for ids in self.anchors],
            {id: match for id, match in self.matches.items() if id not in faces},
        )
