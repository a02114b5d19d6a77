"""Recommendations under rules, for one image, a history, or every image of a collection."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearsight.analyses.recommendations import FittedRecommender, Recommendations, recommend_similar
from nearsight.artifacts import exported
from nearsight.collection import Collection, Item
from nearsight.progress import track
from nearsight.services.recommendation_rules import condition
from nearsight.text_format import csv_row

# Images that are recommended for together.
_BLOCK = 256
HEADER = ("id", "path", "rank", "recommended_id", "recommended_path", "score", "why")


@dataclass(frozen=True, slots=True)
class RecommendationOptions:
    """How images are recommended.

    Attributes
    ----------
    k : int
        Number of recommendations.
    where : str, optional
        A filter on what is recommended.
    rules : sequence of str
        Filters that may refer to the image; see `recommendation_rules.condition`.
    diversity : float
        In 0..1; see `Collection.recommend`.
    include_new_items : bool
        See `Collection.recommend`.
    """

    k: int = 10
    where: str | None = None
    rules: Sequence[str] = ()
    diversity: float = 0.0
    include_new_items: bool = False


def recommend_images(
    collection: Collection,
    ids: Sequence[str],
    options: RecommendationOptions,
    recommender: FittedRecommender | None = None,
) -> Recommendations:
    """Recommend images; rules refer to the first of `ids`.

    Parameters
    ----------
    collection : Collection
    ids : sequence of str
        One image, or a customer's history.
    options : RecommendationOptions
    recommender : FittedRecommender, optional
        What was learned from baskets; without it, similar images are recommended.

    Raises
    ------
    UnknownIdError, FilterError, InvalidParameterError
        See `Collection.recommend` and `recommendation_rules.condition`.
    """
    where = _condition(collection, ids, options)
    return (recommender or collection).recommend(
        ids,
        k=options.k,
        where=where,
        diversity=options.diversity,
        include_new_items=options.include_new_items,
    )


def recommend_each(
    collection: Collection,
    items: Sequence[Item],
    options: RecommendationOptions,
    recommender: FittedRecommender | None = None,
) -> Iterator[tuple[Item, Recommendations]]:
    """Recommend images for each of several ones, in order: the same as one after another, and faster.

    Parameters
    ----------
    collection : Collection
    items : sequence of Item
    options, recommender
        See `recommend_images`.

    Raises
    ------
    UnknownIdError, FilterError, InvalidParameterError
        See `recommend_images`.
    """
    if recommender is not None:
        for item in items:
            yield item, recommend_images(collection, [item.id], options, recommender)
        return
    for start in range(0, len(items), _BLOCK):
        block = items[start : start + _BLOCK]
        # Those to which the same rules apply are searched for together.
        by_condition: dict[str | None, list[str]] = {}
        for item in block:
            rules = options.rules
            where = condition(collection, item, rules, options.where) if rules else options.where
            by_condition.setdefault(where, []).append(item.id)
        found: dict[str, Recommendations] = {}
        for where, ids in by_condition.items():
            lists = recommend_similar(collection, ids, k=options.k, where=where, diversity=options.diversity)
            found.update(zip(ids, lists, strict=True))
        yield from ((item, found[item.id]) for item in block)


def count_allowed(collection: Collection, id: str, options: RecommendationOptions) -> int:
    """Return how many images the filters let through for one image, itself included."""
    return collection.count(_condition(collection, [id], options))


def write_recommendation_table(
    file: Path,
    collection: Collection,
    options: RecommendationOptions,
    recommender: FittedRecommender | None = None,
    *,
    ids: Sequence[str] | None = None,
    shown_path: Callable[[str], str] = str,
    progress: bool | None = None,
) -> dict[str, int]:
    """Write a table of the recommendations for each of several images; return how many images and rows.

    An image that was added after the recommender was fitted has no row.

    Parameters
    ----------
    file : Path
        Replaced whole; CSV with the columns of `HEADER`.
    ids : sequence of str, optional
        The images, by whole ids or beginnings, in this order; by default every image.
    shown_path : callable
        From the path of an image to what the table says.

    Raises
    ------
    StorageError
        The file cannot be written.
    FilterError, InvalidParameterError
        See `recommend_images`.
    """
    listed = collection.items() if ids is None else items_of(collection, ids)
    items = [item for item in listed if recommender is None or item.id in recommender]
    n_rows = 0
    with exported(file) as table:
        table.write(csv_row(HEADER))
        each_item = recommend_each(collection, items, options, recommender)
        told = track(each_item, "recommending", unit="images", total=len(items), progress=progress)
        for item, recommendations in told:
            found = recommendations.items
            for rank, each in enumerate(found, 1):
                row = (item.id, shown_path(item.path), str(rank), each.id, shown_path(each.path))
                table.write(csv_row([*row, f"{each.score:.6f}", each.why]))
            n_rows += len(found)
    return {"images": len(items), "rows": n_rows}


def items_of(collection: Collection, ids: Sequence[str]) -> list[Item]:
    """Return the images that ids or their beginnings name, each once and in this order.

    Raises
    ------
    UnknownIdError
        An id names no image, or several.
    """
    named = dict.fromkeys(ids)
    known = {item.id: item for item in collection.items(ids=list(named))}
    return list({item.id: item for item in (known.get(id) or collection.get(id) for id in named)}.values())


def _condition(collection: Collection, ids: Sequence[str], options: RecommendationOptions) -> str | None:
    if not options.rules or not ids:
        return options.where
    return condition(collection, collection.get(ids[0]), options.rules, options.where)
