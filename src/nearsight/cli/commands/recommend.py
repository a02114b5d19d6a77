"""`recommend`: what looks like an image, and what is bought with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands.search import present
from nearsight.cli.framework import BadInputError, Command, Run, out_file
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.recommendations import Advice, Catalog
    from nearsight.collection import Collection

# Unknown items that people are shown.
_SHOWN = 5


@click.command(
    cls=Command,
    json_shape="""{"items": [{"id", "path", "score": float, "why", "metadata": {}}], "for": [id],
 "baskets": int, "unknown": {item: lines}, "learned": bool, "twins_together": float or null,
 "new": int}""",
    examples=(
        "nearsight recommend 3fa9c1 --diversity 0.5",
        "nearsight recommend 3fa9c1 --baskets orders.csv --where \"season = 'winter'\" --open",
        "nearsight recommend --history 3fa9c1,shirts/4711.jpg --baskets orders.csv",
        "nearsight recommend --baskets orders.csv --save learned.npz",
        "nearsight recommend 3fa9c1 --model learned.npz",
    ),
)
@click.argument("id", required=False, metavar="[ID]")
@click.option(
    "--history",
    metavar="ID,ID...",
    help="Instead of ID: what a customer has, and wants more for.",
)
@click.option(
    "--baskets",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="CSV",
    help="What was bought together: a file with the columns basket and item.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=out_file(".npz"),
    metavar="FILE.npz",
    help="Keep what was learned from the baskets; ID is not needed then.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="Instead of --baskets: what --save kept, so that nothing is learned again.",
)
@options.k("How many to recommend.")
@options.where
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="0..1",
    help="How much the list should vary.",
)
@click.option(
    "--fresh", is_flag=True, help="Images in no basket are new here; otherwise: nobody wanted them so far."
)
@options.page("Write a page of thumbnails.")
@click.pass_obj
def recommend(
    run: Run,
    /,
    id: str | None,
    history: str | None,
    baskets: Path | None,
    save: Path | None,
    model: Path | None,
    k: int,
    where: str | None,
    diversity: float,
    fresh: bool,
    out: Path | None,
    show: bool,
) -> None:
    """Recommend what looks like an image.

    With --baskets, recommend what is bought with it.

    ID, and what a basket holds, is an id or a start of one, a path, a file name, or a name without its
    ending. Items that are no images of the collection are counted and listed, and left out.

    With --baskets, a score is the chance that this is the next item of the basket; without, the cosine of
    two vectors. Learning from many baskets takes a while: --save keeps what was learned, and --model asks it.
    """
    asks = id is not None or history is not None
    if (id is not None and history is not None) or not (asks or save) or ((out or show) and not asks):
        raise click.UsageError("name what to recommend for: ID or --history ID,ID...")
    if model is not None and baskets is not None:
        raise click.UsageError("--model was learned from baskets already; give it or --baskets")
    if save is not None and baskets is None:
        raise click.UsageError("--save keeps what is learned from baskets; give --baskets CSV")
    collection = run.open_collection()
    ids = _ids(collection, [id] if id is not None else _names(history or ""))
    learned = _learned(run, collection, baskets, model)
    if save is not None and learned is not None:
        learned.save(save)
    if learned is not None and not asks:
        advice = learned.nothing()
    else:
        advice = (learned or collection).recommend(ids, k=k, where=where, diversity=diversity, fresh=fresh)
    run.console.document(
        {
            "items": [
                {"id": s.id, "path": s.path, "score": s.score, "why": s.why, "metadata": s.metadata}
                for s in advice.items
            ],
            "for": ids,
            "baskets": advice.n_baskets,
            "unknown": advice.unknown,
            "learned": advice.learned,
            "twins_together": advice.twins_together,
            "new": advice.n_new,
        }
    )
    _say(run, advice, baskets, asks=asks)
    if save is not None:
        run.console.note(f"What was learned is in {printable(str(save))}; ask it with --model.")
    if out or show:
        from nearsight.reports.recommendations import write_recommendations

        file = out or run.settings.cache_dir / "recommend.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_recommendations(file, collection, ids, advice)
        present(run, file, show=show)


def _learned(
    run: Run, collection: "Collection", baskets: Path | None, model: Path | None
) -> "Catalog | None":
    """Return what was learned from baskets, now or earlier."""
    if model is not None:
        return collection.load_catalog(model)
    if baskets is None:
        return None
    from nearsight.cli.csv_tables import read_baskets

    return collection.catalog(read_baskets(baskets), progress=run.console.progress)


def _names(history: str) -> list[str]:
    return [name.strip() for name in history.split(",") if name.strip()]


def _ids(collection: "Collection", asked: list[str]) -> list[str]:
    """Return the ids of images by whatever they are called."""
    from nearsight.analyses.recommendations import ImageLookup
    from nearsight.errors import UnknownIdError

    names: ImageLookup | None = None
    ids = []
    for name in asked:
        try:
            ids.append(collection.get(name).id)
            continue
        except UnknownIdError as error:
            unknown = error
        names = names or ImageLookup(collection.items())
        found = names.find(name)
        if not found:
            raise unknown
        if len(found) > 1:
            raise BadInputError(f"{name} is the name of {len(found)} images; give the path or the id of one")
        ids += found
    return ids


def _say(run: Run, advice: "Advice", baskets: Path | None, *, asks: bool) -> None:
    if asks and not advice.items:
        run.console.note("There is nothing to recommend.")
    rows: list[list[Any]] = [
        [f"{s.score:.3f}", s.id[:12], s.path or "(no file)", s.why] for s in advice.items
    ]
    for line in text_format.table(rows, header=("score", "id", "path", "why") if rows else (), right=(0,)):
        run.console.say(line)
    if advice.n_baskets:
        twins = advice.twins_together
        run.console.note(
            f"{count(advice.n_baskets, 'basket')}; "
            + (
                "what counts how much was learned from them"
                if advice.learned
                else "too few to learn from: by rule"
            )
            + (
                ""
                if twins is None
                else f"; lookalikes are bought together {twins:.1f} times as often as others"
            )
        )
    if advice.n_new:
        run.console.note(
            f"{count(advice.n_new, 'image')} came in after this was learned, and cannot be recommended;"
            " learn again with --baskets CSV --save"
        )
    if advice.unknown and baskets is not None:
        some = ", ".join(list(advice.unknown)[:_SHOWN])
        more = f" and {len(advice.unknown) - _SHOWN:,} more" if len(advice.unknown) > _SHOWN else ""
        run.console.warn(
            f"{count(sum(advice.unknown.values()), 'line')} of {baskets} name no single image of the"
            f" collection, and were left out: {some}{more}"
        )
