"""`duplicates`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight.cli import options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.duplicate_groups import DuplicateGroup, Duplicates


@click.command(
    cls=Command,
    json_shape="""{"groups": [{"keep": id, "ids": [id], "similarity": float, "certain": bool,
             "agreement": float, "verified_against": [id], "paths": [path], "redundant": [path],
             "review": [path], "hard_links": [path], "doubts": [text or null], "why"}],
 "leaks": [{"ids": [id, id], "paths": [path, path], "similarity": float, "agreement": float}],
 "images": int, "threshold": float, "false_alarm_rate": float or null, "expected_rate": float}""",
    examples=(
        "nearsight duplicates --open",
        "nearsight duplicates --false-alarm-rate 0.001 --html duplicates.html",
        "nearsight duplicates --false-alarm-rate 0.01 --distinct-where \"path LIKE '%/originals/%'\"",
        "nearsight duplicates --between \"path LIKE '%/train/%'\" \"path LIKE '%/test/%'\"",
        "nearsight duplicates --list-redundant -0 | xargs -0 -r trash",
    ),
)
@options.false_alarm_rate(
    "Learn a match threshold on this collection: at most this share of images without a duplicate get a false"
    " match."
)
@click.option(
    "--distinct-where",
    metavar="EXPR",
    help="With --false-alarm-rate: learn the threshold on these images, no two of which are duplicates.",
)
@options.where
@click.option(
    "--between",
    nargs=2,
    metavar="EXPR EXPR",
    help="Find only duplicates across two sets (leaks), such as training and test images.",
)
@click.option("--list-redundant", is_flag=True, help="Print only files that can certainly go, one per line.")
@click.option(
    "--all",
    "include_review",
    is_flag=True,
    help="With --list-redundant: also print files that need a look first.",
)
@options.null("--list-redundant")
@options.report("duplicates", "Write an HTML report that shows duplicates side by side.")
@click.pass_obj
def duplicates(
    run: Run,
    /,
    *,
    false_alarm_rate: float | None,
    distinct_where: str | None,
    where: str | None,
    between: tuple[str, str] | None,
    list_redundant: bool,
    include_review: bool,
    null: bool,
    report: Path | None,
) -> None:
    """Find near-duplicates, and which image to keep.

    Duplicates are identical files. Near-duplicates are one image re-encoded, resized, cropped, rotated,
    mirrored, recolored or watermarked. Vectors propose pairs, and a comparison of their pixels confirms them:
    images that merely look alike are not near-duplicates. Nothing is deleted.

    The image to keep is the one that lost least: color, detail, compression, metadata, then bytes. Of
    identical files, the oldest is kept, and none in a bin, a cache or Downloads.

    A file is certain to be redundant if it is identical to the kept one, or if its pixels agree by 0.80 or
    more and the kept image is at least as good in every respect. All others need a look first (review):
    --list-redundant does not print them without --all. If many images of the collection agree almost as well
    as near-duplicates do, only identical files are certain, and --all adds none.
    """
    if null and not list_redundant:
        raise click.UsageError("-0 changes how --list-redundant ends a file name; add --list-redundant")
    if include_review and not list_redundant:
        raise click.UsageError("--all changes what --list-redundant prints; add --list-redundant")
    if list_redundant and (run.console.as_json or between):
        raise click.UsageError(
            "--list-redundant works neither with --json, which lists these files too, nor with --between"
        )
    if distinct_where and false_alarm_rate is None:
        raise click.UsageError("--distinct-where needs a rate to learn; add --false-alarm-rate R")
    collection = run.open_collection()
    find = partial(collection.find_leaks, *between) if between else collection.find_duplicates
    result = find(
        where=where,
        false_alarm_rate=false_alarm_rate,
        distinct_where=distinct_where,
        progress=run.console.progress,
    )
    if list_redundant:
        _list_redundant(run, result, null=null, include_review=include_review)
    else:
        from nearsight.services.documents import duplicates_document

        run.console.document(duplicates_document(result))
        _say(run, result, is_leak=bool(between))
    if result.n_without_thumbnail:
        n_skipped = count(result.n_without_thumbnail, "image")
        run.console.note(f"{n_skipped} without a thumbnail could not be compared.")
    if result.is_doubtful:
        run.console.warn(
            "Many images here, such as shots of one scene, agree almost as well as near-duplicates do."
            f" Expected false matches: up to {result.expected_rate:.0%} of images without a duplicate."
            " Check the groups before you delete files (--open), or state a rate and the images to learn it"
            " on (--false-alarm-rate R --distinct-where EXPR)."
        )
    if report:
        from nearsight.reports.duplicates import write_duplicates

        write_duplicates(report, collection, result)
        run.present_report(report)


def _list_redundant(run: Run, result: "Duplicates", *, null: bool, include_review: bool) -> None:
    from nearsight.services.duplicates import redundant_files

    redundant = redundant_files(result, include_review=include_review)
    run.console.paths(redundant.paths, null=null, to_delete=True)
    if redundant.n_review:
        remedy = "look at them with --open" + ("" if result.is_doubtful else ", or list them with --all")
        run.console.note(f"{count(redundant.n_review, 'file')} not listed, to review first: {remedy}.")
    if redundant.n_hard_links:
        n_links = count(redundant.n_hard_links, "hard link")
        run.console.note(f"{n_links} of kept files not listed: deleting them frees nothing.")
    if redundant.n_remote:
        run.console.note(f"{count(redundant.n_remote, 'more')} in shards or at URLs are not listed.")
    if redundant.n_without_kept:
        run.console.warn(
            f"{count(redundant.n_without_kept, 'group')} not listed: the file to keep is missing or has"
            " changed. nearsight index --prune updates the collection."
        )


def _say(run: Run, result: "Duplicates", *, is_leak: bool) -> None:
    if is_leak:
        from nearsight.services.documents import leak_document

        for leak in result.leaks:
            paths = leak_document(leak)["paths"]
            run.console.say(printable("  ".join([f"{leak.agreement:.3f}", *paths])))
        run.console.say(f"{count(len(result.leaks), 'leak')} among {count(result.n_images, 'image')}")
        return
    if result.groups:
        run.console.say("      agreement")
    for group in result.groups:
        _say_group(run, group)
    n_redundant, n_review = (
        (
            sum(map(len, files))
            for files in zip(*((group.redundant, group.review) for group in result.groups), strict=True)
        )
        if result.groups
        else (0, 0)
    )
    run.console.say(
        f"{len(result.groups):,} of {count(result.n_images, 'image')} have duplicates;"
        f" {count(n_redundant, 'file')} redundant{f', {n_review:,} to review' if n_review else ''}"
        f" (match threshold: agreement above {result.threshold:.2f})"
    )


def _say_group(run: Run, group: "DuplicateGroup") -> None:
    run.console.say(printable(f"keep  {group.keep.path or group.keep.id}"), bold=True)
    run.console.say(f"      Kept: {group.why}")
    for path in group.hard_links:
        run.console.say(printable(f"      {'hard link':11}{path} (deleting it frees nothing)"))
    for path in group.keep.paths[1:]:
        run.console.say(printable(f"      {'identical':11}{path}"))
    names = {item.id: item.path or item.id for item in group.items}
    for item, agreement, by, doubt in zip(
        group.items[1:], group.agreements, group.verified_against, group.doubts, strict=True
    ):
        matched = "" if by == group.keep.id else f" (matched with {names[by]})"
        for path in item.paths:
            run.console.say(printable(f"      {agreement:<11.3f}{path}{matched}"))
        if doubt:
            run.console.say(f"      {'':11}Review: {doubt}")
