"""What every command has in common: `--json`, `-c`, `-q`, the exit codes, and how errors are told.

Exit codes: 0 success; 1 it ran and found failures; 2 bad usage or input; 130 interrupted;
141 the reader of a pipe went away.
"""

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

import nearsight
from nearsight.artifacts import remedy
from nearsight.cli.console import Console
from nearsight.errors import ImageError, NearsightError, StorageError
from nearsight.settings import Settings
from nearsight.text_format import printable

# What Ctrl-C means for a command that saves as it goes.
RESUMES = "what was finished is saved, and the same command goes on from there"

FAILURES_FOUND, BAD_INPUT, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141


@dataclass
class Run:
    """One run of the command line.

    Attributes
    ----------
    settings : Settings
        The environment's answers.
    console : Console
        Where results and remarks go.
    collection : Path
        The collection meant: `-c`, else the settings'.
    device : str
        Where models run: `--device`, else the settings'.
    fail_fast : bool
        Whether the first bad image ends the work, which is then a failure and not bad input.
    if_stopped : str
        What Ctrl-C means for the work so far.
    """

    settings: Settings
    console: Console
    collection: Path
    device: str = "auto"
    fail_fast: bool = False
    if_stopped: str = "nothing was written"

    def open_collection(self) -> "nearsight.Collection":
        """Open the collection meant."""
        return nearsight.Collection.open(
            self.collection, device=self.device, cache_dir=self.settings.cache_dir
        )


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    run = ctx.find_object(Run)
    if run is None or not value:  # None while the shell asks for completions
        return
    if param.name == "collection":
        run.collection = value
    elif param.name == "as_json":
        run.console.as_json = True
    else:
        run.console.quiet = True


def _shared_options() -> list[click.Parameter]:
    """Return fresh `-c`, `--json` and `-q`; they are understood before, within and after a command's name."""
    return [
        click.Option(
            ["-c", "--collection"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            expose_value=False,
            callback=_remember,
            help="The collection. Default: NEARSIGHT_COLLECTION, or ./.nearsight.",
        ),
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Print one JSON document on stdout; all else goes to stderr.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="No progress and no remarks.",
        ),
    ]


class Command(click.Command):
    """A command with the shared options and a documented JSON document.

    Parameters
    ----------
    json_shape : str
        The document that `--json` prints, for the help text and the reference.
    examples : sequence of str
        Command lines worth copying.
    """

    def __init__(
        self,
        *args: Any,
        json_shape: str = "",
        examples: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_options())
        self.json_shape = json_shape
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Add the examples and the JSON document to the help text."""
        for title, lines in (("Examples", self.examples), ("With --json", self.json_shape.splitlines())):
            if lines:
                with formatter.section(title):
                    formatter.write("".join(f"  {line}\n" for line in lines))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; where JSON is asked for, a library that prints cannot spoil it."""
        run = ctx.find_object(Run)
        spoiled = run is not None and run.console.as_json
        try:
            with contextlib.redirect_stdout(sys.stderr) if spoiled else contextlib.nullcontext():
                code = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            # `| head` has seen enough. Whatever is still buffered has nowhere to go.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(PIPE_CLOSED)
        return code


class Subgroup(click.Group):
    """Commands that share a first word, such as `classify predict`."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_options())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their definition."""
        return list(self.commands)


class Family(Subgroup):
    """Commands that share a first word which is a command by itself as well, such as `models`.

    Parameters
    ----------
    own : Command
        What the word alone does, and with anything behind it that is no command.
    """

    def __init__(self, *, own: Command, **kwargs: Any) -> None:
        super().__init__(own.name, help=own.help, **kwargs)
        self.own = own

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, which is nothing for the word alone."""
        return super().get_command(ctx, cmd_name) if cmd_name else self.own

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Pass everything on to the word's own command, unless another is named."""
        first = next((word for word in args if not word.startswith("-")), "")
        return super().parse_args(ctx, args if first in self.commands else ["", *args])


class Group(Subgroup):
    """The `nearsight` command: it turns every outcome into an exit code and a message."""

    def main(self, args: Any = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit."""
        words = list(sys.argv[1:] if args is None else args)
        options = words[: words.index("--")] if "--" in words else words
        settings = Settings.from_environment()
        # Known before parsing, so that a mistake in the usage is told as JSON too.
        console = Console(as_json="--json" in options, color=not settings.no_color)
        run = Run(settings, console, settings.collection, settings.device)
        extra.update(standalone_mode=False)
        extra.setdefault("obj", run)
        sys.exit(_guarded(lambda: super(Group, self).main(args, *rest, **extra), run))


def _guarded(work: Callable[[], Any], run: Run) -> int:
    """Call `work` and return the exit code that its outcome deserves."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: run.console.note(f"Note: {message}", fg="yellow")
            return int(work() or 0)
    except click.UsageError as error:
        if run.console.as_json:
            run.console.error("UsageError", error.format_message())
        else:
            error.show(sys.stderr)
        return BAD_INPUT
    except click.ClickException as error:
        run.console.error(type(error).__name__, error.format_message())
        return BAD_INPUT
    except (click.Abort, KeyboardInterrupt) as error:
        return _stopped(error, run)
    except NearsightError as error:
        run.console.error(type(error).__name__, str(error))
        broke_off = isinstance(error, StorageError) or (isinstance(error, ImageError) and run.fail_fast)
        return FAILURES_FOUND if broke_off else BAD_INPUT
    except PermissionError as error:
        name = printable(os.fsdecode(error.filename or "a file"))
        run.console.error(
            type(error).__name__, f"{name}: permission denied; check who owns it, or choose another place"
        )
        return FAILURES_FOUND
    except OSError as error:
        told = str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            name = f"{printable(os.fsdecode(error.filename))}: " if error.filename else ""
            told = f"{name}{error.strerror}; {remedy(error)}"
        run.console.error(type(error).__name__, told)
        return FAILURES_FOUND
    except Exception as error:
        # A library that Ctrl-C caught while it was being loaded calls that an ImportError.
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            return _stopped(KeyboardInterrupt(), run)
        traceback.print_exc(file=sys.stderr)
        run.console.error(type(error).__name__, f"{error} (this is a fault in nearsight: please report it)")
        return FAILURES_FOUND


def _stopped(error: BaseException, run: Run) -> int:
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt):
        run.console.error("Interrupted", f"stopped; {run.if_stopped}")
        return INTERRUPTED
    run.console.error("Abort", "stopped; nothing was changed")
    return FAILURES_FOUND


class BadInputError(click.ClickException):
    """What was named cannot be used; the usage itself was right."""

    exit_code = BAD_INPUT


def out_file(*endings: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Return an option's callback for a file to be written: its ending says the format.

    Everything is checked before any work is done, not after an hour of it.
    """

    def check(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
        if path is None:
            return None
        name, folder = printable(str(path)), printable(str(path.parent))
        if path.suffix.lower() not in endings:
            raise click.BadParameter(f"{name!r} must end in {' or '.join(endings)}", ctx, param)
        if path.is_dir():
            raise click.BadParameter(f"{name!r} is a folder; name a file in it", ctx, param)
        if not path.parent.is_dir():
            raise click.BadParameter(f"the folder {folder!r} does not exist; make it first", ctx, param)
        if not os.access(path.parent, os.W_OK):
            raise click.BadParameter(f"the folder {folder!r} cannot be written to", ctx, param)
        return path

    return check
