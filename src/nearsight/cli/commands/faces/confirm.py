"""`faces confirm`."""

from pathlib import Path

import click

from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"confirmed": {name: int}}""",
    examples=(
        "nearsight faces confirm 3fa9c1d2a0b17755",
        'nearsight faces confirm 3fa9c1d2a0b17755 --name "Ada Lovelace"',
    ),
)
@click.argument("ids", nargs=-1, required=True, metavar="FACE...")
@click.option("--name", metavar="NAME", help="Name of the person. Default: whom each face matches.")
@face_options.bank
@click.pass_obj
def confirm(run: Run, /, ids: tuple[str, ...], *, name: str | None, bank: Path | None) -> None:
    """Enroll faces under the person that they match.

    With --name, they are enrolled under a name instead.
    """
    people = face_options.open_bank(run, bank).people
    confirmed = people.confirm(ids) if name is None else {name: people.assign(ids, name)}
    run.console.document({"confirmed": confirmed})
    for person, n in confirmed.items():
        run.console.say(f"{printable(person)}: {count(n, 'face')} enrolled")
