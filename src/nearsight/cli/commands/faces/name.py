"""`faces name`."""

from pathlib import Path

import click

from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"group", "name", "faces": int}""",
    examples=('nearsight faces name g1 "Ada Lovelace"',),
)
@click.argument("group", metavar="GROUP")
@click.argument("person", metavar="NAME")
@face_options.bank
@click.pass_obj
def name(run: Run, /, group: str, person: str, *, bank: Path | None) -> None:
    """Name a group of faces and enroll them under that name."""
    n_faces = face_options.open_bank(run, bank).name_group(group, person)
    run.console.document({"group": group, "name": person, "faces": n_faces})
    run.console.say(f"{printable(person)}: {count(n_faces, 'face')} enrolled")
