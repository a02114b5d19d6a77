"""`nearsight completion`."""

from typing import Any

import click

from nearsight.cli.framework import Command, Run


@click.command(
    cls=Command,
    json_shape="""{"shell", "script"}""",
    examples=("nearsight completion bash > ~/.local/share/bash-completion/completions/nearsight",),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
@click.pass_context
def completion(ctx: click.Context, /, *, shell: str) -> None:
    """Print a completion script for the shell.

    With it, the shell completes commands, options and model names.
    """
    from click.shell_completion import get_completion_class

    run: Run = ctx.obj
    shell_completion: Any = get_completion_class(shell)
    script = shell_completion(ctx.find_root().command, {}, "nearsight", "_NEARSIGHT_COMPLETE").source()
    run.console.document({"shell": shell, "script": script})
    run.console.say(script.rstrip())
