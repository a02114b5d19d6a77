"""Options and arguments that several commands share."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

import nearsight
from nearsight.cli.framework import Run, out_file

_F = TypeVar("_F", bound=Callable[..., Any])


def _models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [entry.spec.id for entry in nearsight.list_models() if entry.spec.id.startswith(incomplete)]


paths = click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
where = click.option("--where", metavar="EXPR", help='Only images that match, such as "width > 640".')

_MODEL = (
    click.option("--model", metavar="NAME", shell_complete=_models, help="See `nearsight models`."),
    click.option("--layer", metavar="LAYER", help="Take vectors from here: see `nearsight models NAME`."),
    click.option(
        "--precision",
        # models.variant.PRECISIONS; importing it would make --help slow.
        type=click.Choice(["float32", "bf16", "int8", "fp16"]),
        metavar="float32|bf16|int8|fp16",
        help="bf16 (on processors that have it) and int8 are faster, and a little less exact; fp16 is for"
        " accelerators, and slower on most processors.",
    ),
)


def page(what: str) -> Callable[[_F], _F]:
    """Add where to write a page, and whether to show it."""

    def add(command: _F) -> _F:
        show = click.option("--open", "show", is_flag=True, help="Show that page in the browser.")
        out = click.option(
            "--out",
            type=click.Path(path_type=Path),
            callback=out_file(".html", ".htm"),
            metavar="FILE.html",
            help=what,
        )
        return out(show(command))

    return add


def model(command: _F) -> _F:
    """Add which model to use, and in which form; the command gets the name of that form, or None."""

    @wraps(command)
    def named(*args: Any, model: str | None, layer: str | None, precision: str | None, **rest: Any) -> Any:
        return command(*args, model=_form(model, layer, precision), **rest)

    result: Any = named
    for option in reversed(_MODEL):
        result = option(result)
    return cast(_F, result)


def _form(model: str | None, layer: str | None, precision: str | None) -> str | None:
    if not layer and precision in (None, "float32"):
        return model
    from nearsight.models import DEFAULT_MODEL
    from nearsight.models.model_name import Variant

    form = Variant(layer=layer or "", precision="" if precision in (None, "float32") else precision or "")
    return form.applied_to(model or DEFAULT_MODEL)


def _run_on(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    run = ctx.find_object(Run)
    if run is not None and value is not None:  # None while the shell asks for completions
        run.device = value


device = click.option(
    "--device",
    metavar="NAME",
    expose_value=False,
    callback=_run_on,
    # models.devices.DEVICES; importing it would make --help slow.
    help="Where the model runs: auto, cpu, cuda, cuda:1, tensorrt, directml, coreml, openvino or mps.",
)


def dim(text: str) -> Callable[[_F], _F]:
    """Return the option for how many numbers a vector has."""
    return click.option("--dim", type=click.IntRange(min=1), metavar="D", help=text)


storage = click.option(
    "--storage",
    metavar="TYPE",
    help="Of a new collection: keep vectors as float32 or, in half the room, float16.",
)
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
    click.option("--fail-fast", is_flag=True, help="Stop at the first image that cannot be used."),
)


def cost(command: _F) -> _F:
    """Add what a command that embeds may spend, on all images and on one."""
    for option in reversed(_COST):
        command = option(command)
    return command


def limits_of(**given: float | None) -> "nearsight.Limits":
    """Return the limits on one image, those not given at their defaults."""
    # mypy sees one type for all values; click has made whole numbers of those that must be.
    return nearsight.Limits(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
