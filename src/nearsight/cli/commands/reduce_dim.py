"""`nearsight reduce-dim`."""

import click

from nearsight import text_format
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable


@click.command(
    name="reduce-dim",
    cls=Command,
    json_shape="""{"images": int, "dim": int, "variance_kept": float, "collection",
 "bytes_per_image": int}""",
    examples=("nearsight reduce-dim --dim 256 --out small/", "nearsight reduce-dim --center --out centered/"),
)
@click.option("--dim", type=click.IntRange(min=1), metavar="D", help="Dimensions of a new vector.")
@click.option(
    "--center", is_flag=True, help="Keep all dimensions and only subtract the mean of the images' vectors."
)
@click.option(
    "--out",
    required=True,
    metavar="DIR|URI",
    help="The new collection.",
)
@click.option("--storage", metavar="TYPE", help="float32 or float16. Default: as in this collection.")
@click.pass_obj
def reduce_dim(run: Run, /, *, dim: int | None, center: bool, out: str, storage: str | None) -> None:
    """Copy the collection with shorter or centered vectors.

    Vectors are projected onto their first principal components (PCA), or only centered on their mean, which
    ranks the images of one collection better. No image is embedded again. The new collection can be searched,
    and images can be added to it.
    """
    from nearsight.services.collections import reduced
    from nearsight.store import shown_uri

    if center is (dim is not None):
        raise click.UsageError("Give --dim D or --center; vectors of --dim are centered, too.")
    facts = reduced(run.open_collection(), out, shown=shown_uri(out), dim=dim, storage=storage)
    run.console.document(facts)
    what = "centered" if center else f"{facts['variance_kept']:.1%} of the variance kept"
    run.console.say(
        f"{count(facts['images'], 'image')} with vectors of {facts['dim']:,} dimensions in"
        f" {printable(shown_uri(out))}: {what}, {text_format.size(facts['bytes_per_image'])} per image"
    )
