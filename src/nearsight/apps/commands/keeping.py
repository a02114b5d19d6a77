"""Keeping a collection in order: `rm`, `optimize`."""

import sys
import time

import click

from nearsight.apps import output
from nearsight.apps.command import FAILURES_FOUND, BadInputError, Command, Run
from nearsight.apps.commands import options
from nearsight.apps.output import count


def is_terminal() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin.isatty()


@click.command(
    cls=Command,
    json_shape="""{"removed": int}""",
    examples=("nearsight rm 3fa9c1d2 77b0", "nearsight rm --where \"path LIKE '%/trash/%'\" --yes"),
)
@click.argument("ids", nargs=-1, metavar="[ID...]")
@options.where
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rm(run: Run, /, ids: tuple[str, ...], where: str | None, yes: bool) -> int:
    """Remove pictures from the collection.

    The files stay where they are. One unknown ID, and nothing is removed. With --where, it asks first.
    """
    if bool(ids) == (where is not None):
        raise click.UsageError("name the pictures to remove: either ID... or --where EXPR")
    collection = run.open_collection()
    if where is not None and not yes:
        doomed = collection.count(where)
        if not is_terminal():
            raise BadInputError(f"{count(doomed, 'picture')} would be removed; add --yes to do it")
        if not click.confirm(f"Remove {count(doomed, 'picture')} from {run.collection}?", err=True):
            run.console.note("Nothing was removed.")
            run.console.document({"removed": 0})
            return FAILURES_FOUND
    removed = collection.remove(ids, where=where)
    run.console.document({"removed": removed})
    run.console.say(f"{count(removed, 'picture')} removed")
    return 0


@click.command(
    cls=Command, json_shape="""{"pictures": int, "size_bytes": int, "freed_bytes": int, "seconds": float}"""
)
@click.pass_obj
def optimize(run: Run, /) -> None:
    """Compact the collection and its index now.

    Both also happen by themselves, as pictures come and go.
    """
    collection = run.open_collection()
    before, started = collection.info(), time.perf_counter()
    collection.optimize()
    spent, after = time.perf_counter() - started, collection.info()
    freed = before["size_bytes"] - after["size_bytes"]
    run.console.document(
        {
            "pictures": after["pictures"],
            "size_bytes": after["size_bytes"],
            "freed_bytes": freed,
            "seconds": round(spent, 3),
        }
    )
    change = f"{output.size(abs(freed))} {'freed' if freed >= 0 else 'more, for the index'}"
    run.console.say(f"{count(after['pictures'], 'picture')} in {output.size(after['size_bytes'])} ({change})")
