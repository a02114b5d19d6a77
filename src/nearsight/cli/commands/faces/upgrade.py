"""`faces upgrade`."""

from pathlib import Path

import click

from nearsight.cli import options
from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"faces": int, "removed": [path]}""",
    examples=("nearsight faces upgrade",),
)
@click.option("--drop-missing", is_flag=True, help="Remove faces whose image is missing or has changed.")
@face_options.bank
@options.threads
@click.pass_obj
def upgrade(run: Run, /, *, drop_missing: bool, bank: Path | None, threads: int | None) -> None:
    """Compute the faces in the bank again from their images.

    A bank of an earlier version of nearsight needs this once, if the vectors of faces have changed since.
    Names and boxes stay. The images must still be where they were. Nothing happens if the bank is up to date.
    """
    reader_options = face_options.reader_options_of(run, threads)
    report = face_options.open_bank(run, bank, **reader_options).upgrade(drop_missing=drop_missing)
    run.console.document({"faces": report.faces, "removed": report.removed})
    run.console.say(f"{count(report.faces, 'face')} computed again")
    for path in report.removed:
        run.console.warn(f"{printable(path)} is missing or has changed; its faces were removed")
