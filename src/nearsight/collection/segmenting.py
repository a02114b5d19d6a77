"""Segments customers by the pictures that are theirs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nearsight.collection.naming import Reading, labels_of, name_groups
from nearsight.collection.recommending import Names
from nearsight.errors import InvalidParameterError
from nearsight.tasks.cluster import CustomerSegments, representatives
from nearsight.tasks.cluster.segments import Customers


@dataclass(frozen=True, slots=True)
class Segment:
    """Customers with like pictures.

    Attributes
    ----------
    id : int
        0 is the largest.
    customers : list of str
        The most typical first.
    representatives : list of str
        Ids of pictures of theirs that stand for all.
    spread : float
        In 0..1: how much the pictures of one customer differ, on average. NaN where none has two.
    words : list of str
        What sets their pictures apart; empty where texts cannot be read.
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
        The segment of each customer.
    unknown : dict of str to int
        What no single picture answers to, and in how many lines.
    silhouette : float
        In -1..1: 1 means distinct segments, 0 a continuum. NaN for fewer than two segments.
    """

    segments: list[Segment]
    customers: dict[str, int]
    unknown: dict[str, int]
    silhouette: float


def segment(
    self: Reading,
    pictures: Iterable[tuple[str, str, float]],
    k: int | None = None,
    *,
    words: Sequence[str] | None = None,
    n_representatives: int = 8,
    random_state: int = 0,
) -> Segmentation:
    """Segment customers by what their pictures show.

    Parameters
    ----------
    pictures : iterable of (customer, picture, weight)
        A picture is an id, a path, the end of a path, a file name, or one without its ending. A weight is
        more than 0, such as how often it was bought. What no single picture answers to is left out and
        counted; so are customers without any other.
    k : int, optional
        How many segments; see `CustomerSegments`.
    words : sequence of str, optional
        To name segments with; see `cluster`.
    n_representatives : int, default 8
        Pictures that stand for each segment.
    random_state : int, default 0

    Raises
    ------
    InvalidParameterError
        No picture is known, a weight is not more than 0, or there are fewer customers than `k`.

    Notes
    -----
    The vectors of the pictures named are held in memory, 4 bytes a number.
    """
    names = Names(self.items())
    unknown: dict[str, int] = {}
    lines: list[tuple[str, str, float]] = []
    for customer, picture, weight in pictures:
        found = names.find(picture)
        if len(found) == 1:
            lines.append((customer, found.pop(), weight))
        else:
            unknown[picture] = unknown.get(picture, 0) + 1
    if not lines:
        raise InvalidParameterError(
            f"none of the {sum(unknown.values())} lines names a picture of the collection, such as"
            f" {next(iter(unknown), '')!r}; nearsight ls shows what there is"
        )
    ids = sorted({id for _, id, _ in lines})
    place = {id: row for row, id in enumerate(ids)}
    X = self.vectors(ids)
    at = np.array([place[id] for _, id, _ in lines])
    made = Customers.of(X[at], [customer for customer, _, _ in lines], [weight for *_, weight in lines])
    if k is not None and k > len(made.names):
        raise InvalidParameterError(
            f"k is {k}, and there are {len(made.names)} customers with a picture; ask for at most"
            f" {len(made.names)}"
        )
    model = CustomerSegments(n_segments=k, random_state=random_state).fit(made.features)
    number = dict(zip(made.names, model.labels_.tolist(), strict=True))
    of_line = np.array([number[customer] for customer, _, _ in lines])
    words_of = name_groups(self, X[at], of_line, words, random_state=random_state)
    segments = []
    for one, (own, label) in enumerate(zip(words_of, labels_of(words_of), strict=True)):
        inside = np.flatnonzero(model.labels_ == one)
        typical = np.argsort(
            ((made.features[inside] - model.cluster_centers_[one]) ** 2).sum(1), kind="stable"
        )
        rows = np.unique(at[of_line == one])
        shown = rows[representatives(X[rows], n_representatives, random_state=random_state)]
        spreads = made.spreads[inside][np.isfinite(made.spreads[inside])]
        segments.append(
            Segment(
                one,
                [made.names[i] for i in inside[typical]],
                [ids[i] for i in shown],
                float(spreads.mean()) if len(spreads) else float("nan"),
                own,
                label,
            )
        )
    return Segmentation(segments, number, unknown, model.silhouette_)
