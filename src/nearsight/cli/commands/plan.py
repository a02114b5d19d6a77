"""`nearsight plan`."""

import re

import click

from nearsight.cli import options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import size as size_text

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kMGB]?)\Z")
_FACTORS = {"": 1, "k": 1_000, "M": 1_000_000, "G": 1_000_000_000, "B": 1_000_000_000}
# Seconds of a unit of time, the shortest first, and from how many seconds on it is used.
_TIMES = (("seconds", 1, 0), ("minutes", 60, 120), ("hours", 3600, 7200), ("days", 86_400, 259_200))


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

    Images below PATH are decoded for up to 25 seconds, and the network runs for four, unless GPUs are to run
    it; nothing is written.
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
        amount = _shown(line["value"], line["unit"])
        measured = f"{line['basis']}: {line['rule']}"
        run.console.say(f"{line['name']:<26}  {amount:<32}  {measured}")


def _shown(value: float | str, unit: str) -> str:
    """Return an amount for people, in a unit of its size.

    >>> [_shown(0.2557, "hours"), _shown(730.1, "minutes of a core"), _shown(1024.0, "GB")]
    ['15.3 minutes', '12.2 hours of a core', '1.0 TB']
    >>> [_shown(3.7, "ms of a core"), _shown(644_500.0, "images at most"), _shown(105.1, "money")]
    ['3.7 ms of a core', '644,500 images at most', '105']
    """
    if isinstance(value, str):
        return value
    if unit == "GB":
        return size_text(value * 1e9)
    name, _, rest = unit.partition(" ")
    for own, own_seconds, _ in _TIMES:
        if name == own:
            seconds = value * own_seconds
            name, length, _ = next(time for time in reversed(_TIMES) if seconds >= time[2])
            return f"{_digits(seconds / length)} {name} {rest}".strip()
    # The currency is that of the price.
    return f"{_digits(value)} {'' if unit == 'money' else unit}".strip()


def _digits(value: float) -> str:
    if 0 < value < 0.01:
        return "< 0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
