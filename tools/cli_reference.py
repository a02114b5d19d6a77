"""Writes `docs/cli.md` from the commands themselves: ``python tools/cli_reference.py [--check]``."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from nearsight.cli.framework import Command, Family
from nearsight.cli.main import cli

DEFAULT_FILE = Path("docs/cli.md")

_OPENING = """# Command line

*Written by `python tools/cli_reference.py`; change the commands, not this page.*

Every command takes `--json`: one JSON document on stdout and nothing else there; progress and remarks go
to stderr. An error is a document too: `{"error": {"type", "message"}}`. Bytes of a file name that are not
UTF-8 appear as `\\udcXX`, times as ISO 8601 in UTC.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | it ran and found failures: images that cannot be used, a check that failed, a full disk |
| 2 | bad usage or input: an unknown option, model or id, no such file or collection |
| 130 | interrupted by Ctrl-C; what `index` had finished is saved |
| 141 | the reader of the pipe went away |

| variable | meaning |
|---|---|
| `NEARSIGHT_COLLECTION` | the collection, where `-c` does not say; otherwise `./.nearsight` |
| `NEARSIGHT_CACHE` | where converted models are kept; otherwise the system's cache directory |
| `NO_COLOR` | no colors, even on a terminal |

These three options are understood before and after a command's name:
"""


def render() -> str:
    """Return the whole page as Markdown."""
    parts = [_OPENING, *_options(cli), ""]
    for name, command in leaves(cli):
        parts += _command(name, command)
    return "\n".join(parts).rstrip() + "\n"


def leaves(group: click.Group, start: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command below a group, with its whole name."""
    for name, command in group.commands.items():
        if isinstance(command, Family):
            yield f"{start}{name}", command.own
        if isinstance(command, click.Group):
            yield from leaves(command, f"{start}{name} ")
        else:
            yield f"{start}{name}", command


def _command(name: str, command: click.Command) -> Iterator[str]:
    ctx = click.Context(command, info_name=f"nearsight {name}")
    yield f"## {name}\n"
    yield f"    {' '.join([ctx.command_path, *command.collect_usage_pieces(ctx)])}\n"
    yield f"{_prose(command.help or '')}\n"
    if options := _options(command):
        yield from [*options, ""]
    if isinstance(command, Command):
        if command.examples:
            yield "```sh\n" + "\n".join(command.examples) + "\n```\n"
        yield "With `--json`:\n\n```\n" + command.json_shape + "\n```"
    yield ""


def _prose(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def _options(command: click.Command) -> list[str]:
    shared = {"help", "version"} if command is cli else {parameter.name for parameter in cli.params}
    rows = [
        _row(parameter)
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in shared
    ]
    return ["| option | |", "|---|---|", *rows] if rows else []


def _row(option: click.Option) -> str:
    """Return a line of the table, from the option's own facts: click's wording changes between versions."""
    kind = option.type
    values = "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else option.type.name.upper()
    names = ", ".join(option.opts) + ("" if option.is_flag else f" {option.metavar or values}")
    text = option.help or ""
    if option.required:
        text += " Required."
    elif option.show_default:
        text += f" Default: {option.default}."
    name, meaning = (cell.replace("|", "\\|") for cell in (names, text))
    return f"| `{name}` | {meaning} |"


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or with ``--check`` say whether it is in step; the exit code says it too."""
    parser = argparse.ArgumentParser(prog="python tools/cli_reference.py", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=DEFAULT_FILE)
    parser.add_argument("--check", action="store_true", help="exit 1 if the page is out of step")
    given = parser.parse_args(arguments)
    text = render()
    if not given.check:
        given.file.write_text(text, encoding="utf-8")
        return 0
    if given.file.is_file() and given.file.read_text(encoding="utf-8") == text:
        return 0
    print(
        f"{given.file} is out of step with the commands; run: python tools/cli_reference.py",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
