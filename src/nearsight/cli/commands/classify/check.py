"""`classify check`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands.classify.labels import contradictions, read
from nearsight.cli.commands.classify.labels import labels as labels_options
from nearsight.cli.framework import Command, Run, out_file
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.label_check import LabelCheck
    from nearsight.images import Exclusions

# The table in the terminal is not wider than this.
_MAX_CLASSES_SHOWN = 15


@click.command(
    cls=Command,
    json_shape="""{"images": int, "accuracy": float, "expected_errors": int,
 "classes": [{"label", "images": int, "accuracy": float or null}], "confusion": [[int]],
 "suspects": [{"id", "path", "label", "suggested", "probability": float, "margin": float,
   "likely": bool, "cut"}], "cuts": [{"cut", "images": int, "precision": float or null, "recall": float}],
 "failed": [{"path", "reason"}]}""",
    examples=(
        "nearsight classify check --labels folder --open",
        "nearsight classify check --labels labels.csv --out review.csv",
    ),
)
@labels_options
@options.where
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=out_file(".csv"),
    metavar="FILE.csv",
    help="Write a table of all labels, the suspects first: path, label and suggested. Correct the column"
    " label, for `classify fit --labels`.",
)
@options.report("labels", "Write an HTML report: confusion matrix, and the images whose label is suspect.")
@options.walk
@options.strict
@click.pass_obj
def check(
    run: Run,
    /,
    *,
    labels: str,
    doubtful: str,
    where: str | None,
    out: Path | None,
    report: Path | None,
    exclusions: "Exclusions",
) -> int:
    """Find labels that are probably wrong.

    Each image is classified by the others, never by itself (leave-one-out cross-validation). Suspects are
    images that look more like another class, the most probable errors first. `likely` marks as many as there
    are wrong labels by estimate, and three cuts say which share of the first so many is wrong. Look before
    you correct: some are merely unusual. Classes with fewer than 5 images are not judged. The rows of the
    confusion matrix are labels, its columns predictions.
    """
    from nearsight.analyses.label_check import check_labels
    from nearsight.services.documents import label_check_document

    collection = run.open_collection()
    result = check_labels(
        collection,
        read(run, collection, labels, doubtful, where, exclusions),
        contradictions=contradictions(doubtful),
        progress=run.console.progress,
    )
    run.console.document(label_check_document(result))
    _say(run, result)
    if out is not None:
        from nearsight.services.csv_tables import write_columns

        rows = [[s.path or s.id, s.label, s.suggested] for s in result.suspects]
        rows += [[name, label, ""] for name, label in result.others]
        write_columns(out, ["path", "label", "suggested"], rows)
        run.console.note(f"Correct the column label of {printable(str(out))}")
    if report is not None:
        from nearsight.reports.label_check import write_label_check

        write_label_check(report, collection, result)
        run.present_report(report)
    return run.report_failures(result.failed, n_images=result.n_images)


def _say(run: Run, result: "LabelCheck") -> None:
    n_likely = sum(suspect.likely for suspect in result.suspects)
    run.console.say(
        f"{count(result.n_images, 'image')} of {count(len(result.classes), 'class', 'classes')};"
        f" cross-validated accuracy {result.accuracy:.0%};"
        f" {f'about {result.n_expected:,}' if result.n_expected else 'none'} of the labels probably wrong"
    )
    if len(result.classes) <= _MAX_CLASSES_SHOWN:
        names = [facts.label for facts in result.classes]
        rows = [[name, *map(str, line)] for name, line in zip(names, result.confusion, strict=True)]
        header = ("label", *(name[:10] for name in names))
        run.console.say()
        for line in text_format.table(rows, header=header, right=tuple(range(1, len(header)))):
            run.console.say(line)
    rows = [
        [s.label, s.suggested, f"{s.probability:.2f}", s.path or s.id] for s in result.suspects[:n_likely]
    ]
    if rows:
        run.console.say()
    header = ("label", "suggested", "probability", "path") if rows else ()
    for line in text_format.table(rows, header=header, right=(2,)):
        run.console.say(line)
    if result.suspects:
        from nearsight.analyses.label_check import cut_sentence

        run.console.say()
        for cut in result.cuts:
            run.console.say(cut_sentence(cut))
    if (n_more := len(result.suspects) - n_likely) > 0:
        run.console.note(f"{n_more:,} more images look more like another class; --json and --html list them.")
