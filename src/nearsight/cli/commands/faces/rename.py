"""`faces rename`."""

from pathlib import Path

import click

from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import BadInputError, Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"name", "faces": int}""",
    examples=('nearsight faces rename ada "Ada Lovelace"',),
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@face_options.bank
@click.pass_obj
def rename(run: Run, /, old: str, new: str, *, bank: Path | None) -> None:
    """Rename a person."""
    face_bank = face_options.open_bank(run, bank)
    if new in face_bank.persons() and new != old:
        raise BadInputError(f"the bank has a person {new!r} already; to merge the two: nearsight faces merge")
    n_faces = face_bank.rename(old, new)
    run.console.document({"name": new, "faces": n_faces})
    run.console.say(f"{printable(old)} renamed to {printable(new)} ({count(n_faces, 'face')})")
