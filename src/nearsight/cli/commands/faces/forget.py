"""`faces forget`."""

from pathlib import Path

import click

from nearsight.cli import options
from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count


@click.command(
    cls=Command,
    json_shape="""{"removed": int}""",
    examples=("nearsight faces forget --unnamed", "nearsight faces forget --all --yes"),
)
@click.option("--unnamed", is_flag=True, help="Remove every face without a name.")
@click.option("--all", "everything", is_flag=True, help="Remove the whole bank.")
@options.yes
@face_options.bank
@click.pass_obj
def forget(run: Run, /, *, unnamed: bool, everything: bool, yes: bool, bank: Path | None) -> None:
    """Remove unnamed faces, or the whole bank, permanently."""
    if unnamed == everything:
        raise click.UsageError("choose what to remove: either --unnamed or --all")
    face_bank = face_options.open_bank(run, bank)
    if everything:
        n_removed = len(face_bank.faces())
        options.confirm(
            f"Remove the bank at {face_bank.directory} with {count(n_removed, 'face')} permanently?", yes=yes
        )
        face_bank.destroy()
    else:
        n_removed = face_bank.forget_unnamed()
    run.console.document({"removed": n_removed})
    run.console.say(f"{count(n_removed, 'face')} removed")
