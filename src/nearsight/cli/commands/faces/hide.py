"""`faces hide`."""

from pathlib import Path

import click

from nearsight.cli.commands.faces import options as face_options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count


@click.command(
    cls=Command,
    json_shape="""{"hidden": int} or with --show: {"shown": int}""",
    examples=("nearsight faces hide g7", 'nearsight faces hide --show "Ada Lovelace"'),
)
@click.argument("names", nargs=-1, required=True, metavar="NAME|GROUP...")
@click.option("--show", is_flag=True, help="Show them again.")
@face_options.bank
@click.pass_obj
def hide(run: Run, /, names: tuple[str, ...], *, show: bool, bank: Path | None) -> None:
    """Hide persons or groups in the service's page.

    Their faces stay in the bank.
    """
    people = face_options.open_bank(run, bank).people
    n_changed = people.hide([people.key(name) for name in names], hidden=not show)
    word = "shown" if show else "hidden"
    run.console.document({word: n_changed})
    run.console.say(f"{count(n_changed, 'person', 'persons')} {word}")
