"""Which image is in which cluster, and the clusters before each edit, as arrays of a file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses.groups import GroupDescription
from nearsight.text_format import ShortRepr

if TYPE_CHECKING:
    from nearsight.analyses.clusters import Clustering

# Labels of a state: noise, and an image that was in none of its lists.
_NOISE, _ABSENT = -1, -2
_ID_BYTES = 16


@dataclass(frozen=True, slots=True, repr=False)
class Cluster(ShortRepr):
    """Images that look alike.

    Attributes
    ----------
    id : int
        0 is the largest cluster at the time of the fit.
    ids : list of str
        The images.
    representatives : list of str
        Representative images, the most typical first.
    words : list of str
        Words that set the cluster apart, the most distinctive first; empty if the model cannot read text.
    name : str or None
        The cluster name, from these words.
    """

    id: int
    ids: list[str]
    representatives: list[str]
    words: list[str] = field(default_factory=list)
    name: str | None = None

    @property
    def representative(self) -> str | None:
        """The most typical image."""
        return self.representatives[0] if self.representatives else None


@dataclass(frozen=True, slots=True)
class ClusterEdit:
    """A change that somebody made to clusters.

    Attributes
    ----------
    title : str
        What was done, for people.
    before : Clustering
        The clusters before it; its own `edits` are empty.
    """

    title: str
    before: "Clustering"


def labels_by_id(clustering: "Clustering") -> dict[str, int]:
    """Return the cluster of each image that a clustering lists; -1 is noise."""
    labels = dict.fromkeys(clustering.noise, _NOISE)
    for cluster in clustering.clusters:
        labels |= dict.fromkeys(cluster.ids, cluster.id)
    return labels


def to_arrays(clustering: "Clustering") -> dict[str, NDArray[Any]]:
    """Return the images of a clustering, and what its edits changed, as arrays; about 20 bytes an image."""
    states = [clustering, *(edit.before for edit in clustering.edits)]
    members = [labels_by_id(state) for state in states]
    ids = sorted(set().union(*members))
    arrays: dict[str, NDArray[Any]] = {
        "image_ids": np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(-1, _ID_BYTES)
    }
    for name, labels in zip(_state_names(len(clustering.edits)), members, strict=True):
        arrays[f"{name}labels"] = np.array([labels.get(id, _ABSENT) for id in ids], np.int32)
    for name, edit in zip(_state_names(len(clustering.edits))[1:], clustering.edits, strict=True):
        # An edit relabels rows of the assigner, and appends some: the vectors are stored once.
        arrays[f"{name}member_labels"] = edit.before.assigner.labels.astype(np.int32)
        arrays[f"{name}limits"] = edit.before.assigner.limits
    return arrays


def to_facts(edits: Iterable[ClusterEdit]) -> list[dict[str, Any]]:
    """Return what `to_arrays` leaves out of the edits, as plain data."""
    return [{"title": edit.title, "clusters": describe(edit.before.clusters)} for edit in edits]


def describe(clusters: Sequence[Cluster]) -> list[dict[str, Any]]:
    """Return clusters without their images as plain data."""
    return [{"id": c.id, **GroupDescription(c.representatives, c.words, c.name).to_facts()} for c in clusters]


def with_members(
    clustering: "Clustering", facts: Sequence[Mapping[str, Any]], arrays: Mapping[str, NDArray[Any]]
) -> "Clustering":
    """Return a clustering with the images and the edits of a file; as it is if an earlier version wrote it.

    Parameters
    ----------
    clustering : Clustering
        Without images.
    facts, arrays
        From `to_facts` and `to_arrays`.
    """
    if "image_ids" not in arrays:
        return clustering
    digits = arrays["image_ids"].tobytes().hex()
    ids = np.array([digits[i : i + 2 * _ID_BYTES] for i in range(0, len(digits), 2 * _ID_BYTES)], object)
    edits = []
    for name, edit in zip(_state_names(len(facts))[1:], facts, strict=True):
        labels = arrays[f"{name}member_labels"].astype(np.int64)
        assigner = replace(
            clustering.assigner,
            X=clustering.assigner.X[: len(labels)],
            labels=labels,
            limits=np.asarray(arrays[f"{name}limits"], np.float64),
        )
        before = replace(
            clustering, clusters=_described(clustering, edit["clusters"]), tree=[], assigner=assigner
        )
        edits.append(ClusterEdit(edit["title"], _listing(before, ids, arrays[f"{name}labels"])))
    return replace(_listing(clustering, ids, arrays["image_labels"]), edits=edits)


def _state_names(n_edits: int) -> list[str]:
    return ["image_", *(f"edit_{i}_" for i in range(n_edits))]


def _described(clustering: "Clustering", facts: Iterable[Mapping[str, Any]]) -> list[Cluster]:
    described = [(each["id"], GroupDescription.from_facts(each)) for each in facts]
    return [Cluster(id, [], each.representatives, each.words, each.name) for id, each in described]


def _listing(clustering: "Clustering", ids: NDArray[Any], labels: NDArray[np.int32]) -> "Clustering":
    clusters = [replace(c, ids=ids[labels == c.id].tolist()) for c in clustering.clusters]
    return replace(clustering, clusters=clusters, noise=ids[labels == _NOISE].tolist())
