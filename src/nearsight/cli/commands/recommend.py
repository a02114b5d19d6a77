"""`recommend`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run, out_file
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.recommendations import FittedRecommender, Recommendations
    from nearsight.collection import Collection
    from nearsight.images.image_lookup import Resolution


@click.command(
    cls=Command,
    json_shape="""{"items": [{"id", "score": float, "why", "path", "metadata": {},
 "evidence": [{"kind", "text", "id", "stand_in", "lookalike", "times", "of", "similarity", "lift"}]}],
 "for": [id], "baskets": int, "unknown": {item: lines}, "ambiguous": {item: [path]}, "learned": bool,
 "similar_lift": float or null,
 "new": int}""",
    examples=(
        "nearsight recommend 3fa9c1 --diversity 0.5",
        "nearsight recommend 3fa9c1 --baskets orders.csv --where \"season = 'winter'\" --open",
        "nearsight recommend --history 3fa9c1,shirts/4711.jpg --baskets orders.csv",
        "nearsight recommend --baskets orders.csv --to recommender.npz",
        "nearsight recommend 3fa9c1 --from recommender.npz",
        'nearsight recommend 3fa9c1 --rule "kind != item.kind" --rule "price <= 1.2 * item.price"',
        'nearsight recommend --rule "kind != item.kind" --save-rules',
        "nearsight recommend 3fa9c1 --saved-rules",
        "nearsight recommend --from recommender.npz --out recommendations.csv",
        "nearsight recommend 3fa9c1 4711 --out two.csv",
    ),
)
@click.argument("named", nargs=-1, metavar="[ID]...")
@click.option(
    "--history",
    metavar="ID,ID...",
    help="Recommend for all items that a customer has, instead of for one ID.",
)
@click.option(
    "--baskets",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV",
    help="Learn what is bought together from a file with the columns basket and item.",
)
@options.to_file("Save what was learned from the baskets. ID may be left out then.", ".npz")
@options.from_file("Use what --to saved instead of learning from --baskets again.")
@options.k("Number of recommendations.")
@options.where
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="EXPR",
    help="As --where, but item.FIELD stands for the value of the image that is recommended for, such as"
    ' "price <= 1.2 * item.price". A rule does not apply to an image that lacks the value. Repeatable.',
)
@click.option("--saved-rules", is_flag=True, help="Also follow the rules that are saved with the collection.")
@click.option(
    "--save-rules",
    is_flag=True,
    help="Save the rules of --rule with the collection, in place of those before; the page shows them.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=out_file(".csv"),
    metavar="FILE.csv",
    help="Write a table of the recommendations for each ID, or without ID for every image.",
)
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="0..1",
    help="0 ranks by score alone; 1 varies the list most.",
)
@click.option(
    "--include-new-items",
    is_flag=True,
    help="Treat images in no basket as new items, rather than as items that nobody bought.",
)
@options.report("recommendations")
@click.pass_obj
def recommend(
    run: Run,
    /,
    *,
    named: tuple[str, ...],
    history: str | None,
    baskets: Path | None,
    to_file: Path | None,
    from_file: Path | None,
    k: int,
    where: str | None,
    rules: tuple[str, ...],
    saved_rules: bool,
    save_rules: bool,
    out: Path | None,
    diversity: float,
    include_new_items: bool,
    report: Path | None,
) -> None:
    """Recommend similar images, or what is bought together.

    ID, and each item of a basket, is an id or its beginning, a path, a file name, or a file name without its
    ending. Items of a basket that are not in the collection are skipped and listed.

    With --baskets, the score is the probability that an item is the next one in the basket. Without
    --baskets, it is the cosine similarity of two vectors. Learning from many baskets takes a while: --to
    saves the result, and --from reads it.
    """
    from nearsight.analyses.recommendations import Recommendations
    from nearsight.services.collections import image_ids
    from nearsight.services.documents import recommendations_document
    from nearsight.services.recommendation_rules import StoredRules
    from nearsight.services.recommendations import (
        RecommendationOptions,
        recommend_images,
        write_recommendation_table,
    )

    if len(named) > 1 and out is None:
        raise click.UsageError(
            "several IDs are for a table: add --out FILE.csv; --history ID,ID... recommends for all together"
        )
    id = named[0] if named and out is None else None
    has_query = id is not None or history is not None
    if (
        (named and history is not None)
        or not (has_query or to_file or out or save_rules)
        or (report and not has_query)
    ):
        raise click.UsageError("name what to recommend for: ID or --history ID,ID...")
    if from_file is not None and baskets is not None:
        raise click.UsageError("--from has learned from baskets already; leave out --from or --baskets")
    if to_file is not None and baskets is None:
        raise click.UsageError("--to saves what is learned from baskets; add --baskets CSV")
    if out is not None and has_query:
        raise click.UsageError("--out recommends for each image by itself; leave out --history")
    collection = run.open_collection()
    tabled = image_ids(collection, list(named)) if named and out else None
    names = [id] if id is not None else [name.strip() for name in (history or "").split(",") if name.strip()]
    ids = image_ids(collection, names)
    recommender, resolution = _recommender(run, collection, baskets, from_file)
    if to_file is not None and recommender is not None:
        recommender.save(to_file)
    stored = StoredRules(collection)
    if saved_rules:
        rules = (*stored.read(), *rules)
    if save_rules:
        stored.write(rules)
    query = RecommendationOptions(k, where, rules, diversity, include_new_items)
    if has_query:
        recommendations = recommend_images(collection, ids, query, recommender)
    else:
        recommendations = recommender.summary() if recommender is not None else Recommendations([])
    if out is not None:
        write_recommendation_table(
            out, collection, query, recommender, ids=tabled, progress=run.console.progress
        )
    run.console.document(
        {
            **recommendations_document(recommendations, ids),
            "unknown": recommendations.unmatched,
            "ambiguous": resolution.ambiguous if resolution else {},
        }
    )
    _say(run, recommendations, has_query=has_query)
    for line in resolution.report(str(baskets)) if resolution else ():
        run.console.warn(line)
    if out is not None:
        whom = "all images" if tabled is None else count(len(tabled), "image")
        run.console.note(f"The recommendations for {whom} are in {printable(str(out))}.")
    if to_file is not None:
        run.console.note(f"Saved to {printable(str(to_file))}; --from recommends with it.")
    if report:
        from nearsight.reports.recommendations import write_recommendations

        write_recommendations(report, collection, ids, recommendations)
        run.present_report(report)


def _recommender(
    run: Run, collection: "Collection", baskets: Path | None, from_file: Path | None
) -> "tuple[FittedRecommender | None, Resolution | None]":
    """Return what was learned from baskets, now or earlier, and what the names in the baskets stand for."""
    if from_file is not None:
        return collection.load_recommender(from_file), None
    if baskets is None:
        return None, None
    from nearsight.services.recommenders import fit_from_table

    return fit_from_table(collection, baskets, progress=run.console.progress)


def _say(run: Run, recommendations: "Recommendations", *, has_query: bool) -> None:
    if has_query and not recommendations.items:
        run.console.note("There is nothing to recommend.")
    rows: list[list[Any]] = [
        [f"{s.score:.3f}", s.id[:12], s.path or "(no file)", s.why] for s in recommendations.items
    ]
    header = ("score", "id", "path", "why") if rows else ()
    for line in text_format.table(rows, header=header, right=(0,)):
        run.console.say(line)
    if recommendations.n_baskets:
        n_baskets = count(recommendations.n_baskets, "basket")
        run.console.note(
            f"Learned from {n_baskets}."
            if recommendations.learned
            else f"{n_baskets} are too few to learn weights from; fixed weights are used."
        )
    if recommendations.similar_lift is not None:
        run.console.note(
            f"Similar images are bought together {recommendations.similar_lift:.1f} times as often as others."
        )
    if recommendations.n_new:
        run.console.note(
            f"{count(recommendations.n_new, 'image')} added after this was learned cannot be recommended;"
            " learn again with --baskets CSV --to FILE"
        )
