"""Laying images out on a plane: `map`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight.cli import options
from nearsight.cli.commands.search import present
from nearsight.cli.framework import BadInputError, Command, Run, out_file
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.collection import Collection

# Metadata that other commands write clusters under.
_CLUSTER = "cluster"
# From this share of images placed later on, a new map would show more.
_MANY_PLACED = 0.3

# From so many images on, the first map is worth a word beforehand.
_LONG = 5_000


@click.command(
    name="map",
    cls=Command,
    json_shape="""{"points": [{"id", "x": float, "y": float, "cluster": value or null}], "method",
 "trustworthiness": float or null, "new": int, "placed": int, "moved": bool, "file": file or null}""",
    examples=(
        "nearsight map --out map.html --open",
        "nearsight map --out map.html --color season",
        "nearsight map --out map.parquet",
        "nearsight map --refit",
    ),
)
@options.where
@click.option(
    "--color", metavar="KEY", help="Color by this metadata. Default: `cluster`, where there is such."
)
@click.option(
    "--method",
    type=click.Choice(["auto", "umap", "pca"]),
    help="Of a new map: UMAP where it is installed, else PCA.",
)
@click.option("--refit", is_flag=True, help="Lay all images out anew: every one of them moves.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=out_file(".html", ".htm", ".parquet"),
    metavar="FILE(.html|.parquet)",
    help="An interactive page, or a table in the columns of Apple's embedding-atlas.",
)
@click.option("--open", "show", is_flag=True, help="Show a page in the browser.")
@click.pass_obj
def map_(
    run: Run,
    /,
    *,
    where: str | None,
    color: str | None,
    method: str | None,
    refit: bool,
    out: Path | None,
    show: bool,
) -> None:
    """Lay the images out on a plane.

    Those that are alike lie near each other.

    The map is kept with the collection. Images that come in later are placed on it, and nothing that was
    there moves, until --refit asks for a new one.
    """
    collection = run.open_collection()
    keys = list(collection.info()["metadata"])
    if color is not None and color not in keys:
        raise BadInputError(
            f"no image has metadata {color!r} to color by; there is: {', '.join(keys) or 'none'}"
        )
    color = color or (_CLUSTER if _CLUSTER in keys else None)
    if show and out is not None and out.suffix.lower() == ".parquet":
        raise click.UsageError("--open shows a page; give --out FILE.html, or leave --open out")
    if len(collection) > _LONG:
        run.console.note("New images are laid out or placed; a first map of many takes minutes.")
    whole = collection.layout_2d(refit=refit, method=method, progress=run.console.progress)
    items, found = _shown(collection, whole, where)
    values: dict[str, list[Any]] = {key: [item.metadata.get(key) for item in items] for key in keys}
    clusters = values[color] if color else [None] * len(items)
    file = out or (run.settings.cache_dir / "map.html" if show else None)
    if file is not None and file.suffix.lower() == ".parquet":
        from nearsight.analyses.embedding_atlas import write_atlas

        write_atlas(file, collection, found, items)
    elif file is not None:
        from nearsight.reports.map import write_map

        file.parent.mkdir(parents=True, exist_ok=True)
        write_map(file, collection, found, [item.path for item in items], values, color=color)
    run.console.document(
        {
            "points": [
                {"id": id, "x": float(x), "y": float(y), "cluster": cluster}
                for id, (x, y), cluster in zip(found.ids, found.places, clusters, strict=True)
            ],
            "method": found.method,
            "trustworthiness": found.trustworthiness,
            "new": found.n_new,
            "placed": int(found.placed.sum()),
            "moved": found.moved,
            "file": None if file is None else str(file),
        }
    )
    _say(run, found)
    if file is not None and file.suffix.lower() == ".parquet":
        run.console.say(f"Table: {printable(str(file))}")
    elif file is not None:
        present(run, file, show=show)


def _shown(collection: "Collection", whole: Any, where: str | None) -> tuple[list[Any], Any]:
    """Return the items that match and are on the map, and their part of it."""
    on_it = set(whole.ids)
    items = [item for item in collection.items(where) if item.id in on_it]
    return items, whole.only([item.id for item in items])


def _say(run: Run, found: Any) -> None:
    trust = "" if found.trustworthiness is None else f", trustworthiness {found.trustworthiness:.3f}"
    name = {"umap": "UMAP", "pca": "PCA"}[found.method]
    if found.moved:
        run.console.say(f"{count(len(found.ids), 'image')} laid out by {name}{trust}")
    else:
        run.console.say(
            f"{count(len(found.ids), 'image')} on the map by {name}{trust}; {found.n_new:,} new ones"
            " placed, none moved"
        )
    if len(found.ids) and found.placed.mean() > _MANY_PLACED and not found.moved:
        run.console.note(
            f"{found.placed.mean():.0%} of the images came after the map was laid out; --refit makes a new"
            " one, in which all move"
        )
