"""`nearsight copy`."""

import click

from nearsight.cli.framework import FAILURE, RESUMABLE, Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"images": int, "copied": int, "files": int, "verified": bool, "collection": str,
 "seconds": float}
or with exit code 1 {"error": {"type", "message"}, "differences": {"missing": int, "different": int,
 "surplus": int, "first": [str]}}""",
    examples=(
        "nearsight copy .nearsight backup/ --verify",
        "nearsight copy .nearsight 'postgres://ann@db.example.org/shop?collection=photos'",
    ),
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--verify", is_flag=True, help="Compare every row of the copy with the original afterwards.")
@click.option(
    "--start-over", is_flag=True, help="Delete an unfinished copy at DST first, also of another SRC."
)
@click.option("--storage", metavar="TYPE", help="float32 or float16. Default: as SRC; in a database float16.")
@click.pass_obj
def copy(
    run: Run, /, *, source: str, target: str, verify: bool, start_over: bool, storage: str | None
) -> int:
    """Copy a collection to another directory or database.

    SRC and DST are directories or URIs, such as postgres://user@host/database?collection=NAME. Images,
    vectors, metadata and thumbnails are copied, and what analyses saved. After an interruption the same
    command goes on, also where SRC was changed meanwhile. With --verify, a copy that is there already is
    compared, and the first 20 images that differ are named.
    """
    from nearsight.errors import CopyDifferenceError
    from nearsight.services.collections import copied
    from nearsight.store import shown_uri

    run.if_interrupted = RESUMABLE
    try:
        facts = copied(
            source,
            target,
            shown=shown_uri(target),
            storage=storage,
            verify=verify,
            start_over=start_over,
            progress=run.console.progress,
        )
    except CopyDifferenceError as error:
        kind = type(error).__name__
        run.console.document(
            {"error": {"type": kind, "message": str(error)}, "differences": error.differences}
        )
        for line in error.differences["first"]:
            run.console.say(printable(line))
        if not run.console.as_json:
            run.console.error(kind, str(error))
        return FAILURE
    run.console.document(facts)
    checked = "; every row was compared with the original" if facts["verified"] else ""
    there = facts["images"] - facts["copied"]
    before = f", {there:,} of them before" if there and facts["copied"] else ""
    run.console.say(f"{count(facts['images'], 'image')} in {printable(shown_uri(target))}{before}{checked}")
    return 0
