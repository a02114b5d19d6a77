"""`faces export`."""

from pathlib import Path

import click

from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run, out_file
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"faces": int, "file"}""",
    examples=("nearsight faces export bank.json", "nearsight faces export vectors.npz"),
)
@click.argument(
    "file", metavar="FILE(.json|.npz)", type=click.Path(path_type=Path), callback=out_file(".json", ".npz")
)
@face_options.bank
@click.pass_obj
def export(run: Run, /, file: Path, *, bank: Path | None) -> None:
    """Export the face bank to a file.

    A .json file holds everything except the vectors. An .npz file holds the vectors with ids, persons and
    paths. The file is personal data like the bank, and `faces rm` does not change it.
    """
    from nearsight.services.faces import export_faces

    n_faces = export_faces(face_options.open_bank(run, bank), file)
    run.console.document({"faces": n_faces, "file": str(file)})
    run.console.say(f"{count(n_faces, 'face')} written to {printable(str(file))}")
