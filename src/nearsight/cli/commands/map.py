"""`map`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight.cli import options
from nearsight.cli.framework import BadInputError, Command, Run, out_file
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.map import ImageMap

# The metadata key that colors the map by default.
_CLUSTER = "cluster"
# From this share of later images on, a new map would show more.
_MAX_SHARE_PLACED = 0.3
# From this many images on, laying them out takes minutes.
_SLOW_N_IMAGES = 5_000


@click.command(
    name="map",
    cls=Command,
    json_shape="""{"points": [{"id", "x": float, "y": float, "cluster": value or null}], "method",
 "trustworthiness": float or null, "new": int, "placed": int, "moved": bool, "file": file or null}""",
    examples=(
        "nearsight map --open",
        "nearsight map --html map.html --color season",
        "nearsight map --out map.parquet",
        "nearsight map --refit",
    ),
)
@options.where
@click.option(
    "--color",
    metavar="KEY",
    help="Color the points by this metadata key. Default: `cluster`, if the images have that key, else the"
    " clusters that `nearsight cluster` saved in the collection.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "umap", "pca"]),
    help="Method for a new map. auto: UMAP if it is installed, else PCA.",
)
@click.option("--refit", is_flag=True, help="Compute a new map, in which every image moves.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=out_file(".parquet"),
    metavar="FILE.parquet",
    help="Write a table with the columns of Apple's embedding-atlas.",
)
@options.report("map", "Write an interactive HTML map.")
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
    report: Path | None,
) -> None:
    """Map images to a plane by similarity.

    Similar images lie close together. Colors are clusters, and the report shows their names. The map is
    saved in the collection. Images that are added later are placed on it, and no image moves until --refit
    computes a new map.
    """
    from nearsight.services.map import place_on_map, saved_clusters

    collection = run.open_collection()
    keys = list(collection.info()["metadata"])
    if color is not None and color not in keys:
        raise BadInputError(
            f"no image has the metadata key {color!r} to color by; the keys are: {', '.join(keys) or 'none'}"
        )
    clusters = {} if color or _CLUSTER in keys else saved_clusters(collection, where)
    color = color or (_CLUSTER if _CLUSTER in keys or clusters else None)
    if len(collection) > _SLOW_N_IMAGES:
        run.console.note("The first map of many images takes minutes; placing new images takes less.")
    layout = collection.layout_2d(refit=refit, method=method, progress=run.console.progress)
    items, layout = place_on_map(collection, layout, where)
    values: dict[str, list[Any]] = {key: [item.metadata.get(key) for item in items] for key in keys}
    if clusters:
        nowhere: tuple[int | None, str | None] = (None, None)
        values[_CLUSTER] = [clusters.get(item.id, nowhere)[0] for item in items]
        values[f"{_CLUSTER}_label"] = [clusters.get(item.id, nowhere)[1] for item in items]
    colors = values[color] if color else [None] * len(items)
    if out is not None:
        from nearsight.analyses.embedding_atlas import write_embedding_atlas

        write_embedding_atlas(out, collection, layout, items)
    if report is not None:
        from nearsight.reports.map import write_map

        exif = [item.exif() for item in items]
        write_map(report, collection, layout, [item.path for item in items], values, color=color, exif=exif)
    file = report or out
    run.console.document(
        {
            "points": [
                {"id": id, "x": float(x), "y": float(y), "cluster": cluster}
                for id, (x, y), cluster in zip(layout.ids, layout.positions, colors, strict=True)
            ],
            "method": layout.method,
            "trustworthiness": layout.trustworthiness,
            "new": layout.n_new,
            "placed": int(layout.is_added.sum()),
            "moved": layout.is_new_layout,
            "file": None if file is None else str(file),
        }
    )
    _say(run, layout)
    if out is not None:
        run.console.note(f"Table: {printable(str(out))}")
    if report is not None:
        run.present_report(report)


def _say(run: Run, layout: "ImageMap") -> None:
    trustworthiness = (
        "" if layout.trustworthiness is None else f", trustworthiness {layout.trustworthiness:.3f}"
    )
    method = {"umap": "UMAP", "pca": "PCA"}[layout.method]
    n_images = count(len(layout.ids), "image")
    if layout.is_new_layout:
        run.console.say(f"New map of {n_images} by {method}{trustworthiness}")
        return
    run.console.say(f"Map of {n_images} by {method}{trustworthiness}; {layout.n_new:,} new, none moved")
    if len(layout.ids) and layout.is_added.mean() > _MAX_SHARE_PLACED:
        run.console.note(
            f"{layout.is_added.mean():.0%} of the images were added after the map was computed; --refit"
            " computes a new map, in which every image moves"
        )
