"""`segment-customers`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable, shortened

if TYPE_CHECKING:
    from nearsight.analyses.customer_segments import Segmentation


@click.command(
    cls=Command,
    json_shape="""{"segments": [{"id": int, "size": int, "name": text or null, "customers": [customer],
   "representatives": [id], "spread": float or null, "words": [text]}],
 "customers": {customer: segment, or -1 for rejected}, "rejected": [customer],
 "unknown": {image: lines}, "ambiguous": {image: [path]}, "silhouette": float or null}""",
    examples=(
        "nearsight segment-customers orders.csv --open",
        "nearsight segment-customers orders.csv --k 5 --to segments.npz",
        "nearsight segment-customers new-orders.csv --from segments.npz",
    ),
)
@click.argument("csv", metavar="CSV", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--k", "-k", type=click.IntRange(min=1), metavar="K", help="Number of segments. Default: the most stable."
)
@options.naming("segments")
@options.to_file("Save the segments for --from. The file holds no customer's name.", ".npz")
@options.from_file("Assign customers to these saved segments instead of segmenting again.")
@options.false_alarm_rate("Share of customers like these that --from may reject.  [default: 0.05]")
@options.report("segments")
@click.pass_obj
def segment_customers(
    run: Run,
    /,
    *,
    csv: Path,
    k: int | None,
    words: list[str] | None,
    to_file: Path | None,
    from_file: Path | None,
    false_alarm_rate: float | None,
    report: Path | None,
) -> None:
    """Segment customers by the images of what they bought.

    CSV has the columns customer, image and, optionally, weight. An image is an id, a path, a file name, or
    a file name without its ending, such as an article number. Images that are not in the collection are
    skipped and listed. Customers are compared by the mean of their images' vectors and by how much these
    vary. Without --k, the number of segments is the one on which two halves of the customers agree best.

    --to saves the segments, and --from assigns other customers to them without changing them. Customers
    who resemble no segment are rejected.
    """
    from nearsight.analyses.customer_segments import Segmentation
    from nearsight.services.customer_segments import customer_lines, segmentation_document

    fit_options = options.without_none(k=k, words=words, false_alarm_rate=false_alarm_rate)
    if from_file is not None and (fit_options or to_file):
        raise click.UsageError(
            "--from uses segments as they were saved; combine it only with a CSV file, --html and --open"
        )
    collection = run.open_collection()
    lines, resolution = customer_lines(collection, csv)
    if from_file is not None:
        segmentation = collection.assign_customers(Segmentation.load(from_file), lines)
    else:
        segmentation = collection.segment_customers(lines, progress=run.console.progress, **fit_options)
    if to_file is not None:
        segmentation.save(to_file)
    run.console.document(segmentation_document(segmentation, resolution))
    _say(run, segmentation)
    if from_file is not None:
        _say_rejected(run, segmentation)
    elif math.isfinite(segmentation.silhouette):
        run.console.note(f"Silhouette {segmentation.silhouette:.2f} (1: distinct segments, 0: a continuum).")
    for line in resolution.report(str(csv)):
        run.console.warn(line)
    if k is None and from_file is None and len(segmentation.segments) == 1 < len(segmentation.customers):
        run.console.note("Two halves of the customers agree on no segmentation; --k K makes K segments.")
    if to_file is not None:
        run.console.note(f"Segments saved to {printable(str(to_file))}; --from assigns customers to them.")
        if not segmentation.can_reject:
            run.console.note("There are too few customers to learn a threshold, so --from rejects nobody.")
    if report:
        from nearsight.reports.customer_segments import write_segments

        write_segments(report, collection, segmentation)
        run.present_report(report)


def _say(run: Run, segmentation: "Segmentation") -> None:
    rows = [
        [
            str(segment.id),
            f"{len(segment.customers):,}",
            "-" if math.isnan(segment.spread) else f"{segment.spread:.2f}",
            segment.name or "",
            shortened(segment.customers),
        ]
        for segment in segmentation.segments
    ]
    header = ("id", "customers", "spread", "name", "typical customers")
    for line in text_format.table(rows, header=header, right=(0, 1, 2)):
        run.console.say(line)


def _say_rejected(run: Run, segmentation: "Segmentation") -> None:
    rejected = segmentation.rejected
    names = f": {printable(shortened(rejected))}" if rejected else ""
    run.console.note(
        f"{count(len(rejected), 'customer')} of {len(segmentation.customers):,} rejected{names}."
    )
