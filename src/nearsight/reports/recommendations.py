"""The page of `nearsight recommend`."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from nearsight.reports.gallery import SCALE, Card, Row, Section, page, write
from nearsight.text_format import count

if TYPE_CHECKING:
    from nearsight.analyses.recommendations import Advice, Suggestion
    from nearsight.collection import Collection

_CHANCE = (
    "The chance is that of being the next item of the basket, among all items of the collection. "
    "Cards link to the originals."
)


def write_advice(file: Path, collection: "Collection", ids: Sequence[str], advice: "Advice") -> None:
    """Write what is recommended for images, with the evidence below each.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        Where the thumbnails are.
    ids : sequence of str
        What was asked about.
    advice : Advice
    """
    asked = [collection.get(id) for id in ids]
    thumbnails = collection.thumbnails([*ids, *(s.id for s in advice.items)])
    cards = [Card(item.path, thumbnails.get(item.id), metadata=item.metadata) for item in asked]
    hits = [_card(s, thumbnails.get(s.id), chance=advice.n_baskets > 0) for s in advice.items]
    label = "Bought with" if advice.n_baskets else "Looks like"
    told = PurePath(asked[0].path).stem if len(asked) == 1 else count(len(asked), "image")
    sections = (
        [Section(rows=[Row(cards[0], hits, label=label)])]
        if len(cards) == 1
        else [
            Section("The history", sheet=cards),
            Section(rows=[Row(Card("", None, words=told, linked=False), hits, label=label)]),
        ]
    )
    facts = {"Collection": str(collection.directory), "Images": f"{len(collection):,}"}
    if advice.n_baskets:
        facts["Baskets"] = f"{advice.n_baskets:,}"
        facts["Weights"] = "learned from the baskets" if advice.learned else "by rule: too few baskets"
        if advice.twins_together is not None:
            facts["Lookalikes"] = f"bought together {advice.twins_together:.1f} × as often as others"
        if advice.unknown:
            facts["Left out"] = f"{count(len(advice.unknown), 'item')} without an image"
    title = f"What goes with {told}" if advice.n_baskets else f"What looks like {told}"
    write(file, page(title, sections, facts=facts, footer=[_CHANCE if advice.n_baskets else SCALE]))


def _card(suggestion: "Suggestion", thumbnail: bytes | None, *, chance: bool) -> Card:
    told = {"chance": f"{suggestion.score:.1%}"} if chance else {}
    first, _, rest = suggestion.why.partition("; ")
    return Card(
        suggestion.path,
        thumbnail,
        None if chance else suggestion.score,
        {**told, "why": first, "also": rest or None, **suggestion.metadata},
    )
