"""Recommendations under rules, for one image, a history, or every image of a collection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nearsight.analyses.recommendations import FittedRecommender, Recommendations
from nearsight.artifacts import exported
from nearsight.collection import Collection
from nearsight.progress import track
from nearsight.services.recommendation_rules import condition
from nearsight.text_format import csv_row

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


def count_allowed(collection: Collection, id: str, options: RecommendationOptions) -> int:
    """Return how many images the filters let through for one image, itself included."""
    return collection.count(_condition(collection, [id], options))


def write_recommendation_table(
    file: Path,
    collection: Collection,
    options: RecommendationOptions,
    recommender: FittedRecommender | None = None,
    *,
    shown_path: Callable[[str], str] = str,
    progress: bool | None = None,
) -> dict[str, int]:
    """Write a table of the recommendations for every image; return how many images and rows.

    An image that was added after the recommender was fitted has no row.

    Parameters
    ----------
    file : Path
        Replaced whole; CSV with the columns of `HEADER`.
    shown_path : callable
        From the path of an image to what the table says.

    Raises
    ------
    StorageError
        The file cannot be written.
    FilterError, InvalidParameterError
        See `recommend_images`.
    """
    items = [item for item in collection.items() if recommender is None or item.id in recommender]
    n_rows = 0
    with exported(file) as table:
        table.write(csv_row(HEADER))
        for item in track(items, "recommending", unit="images", progress=progress):
            found = recommend_images(collection, [item.id], options, recommender).items
            for rank, each in enumerate(found, 1):
                row = (item.id, shown_path(item.path), str(rank), each.id, shown_path(each.path))
                table.write(csv_row([*row, f"{each.score:.6f}", each.why]))
            n_rows += len(found)
    return {"images": len(items), "rows": n_rows}


def _condition(collection: Collection, ids: Sequence[str], options: RecommendationOptions) -> str | None:
    if not options.rules or not ids:
        return options.where
    return condition(collection, collection.get(ids[0]), options.rules, options.where)
