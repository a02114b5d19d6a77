"""The report of `nearsight recommend`: the query images, and each recommendation with its evidence."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from nearsight.analyses.recommendations import Recommendations, RecommendedImage
from nearsight.collection import Collection
from nearsight.reports.gallery import SCALE, Card, Row, Section, write_gallery
from nearsight.text_format import count

_CHANCE = (
    "The chance is the estimated probability of being the next item of the basket, among all items of the"
    " collection. Cards link to the originals."
)


def write_recommendations(
    file: Path, collection: Collection, ids: Sequence[str], recommendations: Recommendations
) -> None:
    """Write the report of what is recommended for images.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    ids : sequence of str
        The query: one image, or a customer's history.
    recommendations : Recommendations
    """
    query = [collection.get(id) for id in ids]
    recommended = [image.id for image in recommendations.items]
    thumbnails = collection.thumbnails([*ids, *recommended])
    exif = {item.id: item.exif() for item in collection.items(ids=recommended)}
    query_cards = [
        Card(item.path, thumbnails.get(item.id), metadata={**item.exif(), **item.metadata}) for item in query
    ]
    cards = [
        _card(s, thumbnails.get(s.id), exif.get(s.id, {}), is_chance=recommendations.n_baskets > 0)
        for s in recommendations.items
    ]
    label = "Bought together with" if recommendations.n_baskets else "Similar to"
    name = PurePath(query[0].path).stem if len(query) == 1 else count(len(query), "image")
    if len(query) == 1:
        sections = [Section(rows=[Row(query_cards[0], cards, label)])]
    else:
        row = Row(Card("", None, words=name, linked=False), cards, label)
        sections = [Section("The customer's history", sheet=query_cards), Section(rows=[row])]
    facts = {"Collection": collection.uri, "Images": f"{len(collection):,}"}
    if recommendations.n_baskets:
        facts["Baskets"] = f"{recommendations.n_baskets:,}"
        facts["Weights"] = (
            "learned from the baskets" if recommendations.learned else "defaults: too few baskets"
        )
        if recommendations.similar_lift is not None:
            facts["Similar images"] = (
                f"bought together {recommendations.similar_lift:.1f} × as often as others"
            )
        if recommendations.unmatched:
            facts["Left out"] = f"{count(len(recommendations.unmatched), 'item')} without an image"
    title = f"Bought together with {name}" if recommendations.n_baskets else f"Similar to {name}"
    footer = [_CHANCE if recommendations.n_baskets else SCALE]
    write_gallery(file, title, sections, facts=facts, footer=footer)


def _card(
    image: RecommendedImage, thumbnail: bytes | None, exif: Mapping[str, str], *, is_chance: bool
) -> Card:
    chance = {"chance": f"{image.score:.1%}"} if is_chance else {}
    reason, _, other_reasons = image.why.partition("; ")
    return Card(
        image.path,
        thumbnail,
        None if is_chance else image.score,
        {**chance, "why": reason, "also": other_reasons or None, **exif, **image.metadata},
    )
