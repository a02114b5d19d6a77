"""What clusters of images and segments of customers have in common: descriptions, and files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses.cluster_names import cluster_names
from nearsight.artifacts import read_artifact
from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError
from nearsight.models import Fingerprint


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """What describes a group of images.

    Attributes
    ----------
    representatives : list of str
        Representative images, the most typical first.
    words : list of str
        Words that set the group apart, the most distinctive first; empty if the model cannot read text.
    name : str or None
        The group's name, from these words.
    """

    representatives: list[str]
    words: list[str] = field(default_factory=list)
    name: str | None = None

    def to_facts(self) -> dict[str, Any]:
        """Return plain data for a file."""
        return {"representatives": self.representatives, "words": self.words, "label": self.name}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "GroupDescription":
        """Return the description that `to_facts` was called on."""
        return cls(facts["representatives"], facts["words"], facts["label"])


def describe_groups(
    collection: Collection,
    X: NDArray[np.float32],
    ids: Sequence[str],
    labels: NDArray[np.int64],
    words: Sequence[str] | None,
    *,
    n_representatives: int,
    random_state: int,
    progress: bool | None,
) -> list[GroupDescription]:
    """Return the description of each group.

    Parameters
    ----------
    X : ndarray of shape (n, dim), float32
    ids : sequence of str, length n
        Images; one may occur in several groups, and several times in one.
    labels : ndarray of shape (n,), int
        Groups 0, 1, ...; -1 is none.
    words : sequence of str or None
        See `cluster_names.cluster_names`.
    """
    from nearsight.estimators.clustering import representatives

    descriptions = []
    names = cluster_names(collection, X, labels, words, random_state=random_state, progress=progress)
    for label, name in enumerate(names):
        row_of = {ids[row]: row for row in np.flatnonzero(labels == label).tolist()}
        rows = np.array([row_of[id] for id in row_of], np.intp)
        typical = rows[representatives(X[rows], n_representatives, random_state=random_state)]
        descriptions.append(GroupDescription([ids[row] for row in typical], name.words, name.name))
    return descriptions


@contextmanager
def read_groups(
    file: str | Path, kind: str, version: int, remedy: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any], Fingerprint]]:
    """Give the facts, the arrays and the fingerprint of a file of groups to the block.

    Raises
    ------
    InvalidParameterError
        There is no such file, or it is another kind of file.
    NewerFormatError
        A newer nearsight wrote it.
    """
    with read_artifact(Path(file), kind, version, error=InvalidParameterError, remedy=remedy) as (
        facts,
        arrays,
    ):
        yield facts, arrays, Fingerprint.from_dict(facts["fingerprint"])
