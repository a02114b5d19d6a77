"""`dimension`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run

if TYPE_CHECKING:
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
    neighbors. `reduce-dim` and `index --dim` make such a collection.
    """
    from nearsight.evaluation import advise_dimension
    from nearsight.services.documents import dimension_document
    from nearsight.services.labels import labels_of

    collection = run.open_collection()
    by_id = None if labels is None else labels_of(collection, labels)
    advice = advise_dimension(collection, by_id, keep=keep)
    run.console.document(dimension_document(advice))
    _say(run, advice)
    if report is not None:
        from nearsight.reports.dimension import write_dimension

        write_dimension(report, advice, collection.uri)
        run.present_report(report)


def _say(run: Run, advice: "DimensionAdvice") -> None:
    from nearsight.reports.dimension import dimension_table

    header, *rows = dimension_table(advice)
    for line in text_format.table(rows, header=header, right=range(len(header))):
        run.console.say(line)
    run.console.say()
    run.console.say(advice.rule, bold=True)
    if advice.advised_dim < advice.rows[-1].dim:
        of = shlex.quote(run.shown_collection)
        run.console.say(f"nearsight reduce-dim -c {of} --dim {advice.advised_dim} --out small/")
