"""What a command prints: one JSON document for programs, short aligned text for people, notes on stderr."""

import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import IO, Any

import click

from nearsight.text_format import plain, printable

# Larger lists wait on disk.
_JSON_SPOOL_BYTES = 8 * 1024 * 1024


class _Nowhere(io.StringIO):
    """A stream whose text is dropped."""

    def write(self, text: str, /) -> int:
        """Drop the text."""
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
        # Taken now: a command that prints JSON points sys.stdout elsewhere while it works.
        # None where the caller has closed it (`>&-`).
        self._out: IO[str] = sys.stdout or _Nowhere()
        self._err: IO[str] = sys.stderr or _Nowhere()
        self._has_answered = False

    @property
    def progress(self) -> bool | None:
        """What the library is told about its bars: none for programs and when quiet, else as it likes."""
        return False if self.quiet or self.as_json else None

    def say(self, text: str = "", **style: Any) -> None:
        """Print one line of the answer for a person."""
        if not self.as_json:
            self._write(self._out, text, **style)

    def note(self, text: str, **style: Any) -> None:
        """Print a remark to stderr, unless quiet."""
        if not self.quiet:
            self._write(self._err, text, **style)

    def warn(self, text: str) -> None:
        """Print to stderr what must not be missed, quiet or not."""
        self._write(self._err, text, fg="yellow")

    def document(self, content: Mapping[str, Any]) -> None:
        """Print the answer for a program; nothing unless `as_json`."""
        if self.as_json:
            self._out.write(_dumps(content) + "\n")
            self._out.flush()
            self._has_answered = True

    def documents(self, key: str, items: Iterable[Mapping[str, Any]]) -> int:
        """Print ``{key: [items...]}`` and return how many; all or nothing, in bounded memory.

        The items wait in a temporary file until the last has arrived, so that a fault half way
        leaves no half document on stdout.
        """
        n = 0
        with tempfile.SpooledTemporaryFile(_JSON_SPOOL_BYTES, "w+", encoding="ascii") as spool:
            for n, item in enumerate(items, 1):
                spool.write((",\n" if n > 1 else "") + _dumps(item))
            spool.seek(0)
            self._out.write(f"{{{_dumps(key)}: [")
            shutil.copyfileobj(spool, self._out)
            self._out.write("]}\n")
            self._out.flush()
            self._has_answered = True
        return n

    def error(self, kind: str, message: str) -> None:
        """Print what went wrong: on stdout for a program that has no answer yet, else on stderr."""
        if self.as_json and not self._has_answered:
            # A stdout that refuses (a full disk) is what went wrong then; there is no other place to say it.
            with contextlib.suppress(OSError):
                self.document({"error": {"type": kind, "message": message}})
        else:
            self._write(self._err, f"{click.style('Error:', fg='red')} {printable(message, keep=chr(10))}")

    def _write(self, stream: IO[str], text: str, **style: Any) -> None:
        # A stream in ASCII or Latin-1 must not end the command because of one file name.
        encoding = getattr(stream, "encoding", None) or "utf-8"
        safe = text.encode(encoding, "backslashreplace").decode(encoding)
        colored = self.color and stream.isatty()
        click.echo(click.style(safe, **style) if style else safe, file=stream, color=colored)


def _dumps(value: Any) -> str:
    # ASCII only: a name with bytes that are not UTF-8 stays valid JSON, as \udcXX, whatever the locale.
    return json.dumps(plain(value), ensure_ascii=True, allow_nan=False)
