"""`audit`."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands.classify.labels import read
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.audit import Audit
    from nearsight.collection import AddReport, Collection
    from nearsight.images import Exclusions

# Paths of each kind that the terminal lists; --json and --html have all.
_N_SHOWN = 5


@click.command(
    cls=Command,
    json_shape="""{"issues": [{"kind", "ids", "paths", "severity": float, "detail"}], "counts": {kind: int},
 "images": int, "classes": {label: int}, "limits": {kind: float}, "false_alarm_rate": float,
 "notes": [str], "label_cuts": [{"cut", "images": int, "precision": float or null, "recall": float}],
 "coverage": [{"split", "images": int, "covered": float, "radius": float,
   "classes": {label: {"images": int, "covered": int}}}]}
 or with --apply: {"removed": [path], "trash_entry": str or null, "labeled": int,
 "refused": [{"path", "reason"}], "unknown": [path]}""",
    examples=(
        "nearsight audit photos/ --open",
        "nearsight audit -c shop --labels folder --html audit.html",
        "nearsight audit --csv issues.csv && $EDITOR issues.csv && nearsight audit --apply issues.csv",
        "nearsight audit dataset/ --labels folder --good checked/ --false-alarm-rate 0.02",
    ),
)
@options.paths_named("[PATH...]", required=False)
@click.option(
    "--labels",
    metavar="LABELS",
    help="Check labels, too: `folder` (the folder of each image), a CSV file with the columns path and label,"
    " or a metadata key.",
)
@click.option(
    "--split",
    metavar="KEY",
    help="Metadata key of the split, to find leaks. Default: folders named train, validation or test.",
)
@click.option(
    "--good",
    metavar="PATH",
    type=click.Path(),
    callback=options.existing_path,
    help="Learn the limits on these good images. Default: limits of ordinary photographs.",
)
@options.false_alarm_rate(
    "Share of good images that may be called blurred, dark, bright or flat.  [default: 0.01]"
)
@click.option(
    "--csv",
    "table",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a table of the issues with an empty column `decision` to fill in.",
)
@click.option(
    "--apply",
    "decided",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Carry out the decisions in such a table: keep, remove, or label=NAME. Nothing else is done.",
)
@options.where
@options.report("audit", "Write an HTML report of the issues by kind.")
@options.model
@options.device
@options.walk
@options.strict
@click.pass_obj
def audit(
    run: Run,
    /,
    *,
    paths: tuple[str, ...],
    labels: str | None,
    split: str | None,
    good: str | None,
    false_alarm_rate: float | None,
    table: Path | None,
    decided: Path | None,
    where: str | None,
    report: Path | None,
    model: str | None,
    exclusions: "Exclusions",
) -> int:
    """Report faulty, duplicate and mislabeled images.

    With PATH, these images are embedded for this run only. Without, the collection is audited.

    Faults of single images: blurred, dark, bright, low contrast (by limits that a stated share of good images
    exceeds), near constant (hardly any range), tiny (a side of less than 64 pixels), odd aspect (a longer
    side of more than 3 times the shorter) and unreadable. Then outliers, duplicates, leaks between splits,
    and images of test or validation that train has nothing like. With --labels also one image with two
    labels, labels that are probably wrong or doubtful, with the share of wrong ones to be expected in each of
    three cuts, and rare classes; labels are merged as by `classify fit --doubtful-labels merge`, with a note.
    Nothing is changed.

    --csv writes what was found as a table. Fill in its column `decision`, and --apply carries that out: files
    go into the collection's trash, from which `trash --restore` brings them back, and labels into the
    metadata key of --labels, else `label`.
    """
    if decided is not None:
        if paths or table or report:
            raise click.UsageError("--apply carries out decisions and does nothing else; leave out the rest")
        return _apply(run, decided, labels)
    if model is not None and not paths:
        raise click.UsageError("the collection has its model; leave out --model, or give PATH")
    if paths and labels not in (None, "folder") and not Path(labels).exists():
        # Images that are embedded for this run have no metadata: a wrong name is told before they are.
        read(run, None, labels, "merge", None, exclusions)
    with ExitStack() as stack:
        collection, added = _opened(run, stack, paths, model, exclusions)
        result = _audited(run, stack, collection, labels, split, good, where, false_alarm_rate, exclusions)
        result = _with_unreadable(result, added)
        from nearsight.services.documents import audit_document

        run.console.document(audit_document(result))
        _say(run, result)
        if table is not None:
            from nearsight.services.curation import write_issues

            n_rows = write_issues(table, result)
            run.console.note(f"{count(n_rows, 'row')} to decide in {printable(str(table))}.")
            if not paths and n_rows:
                key = _label_key(labels)
                of_key = [] if key is None else ["--labels", key]
                run.console.note(f"Then: {printable(run.command('audit', '--apply', str(table), *of_key))}")
        if report is not None:
            from nearsight.reports.audit import write_audit

            write_audit(report, collection, result, ", ".join(paths) or collection.uri)
            run.present_report(report)
        return run.report_failures(added.failed if added else [], n_images=result.n_images)


def _label_key(labels: str | None) -> str | None:
    """Return the metadata key that labels were read from; None for folders, tables, and no labels."""
    return None if labels in (None, "folder") or Path(str(labels)).exists() else labels


def _apply(run: Run, file: Path, labels: str | None) -> int:
    from nearsight.errors import InvalidParameterError
    from nearsight.services.curation import LABEL_KEY, apply_decisions, read_decisions

    decisions, collection = read_decisions(file), run.open_collection()
    key = _label_key(labels)
    if key is not None and key not in (known := collection.info()["metadata"]):
        raise InvalidParameterError(
            f"no image has the metadata {key!r}; known are {', '.join(known) or 'none'}. Without --labels,"
            " labels become the metadata 'label'"
        )
    result = apply_decisions(collection, decisions, **options.without_none(label_key=key))
    entry = result.removed.entry if result.removed else None
    refused = result.removed.refused if result.removed else []
    run.console.document(
        {
            "removed": [moved.path for moved in entry.files] if entry else [],
            "trash_entry": entry.id if entry else None,
            "labeled": result.labeled,
            "refused": [{"path": one.path, "reason": one.reason} for one in refused],
            "unknown": [decision.path for decision in result.unknown],
        }
    )
    if entry:
        run.console.say(
            f"{count(len(entry.files), 'file')} moved to the trash; nearsight trash --restore {entry.id}"
            " brings them back."
        )
    if result.labeled:
        run.console.say(f"{count(result.labeled, 'image')} labeled: metadata {printable(key or LABEL_KEY)}.")
    if not decisions:
        run.console.say("The table holds no decision.")
    for one in refused:
        run.console.note(f"Note: {printable(one.path)} stays: {one.reason}")
    for decision in result.unknown:
        run.console.note(f"Note: line {decision.line}: {printable(decision.path)} is not in the collection.")
    return 0


def _opened(
    run: Run, stack: ExitStack, paths: tuple[str, ...], model: str | None, exclusions: "Exclusions"
) -> "tuple[Collection, AddReport | None]":
    from nearsight.services.collections import temporary_collection

    if not paths:
        return run.open_collection(), None
    return stack.enter_context(
        temporary_collection(
            paths,
            model=model,
            device=run.device,
            cache_dir=run.settings.cache_dir,
            exclude=exclusions.patterns,
            include_hidden=exclusions.include_hidden,
            progress=run.console.progress,
        )
    )


def _audited(
    run: Run,
    stack: ExitStack,
    collection: "Collection",
    labels: str | None,
    split: str | None,
    good: str | None,
    where: str | None,
    false_alarm_rate: float | None,
    exclusions: "Exclusions",
) -> "Audit":
    from nearsight import images
    from nearsight.analyses.audit import audit
    from nearsight.analyses.labeled_images import folders_by_path

    good_images = None
    if good is not None:
        images.require_any(good, exclusions=exclusions)
        good_images, _ = _opened(run, stack, (good,), collection.model_name, exclusions)
    by_name = None
    if labels == "folder":
        by_name = folders_by_path(collection, where)
    elif labels is not None:
        by_name = read(run, collection, labels, "merge", where, exclusions)
    return audit(
        collection,
        labels=by_name,
        split=split,
        where=where,
        good=good_images,
        progress=run.console.progress,
        **options.without_none(false_alarm_rate=false_alarm_rate),
    )


def _with_unreadable(result: "Audit", added: "AddReport | None") -> "Audit":
    from nearsight.analyses.audit import Issue

    failed = added.failed if added else []
    unreadable = [Issue("unreadable", [], [failure.path], 1.0, failure.reason) for failure in failed]
    return replace(result, issues=[*unreadable, *result.issues])


def _say(run: Run, result: "Audit") -> None:
    total = count(len(result.issues), "issue") if result.issues else "No issues"
    run.console.say(f"{total} in {count(result.n_images, 'image')}")
    for kind, n in result.counts.items():
        run.console.say()
        run.console.say(f"{kind.replace('_', ' ')}: {n:,}", bold=True)
        issues = [issue for issue in result.issues if issue.kind == kind]
        rows = [
            [
                f"{issue.severity:.2f}",
                printable((issue.paths or issue.ids or [""])[0]),
                printable(issue.detail),
            ]
            for issue in issues[:_N_SHOWN]
        ]
        for line in text_format.table(rows, right=(0,)):
            run.console.say(f"  {line}")
        if n > _N_SHOWN:
            run.console.say(f"  and {n - _N_SHOWN:,} more; --json and --html list all")
    for part in result.coverage:
        run.console.say()
        run.console.say(
            f"Of {part.split}, {part.share:.0%} lies as near to an image of train as 95 % of train does."
        )
    if any(cut.n for cut in result.label_cuts):
        from nearsight.analyses.label_check import cut_sentence

        run.console.say()
        run.console.say("Labels, from the most suspect on:", bold=True)
        for cut in result.label_cuts:
            run.console.say(f"  {cut_sentence(cut)}")
    for note in result.notes:
        run.console.note(f"Note: {note}.")
