"""`faces reject`."""

from pathlib import Path

import click

from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count


@click.command(
    cls=Command,
    json_shape="""{"rejected": int}""",
    examples=("nearsight faces reject 3fa9c1d2a0b17755",),
)
@click.argument("ids", nargs=-1, required=True, metavar="FACE...")
@face_options.bank
@click.pass_obj
def reject(run: Run, /, ids: tuple[str, ...], *, bank: Path | None) -> None:
    """Say that faces are not of the person they match.

    The same holds for a group that they are in: it will not hold them again.

    This holds whenever `faces group` runs again.
    """
    n_rejected = face_options.open_bank(run, bank).people.reject(ids)
    run.console.document({"rejected": n_rejected})
    run.console.say(f"{count(n_rejected, 'face')} rejected")
