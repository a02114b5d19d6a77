"""`recommend`: what looks like a picture, and what is bought with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight.apps import output
from nearsight.apps.command import BadInputError, Command, Run, out_file
from nearsight.apps.commands import options
from nearsight.apps.commands.asking import present
from nearsight.apps.output import count

if TYPE_CHECKING:
    from nearsight.collection import Collection
    from nearsight.collection.recommending import Advice

# Unknown items that people are shown.
_SHOWN = 5


@click.command(
    cls=Command,
    json_shape="""{"items": [{"id", "path", "score": float, "why", "metadata": {}}], "for": [id],
 "baskets": int, "unknown": {item: lines}, "learnt": bool, "twins_together": float or null}""",
    examples=(
        "nearsight recommend 3fa9c1 --diversity 0.5",
        "nearsight recommend 3fa9c1 --baskets orders.csv --where \"season = 'winter'\" --open",
        "nearsight recommend --history 3fa9c1,shirts/4711.jpg --baskets orders.csv",
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
    "--fresh", is_flag=True, help="Pictures in no basket are new here; otherwise: nobody wanted them so far."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=out_file(".html", ".htm"),
    metavar="FILE.html",
    help="Write a page of thumbnails.",
)
@click.option("--open", "show", is_flag=True, help="Show that page in the browser.")
@click.pass_obj
def recommend(
    run: Run,
    /,
    id: str | None,
    history: str | None,
    baskets: Path | None,
    k: int,
    where: str | None,
    diversity: float,
    fresh: bool,
    out: Path | None,
    show: bool,
) -> None:
    """Recommend what looks like a picture.

    With --baskets, recommend what is bought with it.

    ID, and what a basket holds, is an id or a start of one, a path, a file name, or a name without its
    ending. Items that are no pictures of the collection are counted and listed, and left out.

    With --baskets, a score is the chance that this is the next item of the basket; without, the cosine of
    two vectors.
    """
    if (id is None) == (history is None):
        raise click.UsageError("name what to recommend for: ID or --history ID,ID...")
    collection = run.open_collection()
    asked = [name.strip() for name in (history or "").split(",") if name.strip()] if id is None else [id]
    ids = _ids(collection, asked)
    from nearsight.apps.tables import read_baskets

    contents = None if baskets is None else read_baskets(baskets)
    advice = collection.recommend(
        ids,
        baskets=contents,
        k=k,
        where=where,
        diversity=diversity,
        fresh=fresh,
        progress=run.console.progress,
    )
    run.console.document(
        {
            "items": [
                {"id": s.id, "path": s.path, "score": s.score, "why": s.why, "metadata": s.metadata}
                for s in advice.items
            ],
            "for": ids,
            "baskets": advice.n_baskets,
            "unknown": advice.unknown,
            "learnt": advice.learnt,
            "twins_together": advice.twins_together,
        }
    )
    _say(run, advice, baskets)
    if out or show:
        from nearsight.apps.pages.recommend import write_advice

        file = out or run.settings.cache_dir / "recommend.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_advice(file, collection, ids, advice)
        present(run, file, show=show)


def _ids(collection: "Collection", asked: list[str]) -> list[str]:
    """Return the ids of pictures by whatever they are called."""
    from nearsight.collection.recommending import Names
    from nearsight.errors import UnknownIdError

    names: Names | None = None
    ids = []
    for name in asked:
        try:
            ids.append(collection.get(name).id)
            continue
        except UnknownIdError as error:
            unknown = error
        names = names or Names(collection.items())
        found = names.find(name)
        if not found:
            raise unknown
        if len(found) > 1:
            raise BadInputError(
                f"{name} is the name of {len(found)} pictures; give the path or the id of one"
            )
        ids += found
    return ids


def _say(run: Run, advice: "Advice", baskets: Path | None) -> None:
    if not advice.items:
        run.console.note("There is nothing to recommend.")
    rows: list[list[Any]] = [
        [f"{s.score:.3f}", s.id[:12], s.path or "(no file)", s.why] for s in advice.items
    ]
    for line in output.table(rows, header=("score", "id", "path", "why") if rows else (), right=(0,)):
        run.console.say(line)
    if baskets is None:
        return
    twins = advice.twins_together
    run.console.note(
        f"{count(advice.n_baskets, 'basket')}; "
        + ("what counts how much was learnt from them" if advice.learnt else "too few to learn from: by rule")
        + ("" if twins is None else f"; lookalikes are bought together {twins:.1f} times as often as others")
    )
    if advice.unknown:
        some = ", ".join(list(advice.unknown)[:_SHOWN])
        more = f" and {len(advice.unknown) - _SHOWN:,} more" if len(advice.unknown) > _SHOWN else ""
        run.console.warn(
            f"{count(sum(advice.unknown.values()), 'line')} of {baskets} name no single picture of the"
            f" collection, and were left out: {some}{more}"
        )
