"""`classify suggest`."""

from pathlib import Path

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run, out_file
from nearsight.text_format import printable


@click.command(
    cls=Command,
    json_shape="""{"predictions": [{"id", "path", "label": label or null, "probability": float or null,
   "unknown": bool}]}""",
    examples=("nearsight classify suggest -n 20 --out labels.csv --open",),
)
@click.option(
    "-n",
    "n",
    type=click.IntRange(min=1),
    metavar="N",
    default=10,
    show_default=True,
    help="Number of images.",
)
@options.from_file("The classifier that `classify fit --to` saved. Default: the collection's own.")
@options.where
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=out_file(".csv"),
    metavar="FILE.csv",
    help="Write a table to fill in, for `classify fit --labels`.",
)
@options.report("suggestions", "Write an HTML report that shows the images, in the order of the table.")
@click.pass_obj
def suggest(
    run: Run,
    /,
    *,
    n: int,
    from_file: Path | None,
    where: str | None,
    out: Path | None,
    report: Path | None,
) -> None:
    """Suggest which images to label next.

    With a fitted classifier, these are images whose label is uncertain and that represent many others.
    Without, they are the images that represent most others.
    """
    from nearsight.services.documents import prediction_document

    collection = run.open_collection()
    suggestions = collection.suggest_labels(n, where=where, file=from_file)
    run.console.document({"predictions": [prediction_document(p) for p in suggestions]})
    rows = [[p.label or "-", f"{p.probability:.2f}" if p.label else "-", p.path or p.id] for p in suggestions]
    header = ("predicted", "probability", "path") if rows else ()
    for line in text_format.table(rows, header=header, right=(1,)):
        run.console.say(line)
    if not rows:
        has_images = collection.count(where) > 0
        run.console.note("All images have a label already." if has_images else text_format.nothing(where))
    if out:
        from nearsight.services.csv_tables import write_column

        write_column(out, "label", [p.path for p in suggestions if p.path])
        if rows:
            run.console.note(f"Fill in the column label of {printable(str(out))}")
    if report is not None:
        from nearsight.reports.classification import write_suggestions

        write_suggestions(report, collection, suggestions)
        run.present_report(report)
