"""The base of every command: the options `-c`, `--json` and `-q`, the exit codes, and the error messages.

Exit codes: 0 the command did what was asked; 1 it failed; 2 bad usage or input; 130 interrupted;
141 the reader of the pipe has closed it.
"""

import contextlib
import errno
import os
import shlex
import sys
import traceback
import warnings
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, NoReturn

import click

import nearsight
from nearsight.artifacts import remedy
from nearsight.cli.console import Console
from nearsight.errors import CollectionNotFoundError, ImageError, ImageFailure, NearsightError, StorageError
from nearsight.settings import Settings
from nearsight.text_format import count, printable

# What a command that saves as it goes tells after Ctrl-C.
RESUMABLE = "finished work is saved, and the same command continues from there"

FAILURE, BAD_INPUT, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

_MAX_FAILURES_SHOWN = 20


@dataclass
class Run:
    """One run of the command line.

    Attributes
    ----------
    settings : Settings
        The settings from the environment.
    console : Console
        Where results and remarks are printed.
    collection : str
        The collection's URI: `-c`, else the settings'.
    device : str
        Where models run: `--device`, else the settings'.
    strict : bool
        Whether an image that cannot be read makes the exit code 1.
    fail_fast : bool
        Whether the first image that cannot be read ends the command, with exit code 1.
    opens_report : bool
        Whether the HTML report is opened in the browser.
    if_interrupted : str
        What Ctrl-C means for the work so far.
    """

    settings: Settings
    console: Console
    collection: str
    device: str = "auto"
    strict: bool = False
    fail_fast: bool = False
    opens_report: bool = False
    if_interrupted: str = "nothing was written"

    @property
    def on_error(self) -> Literal["record", "raise"]:
        """The library's `on_error` argument: whether an unreadable image is listed or raises."""
        return "raise" if self.fail_fast else "record"

    @property
    def shown_collection(self) -> str:
        """The collection's URI without its password."""
        from nearsight.store import shown_uri

        return shown_uri(self.collection)

    def command(self, *words: str) -> str:
        """Return a command about the same collection, to be run as it stands."""
        of = [] if self.collection == self.settings.collection else ["-c", self.shown_collection]
        return shlex.join(["nearsight", words[0], *of, *words[1:]])

    @property
    def collection_files(self) -> Path:
        """The directory of the collection's files on this machine; the collection need not exist."""
        from nearsight.store import locate

        return locate(self.collection).files

    def open_collection(self) -> "nearsight.Collection":
        """Open the collection."""
        # A command searches a few times: to load the rows into memory would take longer.
        return nearsight.Collection.open(
            self.collection, device=self.device, cache_dir=self.settings.cache_dir, in_memory=False
        )

    def report_skipped(self, skipped: Mapping[str, int], *, is_result: bool = True) -> None:
        """Say what a walk has passed over, by kind; to stderr where it is not part of the result."""
        if not skipped:
            return
        from nearsight.images.optional_formats import skipped_text

        tell = self.console.say if is_result else self.console.note
        tell(skipped_text(skipped))

    def report_failures(
        self, failures: Sequence[ImageFailure], *, n_images: int, heading: str | None = None
    ) -> int:
        """Warn of the images that could not be read, and return the exit code.

        Parameters
        ----------
        failures : sequence of ImageFailure
        n_images : int
            How many images could be read.
        heading : str, optional
            What happened to those images; by default, that they could not be read.
        """
        if not failures:
            if not n_images:
                self.console.note("No images were found there.")
            return 0
        self.console.warn(heading or f"{count(len(failures), 'image')} could not be read:")
        for failure in failures[:_MAX_FAILURES_SHOWN]:
            self.console.warn(f"  {printable(failure.path)}: {printable(failure.reason)}")
        if len(failures) > _MAX_FAILURES_SHOWN:
            self.console.warn(f"  and {len(failures) - _MAX_FAILURES_SHOWN:,} more; --json lists all")
        return FAILURE if self.strict else 0

    def present_report(self, file: Path) -> None:
        """Say where an HTML report is; with `--open`, show it in the browser."""
        folder = file.with_name(f"{file.stem}_images")
        beside = f", with its thumbnails in {printable(folder.name)}" if folder.is_dir() else ""
        self.console.note(f"Report: {printable(str(file))}{beside}")
        if self.opens_report and not webbrowser.open(file.absolute().as_uri()):
            self.console.warn(f"No browser could be started; open {printable(str(file))} yourself.")


def _set_on_run(ctx: click.Context, param: click.Parameter, value: Any) -> None:
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
    """Return `-c`, `--json` and `-q`, which may stand before and after a command's name."""
    return [
        click.Option(
            ["-c", "--collection"],
            metavar="URI",
            expose_value=False,
            callback=_set_on_run,
            help="The collection. Default: $NEARSIGHT_COLLECTION, or ./.nearsight.",
        ),
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            expose_value=False,
            callback=_set_on_run,
            help="Print one JSON document on stdout; everything else goes to stderr.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_set_on_run,
            help="Print neither progress nor notes.",
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
        """Run the command; with `--json`, what a library prints goes to stderr."""
        run = ctx.find_object(Run)
        redirects = run is not None and run.console.as_json
        try:
            with contextlib.redirect_stdout(sys.stderr) if redirects else contextlib.nullcontext():
                code = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            # The reader, such as `head`, has closed the pipe: discard what is still buffered.
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names; for a misspelled one, suggest the nearest."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            matches = get_close_matches(name, self.commands, n=1)
            suggestion = f"did you mean {matches[0]!r}?" if matches else f"see {ctx.command_path} --help"
            ctx.fail(f"there is no command {name!r}; {suggestion}")
        return super().resolve_command(ctx, args)


class Family(Subgroup):
    """Commands that share a first word which is also a command by itself, such as `models`.

    Parameters
    ----------
    own : Command
        The command that the first word alone runs.
    """

    def __init__(self, *, own: Command, **kwargs: Any) -> None:
        super().__init__(own.name, help=own.help, **kwargs)
        self.own = own

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name; an empty name stands for the first word alone."""
        return super().get_command(ctx, cmd_name) if cmd_name else self.own

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Pass the arguments to the first word's own command, unless they name another."""
        first = next((word for word in args if not word.startswith("-")), "")
        return super().parse_args(ctx, args if first in self.commands else ["", *args])


class Group(Subgroup):
    """The `nearsight` command: it turns every outcome into an exit code and a message.

    Parameters
    ----------
    aliases : mapping of str to str
        Other names of commands, which the help does not list.
    sections : mapping of str to sequence of Command
        The commands, by the title under which the help lists them.
    """

    def __init__(
        self,
        *args: Any,
        aliases: Mapping[str, str] = {},
        sections: Mapping[str, Sequence[click.Command]] = {},
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args, commands=[command for part in sections.values() for command in part], **kwargs
        )
        self.aliases = aliases
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, section by section."""
        # Alike in all sections, so that their columns align.
        width = max(map(len, self.commands))
        limit = formatter.width - 6 - width
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        ((command.name or "").ljust(width), command.get_short_help_str(limit))
                        for command in commands
                    ]
                )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name or alias."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; without any, print the help."""
        return super().parse_args(ctx, args or ["--help"])

    def main(self, args: Any = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit."""
        words = list(sys.argv[1:] if args is None else args)
        options = words[: words.index("--")] if "--" in words else words
        settings = Settings.from_environment()
        # Known before parsing, so that a mistake in the usage is printed as JSON too.
        console = Console(as_json="--json" in options, color=not settings.no_color)
        run = Run(settings, console, settings.collection, settings.device)
        extra.update(standalone_mode=False)
        extra.setdefault("obj", run)
        sys.exit(_exit_code(lambda: super(Group, self).main(args, *rest, **extra), run))


def _exit_code(work: Callable[[], Any], run: Run) -> int:
    """Call `work`, print the error that it raises, and return the exit code."""
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
        return _interrupted(error, run)
    except NearsightError as error:
        run.console.error(type(error).__name__, _message(error))
        is_failure = isinstance(error, StorageError) or (isinstance(error, ImageError) and run.fail_fast)
        return FAILURE if is_failure else BAD_INPUT
    except OSError as error:
        run.console.error(type(error).__name__, _os_error_message(error))
        return FAILURE
    except Exception as error:
        # A library that Ctrl-C interrupts while it is imported raises ImportError.
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            return _interrupted(KeyboardInterrupt(), run)
        traceback.print_exc(file=sys.stderr)
        run.console.error(type(error).__name__, f"{error} (this is a bug in nearsight: please report it)")
        return FAILURE


def _message(error: NearsightError) -> str:
    """Return what is wrong, with a command as the remedy."""
    if isinstance(error, CollectionNotFoundError) and error.uri:
        uri = shlex.quote(error.uri)
        return f"there is no collection at {error.uri}; create one with: nearsight index PATH -c {uri}"
    return str(error)


def _os_error_message(error: OSError) -> str:
    name = printable(os.fsdecode(error.filename)) if error.filename else ""
    if isinstance(error, PermissionError):
        return f"{name or 'a file'}: permission denied; check who owns it, or choose another place"
    if isinstance(error, FileNotFoundError) and not _has_current_folder():
        return "the current folder was removed; change to one that exists"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return f"{name}{': ' if name else ''}{error.strerror}; {remedy(error)}"
    return f"{name}: {error.strerror}" if name and error.strerror else str(error)


def _has_current_folder() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _interrupted(error: BaseException, run: Run) -> int:
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt):
        run.console.error("Interrupted", f"stopped; {run.if_interrupted}")
        return INTERRUPTED
    run.console.error("Abort", "stopped; nothing was changed")
    return FAILURE


class BadInputError(click.ClickException):
    """The usage is right, but what an argument names cannot be used."""

    exit_code = BAD_INPUT


def out_file(*endings: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Return the callback of an option that names a file to write; its ending names the format.

    The callback refuses a file that cannot be written before the command starts its work.
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
