"""`nearsight copy`."""

import time

import click

from nearsight.cli.framework import RESUMABLE, Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"images": int, "copied": int, "files": int, "verified": bool, "collection": str,
 "seconds": float}""",
    examples=(
        "nearsight copy .nearsight backup/ --verify",
        "nearsight copy .nearsight 'postgres://ann@db.example.org/shop?collection=photos'",
    ),
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--verify", is_flag=True, help="Compare every row of the copy with the original afterwards.")
@click.option("--storage", metavar="TYPE", help="float32 or float16. Default: as SRC; in a database float16.")
@click.pass_obj
def copy(run: Run, /, *, source: str, target: str, verify: bool, storage: str | None) -> None:
    """Copy a collection to another directory or database.

    SRC and DST are directories or URIs, such as postgres://user@host/database?collection=NAME. Images,
    vectors, metadata and thumbnails are copied, and what analyses saved. After an interruption the same
    command goes on. With --verify, a copy that is there already is compared.
    """
    from nearsight.collection import copy_collection
    from nearsight.store import shown_uri

    started = time.perf_counter()
    run.if_interrupted = RESUMABLE
    report = copy_collection(source, target, storage=storage, verify=verify, progress=run.console.progress)
    run.console.document(
        {
            "images": report.n_images,
            "copied": report.n_copied,
            "files": report.n_files,
            "verified": report.is_verified,
            "collection": shown_uri(target),
            "seconds": round(time.perf_counter() - started, 3),
        }
    )
    checked = "; every row was compared with the original" if report.is_verified else ""
    there = report.n_images - report.n_copied
    before = f", {there:,} of them before" if there and report.n_copied else ""
    run.console.say(f"{count(report.n_images, 'image')} in {printable(shown_uri(target))}{before}{checked}")
