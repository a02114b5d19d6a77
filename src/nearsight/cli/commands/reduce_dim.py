"""`nearsight reduce-dim`."""

from pathlib import Path

import click

import nearsight
from nearsight import text_format
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable


@click.command(
    name="reduce-dim",
    cls=Command,
    json_shape="""{"images": int, "dim": int, "variance_kept": float, "collection",
 "bytes_per_image": int}""",
    examples=("nearsight reduce-dim --dim 256 --out small/",),
)
@click.option(
    "--dim", required=True, type=click.IntRange(min=1), metavar="D", help="Dimensions of a new vector."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The new collection.",
)
@click.option("--storage", metavar="TYPE", help="float32 or float16. Default: as in this collection.")
@click.pass_obj
def reduce_dim(run: Run, /, *, dim: int, out: Path, storage: str | None) -> None:
    """Copy the collection with shorter vectors.

    Vectors are projected onto their first principal components (PCA); no image is embedded again. The new
    collection can be searched, and images can be added to it.
    """
    projection = run.open_collection().reduce_dim(dim, out, storage=storage)
    facts = nearsight.Collection.open(out, cache_dir=run.settings.cache_dir).info()
    run.console.document(
        {
            "images": facts["images"],
            "dim": dim,
            "variance_kept": round(projection.variance_kept, 4),
            "collection": str(out),
            "bytes_per_image": facts["bytes_per_image"],
        }
    )
    run.console.say(
        f"{count(facts['images'], 'image')} with vectors of {dim:,} dimensions in {printable(str(out))}:"
        f" {projection.variance_kept:.1%} of the variance kept,"
        f" {text_format.size(facts['bytes_per_image'])} per image"
    )
