"""The URI of a collection in PostgreSQL."""

import hashlib
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from nearsight.errors import InvalidParameterError
from nearsight.text_format import SHOWN_OPTIONS

FORM = "postgres://user@host:5432/database?collection=NAME"
# What is nearsight's own in the query of a URI; everything else is libpq's, such as sslmode.
_OWN = ("collection", "schema")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Address:
    """A collection in a database.

    Attributes
    ----------
    collection : str
        Its name.
    schema : str
        The schema of the database that its tables are in.
    shown : str
        The URI without a password.
    dsn : str
        What the driver connects to. It may hold a password, and is never shown.
    """

    collection: str
    schema: str
    shown: str
    dsn: str = field(repr=False)

    @property
    def label(self) -> str:
        """A name for files of this collection that no other collection has."""
        return f"{self.collection}-{hashlib.sha256(self._place.encode()).hexdigest()[:12]}"

    @property
    def _place(self) -> str:
        """Where it is, whoever connects."""
        parts = urlsplit(self.shown)
        host = f"{(parts.hostname or '')}:{parts.port or 5432}"
        return f"{host}{parts.path}?{self.schema}.{self.collection}"


def parse_address(uri: str) -> Address:
    """Return the address that a URI names.

    Raises
    ------
    InvalidParameterError
        The URI lacks the collection, or a name is not valid.

    Examples
    --------
    >>> address = parse_address("postgres://ann:secret@host/shop?collection=photos&sslmode=require")
    >>> address.collection, address.schema, address.shown
    ('photos', 'nearsight', 'postgres://ann@host/shop?collection=photos&sslmode=require')
    """
    try:
        parts = urlsplit(uri)
        port, host = parts.port, parts.hostname or ""
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        # Not chained: the error of urllib holds the URI.
        raise InvalidParameterError(
            f"this URI of a database cannot be read; write {FORM}, with %40 for @ and %2F for / in a password"
        ) from None
    own = {name: value for name, value in options if name in _OWN}
    others = [(name, value) for name, value in options if name not in _OWN]
    user = f"{parts.username}@" if parts.username else ""
    host = f"[{host}]" if ":" in host else host
    public = [(name, value) for name, value in options if name in SHOWN_OPTIONS]
    shown = urlunsplit(
        ("postgres", f"{user}{host}{f':{port}' if port else ''}", parts.path, urlencode(public, safe="/"), "")
    )
    if not shown.startswith("postgres://"):  # urllib writes no empty host
        shown = shown.replace("postgres:", "postgres://", 1)
    collection, schema = own.get("collection", ""), own.get("schema", "nearsight")
    if not _NAME.fullmatch(collection):
        raise InvalidParameterError(
            f"{shown} names no collection: {collection!r} must have 1 to 40 letters, digits, - and _,"
            f" beginning with a letter or digit; write {FORM}"
        )
    if not _SCHEMA.fullmatch(schema):
        raise InvalidParameterError(f"{shown}: schema={schema!r} must be a name of letters, digits and _")
    dsn = f"postgresql://{parts.netloc}{parts.path}"
    return Address(
        collection, schema, shown, f"{dsn}?{urlencode(others, quote_via=quote)}" if others else dsn
    )
