"""Segments customers by the images that are theirs, and says later where new customers belong."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses.cluster_names import labels_of, name_groups
from nearsight.analyses.image_lookup import ImageLookup
from nearsight.artifacts import read_artifact, write_artifact
from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError
from nearsight.estimators.clustering import representatives
from nearsight.estimators.customer_segments import (
    CustomerSegments,
    CustomerVectors,
    SegmentCenters,
    SpreadScale,
)
from nearsight.models import Fingerprint

_KIND, _FORMAT = "segmentation", 1


@dataclass(frozen=True, slots=True)
class Segment:
    """Customers with like images.

    Attributes
    ----------
    id : int
        0 is the largest.
    customers : list of str
        The most typical first.
    representatives : list of str
        Ids of images that stand for those of the customers it was found among.
    spread : float
        In 0..1: how much the images of one of these differ, on average. NaN where none has two.
    words : list of str
        What sets their images apart; empty where texts cannot be read.
    label : str or None
        Of those words, a name.
    """

    id: int
    customers: list[str]
    representatives: list[str]
    spread: float
    words: list[str] = field(default_factory=list)
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What `Collection.segment` found.

    Attributes
    ----------
    segments : list of Segment
    customers : dict of str to int
        The segment of each customer; -1 for those who belong to none.
    unknown : dict of str to int
        What no single image answers to, and in how many lines.
    silhouette : float
        In -1..1: 1 means distinct segments, 0 a continuum. NaN for fewer than two segments. Of the customers
        they were found among.
    centers : SegmentCenters
        Says where other customers belong.
    spread_scale : SpreadScale
        The scale of spreads.
    fingerprint : Fingerprint
        What made the vectors.
    """

    segments: list[Segment]
    customers: dict[str, int]
    unknown: dict[str, int]
    silhouette: float
    centers: SegmentCenters
    spread_scale: SpreadScale
    fingerprint: Fingerprint

    @property
    def strangers(self) -> list[str]:
        """Customers who belong to no segment: only `Collection.assign_customers` finds such."""
        return [name for name, number in self.customers.items() if number < 0]

    @property
    def promises(self) -> bool:
        """Whether there were customers enough to say who is a stranger, at the stated rate."""
        return bool(np.isfinite(self.centers.limits).all())

    def save(self, file: str | Path) -> None:
        """Write to one ``.npz`` what `load` needs to place other customers; JSON and arrays, no pickle.

        No customer's name is in it.

        Raises
        ------
        StorageError
            The disk refuses.
        """
        facts = {
            "fingerprint": self.fingerprint.to_dict(),
            "silhouette": self.silhouette if np.isfinite(self.silhouette) else None,
            "breadth": self.spread_scale.to_dict(),
            "segments": [
                {
                    "id": s.id,
                    "representatives": s.representatives,
                    "spread": s.spread if np.isfinite(s.spread) else None,
                    "words": s.words,
                    "label": s.label,
                }
                for s in self.segments
            ],
        }
        write_artifact(Path(file), _KIND, _FORMAT, facts, self.centers.to_arrays(), compressed=True)

    @classmethod
    def load(cls, file: str | Path) -> "Segmentation":
        """Read what `save` wrote: segments without customers, which `Collection.assign_customers` fills.

        Raises
        ------
        InvalidParameterError
            There is no such file, or it is another.
        NewerFormatError
            A newer nearsight wrote it.
        """
        remedy = "find segments first: nearsight segment-customers CSV --to FILE.npz"
        with read_artifact(Path(file), _KIND, _FORMAT, error=InvalidParameterError, remedy=remedy) as (
            facts,
            arrays,
        ):
            segments = [
                Segment(s["id"], [], s["representatives"], _number(s["spread"]), s["words"], s["label"])
                for s in facts["segments"]
            ]
            return cls(
                segments,
                {},
                {},
                _number(facts["silhouette"]),
                SegmentCenters.from_arrays(arrays),
                SpreadScale.from_dict(facts["breadth"]),
                Fingerprint.from_dict(facts["fingerprint"]),
            )


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


@dataclass(frozen=True, slots=True)
class _Lines:
    """Whose images which are.

    Attributes
    ----------
    customers : list of str, length n
    weights : list of float, length n
    ids : list of str, length m
        The images that are named, each once.
    at : ndarray of shape (n,), int
        Which of these each line names.
    unknown : dict of str to int
        See `Segmentation`.
    """

    customers: list[str]
    weights: list[float]
    ids: list[str]
    at: NDArray[np.int64]
    unknown: dict[str, int]


def _read(view: Collection, images: Iterable[tuple[str, str, float]]) -> _Lines:
    names = ImageLookup(view.items())
    unknown: dict[str, int] = {}
    # Bought twice is one image of twice the weight: two of the same would pass for a narrow taste.
    weights: dict[tuple[str, str], float] = {}
    for customer, image, weight in images:
        if not 0 < weight < np.inf:
            raise InvalidParameterError(
                f"the weight of {image!r} for customer {customer!r} is {weight}; it must be above 0"
            )
        found = names.find(image)
        if len(found) == 1:
            line = (customer, found.pop())
            weights[line] = weights.get(line, 0.0) + weight
        else:
            unknown[image] = unknown.get(image, 0) + 1
    if not weights:
        raise InvalidParameterError(
            f"none of the {sum(unknown.values())} lines names an image of the collection, such as"
            f" {next(iter(unknown), '')!r}; nearsight ls shows what there is"
        )
    ids = sorted({id for _, id in weights})
    place = {id: row for row, id in enumerate(ids)}
    at = np.array([place[id] for _, id in weights])
    return _Lines([customer for customer, _ in weights], [*weights.values()], ids, at, unknown)


def segment_customers(
    self: Collection,
    images: Iterable[tuple[str, str, float]],
    k: int | None = None,
    *,
    words: Sequence[str] | None = None,
    n_representatives: int = 8,
    false_alarm_rate: float = 0.05,
    random_state: int = 0,
    progress: bool | None = None,
) -> Segmentation:
    """Segment customers by what their images show.

    Parameters
    ----------
    images : iterable of (customer, image, weight)
        An image is an id, a path, the end of a path, a file name, or one without its ending. A weight is
        more than 0, such as how often it was bought; those of a customer's lines with the same image are
        added up. What no single image answers to is left out and counted; so are customers without any
        other.
    k : int, optional
        How many segments; see `CustomerSegments`.
    words : sequence of str, optional
        To name segments with; see `cluster`.
    n_representatives : int, default 8
        Images that stand for each segment.
    false_alarm_rate : float, default 0.05
        In (0, 1): the share of customers who come like these that `assign_customers` may call strangers.
    random_state : int, default 0
    progress : bool, optional
        Show progress bars on stderr; by default only when that is a terminal.

    Raises
    ------
    InvalidParameterError
        No image is known, a weight is not more than 0, or there are fewer customers than `k`.

    Notes
    -----
    The vectors of the images named are held in memory, 4 bytes a number. For the time see
    `CustomerSegments`. One customer is one segment, and so are customers whose images are all the same.
    """
    shown = sys.stderr.isatty() if progress is None else progress
    lines = _read(self, images)
    X = self.vectors(lines.ids)
    made = CustomerVectors.from_images(X[lines.at], lines.customers, lines.weights)
    if k is not None and k > len(made.names):
        raise InvalidParameterError(
            f"k is {k}, and there are {len(made.names)} customers with an image; ask for at most"
            f" {len(made.names)}"
        )
    model = CustomerSegments(
        n_segments=k, false_alarm_rate=false_alarm_rate, random_state=random_state, progress=shown
    ).fit(made.features, n_images=made.n_effective)
    number = dict(zip(made.names, model.labels_.tolist(), strict=True))
    of_line = np.array([number[customer] for customer in lines.customers])
    words_of = name_groups(self, X[lines.at], of_line, words, random_state=random_state, progress=shown)
    segments = []
    for one, (own, label) in enumerate(zip(words_of, labels_of(words_of), strict=True)):
        rows = np.unique(lines.at[of_line == one])
        shown_rows = rows[representatives(X[rows], n_representatives, random_state=random_state)]
        spreads = made.spreads[model.labels_ == one]
        known = spreads[np.isfinite(spreads)]
        segments.append(
            Segment(
                one,
                _typical_first(made, model.labels_, model.centers_, one),
                [lines.ids[i] for i in shown_rows],
                float(known.mean()) if len(known) else float("nan"),
                own,
                label,
            )
        )
    return Segmentation(
        segments,
        number,
        lines.unknown,
        model.silhouette_,
        model.centers_,
        made.spread_scale,
        self.fingerprint,
    )


def _typical_first(
    made: CustomerVectors, labels: NDArray[np.int64], centers: SegmentCenters, segment: int
) -> list[str]:
    """Return the names of a segment's customers, who is nearest to its center first."""
    inside = np.flatnonzero(labels == segment)
    squared = ((made.features[inside] - centers.X[segment]) ** 2).sum(1)
    return [made.names[i] for i in inside[np.argsort(squared, kind="stable")]]


def assign_customers(
    self: Collection, found: Segmentation, images: Iterable[tuple[str, str, float]]
) -> Segmentation:
    """Say to which of the segments found earlier customers belong; the segments stay as they are.

    Of customers who come like those that the segments were found among, as many images each for instance,
    at most the stated share are strangers, who belong to none.

    Parameters
    ----------
    found : Segmentation
        Of this collection or another of the same fingerprint; from `segment` or `Segmentation.load`.
    images : iterable of (customer, image, weight)
        See `segment`.

    Raises
    ------
    FingerprintMismatchError
        The segments are of vectors that cannot be compared with these.
    InvalidParameterError
        No image is known, or a weight is not more than 0.
    """
    remedy = f"Find those of {self.directory} with nearsight segment-customers CSV --to FILE.npz"
    found.fingerprint.require_same(self.fingerprint, "the segmentation", remedy)
    lines = _read(self, images)
    X = self.vectors(lines.ids)
    made = CustomerVectors.from_images(
        X[lines.at], lines.customers, lines.weights, spread_scale=found.spread_scale
    )
    labels = found.centers.assign(made.features, made.n_effective)
    segments = [
        replace(s, customers=_typical_first(made, labels, found.centers, s.id)) for s in found.segments
    ]
    number = dict(zip(made.names, labels.tolist(), strict=True))
    return replace(found, segments=segments, customers=number, unknown=lines.unknown)
