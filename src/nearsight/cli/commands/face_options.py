"""What the commands about faces share: options, and how answers are put."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from nearsight.cli import options
from nearsight.cli.framework import Run

if TYPE_CHECKING:
    from nearsight.faces import FaceBank

_F = TypeVar("_F", bound=Callable[..., Any])

#: Where the bank lies in the collection's directory.
_FOLDER = "faces"

RATE = click.option(
    "--false-match-rate",
    "rate",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    metavar="R",
    default=0.01,
    show_default=True,
    help="The share of strangers that may be taken for somebody.",
)
BANK = click.option(
    "--bank",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The bank of faces. Default: the folder faces of the collection's directory.",
)
_READING = (
    click.option(
        "--smallest",
        type=click.FloatRange(min=1),
        metavar="PX",
        help="Side of the smallest face looked for. Default: a 64th of the longer side, at least 20.",
    ),
    click.option(
        "--min-confidence",
        type=click.FloatRange(min=0, max=1, min_open=True),
        metavar="P",
        default=0.5,
        show_default=True,
        help="How sure the detector must be of a face.",
    ),
    click.option(
        "--threads", type=click.IntRange(min=1), metavar="N", help="Default: the cores you may use."
    ),
    options.allow_remote,
)


def reading_options(command: _F) -> _F:
    """Add how faces are looked for; the command gets `reading`, options of `FaceReader`."""

    @wraps(command)
    def read(
        *args: Any, smallest: float | None, min_confidence: float, threads: int | None, **rest: Any
    ) -> Any:
        run: Run = click.get_current_context().obj
        reading = {
            "smallest_px": smallest,
            "min_confidence": min_confidence,
            "n_threads": threads,
            "progress": run.console.progress,
            "cache_dir": run.settings.cache_dir,
        }
        return command(*args, reading=reading, **rest)

    result: Any = read
    for option in reversed(_READING):
        result = option(result)
    return cast(_F, result)


def bank_directory(run: Run, bank: Path | None) -> Path:
    """Return where the bank lies."""
    return bank or run.collection / _FOLDER


def open_bank(run: Run, bank: Path | None, **reading: Any) -> "FaceBank":
    """Open the bank meant."""
    from nearsight.faces import FaceBank

    return FaceBank.open(bank_directory(run, bank), **reading)


def models_of(bank: "FaceBank") -> list[dict[str, str]]:
    """Return the bank's models with their licenses."""
    return [{"model": model, "license": license} for model, license in bank.models]


def whole(box: tuple[float, float, float, float]) -> list[int]:
    """Return a box in whole pixels."""
    return [round(value) for value in box]
