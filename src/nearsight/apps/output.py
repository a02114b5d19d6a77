"""What a command says: one JSON document for programs, short aligned text for people, notes on stderr."""

import contextlib
import io
import json
import math
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import IO, Any

import click

# How Python carries the bytes of a name that is not UTF-8.
_SURROGATE_BYTE = range(0xDC80, 0xDD00)

# Larger lists wait on disk.
_JSON_SPOOL_BYTES = 8 * 1024 * 1024


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` safe for a terminal or a page: control characters and stray bytes become escapes.

    Parameters
    ----------
    text : str
        Often a file name, which may hold anything but ``/`` and NUL.
    keep : str
        Control characters to let through, for prose that has lines.

    Examples
    --------
    >>> print(printable("a\nb\x1b[31m\udcff é"))
    a\nb\x1b[31m\xff é
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(char: str) -> str:
    if ord(char) in _SURROGATE_BYTE:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: times in ISO 8601 UTC, NaN and infinity as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy here
        return plain(value.tolist())
    return str(value)


def moment(value: datetime) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond; a time without a zone is UTC already."""
    utc = value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def size(n_bytes: float) -> str:
    """Return a size for people, in powers of 1000.

    Examples
    --------
    >>> [size(n) for n in (0, 999, 1000, 15_400_000, 2.5e12)]
    ['0 B', '999 B', '1.0 kB', '15 MB', '2.5 TB']
    """
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 9.95 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.0f} TB" if n_bytes >= 9.95 else f"{n_bytes:.1f} TB"


def count(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> count(1, "picture"), count(20_000, "picture"), count(2, "copy", "copies")
    ('1 picture', '20,000 pictures', '2 copies')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def nothing(where: str | None) -> str:
    """Say why there are no pictures to list."""
    return "No picture matches." if where else "No pictures yet: nearsight index adds some."


def pairs(metadata: Mapping[str, Any]) -> str:
    """Return metadata on one line: ``year=2024 place="north wing"``; values that are not set are left out."""
    parts = []
    for key, value in metadata.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else str(plain(value))
        # Quoted where a reader could not tell where it ends.
        parts.append(f"{key}={json.dumps(text, ensure_ascii=False)}" if " " in text else f"{key}={text}")
    return " ".join(parts)


def width(text: str) -> int:
    """Return how many terminal cells a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def table(
    rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), right: Sequence[int] = ()
) -> list[str]:
    """Return aligned lines; the last column is never padded, those numbered in `right` are flush right."""
    cells = [[printable(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not cells:
        return []
    widths = [max(width(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = []
    for row in cells:
        padded = []
        for i, cell in enumerate(row):
            space = " " * (widths[i] - width(cell))
            padded.append(space + cell if i in right else cell if i == len(row) - 1 else cell + space)
        lines.append("  ".join(padded).rstrip())
    return lines


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
        Whether colours may be used where a stream is a terminal.
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
