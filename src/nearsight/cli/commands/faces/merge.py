"""`faces merge`."""

from pathlib import Path

import click

from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"name", "faces": int}""",
    examples=('nearsight faces merge ada "A. Lovelace" --into "Ada Lovelace"',),
)
@click.argument("names", nargs=-1, required=True, metavar="NAME|GROUP...")
@click.option("--into", required=True, metavar="NAME", help="Name of the merged person.")
@face_options.bank
@click.pass_obj
def merge(run: Run, /, names: tuple[str, ...], *, into: str, bank: Path | None) -> None:
    """Merge several persons or groups into one person."""
    face_bank = face_options.open_bank(run, bank)
    merged = face_bank.people.merge([face_bank.people.key(name) for name in names], into)
    n_faces = face_bank.persons()[merged.person]
    run.console.document({"name": into, "faces": n_faces})
    run.console.say(f"{printable(into)} has {count(n_faces, 'face')} now")
