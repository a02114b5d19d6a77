"""Values as text for people, as rows of CSV tables, and as JSON for programs."""

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from itertools import islice
from typing import Any

# Digits of an id that people see; commands take any unique start of an id.
SHORT_ID_DIGITS = 12

# What spreadsheets take for a formula, and run; a quotation mark before it marks it as text. Marks that stand
# there already are kept by one more.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
_MARKED = re.compile(r"'+[=+\-@\t\r\n]")

# What a result shows of a list.
_N_ENTRIES = 3

#: Options in the URI of a collection that may be shown: nearsight's own, and those of PostgreSQL's client
#: that hold no secret. Whatever else somebody writes there may be one, such as a password's misspelled name.
SHOWN_OPTIONS = {
    "collection", "schema", "database", "index", "replicas", "shards", "tls", "endpoint", "region",
    "application_name", "channel_binding", "client_encoding", "connect_timeout", "dbname",
    "fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr", "keepalives",
    "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "load_balance_hosts",
    "max_protocol_version", "min_protocol_version", "oauth_client_id", "oauth_issuer", "oauth_scope",
    "options", "passfile", "port", "replication", "require_auth", "requirepeer", "service",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression",
    "sslcrl", "sslcrldir", "sslkey", "sslmode", "sslnegotiation", "sslrootcert", "sslsni",
    "target_session_attrs", "tcp_user_timeout", "user",
}  # fmt: skip
# A user and the password of a URI, or one option.
_SECRET = re.compile(r"(?<=://)([^/?#@:]*):.*@|([?&])([^=&#]*)=([^&#]*)")
# A URI in a text, up to the next space or quotation mark.
_URI = re.compile(r"""[A-Za-z][A-Za-z0-9+.-]+://[^\s"']+""")
_PASSWORD = re.compile(r"""(://[^\s/?#@:"']*):[^\s"']*@|([?&](?:ssl)?password=)[^&#\s"']*""", re.IGNORECASE)

# The surrogates by which Python represents bytes of a name that are not UTF-8.
_SURROGATE_BYTE = range(0xDC80, 0xDD00)


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape control characters and bytes that are not UTF-8, so that text is safe for a terminal or a page.

    Parameters
    ----------
    text : str
        Such as a file name, which may hold anything but ``/`` and NUL.
    keep : str
        Control characters to leave as they are, such as a line break.

    Examples
    --------
    >>> print(printable("a\nb\x1b[31m\udcff é"))
    a\nb\x1b[31m\xff é
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def without_passwords(text: str) -> str:
    """Return a text in which no URI holds a password.

    Examples
    --------
    >>> without_passwords("postgres://ann:secret@host/shop cannot be reached")
    'postgres://ann@host/shop cannot be reached'
    """
    if "://" not in text:
        return text
    text = _URI.sub(
        lambda match: match[0] if match[0].startswith("http") else uri_without_secrets(match[0]), text
    )
    return _PASSWORD.sub(lambda match: f"{match[1]}@" if match[1] is not None else f"{match[2]}***", text)


def uri_without_secrets(uri: str) -> str:
    """Return the URI of a collection without its password, and with `SHOWN_OPTIONS` only.

    Examples
    --------
    >>> uri_without_secrets("postgres://ann:secret@host/shop?sslmode=require&pass=secret")
    'postgres://ann@host/shop?sslmode=require&pass=***'
    """

    def shown(match: re.Match[str]) -> str:
        if match[1] is not None:
            return f"{match[1]}@"
        return match[0] if match[3] in SHOWN_OPTIONS else f"{match[2]}{match[3]}=***"

    return _SECRET.sub(shown, uri)


def _escape(char: str) -> str:
    if ord(char) in _SURROGATE_BYTE:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def nfc(text: str) -> str:
    """Return text in the Unicode form by which file names, labels, classes and metadata compare.

    Examples
    --------
    >>> nfc("e\u0301") == nfc("\u00e9")
    True
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def csv_row(cells: Iterable[str]) -> bytes:
    r"""Return one line of a CSV table, in which no cell is a formula for a spreadsheet.

    Bytes of a name that are not UTF-8 stay what they are. `csv_text` undoes the mark of a cell.

    Examples
    --------
    >>> csv_row(["=1+1", "-1.5", "a,b"])
    b'\'=1+1,-1.5,"a,b"\r\n'
    """
    line = io.StringIO()
    csv.writer(line).writerow(
        f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.match(cell) else cell for cell in cells
    )
    return line.getvalue().encode("utf-8", "surrogateescape")


def csv_cell(value: Any) -> str:
    """Return a value of metadata as `services.csv_tables` reads it.

    Examples
    --------
    >>> [csv_cell(value) for value in (None, True, 3.0, 0.5, "a")]
    ['', 'true', '3', '0.5', 'a']
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    # Numbers are stored as float64.
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return "" if value is None else str(value)


def csv_text(cell: str) -> str:
    """Return what a cell of a CSV table says, without the mark of `csv_row`.

    Examples
    --------
    >>> csv_text("'=1+1"), csv_text("'t Hof")
    ('=1+1', "'t Hof")
    """
    return cell[1:] if _MARKED.match(cell) else cell


def plain(value: Any) -> Any:
    """Convert a value to what JSON can hold: times to ISO 8601 in UTC, NaN and infinity to null."""
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
    """Format a time as ISO 8601 to the millisecond: in UTC, or without a zone if it has none."""
    if value.tzinfo is None:
        return value.isoformat(timespec="milliseconds")
    return value.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def size(n_bytes: float) -> str:
    """Format a number of bytes with a unit, in powers of 1,000.

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
    """Format a number with its noun.

    Examples
    --------
    >>> count(1, "image"), count(20_000, "image"), count(2, "person", "people")
    ('1 image', '20,000 images', '2 people')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def counts(by_kind: Mapping[str, int], n: int = 10) -> str:
    """Format numbers by kind, the most frequent first.

    Examples
    --------
    >>> counts({".mp4": 1, ".cr2": 3_000})
    '3,000 .cr2, 1 .mp4'
    """
    ordered = sorted(by_kind.items(), key=lambda pair: (-pair[1], pair[0]))
    return shortened([f"{number:,} {printable(kind)}" for kind, number in ordered], n)


class ShortRepr:
    """A dataclass that a notebook shows briefly: the first entries of a long list, and their number."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = (f"{field.name}={_brief(getattr(self, field.name))}" for field in fields(self) if field.repr)  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(shown)})"


def _brief(value: object) -> str:
    if isinstance(value, list | tuple) and len(value) > _N_ENTRIES:
        return f"[{', '.join(map(repr, value[:_N_ENTRIES]))}, ... {len(value):,} in all]"
    if isinstance(value, dict) and len(value) > _N_ENTRIES:
        entries = ", ".join(f"{key!r}: {entry!r}" for key, entry in islice(value.items(), _N_ENTRIES))
        return f"{{{entries}, ... {len(value):,} in all}}"
    return repr(value)


def score(value: float) -> str:
    """Return a score with two decimals, or in scientific notation if it is large.

    Examples
    --------
    >>> score(3.14159), score(123_456.0)
    ('3.14', '1.2e+05')
    """
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.1e}"


def shortened(names: Sequence[str], n: int = 5) -> str:
    """Return the first names on one line, and how many more there are.

    Examples
    --------
    >>> shortened(["ann", "bob"]), shortened(["ann", "bob", "cy"], 1)
    ('ann, bob', 'ann and 2 more')
    """
    return ", ".join(names[:n]) + (f" and {len(names) - n:,} more" if len(names) > n else "")


def nothing(where: str | None) -> str:
    """Explain why a list of images is empty."""
    return "No image matches." if where else "The collection is empty; add images with: nearsight index PATH"


def pairs(metadata: Mapping[str, Any]) -> str:
    """Format metadata on one line, such as ``year=2024 place="north wing"``, without unset values."""
    parts = []
    for key, value in metadata.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else str(plain(value))
        # Quotes show where a value with spaces ends.
        parts.append(f"{key}={json.dumps(text, ensure_ascii=False)}" if " " in text else f"{key}={text}")
    return " ".join(parts)


def width(text: str) -> int:
    """Return the width of a printable text in terminal cells."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def table(
    rows: Sequence[Sequence[str]], *, header: Sequence[str] = (), right: Sequence[int] = ()
) -> list[str]:
    """Format rows as lines with aligned columns.

    Parameters
    ----------
    rows : sequence of sequence of str
    header : sequence of str
    right : sequence of int
        Columns to align to the right; the others are aligned to the left.
    """
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
