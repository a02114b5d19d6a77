"""Keeping a collection in order: `rm`, `optimize`, `project`."""

import sys
import time
from pathlib import Path

import click

import nearsight
from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import FAILURES_FOUND, BadInputError, Command, Run
from nearsight.text_format import count, printable


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
    """Remove images from the collection.

    The files stay where they are. One unknown ID, and nothing is removed. With --where, it asks first.
    """
    if bool(ids) == (where is not None):
        raise click.UsageError("name the images to remove: either ID... or --where EXPR")
    collection = run.open_collection()
    if where is not None and not yes:
        doomed = collection.count(where)
        if not is_terminal():
            raise BadInputError(f"{count(doomed, 'image')} would be removed; add --yes to do it")
        if not click.confirm(f"Remove {count(doomed, 'image')} from {run.collection}?", err=True):
            run.console.note("Nothing was removed.")
            run.console.document({"removed": 0})
            return FAILURES_FOUND
    removed = collection.remove(ids, where=where)
    run.console.document({"removed": removed})
    run.console.say(f"{count(removed, 'image')} removed")
    return 0


@click.command(
    cls=Command, json_shape="""{"images": int, "size_bytes": int, "freed_bytes": int, "seconds": float}"""
)
@click.pass_obj
def optimize(run: Run, /) -> None:
    """Compact the collection and its index now.

    Both also happen by themselves, as images come and go.
    """
    collection = run.open_collection()
    before, started = collection.info(), time.perf_counter()
    collection.compact()
    spent, after = time.perf_counter() - started, collection.info()
    freed = before["size_bytes"] - after["size_bytes"]
    run.console.document(
        {
            "images": after["images"],
            "size_bytes": after["size_bytes"],
            "freed_bytes": freed,
            "seconds": round(spent, 3),
        }
    )
    change = f"{text_format.size(abs(freed))} {'freed' if freed >= 0 else 'more, for the index'}"
    run.console.say(
        f"{count(after['images'], 'image')} in {text_format.size(after['size_bytes'])} ({change})"
    )


@click.command(
    cls=Command,
    json_shape="""{"images": int, "dim": int, "variance_kept": float, "collection",
 "bytes_per_image": int}""",
    examples=("nearsight project --dim 256 --out small/",),
)
@click.option("--dim", required=True, type=click.IntRange(min=1), metavar="D", help="Numbers a vector has.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The new collection.",
)
@click.option(
    "--storage", metavar="TYPE", help="Keep vectors as float32 or float16. Default: as in this one."
)
@click.pass_obj
def project(run: Run, /, dim: int, out: Path, storage: str | None) -> None:
    """Make a collection of shorter vectors from this one.

    Nothing is embedded again: the vectors are projected onto the directions in which the images differ
    most (PCA). The new collection can be searched and added to like any other.
    """
    projection = run.open_collection().reduce_dim(dim, out, storage=storage)
    made = nearsight.Collection.open(out, cache_dir=run.settings.cache_dir).info()
    run.console.document(
        {
            "images": made["images"],
            "dim": dim,
            "variance_kept": round(projection.variance_kept, 4),
            "collection": str(out),
            "bytes_per_image": made["bytes_per_image"],
        }
    )
    run.console.say(
        f"{count(made['images'], 'image')} of {dim} numbers each in {printable(str(out))}:"
        f" {projection.variance_kept:.1%} of the variance kept,"
        f" {text_format.size(made['bytes_per_image'])} an image"
    )
