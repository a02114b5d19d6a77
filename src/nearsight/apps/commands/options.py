"""Options and arguments that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

import nearsight

_F = TypeVar("_F", bound=Callable[..., Any])


def _models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [entry.spec.id for entry in nearsight.available_models() if entry.spec.id.startswith(incomplete)]


paths = click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
where = click.option("--where", metavar="EXPR", help='Only pictures that match, such as "width > 640".')
model = click.option("--model", metavar="NAME", shell_complete=_models, help="See `nearsight models`.")

allow_remote = click.option("--allow-remote", is_flag=True, help="Fetch http and https addresses.")


def k(text: str, default: int = 10) -> Callable[[_F], _F]:
    """Return the option for how many of something are wanted."""
    return click.option(
        "-k", type=click.IntRange(min=1), metavar="N", default=default, show_default=True, help=text
    )


_COST = (
    allow_remote,
    click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="Default: the cores you may use."
    ),
    click.option("--max-pixels", type=click.IntRange(min=1), metavar="N", help="Default: 178956970."),
    click.option("--max-bytes", type=click.IntRange(min=1), metavar="N", help="Default: 268435456."),
    click.option(
        "--max-seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Default: 30."
    ),
    click.option("--fail-fast", is_flag=True, help="Stop at the first picture that cannot be used."),
)


def cost(command: _F) -> _F:
    """Add what a command that embeds may spend, on all pictures and on one."""
    for option in reversed(_COST):
        command = option(command)
    return command


def limits_of(**given: float | None) -> "nearsight.Limits":
    """Return the limits on one picture, those not given at their defaults."""
    return nearsight.Limits(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
