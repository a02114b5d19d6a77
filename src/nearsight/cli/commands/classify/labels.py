"""The options of commands that read labels, and the labels that they name."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from nearsight.cli import options
from nearsight.cli.framework import Run
from nearsight.text_format import nfc

if TYPE_CHECKING:
    from nearsight.analyses.labeled_images import Contradictions
    from nearsight.collection import Collection
    from nearsight.images import Exclusions

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--labels",
        required=True,
        metavar="LABELS",
        help="`folder` (the folder of each image in the collection), a folder with one subfolder per class, a"
        " CSV file with the columns path and label, or a metadata key.",
    ),
    click.option(
        "--doubtful-labels",
        "doubtful",
        type=click.Choice(["refuse", "merge", "drop", "keep"]),
        default="refuse",
        show_default=True,
        help="Labels that differ in case or blanks only, words for missing values, several labels in one"
        " cell, and images with two labels. refuse: list them and stop; merge: take one spelling of each"
        " label, and leave the others out; drop: leave them all out; keep: take them as they are written.",
    ),
)


def labels(command: _F) -> _F:
    """Add `--labels` and `--doubtful-labels`; the command gets `labels` and `doubtful`, for `read`."""
    return options.add_options(command, _OPTIONS)


def read(
    run: Run,
    collection: "Collection | None",
    labels: str,
    doubtful: str,
    where: str | None,
    exclusions: "Exclusions",
) -> dict[str, str]:
    """Return labels by id or path, and say which were merged or left out."""
    from nearsight.services.csv_tables import read_labels
    from nearsight.services.doubtful_labels import LabelTreatment, settle_labels
    from nearsight.services.labels import labels_of, resolve_labels

    if Path(labels).is_file():
        pairs, resolution = resolve_labels(collection, read_labels(Path(labels)), Path(labels))
        for line in resolution.report(labels):
            run.console.warn(line)
    else:
        pairs = list(labels_of(collection, labels, where, exclusions).items())
    # Labels in two forms of Unicode are one.
    pairs = [(name, nfc(label)) for name, label in pairs]
    settled, doubts = settle_labels(pairs, cast(LabelTreatment, doubtful))
    if doubtful in ("merge", "drop"):
        for doubt in doubts:
            is_merged = doubtful == "merge" and doubt.kind == "spelling"
            run.console.note(f"{'Merged' if is_merged else 'Left out'}: {doubt}", fg="yellow")
    return settled


def contradictions(doubtful: str) -> "Contradictions":
    """Return what happens to one image with two labels under two names."""
    return "drop" if doubtful in ("merge", "drop") else "raise"
