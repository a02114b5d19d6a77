"""Options and arguments that several commands share."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from glob import has_magic, iglob
from pathlib import Path
from typing import Any, TypeVar, cast

import click

import nearsight
from nearsight.cli.framework import BadInputError, Run, out_file
from nearsight.text_format import nfc

_F = TypeVar("_F", bound=Callable[..., Any])


def add_options(command: _F, options: Sequence[Callable[[Any], Any]]) -> _F:
    """Add options to a command; the help lists them in this order."""
    result: Any = command
    for option in reversed(options):
        result = option(result)
    return cast(_F, result)


def without_none(**options: Any) -> dict[str, Any]:
    """Return the options that have a value; the library knows the defaults of the others."""
    return {name: value for name, value in options.items() if value is not None}


def current_run() -> Run:
    """Return the run of the command that is being executed."""
    run: Run = click.get_current_context().obj
    return run


def _set_on_run(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    run = ctx.find_object(Run)
    if run is not None and value:  # None while the shell asks for completions
        setattr(run, str(param.name), value)


def _flag(*names: str, help: str) -> Callable[[_F], _F]:
    """Return a flag that sets the attribute of `Run` by its last name."""
    return click.option(*names, is_flag=True, expose_value=False, callback=_set_on_run, help=help)


def _spelled_right(ctx: click.Context, param: click.Parameter, paths: tuple[str, ...]) -> tuple[str, ...]:
    if not ctx.resilient_parsing:
        require_existing(paths)
    return paths


def require_existing(paths: Sequence[str]) -> None:
    """Refuse paths of which none exists: a misspelling, and not an unreadable image."""
    missing = [path for path in paths if "://" not in path and not _exists(path)]
    if missing and len(missing) == len(paths):
        raise BadInputError(f"there is nothing at {', '.join(missing)}; check the spelling")


def existing_path(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Refuse an optional PATH argument that does not exist."""
    _spelled_right(ctx, param, () if path is None else (path,))
    return path


def _exists(path: str) -> bool:
    if os.path.lexists(path):
        return True
    matches = iglob(path, recursive=True)  # noqa: PTH207 - Path.glob does not take absolute patterns
    return has_magic(path) and any(True for _ in matches)


def paths_named(metavar: str, *, required: bool = True) -> Callable[[_F], _F]:
    """Add the argument `paths` under another name; see `paths`."""
    return click.argument(
        "paths", nargs=-1, required=required, metavar=metavar, type=click.Path(), callback=_spelled_right
    )


# Whether there is an image in them depends on the exclusions: `walk` looks.
paths = paths_named("PATH...")
where = click.option("--where", metavar="EXPR", help='Only images that match, such as "width > 640".')
device = click.option(
    "--device",
    metavar="NAME",
    expose_value=False,
    callback=_set_on_run,
    # models.runtimes.devices.DEVICES; importing it would make --help slow.
    help="Run the model on auto, cpu, cuda, cuda:1, tensorrt, directml, coreml, openvino or mps.",
)
decode = click.option(
    "--decode",
    # models.decode_mode.DECODE_MODES; importing it would make --help slow.
    type=click.Choice(["full", "draft", "auto"]),
    metavar="full|draft|auto",
    help="How far to decode large JPEGs: full, or draft at reduced size, which is faster on a processor."
    " Vectors of the two are never mixed. Default: full where a GPU decodes, else draft.",
)
storage = click.option(
    "--storage",
    metavar="TYPE",
    help="Number type of vectors in a new collection: float32, or float16 in half the space.",
)
templates = click.option(
    "--templates",
    type=click.Path(path_type=Path, exists=True),
    metavar="PATH",
    help="Parts in one pose: a defect-free image to compare with, or a folder with one of each image's name.",
)
allow_remote = click.option("--allow-remote", is_flag=True, help="Download images from http and https URLs.")
threads = click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Number of threads. Default: the usable cores."
)
processes = click.option(
    "--processes",
    type=click.IntRange(min=0),
    metavar="N",
    help="Worker processes for the threads; 0: none. Default: $NEARSIGHT_PROCESSES, or what is fastest here.",
)
strict = _flag("--strict", "strict", help="Exit with code 1 if an image cannot be read.")


def null(option: str) -> Callable[[_F], _F]:
    """Add `-0`, which ends each file name with NUL, as `xargs -0` reads it."""
    return click.option("-0", "--null", is_flag=True, help=f"With {option}: end each file name with NUL.")


yes = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
open_report = _flag("--open", "opens_report", help="Open the report in the browser.")


def rate(name: str, text: str) -> Callable[[_F], _F]:
    """Add a rate in (0, 1); None leaves it to the library's default."""
    return click.option(
        name, type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="R", help=text
    )


def false_alarm_rate(text: str) -> Callable[[_F], _F]:
    """Add `--false-alarm-rate`; see `rate`."""
    return rate("--false-alarm-rate", text)


def names(text: str) -> Callable[[_F], _F]:
    """Add `--names`; the command gets a list of names, or None."""
    return click.option("--names", multiple=True, metavar="NAME,...", callback=_read_names, help=text)


def naming(things: str) -> Callable[[_F], _F]:
    """Add `--words` and `--no-names`; the command gets `words`: a list, or None for common words."""

    def add(command: _F) -> _F:
        @wraps(command)
        def with_words(*args: Any, words: list[str] | None, no_names: bool, **rest: Any) -> Any:
            if words and no_names:
                raise click.UsageError("--words names them and --no-names does not; give only one of the two")
            return command(*args, words=[] if no_names else words, **rest)

        return add_options(
            cast(_F, with_words),
            (
                click.option(
                    "--words",
                    multiple=True,
                    metavar="WORD,...",
                    callback=_read_names,
                    help=f"Name {things} with these words. @FILE has one word per line. Default: 1,140 common"
                    " words and their categories. Repeatable.",
                ),
                click.option("--no-names", is_flag=True, help=f"Do not name {things}."),
            ),
        )

    return add


def _read_names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """Split values at commas, and read @FILE, which has one name per line."""
    names: list[str] = []
    for value in values:
        if value.startswith("@"):
            try:
                lines = Path(value[1:]).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise click.BadParameter(f"{value[1:]!r} cannot be read: {error}", ctx, param) from error
            names += [line.strip() for line in lines if line.strip()]
        else:
            names += [name.strip() for name in value.split(",") if name.strip()]
    return [nfc(name) for name in names] if values else None


def is_interactive() -> bool:
    """Whether standard input is a terminal, so that a person can answer a question."""
    return sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation; without a terminal to ask on, refuse."""
    if yes:
        return
    if not is_interactive():
        raise BadInputError(f"{question} Add --yes to do it")
    click.confirm(question, err=True, abort=True)


def dim(text: str) -> Callable[[_F], _F]:
    """Add `--dim`, the number of dimensions of a vector."""
    return click.option("--dim", type=click.IntRange(min=1), metavar="D", help=text)


def k(text: str, default: int = 10) -> Callable[[_F], _F]:
    """Add `-k`, the number of results."""
    return click.option(
        "-k", type=click.IntRange(min=1), metavar="N", default=default, show_default=True, help=text
    )


# Models.


def _complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from nearsight.models.huggingface.known_models import KNOWN_MODELS

    names = [entry.spec.id for entry in nearsight.list_models()] + [model.name for model in KNOWN_MODELS]
    return [name for name in names if name.startswith(incomplete)]


_MODEL = (
    click.option(
        "--model",
        metavar="NAME",
        shell_complete=_complete_model,
        help="The embedding model; see `nearsight models`.",
    ),
    click.option(
        "--layer", metavar="LAYER", help="Take vectors from this layer; see `nearsight models NAME`."
    ),
    click.option(
        "--precision",
        # models.model_name.PRECISIONS; importing it would make --help slow.
        type=click.Choice(["float32", "bf16", "int8", "fp16"]),
        metavar="float32|bf16|int8|fp16",
        help="bf16 (on processors that support it) and int8 are faster and slightly less exact; fp16 is for"
        " GPUs, and slower on most processors.",
    ),
)


def model(command: _F) -> _F:
    """Add `--model`, `--layer` and `--precision`; the command gets `model`, one model name or None."""

    @wraps(command)
    def with_model(
        *args: Any, model: str | None, layer: str | None, precision: str | None, **rest: Any
    ) -> Any:
        return command(*args, model=_model_name(model, layer, precision), **rest)

    return add_options(cast(_F, with_model), _MODEL)


def _model_name(model: str | None, layer: str | None, precision: str | None) -> str | None:
    if not layer and precision in (None, "float32"):
        return model
    from nearsight.models import DEFAULT_MODEL
    from nearsight.models.model_name import ModelVariant

    variant = ModelVariant(
        layer=layer or "", precision="" if precision in (None, "float32") else precision or ""
    )
    return variant.applied_to(model or DEFAULT_MODEL)


# Limits on the images that are read.

_LIMITS = (
    allow_remote,
    threads,
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        metavar="N",
        help="Maximum pixels of an image. Default: 178,956,970.",
    ),
    click.option(
        "--max-bytes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Maximum bytes of an image file. Default: 268,435,456.",
    ),
    click.option(
        "--max-seconds",
        type=click.FloatRange(min=0, min_open=True),
        metavar="S",
        help="Maximum seconds to read an image. Default: 30.",
    ),
    _flag("--fail-fast", "fail_fast", help="Stop at the first image that cannot be read."),
    strict,
)


def limits(command: _F) -> _F:
    """Add the limits of a command that reads images: on each image, and on the command as a whole."""
    return add_options(command, _LIMITS)


_WALK = (
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Pass over what matches, in the syntax of gitignore: private/, '*_small.jpg', '!keep.jpg'."
        " Files named .nearsightignore hold such patterns, too. Repeatable.",
    ),
    click.option("--include-hidden", is_flag=True, help="Walk files and folders that begin with a dot."),
)


def walk(command: _F) -> _F:
    """Add `--exclude` and `--include-hidden`, what a walk of folders passes over.

    The command gets `exclusions`, an `images.Exclusions`. If it has the argument `paths` or `folder`, a place
    without any image is refused before it starts.
    """

    @wraps(command)
    def with_exclusions(*args: Any, exclude: tuple[str, ...], include_hidden: bool, **rest: Any) -> Any:
        from nearsight import images

        exclusions = images.Exclusions(exclude, include_hidden=include_hidden)
        if paths := rest.get("paths") or rest.get("folder"):
            images.require_any(paths, allow_remote=bool(rest.get("allow_remote")), exclusions=exclusions)
        return command(*args, exclusions=exclusions, **rest)

    return add_options(cast(_F, with_exclusions), _WALK)


def limits_of(**limits: float | None) -> "nearsight.Limits":
    """Return the limits on one image; those that are None take their defaults."""
    return nearsight.Limits(**without_none(**limits))


# Files that a command writes or reads.


def report(name: str, text: str = "Write an HTML report.") -> Callable[[_F], _F]:
    """Add `--html FILE` and `--open`; the command gets `report`, the file to write, or None.

    The command writes that file and calls `Run.present_report` with it.

    Parameters
    ----------
    name : str
        Name of the report in the cache directory, for `--open` without `--html`.
    text : str
        Help of `--html`.
    """

    def add(command: _F) -> _F:
        @wraps(command)
        def with_report(*args: Any, html: Path | None, **rest: Any) -> Any:
            run = current_run()
            if html is None and run.opens_report:
                html = run.settings.cache_dir / f"{name}.html"
                html.parent.mkdir(parents=True, exist_ok=True)
            return command(*args, report=html, **rest)

        return add_options(
            cast(_F, with_report),
            (
                click.option(
                    "--html",
                    type=click.Path(path_type=Path),
                    callback=out_file(".html", ".htm"),
                    metavar="FILE",
                    help=text,
                ),
                open_report,
            ),
        )

    return add


def to_file(text: str, *endings: str, required: bool = False) -> Callable[[_F], _F]:
    """Add `--to FILE`, a fitted thing to write; the command gets `to_file`, a path or None."""
    return click.option(
        "--to",
        "to_file",
        required=required,
        type=click.Path(path_type=Path),
        callback=out_file(*endings),
        metavar=f"FILE{'|'.join(endings)}",
        help=text,
    )


def from_file(text: str, *, required: bool = False) -> Callable[[_F], _F]:
    """Add `--from FILE`, a fitted thing to read; the command gets `from_file`, a path or None."""
    return click.option(
        "--from",
        "from_file",
        required=required,
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help=text,
    )
