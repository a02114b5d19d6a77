"""`nearsight help`."""

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

import nearsight
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable


@click.command(
    cls=Command,
    json_shape="""{"command", "help"}, or with --man: {"files": [path]}""",
    examples=(
        "nearsight help search",
        "nearsight help classify fit",
        "nearsight help --man ~/.local/share/man/man1 && man nearsight-search",
    ),
)
@click.argument("words", nargs=-1, metavar="[COMMAND]")
@click.option(
    "--man",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the man pages of all commands into FOLDER.",
)
@click.pass_context
def help(ctx: click.Context, /, *, words: tuple[str, ...], folder: Path | None) -> None:
    """Print the help of a command, or write man pages."""
    run: Run = ctx.obj
    if folder is not None:
        if words:
            raise click.UsageError("--man writes the pages of all commands; leave out the command")
        root = click.Context(ctx.find_root().command, info_name="nearsight")
        folder.mkdir(parents=True, exist_ok=True)
        files = [_write_man_page(context, folder) for context in _contexts(root)]
        run.console.document({"files": [str(file) for file in files]})
        run.console.say(f"{count(len(files), 'man page')} written to {printable(str(folder))}")
        return
    here = ctx.find_root()
    command = here.command
    for word in words:
        if not isinstance(command, click.Group):
            raise click.UsageError(f"{here.command_path} has no commands, so not {word!r}", here)
        name, subcommand, _ = command.resolve_command(here, [word])
        command = subcommand or command
        here = click.Context(command, parent=here, info_name=name)
    text = command.get_help(here)
    run.console.document({"command": here.command_path, "help": text})
    run.console.say(text)


def _contexts(here: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command and of every command below it."""
    yield here
    if isinstance(here.command, click.Group):
        for name, command in here.command.commands.items():
            yield from _contexts(click.Context(command, parent=here, info_name=name))


def _write_man_page(here: click.Context, folder: Path) -> Path:
    from click_man.man import ManPage

    command = here.command
    page = ManPage(here.command_path)
    page.version = nearsight.__version__
    page.short_help = _first_line(command)
    page.description = _roff(cleandoc(command.help or ""))
    page.synopsis = " ".join(command.collect_usage_pieces(here))
    options = [option for option in command.get_params(here) if isinstance(option, click.Option)]
    records = [option.get_help_record(here) for option in options]
    page.options = [(record[0], _roff(record[1])) for record in records if record]
    if isinstance(command, click.Group):
        page.commands = [(name, _first_line(below)) for name, below in command.commands.items()]
    text = str(page)
    if isinstance(command, Command) and command.examples:
        text += "\n".join([".SH EXAMPLES", ".nf", *map(_roff, command.examples), ".fi", ""])
    file = folder / f"{here.command_path.replace(' ', '-')}.1"
    file.write_text(text, encoding="utf-8")
    return file


def _first_line(command: click.Command) -> str:
    return cleandoc(command.help or "").partition("\n")[0]


def _roff(text: str) -> str:
    """Escape a text for a man page: a line that starts with a dot or an apostrophe would be a request."""
    return re.sub(r"^(?=[.'])", r"\\&", text.replace("\\", r"\e"), flags=re.MULTILINE)
