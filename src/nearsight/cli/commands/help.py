"""`nearsight help`."""

import click

from nearsight.cli.framework import Command, Run


@click.command(
    cls=Command,
    json_shape="""{"command", "help"}""",
    examples=("nearsight help search", "nearsight help classify fit"),
)
@click.argument("words", nargs=-1, metavar="[COMMAND]")
@click.pass_context
def help(ctx: click.Context, /, *, words: tuple[str, ...]) -> None:
    """Print the help of a command."""
    here = ctx.find_root()
    command = here.command
    for word in words:
        if not isinstance(command, click.Group):
            raise click.UsageError(f"{here.command_path} has no commands, so not {word!r}", here)
        name, subcommand, _ = command.resolve_command(here, [word])
        command = subcommand or command
        here = click.Context(command, parent=here, info_name=name)
    text = command.get_help(here)
    run: Run = ctx.obj
    run.console.document({"command": here.command_path, "help": text})
    run.console.say(text)
