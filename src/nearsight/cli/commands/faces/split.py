"""`faces split`."""

from pathlib import Path

import click

from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"group": group or null, "name": name or null, "faces": int}""",
    examples=('nearsight faces split 3fa9c1d2a0b17755 8e1b6ff0c2d94a30 --name "Grace Hopper"',),
)
@click.argument("ids", nargs=-1, required=True, metavar="FACE...")
@click.option("--name", metavar="NAME", help="Name of the person that they are. Default: a new group.")
@face_options.bank
@click.pass_obj
def split(run: Run, /, ids: tuple[str, ...], *, name: str | None, bank: Path | None) -> None:
    """Split faces off a person or group.

    Together they are another person.

    This holds whenever `faces group` runs again.
    """
    key = face_options.open_bank(run, bank).people.split(ids, name)
    n_faces = len(set(ids))
    run.console.document({"group": key.group or None, "name": key.person or None, "faces": n_faces})
    run.console.say(f"{printable(key.person) or key.group}: {count(n_faces, 'face')}")
