"""`dimension`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run

if TYPE_CHECKING:
    from nearsight.collection import Collection
    from nearsight.evaluation import DimensionAdvice


@click.command(
    cls=Command,
    json_shape="""{"advised_dim": int, "rule", "method": "pca" or "truncation", "images": int,
 "dimensions": [{"dim": int, "neighbors_kept": float, "neighbors_kept_interval": [low, high],
   "recall@1": float or null, "recall@1_interval": [low, high] or null, "bytes_per_vector": int,
   "search_ms": float}]}""",
    examples=(
        "nearsight dimension -c photos",
        "nearsight dimension -c shop --labels category --open",
    ),
)
@click.option(
    "--labels",
    metavar="LABELS",
    help="Judge by labels: `folder` (the folder of each image), or a metadata key.  [default: by neighbors]",
)
@click.option(
    "--keep",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    metavar="SHARE",
    help="Without labels: the share of the ten nearest neighbors to keep.",
)
@options.report("dimension", "Write an HTML report of the curve.")
@click.pass_obj
def dimension(run: Run, /, *, labels: str | None, keep: float, report: Path | None) -> None:
    """Say how many numbers of a vector are enough.

    Vectors are shortened by their principal components (PCA), or truncated where the model was trained for
    it, on images that the components were not learned from. With labels, the fewest numbers within one
    standard error of the best recall@1 are advised; without, the fewest that keep a share of the ten nearest
    neighbors. The last line names the command that makes such a collection.
    """
    from nearsight.evaluation import advise_dimension
    from nearsight.services.documents import dimension_document
    from nearsight.services.labels import labels_of

    collection = run.open_collection()
    by_id = None if labels is None else labels_of(collection, labels)
    advice = advise_dimension(collection, by_id, keep=keep)
    run.console.document(dimension_document(advice))
    _say(run, advice, collection)
    if report is not None:
        from nearsight.reports.dimension import write_dimension

        write_dimension(report, advice, collection.uri)
        run.present_report(report)


def _say(run: Run, advice: "DimensionAdvice", collection: "Collection") -> None:
    from nearsight.reports.dimension import dimension_table

    header, *rows = dimension_table(advice)
    for line in text_format.table(rows, header=header, right=range(len(header))):
        run.console.say(line)
    run.console.say()
    run.console.say(advice.rule, bold=True)
    if advice.advised_dim < advice.rows[-1].dim:
        run.console.say(shortening(collection, run.shown_collection, advice.advised_dim))


def shortening(collection: "Collection", place: str, dim: int) -> str:
    """Return the command that gives the images of a collection vectors of `dim` numbers."""
    from nearsight.analyses.dimension_reduction import is_reduced
    from nearsight.models.model_name import ModelVariant

    of = shlex.quote(place)
    if collection.spec.matryoshka_dims:
        name = ModelVariant(dim=dim).applied_to(collection.model_name)
        return f"nearsight upgrade -c {of} --to {shlex.quote(name)}"
    if is_reduced(collection):
        return (
            "Reduced or centered vectors cannot be reduced again. Start from the collection that this one was"
            f" made from (nearsight reduce-dim -c ORIGINAL --dim {dim} --out small/), or from the images"
            f" (nearsight index PATH -c small/ --dim {dim})."
        )
    return f"nearsight reduce-dim -c {of} --dim {dim} --out small/"
