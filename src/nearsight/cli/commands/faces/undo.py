"""`faces undo`."""

from pathlib import Path

import click

from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count


@click.command(
    cls=Command,
    json_shape="""{"action": "name"|"rename"|"assign"|"confirm"|"reject"|"split"|"merge"|"hide"|"show",
 "faces": int}""",
    examples=("nearsight faces undo",),
)
@face_options.bank
@click.pass_obj
def undo(run: Run, /, *, bank: Path | None) -> None:
    """Take back the latest decision about faces.

    Names, merges, splits, rejections and hiding are decisions.

    The last 20 changes can be undone, the latest first. Nothing that was removed comes back, and after a
    removal no earlier change can be undone.
    """
    change = face_options.open_bank(run, bank).people.undo()
    n_faces = sum(len(ids) for _, ids in change.faces)
    run.console.document({"action": change.action, "faces": n_faces})
    run.console.say(f"Undone: {change.action} ({count(n_faces, 'face')})")
