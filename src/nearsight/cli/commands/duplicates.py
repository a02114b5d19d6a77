"""Finding what is there more than once: `dups`."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nearsight.cli import options
from nearsight.cli.commands.search import present
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.duplicates import DuplicateGroup, Duplicates, Leak
    from nearsight.collection.schema import Item


@click.command(
    cls=Command,
    json_shape="""{"groups": [{"keep": id, "ids": [id], "similarity": float, "agreement": float,
             "against": [id], "paths": [path], "redundant": [path], "why"}],
 "leaks": [{"ids": [id, id], "paths": [path, path], "similarity": float, "agreement": float}],
 "images": int, "threshold": float, "false_alarm_rate": float or null, "expected_rate": float}""",
    examples=(
        "nearsight dups --open",
        "nearsight dups --false-alarm-rate 0.001 --out copies.html",
        "nearsight dups --false-alarm-rate 0.01 --distinct \"path LIKE '%/originals/%'\"",
        "nearsight dups --between \"path LIKE '%/train/%'\" \"path LIKE '%/test/%'\"",
        "nearsight dups --list-redundant -0 | xargs -0 -r trash",
    ),
)
@click.option(
    "--false-alarm-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="R",
    help="Share of images without a copy that may be given one; learned on this collection.",
)
@click.option(
    "--distinct",
    metavar="EXPR",
    help="With --false-alarm-rate: learn it on these images, of which no two are copies.",
)
@options.where
@click.option(
    "--between", nargs=2, metavar="EXPR EXPR", help="Only copies of images of one set in another: leaks."
)
@click.option("--list-redundant", is_flag=True, help="Print only the files not needed, one a line.")
@click.option("-0", "--null", is_flag=True, help="With --list-redundant: end each name with NUL.")
@options.page("Write a page of the copies side by side.")
@click.pass_obj
def dups(
    run: Run,
    /,
    false_alarm_rate: float | None,
    distinct: str | None,
    where: str | None,
    between: tuple[str, str] | None,
    list_redundant: bool,
    null: bool,
    out: Path | None,
    show: bool,
) -> None:
    """Find copies of one image, and which to keep.

    Found are files of the same bytes, and copies that were re-encoded, resized, cropped, turned a little or
    by quarters, mirrored, recolored or marked. Vectors propose, pixels confirm: what is merely similar is
    no copy. Nothing is ever deleted. --list-redundant names what could be: every file it names is there in a
    better copy.
    """
    if null and not list_redundant:
        raise click.UsageError("-0 says how --list-redundant ends a name; add --list-redundant")
    if list_redundant and (run.console.as_json or between):
        raise click.UsageError("--list-redundant goes with neither --json, which has them, nor --between")
    if distinct and false_alarm_rate is None:
        raise click.UsageError("--distinct says what a rate is learned on; add --false-alarm-rate R")
    collection = run.open_collection()
    find = partial(collection.find_leaks, *between) if between else collection.find_duplicates
    found = find(
        where=where,
        false_alarm_rate=false_alarm_rate,
        distinct_where=distinct,
        progress=run.console.progress,
    )
    if list_redundant:
        _list(run, found, "\0" if null else "\n")
    else:
        run.console.document(_document(found))
        _say(run, found, bool(between))
    if found.n_without_thumbnail:
        run.console.note(
            f"{count(found.n_without_thumbnail, 'image')} without a thumbnail could not be compared."
        )
    if found.is_doubtful:
        run.console.warn(
            f"Images here agree nearly as much as copies do: up to {found.expected_rate:.0%}".replace(
                "%", " %"
            )
            + " of those without a copy may have been given one (shots of one scene). Look before you delete"
            " (--open), or state a rate and what to learn it on (--false-alarm-rate R --distinct EXPR)."
        )
    if out or show:
        from nearsight.reports.duplicates import write_duplicates

        file = out or run.settings.cache_dir / "duplicates.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_duplicates(file, collection, found)
        present(run, file, show=show)


def _document(found: "Duplicates") -> dict[str, Any]:
    return {
        "groups": [_group(group) for group in found.groups],
        "leaks": [_leak(leak) for leak in found.leaks],
        "images": found.n_images,
        "threshold": found.threshold,
        "false_alarm_rate": found.calibration.false_alarm_rate if found.calibration else None,
        "expected_rate": found.expected_rate,
    }


def _group(group: "DuplicateGroup") -> dict[str, Any]:
    return {
        "keep": group.keep.id,
        "ids": [item.id for item in group.items],
        "similarity": group.similarity,
        "agreement": group.agreement,
        "against": group.verified_against,
        "paths": [path for item in group.items for path in item.paths],
        "redundant": group.redundant,
        "why": group.why,
    }


def _leak(leak: "Leak") -> dict[str, Any]:
    return {
        "ids": [leak.first.id, leak.second.id],
        # Files of the same bytes: the first two of them.
        "paths": leak.first.paths[:2]
        if leak.first.id == leak.second.id
        else [leak.first.path, leak.second.path],
        "similarity": leak.similarity,
        "agreement": leak.agreement,
    }


def _list(run: Run, found: "Duplicates", end: str) -> None:
    """Print names as the system has them, for a program that takes them away."""
    n_others = 0
    safe = [group for group in found.groups if _is_there(group.keep)]
    for path in (path for group in safe for path in group.redundant):
        if "://" in path:
            n_others += 1
        else:
            click.echo(os.fsencode(path + end), nl=False)
    if n_others:
        run.console.note(f"{count(n_others, 'more')} that lie in shards or elsewhere are not listed.")
    if n_unsafe := len(found.groups) - len(safe):
        run.console.warn(
            f"The best copy of {count(n_unsafe, 'image')} is gone or has changed, so the others are not"
            " listed; nearsight index --prune brings the collection up to date."
        )


def _is_there(item: "Item") -> bool:
    """Say whether the file that would be kept still is what was indexed."""
    if "://" in item.path:
        return True
    try:
        return Path(item.path).stat().st_size == item.size_bytes
    except OSError:
        return False


def _say(run: Run, found: "Duplicates", is_leak: bool) -> None:
    if is_leak:
        for leak in found.leaks:
            run.console.say(printable("  ".join([f"{leak.agreement:.3f}", *_leak(leak)["paths"]])))
        run.console.say(f"{count(len(found.leaks), 'leak')} among {count(found.n_images, 'image')}")
        return
    for group in found.groups:
        run.console.say(printable(f"keep  {group.keep.path or group.keep.id}"), bold=True)
        run.console.say(f"      {group.why}")
        for path in group.keep.paths[1:]:
            run.console.say(printable(f"      {1:.3f}  {path}"))
        names = {item.id: item.path or item.id for item in group.items}
        for item, agreement, by in zip(
            group.items[1:], group.agreements, group.verified_against, strict=True
        ):
            other = "" if by == group.keep.id else f" (with {names[by]}, a copy of it)"
            for path in item.paths:
                run.console.say(printable(f"      {agreement:.3f}  {path}{other}"))
    n_redundant = sum(len(group.redundant) for group in found.groups)
    run.console.say(
        f"{count(len(found.groups), 'image')} of {found.n_images:,} in several copies;"
        f" {count(n_redundant, 'file')} could go (agreement above {found.threshold:.2f})"
    )
