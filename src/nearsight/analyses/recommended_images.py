"""Recommended images, and the evidence for each, in words and numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from nearsight.collection import Collection
from nearsight.collection.arrays import items_by_id

if TYPE_CHECKING:
    from nearsight.estimators.recommendation import Reason

# Longest name of an image in a reason.
_MAX_NAME_LENGTH = 24


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason for a recommended image, by the images that it refers to.

    Attributes
    ----------
    kind : {"together", "lookalike", "popularity", "similarity"}
    text : str
        The reason in words.
    id : str or None
        The image of the history.
    stand_in : str or None
        An image that looks like `id` and was bought, which `id` was not.
    lookalike : str or None
        An image that looks like the recommended one; it was bought together with `id`.
    times, of : int
        In `times` of `of` baskets.
    similarity : float or None
        Cosine to `id`.
    lift : float or None
        How often the two are bought together, over how often they would be by chance.
    """

    kind: str
    text: str
    id: str | None = None
    stand_in: str | None = None
    lookalike: str | None = None
    times: int = 0
    of: int = 0
    similarity: float | None = None
    lift: float | None = None


@dataclass(frozen=True, slots=True)
class RecommendedImage:
    """An image that is recommended.

    Attributes
    ----------
    id, path : str
    score : float
        With baskets: the estimated probability, in 0..1, of being the next item of the basket. Without: the
        highest cosine to an image of the history, in -1..1.
    why : str
        The evidence in words, the strongest first. Files are named without their endings; long names are
        shortened.
    metadata : dict
        The image's metadata.
    evidence : list of Evidence
        The reasons of `why`, in numbers.
    """

    id: str
    path: str
    score: float
    why: str
    metadata: dict[str, Any] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)


@dataclass(frozen=True)
class Recommendations:
    """Recommended images, and what the recommendations are based on.

    Attributes
    ----------
    items : list of RecommendedImage
        The best first.
    n_baskets : int
        Baskets that hold an image of the collection.
    unmatched : dict of str to int
        Names in the baskets that match no image or several, and how often each occurs.
    learned : bool
        Whether the weights of the signals were learned from the baskets; with too few baskets they are fixed.
    similar_lift : float or None
        How often very similar images are bought together, over how often any two images are: above 1 they are
        complements, below 1 substitutes.
    n_new : int
        Images added after the fit, which cannot be recommended.
    """

    items: list[RecommendedImage]
    n_baskets: int = 0
    unmatched: dict[str, int] = field(default_factory=dict)
    learned: bool = False
    similar_lift: float | None = None
    n_new: int = 0


def recommended_images(
    collection: Collection, explained: "Sequence[tuple[str, float, Sequence[Reason]]]", ids: Sequence[str]
) -> list[RecommendedImage]:
    """Put reasons into words; their rows are rows of `ids`."""
    [recommended] = recommended_lists(collection, [explained], ids)
    return recommended


def recommended_lists(
    collection: Collection,
    lists: "Sequence[Sequence[tuple[str, float, Sequence[Reason]]]]",
    ids: Sequence[str],
) -> list[list[RecommendedImage]]:
    """Put the reasons of several lists into words; their rows are rows of `ids`. Rows are read once."""
    named_rows = {
        row
        for explained in lists
        for _, _, reasons in explained
        for reason in reasons
        for row in (reason.item, reason.stand_in, reason.lookalike)
        if row is not None
    }
    named = {id for explained in lists for id, _, _ in explained}
    items = items_by_id(collection, sorted({ids[row] for row in named_rows} | named))

    def name(row: int) -> str:
        item = items.get(ids[row])
        return _shortened((PurePath(item.path).stem if item else "") or ids[row][:12])

    def evidence(reason: "Reason") -> Evidence:
        item, stand_in, lookalike = (
            None if row is None else ids[row] for row in (reason.item, reason.stand_in, reason.lookalike)
        )
        return Evidence(
            reason.kind,
            reason.text(name),
            item,
            stand_in,
            lookalike,
            reason.times,
            reason.of,
            reason.similarity,
            reason.lift,
        )

    def image(id: str, score: float, reasons: "Sequence[Reason]") -> RecommendedImage:
        listed = [evidence(reason) for reason in reasons]
        why = "; ".join(each.text for each in listed)
        return RecommendedImage(id, items[id].path, score, why, items[id].metadata, listed)

    return [[image(*each) for each in explained if each[0] in items] for explained in lists]


def _shortened(name: str) -> str:
    """Leave out the middle of a long name, such as one of 36 digits."""
    if len(name) <= _MAX_NAME_LENGTH:
        return name
    return f"{name[: _MAX_NAME_LENGTH // 2]}…{name[-_MAX_NAME_LENGTH // 4 :]}"
