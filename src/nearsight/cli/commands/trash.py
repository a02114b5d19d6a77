"""`trash`."""

import click

from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"entries": [{"id", "when", "files": [path]}]} or with --restore: {"restored": [path]}""",
    examples=("nearsight trash", "nearsight trash --restore 3fa9c1d2"),
)
@click.option("--restore", metavar="ENTRY", help="Put the files of one entry back where they came from.")
@click.pass_obj
def trash(run: Run, /, *, restore: str | None) -> None:
    """List the collection's trash, or put files back.

    Files come there from `audit --apply` and from the service's page. Nothing in the trash is ever deleted by
    nearsight: that is for you to do, in the folder .nearsight-trash.
    """
    from pathlib import Path

    from nearsight.services.trash import Trash

    collection = run.open_collection()
    entries = Trash(collection, []).entries()
    if restore is None:
        run.console.document(
            {
                "entries": [
                    {"id": e.id, "when": e.when, "files": [file.path for file in e.files]} for e in entries
                ]
            }
        )
        for entry in entries:
            run.console.say(f"{entry.id}  {entry.when}  {count(len(entry.files), 'file')}")
            for file in entry.files:
                run.console.say(f"  {printable(file.path)}")
        if not entries:
            run.console.say("The trash is empty.")
        return
    # What was put there from the command line may lie anywhere that its user may write to.
    roots = {Path(file.path).parent for entry in entries if entry.id == restore for file in entry.files}
    restored = Trash(collection, roots).restore(restore)
    run.console.document({"restored": [file.path for file in restored.files]})
    run.console.say(f"{count(len(restored.files), 'file')} put back.")
