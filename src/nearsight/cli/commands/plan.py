"""`nearsight plan`."""

import re

import click

from nearsight.cli import options
from nearsight.cli.framework import Command, Run

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)\Z")
_FACTORS = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def _number(ctx: click.Context, param: click.Parameter, text: str) -> int:
    match = _NUMBER.match(text)
    if match is None or not float(match[1]):
        raise click.BadParameter(
            f"{text!r} is not a number of images; write 200M, 50k or 1000000", ctx, param
        )
    return int(float(match[1]) * _FACTORS[match[2]])


def _megapixels(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    match = re.match(r"(\d+(?:\.\d+)?)(?:Mpx)?\Z", text)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{text!r} is not a size; write 2Mpx for two megapixels", ctx, param)
    return float(match[1])


@click.command(
    cls=Command,
    json_shape="""{"images": int, "model": str, "dim": int, "megapixels": float,
 "lines": [{"name", "value": float|str, "unit", "basis": "measured"|"scaled"|"published", "rule"}]}""",
    examples=(
        "nearsight plan --images 1M ~/photos",
        "nearsight plan --images 200M --size 2Mpx --machines 8 --gpus 1 --queries-per-second 500",
    ),
)
@click.argument("paths", nargs=-1, metavar="[PATH...]", type=click.Path())
@click.option("--images", required=True, metavar="N", callback=_number, help="How many images: 50k, 200M.")
@click.option(
    "--size",
    metavar="N[Mpx]",
    callback=_megapixels,
    help="Megapixels of an image. Default: as below PATH, or 2.",
)
@options.model
@options.dim("Length of a vector. Default: the model's.")
@options.storage
@click.option("--machines", type=click.IntRange(min=1), metavar="N", default=1, help="Machines that embed.")
@click.option(
    "--cores", type=click.IntRange(min=1), metavar="N", default=16, show_default=True, help="Cores of each."
)
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", default=0, help="GPUs of each. Default: 0.")
@click.option(
    "--queries-per-second", type=click.FloatRange(min=0), metavar="N", default=0.0, help="Searches to serve."
)
@click.option("--price", type=click.FloatRange(min=0), metavar="P", help="Of a machine, for an hour.")
@click.pass_obj
def plan(
    run: Run,
    /,
    *,
    paths: tuple[str, ...],
    images: int,
    size: float | None,
    model: str | None,
    dim: int | None,
    storage: str | None,
    machines: int,
    cores: int,
    gpus: int,
    queries_per_second: float,
    price: float | None,
) -> None:
    """Estimate what a collection takes.

    Machines, hours, memory, disk, and money where a price is given.

    Images below PATH are decoded for up to 25 seconds, and the network runs for four; nothing is written.
    Each line says whether its number was measured here, scaled from a measurement by the rule beside it, or
    published.
    """
    from nearsight.models import DEFAULT_MODEL
    from nearsight.services.plans import plan_document

    document = plan_document(
        paths,
        model=model or DEFAULT_MODEL,
        images=images,
        dim=dim,
        megapixels=size,
        storage=storage or "float32",
        machines=machines,
        cores=cores,
        gpus=gpus,
        queries_per_second=queries_per_second,
        price=price,
        cache_dir=run.settings.cache_dir,
    )
    run.console.document(document)
    for line in document["lines"]:
        amount = f"{_shown(line['value'])} {line['unit']}".strip()
        measured = f"{line['basis']}: {line['rule']}"
        run.console.say(f"{line['name']:<26}  {amount:<32}  {measured}")


def _shown(value: float | str) -> str:
    """Return a number for people, of four digits.

    >>> [_shown(value) for value in (0.01234, 23.51, 644_500.0)]
    ['0.01234', '23.51', '644,500']
    """
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
