"""The output of a command: JSON or text on stdout, notes and warnings on stderr."""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import IO, Any

import click

from nearsight.text_format import count, plain, printable

# The version of the documents that `--json` prints; a change that breaks their readers raises it.
SCHEMA = 1

# A longer list is buffered on disk.
_JSON_SPOOL_BYTES = 8 * 1024 * 1024


class _NullStream(io.StringIO):
    """A stream that discards its text."""

    def write(self, text: str, /) -> int:
        """Discard the text."""
        return len(text)


class Console:
    """The two streams of one command.

    Parameters
    ----------
    as_json : bool
        Whether the result is one JSON document. `say` is silent then.
    quiet : bool
        Whether `note` is silent and no progress is wanted.
    color : bool
        Whether colors may be used where a stream is a terminal.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, color: bool = True) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.color = color
        # Bound now: while a command with --json runs, sys.stdout points to stderr.
        # sys.stdout is None where the caller has closed it (`>&-`).
        self._out: IO[str] = sys.stdout or _NullStream()
        self._err: IO[str] = sys.stderr or _NullStream()
        self._has_printed_document = False

    @property
    def progress(self) -> bool | None:
        """The library's `progress` argument: False when quiet, else None, which leaves the choice to it."""
        return False if self.quiet else None

    def say(self, text: str = "", **style: Any) -> None:
        """Print one line of the result for people; with JSON, print nothing."""
        if not self.as_json:
            self._write(self._out, text, **style)

    def note(self, text: str, **style: Any) -> None:
        """Print a remark to stderr, unless quiet."""
        if not self.quiet:
            self._write(self._err, text, **style)

    def warn(self, text: str) -> None:
        """Print a warning to stderr, even when quiet."""
        self._write(self._err, text, fg="yellow")

    def paths(self, paths: Iterable[str], *, null: bool = False, to_delete: bool = False) -> None:
        """Print file names to stdout, byte for byte as the file system has them, for another program.

        A program takes a name with a line break for two others, unless names end with NUL. A warning tells of
        such names; among files to delete they are left out.
        """
        n_broken = 0
        for path in paths:
            is_broken = not null and ("\n" in path or "\r" in path)
            n_broken += is_broken
            if not (is_broken and to_delete):
                click.echo(os.fsencode(path + ("\0" if null else "\n")), nl=False)
        if n_broken:
            names, how = count(n_broken, "file name"), "not listed" if to_delete else "listed"
            self.warn(f"{names} with a line break {how}; other programs take such a name for two: add -0")

    def document(self, content: Mapping[str, Any]) -> None:
        """Print the result for programs, with the schema's version first; without JSON, print nothing."""
        if self.as_json:
            self._out.write(_dumps({"schema": SCHEMA, **content}) + "\n")
            self._out.flush()
            self._has_printed_document = True

    def documents(self, key: str, items: Iterable[Mapping[str, Any]]) -> int:
        """Print ``{"schema": 1, key: [items...]}`` whole or not at all; return the number of items.

        Memory is bounded: a temporary file buffers the items until the last one has arrived. An error
        half way leaves nothing on stdout.
        """
        n_items = 0
        with tempfile.SpooledTemporaryFile(_JSON_SPOOL_BYTES, "w+", encoding="ascii") as spool:
            for n_items, item in enumerate(items, 1):
                spool.write((",\n" if n_items > 1 else "") + _dumps(item))
            spool.seek(0)
            self._out.write(f'{{"schema": {SCHEMA}, {_dumps(key)}: [')
            shutil.copyfileobj(spool, self._out)
            self._out.write("]}\n")
            self._out.flush()
            self._has_printed_document = True
        return n_items

    def error(self, kind: str, message: str) -> None:
        """Print an error: with JSON as the document, unless one is printed already; else to stderr."""
        if self.as_json and not self._has_printed_document:
            # Where stdout itself fails (a full disk), the error has nowhere else to go.
            with contextlib.suppress(OSError):
                self.document({"error": {"type": kind, "message": message}})
        else:
            self._write(self._err, f"{click.style('Error:', fg='red')} {printable(message, keep=chr(10))}")

    def _write(self, stream: IO[str], text: str, **style: Any) -> None:
        # A file name that the stream's encoding (ASCII, Latin-1) lacks must not end the command.
        encoding = getattr(stream, "encoding", None) or "utf-8"
        safe = text.encode(encoding, "backslashreplace").decode(encoding)
        colored = self.color and stream.isatty()
        click.echo(click.style(safe, **style) if style else safe, file=stream, color=colored)


def _dumps(value: Any) -> str:
    # ASCII: a name with bytes that are not UTF-8 stays valid JSON, as \udcXX, in every locale.
    return json.dumps(plain(value), ensure_ascii=True, allow_nan=False)
