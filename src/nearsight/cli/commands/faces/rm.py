"""`faces rm`."""

from pathlib import Path

import click

from nearsight.cli import options
from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count


@click.command(
    cls=Command,
    json_shape="""{"removed": int, "persons": int}""",
    examples=('nearsight faces rm "Ada Lovelace"', "nearsight faces rm --face 3fa9c1d2a0b17755"),
)
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--face", "ids", multiple=True, metavar="ID", help="Remove a single face. Repeatable.")
@options.yes
@face_options.bank
@click.pass_obj
def rm(run: Run, /, names: tuple[str, ...], *, ids: tuple[str, ...], yes: bool, bank: Path | None) -> None:
    """Remove persons or single faces permanently.

    Their vectors and names are erased from all files of the bank, including old versions of its table.
    The photographs stay, and so do backups that others made.
    """
    if not names and not ids:
        raise click.UsageError("name the persons or faces to remove: NAME... or --face ID")
    face_bank = face_options.open_bank(run, bank)
    # Checked first: nobody should have to confirm what cannot be done.
    face_bank.require(names, faces=ids)
    options.confirm(f"Remove {', '.join([*names, *ids])} from the bank permanently?", yes=yes)
    n_removed = face_bank.remove(names, faces=ids)
    run.console.document({"removed": n_removed, "persons": len(face_bank.persons())})
    run.console.say(f"{count(n_removed, 'face')} removed")
