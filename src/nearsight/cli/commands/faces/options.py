"""Options and output that the face commands share."""

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

false_match_rate = options.rate(
    "--false-match-rate", "Share of unknown people that may be matched to somebody. Default: 0.01."
)
bank = click.option(
    "--bank",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The face bank. Default: the folder `faces` in the collection's directory.",
)
detector = click.option(
    "--detector", metavar="NAME", help="Detector of a new bank: centerface, dir:PATH or hub:ORG/REPO."
)
recognizer = click.option(
    "--recognizer", metavar="NAME", help="Recognizer of a new bank: dlib-resnet29, dir:PATH or hub:ORG/REPO."
)

_READER = (
    click.option(
        "--smallest",
        type=click.FloatRange(min=1),
        metavar="PX",
        help="Side of the smallest face to detect. Default: 1/64 of the image's longer side, at least 20.",
    ),
    click.option(
        "--min-confidence",
        type=click.FloatRange(min=0, max=1, min_open=True),
        metavar="P",
        help="Ignore detections below this confidence. Default: 0.5.",
    ),
    options.threads,
)


def reader(command: _F) -> _F:
    """Add the options of face detection; the command gets `reader_options` for `FaceReader`."""

    @wraps(command)
    def with_reader_options(
        *args: Any, smallest: float | None, min_confidence: float | None, threads: int | None, **rest: Any
    ) -> Any:
        detection = options.without_none(smallest_px=smallest, min_confidence=min_confidence)
        reader_options = detection | reader_options_of(options.current_run(), threads)
        return command(*args, reader_options=reader_options, **rest)

    return options.add_options(cast(_F, with_reader_options), _READER)


def reader_options_of(run: Run, threads: int | None) -> dict[str, Any]:
    """Return the options of `FaceReader` that do not concern detection."""
    return options.without_none(
        n_threads=threads, progress=run.console.progress, cache_dir=run.settings.cache_dir
    )


def bank_directory(run: Run, bank: Path | None) -> Path:
    """Return the directory of the face bank."""
    from nearsight.services.faces import bank_directory as directory_in

    return bank or directory_in(run.collection_files)


def open_bank(run: Run, bank: Path | None, **reader_options: Any) -> "FaceBank":
    """Open the face bank."""
    from nearsight.faces import FaceBank

    return FaceBank.open(bank_directory(run, bank), **reader_options)
