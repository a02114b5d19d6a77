"""The URI of a collection in Milvus."""

import hashlib
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from nearsight.errors import InvalidParameterError
from nearsight.text_format import SHOWN_OPTIONS

FORM = "milvus://host:19530?collection=NAME"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,39}")
#: Indexes that Milvus 2.3 has, by how many times k rows are fetched and compared exactly.
INDEXES = {"FLAT": 1, "IVF_FLAT": 1, "HNSW": 1, "IVF_SQ8": 4, "DISKANN": 4}
_DEFAULT_INDEX = "HNSW"
_OPTIONS = {"collection", "database", "index", "replicas", "shards", "tls", "token"}


@dataclass(frozen=True, slots=True)
class MilvusAddress:
    """A collection in Milvus.

    Attributes
    ----------
    collection : str
        Its name.
    url : str
        Of the server.
    database : str
    shown : str
        The URI without a password.
    index : str
        One of `INDEXES`; it counts when the collection is created.
    replicas, shards : int
        In how many query nodes rows are loaded, and in how many parts they are written.
    token : str
        ``user:password``, or an API key. It is never shown.
    """

    collection: str
    url: str
    database: str
    shown: str
    index: str = _DEFAULT_INDEX
    replicas: int = 1
    shards: int = 1
    token: str = field(default="", repr=False)

    @property
    def label(self) -> str:
        """A name for files of this collection that no other collection has."""
        place = f"{self.url} {self.database} {self.collection}"
        return f"{self.collection}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"

    def table(self, name: str) -> str:
        """Return the name of one of the collection's tables."""
        return f"nearsight_{self.collection}__{name}"


def parse_address(uri: str) -> MilvusAddress:
    """Return the address that a URI names.

    Raises
    ------
    InvalidParameterError
        The URI lacks the collection, or an option is not valid.

    Examples
    --------
    >>> address = parse_address("milvus://ann:secret@host/?collection=photos&index=IVF_SQ8")
    >>> address.url, address.index, address.shown
    ('http://host:19530', 'IVF_SQ8', 'milvus://ann@host:19530?collection=photos&index=IVF_SQ8')
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port or 19530
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        # Not chained: the error of urllib holds the URI.
        raise InvalidParameterError(f"this URI of a Milvus server cannot be read; write {FORM}") from None
    public = {name: value for name, value in options.items() if name in SHOWN_OPTIONS}
    user = f"{parts.username}@" if parts.username else ""
    shown = f"milvus://{user}{host}:{port}?{urlencode(public, safe='/')}"
    collection, index = options.get("collection", ""), options.get("index", _DEFAULT_INDEX).upper()
    if not host:
        raise InvalidParameterError(f"{shown} names no server; write {FORM}")
    if not _NAME.fullmatch(collection):
        raise InvalidParameterError(
            f"{shown} names no collection: {collection!r} must have 1 to 40 letters, digits and _; write"
            f" {FORM}"
        )
    if unknown := sorted(options.keys() - _OPTIONS):
        raise InvalidParameterError(f"{shown}: unknown options {unknown}; there are {sorted(_OPTIONS)}")
    if index not in INDEXES:
        raise InvalidParameterError(f"{shown}: index={index!r} must be one of {', '.join(INDEXES)}")
    scheme = "https" if options.get("tls", "").lower() in ("1", "true") else "http"
    token = options.get("token", "")
    if parts.username:
        token = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    replicas, shards = (_count(options.get(name, "1"), name, shown) for name in ("replicas", "shards"))
    url, database = f"{scheme}://{host}:{port}", options.get("database", "")
    return MilvusAddress(collection, url, database, shown, index, replicas, shards, token)


def _count(text: str, name: str, shown: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise InvalidParameterError(f"{shown}: {name}={text!r} must be a whole number, 1 or more")
    return int(text)
