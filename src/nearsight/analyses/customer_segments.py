"""Segments of customers with similar images, and the assignment of later customers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses.groups import GroupDescription, describe_groups, read_groups
from nearsight.artifacts import write_artifact
from nearsight.collection import Collection
from nearsight.collection.arrays import image_lookup
from nearsight.errors import InvalidParameterError
from nearsight.estimators.customer_segments import (
    CustomerSegments,
    CustomerVectors,
    SegmentCenters,
    SpreadScale,
)
from nearsight.models import Fingerprint
from nearsight.parameters import require_whole
from nearsight.progress import steps

_KIND, _FORMAT = "segmentation", 1

#: (customer, image, weight)
CustomerImage = tuple[str, str, float]


@dataclass(frozen=True, slots=True)
class Segment:
    """Customers with similar images.

    Attributes
    ----------
    id : int
        0 is the largest segment at the time of the fit.
    customers : list of str
        The most typical first.
    representatives : list of str
        Ids of representative images of the customers that the segment was fitted on.
    spread : float
        In 0..1: how much the images of one of these customers differ, on average. NaN where none has two.
    words : list of str
        Words that set their images apart, the most distinctive first; empty if the model cannot read text.
    name : str or None
        The segment's name, from these words.
    """

    id: int
    customers: list[str]
    representatives: list[str]
    spread: float
    words: list[str] = field(default_factory=list)
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The result of `Collection.segment_customers` or `Collection.assign_customers`.

    Attributes
    ----------
    segments : list of Segment
    customers : dict of str to int
        The segment of each customer; -1 for rejected ones.
    unmatched : dict of str to int
        Image names that match no image or several, and how often each occurs.
    silhouette : float
        In -1..1: 1 means distinct segments, 0 a continuum. NaN for fewer than two segments. It is that of the
        fit.
    centers : SegmentCenters
        Assigns other customers.
    spread_scale : SpreadScale
        Scales the spreads of other customers.
    fingerprint : Fingerprint
        Of the vectors.
    """

    segments: list[Segment]
    customers: dict[str, int]
    unmatched: dict[str, int]
    silhouette: float
    centers: SegmentCenters
    spread_scale: SpreadScale
    fingerprint: Fingerprint

    @property
    def rejected(self) -> list[str]:
        """Customers that are unlike all segments; only `Collection.assign_customers` rejects any."""
        return [customer for customer, segment in self.customers.items() if segment < 0]

    @property
    def can_reject(self) -> bool:
        """Whether there were enough customers to calibrate the rejection at the stated rate."""
        return bool(np.isfinite(self.centers.limits).all())

    def save(self, file: str | Path) -> None:
        """Write a ``.npz`` file that `load` reads to assign other customers; it holds no pickle.

        No customer's name is in it.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        facts = {
            "fingerprint": self.fingerprint.to_dict(),
            "silhouette": self.silhouette if np.isfinite(self.silhouette) else None,
            "breadth": self.spread_scale.to_dict(),
            "segments": [
                {
                    "id": s.id,
                    "spread": s.spread if np.isfinite(s.spread) else None,
                    **GroupDescription(s.representatives, s.words, s.name).to_facts(),
                }
                for s in self.segments
            ],
        }
        write_artifact(Path(file), _KIND, _FORMAT, facts, self.centers.to_arrays(), compressed=True)

    @classmethod
    def load(cls, file: str | Path) -> "Segmentation":
        """Read a file that `save` wrote: segments without customers, for `Collection.assign_customers`.

        Raises
        ------
        InvalidParameterError
            There is no such file, or it is another kind of file.
        NewerFormatError
            A newer nearsight wrote it.
        """
        remedy = "find segments first: nearsight segment-customers CSV --to FILE.npz"
        with read_groups(file, _KIND, _FORMAT, remedy) as (facts, arrays, fingerprint):
            segments = [
                _described(s["id"], [], _or_nan(s["spread"]), GroupDescription.from_facts(s))
                for s in facts["segments"]
            ]
            return cls(
                segments,
                {},
                {},
                _or_nan(facts["silhouette"]),
                SegmentCenters.from_arrays(arrays),
                SpreadScale.from_dict(facts["breadth"]),
                fingerprint,
            )


def _described(id: int, customers: list[str], spread: float, description: GroupDescription) -> Segment:
    return Segment(id, customers, description.representatives, spread, description.words, description.name)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def segment_customers(
    collection: Collection,
    images: Iterable[CustomerImage],
    k: int | None = None,
    *,
    words: Sequence[str] | None = None,
    n_representatives: int = 8,
    false_alarm_rate: float = 0.05,
    random_state: int = 0,
    progress: bool | None = None,
) -> Segmentation:
    """Segment customers by their images.

    *Method*: `estimators.customer_segments.CustomerSegments`.

    Parameters
    ----------
    images : iterable of (customer, image, weight)
        An image is an id, a path, the end of a path, a file name, or one without its ending. A weight is
        above 0, such as how often the image was bought; the weights of a customer's lines with the same image
        are added. Names that match no image or several are left out and counted, and so are customers without
        any other image.
    k : int, optional
        Number of segments; see `CustomerSegments`.
    words : sequence of str, optional
        Vocabulary of the segment names; see `cluster`.
    n_representatives : int, default 8
        Representative images of each segment.
    false_alarm_rate : float, default 0.05
        In (0, 1): the share of customers like these that `assign_customers` may reject.
    random_state : int, default 0
    progress : bool, optional
        Show progress on stderr; by default only where that is a terminal.

    Raises
    ------
    InvalidParameterError
        No image is known, a weight is not above 0, or there are fewer customers than `k`.

    Notes
    -----
    Memory: the vectors of the named images, 4 bytes a number. For the time see `CustomerSegments`. A single
    customer is one segment, and so are customers with identical images.
    """
    lines = _read_lines(collection, images)
    X = collection.vectors(lines.ids)
    vectors = CustomerVectors.from_images(X[lines.rows], lines.customers, lines.weights)
    require_whole("k", k, optional=True)
    if k is not None and k > len(vectors.names):
        raise InvalidParameterError(
            f"k is {k}, and there are {len(vectors.names)} customers with an image; ask for at most"
            f" {len(vectors.names)}"
        )
    estimator = CustomerSegments(
        n_segments=k, false_alarm_rate=false_alarm_rate, random_state=random_state, progress=progress
    )
    # Choosing their number, fitting, calibrating, embedding words.
    with steps(3 + (k is None)):
        estimator.fit(vectors.features, n_images=vectors.n_effective)
        labels, centers = estimator.labels_, estimator.centers_
        customers = dict(zip(vectors.names, labels.tolist(), strict=True))
        line_labels = np.array([customers[customer] for customer in lines.customers])
        descriptions = describe_groups(
            collection,
            X[lines.rows],
            [lines.ids[row] for row in lines.rows],
            line_labels,
            words,
            n_representatives=n_representatives,
            random_state=random_state,
            progress=progress,
        )
    segments = []
    for id, description in enumerate(descriptions):
        spreads = vectors.spreads[labels == id]
        known_spreads = spreads[np.isfinite(spreads)]
        spread = float(known_spreads.mean()) if len(known_spreads) else float("nan")
        customers_of_segment = _most_typical_first(vectors, labels, centers, id)
        segments.append(_described(id, customers_of_segment, spread, description))
    return Segmentation(
        segments,
        customers,
        lines.unmatched,
        estimator.silhouette_,
        centers,
        vectors.spread_scale,
        collection.fingerprint,
    )


def assign_customers(
    collection: Collection, segmentation: Segmentation, images: Iterable[CustomerImage]
) -> Segmentation:
    """Assign customers to saved segments instead of segmenting again.

    Of customers like those of the fit, with as many images each for instance, at most the stated share is
    rejected.

    Parameters
    ----------
    segmentation : Segmentation
        From `segment_customers` or `Segmentation.load`, of this collection or another of the same
        fingerprint.
    images : iterable of (customer, image, weight)
        See `segment_customers`.

    Returns
    -------
    Segmentation
        The same segments with the assigned customers.

    Raises
    ------
    FingerprintMismatchError
        The segments are of vectors of another model.
    InvalidParameterError
        No image is known, or a weight is not above 0.
    """
    remedy = f"Find those of {collection.uri} with nearsight segment-customers CSV --to FILE.npz"
    segmentation.fingerprint.require_same(collection.fingerprint, "the segmentation", remedy)
    lines = _read_lines(collection, images)
    X = collection.vectors(lines.ids)
    vectors = CustomerVectors.from_images(
        X[lines.rows], lines.customers, lines.weights, spread_scale=segmentation.spread_scale
    )
    labels = segmentation.centers.assign(vectors.features, vectors.n_effective)
    segments = [
        replace(segment, customers=_most_typical_first(vectors, labels, segmentation.centers, segment.id))
        for segment in segmentation.segments
    ]
    customers = dict(zip(vectors.names, labels.tolist(), strict=True))
    return replace(segmentation, segments=segments, customers=customers, unmatched=lines.unmatched)


@dataclass(frozen=True, slots=True)
class _CustomerLines:
    """The images of customers.

    Attributes
    ----------
    customers, weights : lists of length n
    ids : list of str, length m
        The named images, each once.
    rows : ndarray of shape (n,), int
        The position in `ids` of each line's image.
    unmatched : dict of str to int
        See `Segmentation`.
    """

    customers: list[str]
    weights: list[float]
    ids: list[str]
    rows: NDArray[np.int64]
    unmatched: dict[str, int]


def _read_lines(collection: Collection, images: Iterable[CustomerImage]) -> _CustomerLines:
    lookup = image_lookup(collection)
    unmatched: dict[str, int] = {}
    # An image that was bought twice has twice the weight: as two images it would lower the spread.
    weights: dict[tuple[str, str], float] = {}
    for customer, image, weight in images:
        if not 0 < weight < np.inf:
            raise InvalidParameterError(
                f"the weight of {image!r} for customer {customer!r} is {weight}; it must be above 0"
            )
        matches = lookup.find(image)
        if len(matches) == 1:
            line = (customer, matches.pop())
            weights[line] = weights.get(line, 0.0) + weight
        else:
            unmatched[image] = unmatched.get(image, 0) + 1
    if not weights:
        raise InvalidParameterError(
            f"none of the {sum(unmatched.values())} lines names an image of the collection, such as"
            f" {next(iter(unmatched), '')!r}; nearsight ls lists the images"
        )
    ids = sorted({id for _, id in weights})
    row_by_id = {id: row for row, id in enumerate(ids)}
    rows = np.array([row_by_id[id] for _, id in weights])
    return _CustomerLines([customer for customer, _ in weights], [*weights.values()], ids, rows, unmatched)


def _most_typical_first(
    vectors: CustomerVectors, labels: NDArray[np.int64], centers: SegmentCenters, segment: int
) -> list[str]:
    """Return the customers of a segment, the nearest to its center first."""
    rows = np.flatnonzero(labels == segment)
    squared_distances = ((vectors.features[rows] - centers.X[segment]) ** 2).sum(1)
    return [vectors.names[row] for row in rows[np.argsort(squared_distances, kind="stable")]]
