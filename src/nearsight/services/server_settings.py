"""The settings of the service: flags, variables of the environment, and a TOML file, all of one name."""

import ipaddress
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from nearsight.errors import InvalidParameterError
from nearsight.text_format import without_passwords

ENVIRONMENT_PREFIX = "NEARSIGHT_"
# Read from a file whose name is in the variable with this ending, as container secrets are.
_FILE_ENDING = "_FILE"


def _setting(default: Any, help: str, **facts: Any) -> Any:
    return field(default=default, metadata={"help": help, **facts})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the service runs; each field is a flag, a variable ``NEARSIGHT_NAME`` and a key of the TOML file.

    The metadata of each field holds its help text. A field that is a tuple is a flag that may be repeated, a
    list in TOML, and separated by commas in the environment.
    """

    host: str = _setting(
        "127.0.0.1", "Address to listen on. Any but loopback needs a key.", metavar="ADDRESS"
    )
    port: int = _setting(8000, "Port to listen on; 0 takes a free one.")
    data: str = _setting(
        "nearsight-data", "Directory of keys, jobs, uploads and new collections.", metavar="DIR"
    )
    model: tuple[str, ...] = _setting(
        (), "A model that clients may name; the first is the default one.", metavar="ALIAS=NAME"
    )
    mount: tuple[str, ...] = _setting((), "A collection that clients may name.", metavar="ALIAS=DIR|URI")
    root: tuple[str, ...] = _setting(
        (), "A folder of this machine that clients may index, by its alias.", metavar="ALIAS=DIR"
    )
    rebind: tuple[str, ...] = _setting(
        (), "Accept that the model of this alias gives other vectors than before.", metavar="ALIAS"
    )
    pin: tuple[str, ...] = _setting((), "A model that is never unloaded.", metavar="ALIAS")
    model_memory_mb: int = _setting(4096, "Memory for models; the least recently used are unloaded.")
    model_ttl_s: float = _setting(0.0, "Unload a model after this many seconds without use; 0: never.")
    n_threads: int = _setting(0, "Threads that decode and embed; 0: one for each core.")
    queue: int = _setting(256, "Images and texts that may wait.")
    queue_mb: int = _setting(256, "Megabytes that may wait.")
    max_wait_s: float = _setting(10.0, "Refuse a request that would wait longer than this.")
    deadline_s: float = _setting(
        60.0, "Drop what has waited longer than this, in the queue or for a database."
    )
    max_request_mb: int = _setting(64, "Largest body of a request.")
    max_image_mb: int = _setting(20, "Largest image of a request.")
    max_pixels: int = _setting(100_000_000, "Most pixels of an image.")
    max_images: int = _setting(32, "Most images of a request.")
    max_texts: int = _setting(2048, "Most texts of a request.")
    read_timeout_s: float = _setting(
        30.0, "Seconds in which the head of a request, and then its body, must arrive."
    )
    rate: float = _setting(0.0, "Requests per second that each key may make on average; 0: any number.")
    allow_urls: bool = _setting(False, "Let clients name images by http and https URLs.")
    allowed_host: tuple[str, ...] = _setting(
        (), "A name by which clients reach this server, besides localhost and addresses.", metavar="NAME"
    )
    immich: tuple[str, ...] = _setting(
        (), "Answer Immich: its name of a model, and the alias of ours.", metavar="NAME=ALIAS"
    )
    immich_host: str = _setting("127.0.0.1", "Address of the listener for Immich.", metavar="ADDRESS")
    immich_port: int = _setting(3003, "Port of the listener for Immich.")
    immich_allow: tuple[str, ...] = _setting(
        ("127.0.0.0/8", "::1/128"),
        "Addresses that may use the listener for Immich, which sends no key. Default: loopback.",
        metavar="NETWORK",
    )
    job_memory_mb: int = _setting(0, "Address space that a job may take; 0: any.")
    grace_s: float = _setting(20.0, "Seconds that requests may take to end after SIGTERM.")
    keep_alive_s: int = _setting(75, "Seconds that an idle connection stays open.")
    log_format: str = _setting("json", "How to log.", choices=("json", "text"))
    otlp_endpoint: str = _setting(
        "",
        "Send traces to this OpenTelemetry collector (OTLP over HTTP); by default to nobody.",
        metavar="URL",
    )
    api_key: str = _setting(
        "", "A key with all scopes, for containers; better as NEARSIGHT_API_KEY_FILE.", is_secret=True
    )

    def __post_init__(self) -> None:
        for name in ("port", "immich_port"):
            if not 0 <= getattr(self, name) <= 65535:
                raise InvalidParameterError(f"{name} is {getattr(self, name)}; it must be in 0..65535")
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, (int, float)) and value < 0:
                raise InvalidParameterError(f"{each.name} is {value}; it must be at least 0")
            choices = each.metadata.get("choices")
            if choices and value not in choices:
                raise InvalidParameterError(f"{each.name} is {value!r}; it must be {' or '.join(choices)}")
        for name in ("queue", "queue_mb", "max_request_mb", "max_image_mb", "max_images", "max_texts"):
            if getattr(self, name) < 1:
                raise InvalidParameterError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("model", "mount", "root", "immich"):
            self.pairs(name)

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def pairs(self, name: str) -> dict[str, str]:
        """Return a repeated ``ALIAS=VALUE`` setting as a mapping, in the order given.

        Raises
        ------
        InvalidParameterError
            A value has no ``=``, an alias is empty, holds a slash, or is given twice.
        """
        pairs: dict[str, str] = {}
        for value in getattr(self, name):
            alias, sign, rest = value.partition("=")
            if not (sign and alias and rest) or "/" in alias or alias.startswith("."):
                shown = without_passwords(repr(value))
                raise InvalidParameterError(
                    f"{name} is {shown}; it must be ALIAS=VALUE, and the alias may hold no slash"
                )
            if alias in pairs:
                raise InvalidParameterError(f"{name} names {alias!r} twice; give each alias one value")
            pairs[alias] = rest
        return pairs


def resolve(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: Mapping[str, Any] | None = None
) -> ServerSettings:
    """Return the settings: flags come before the environment, and that before the file.

    Parameters
    ----------
    flags : mapping
        By name of the field; None where a flag was not given.
    environ : mapping of str to str
        Variables; an empty one counts as unset.
    file : mapping, optional
        What the TOML file holds.

    Raises
    ------
    InvalidParameterError
        A value is of another type or outside its range, or the file has an unknown key.

    Examples
    --------
    >>> resolve({"port": None}, {"NEARSIGHT_PORT": "9000"}, {"port": 9001, "queue": 8}).port
    9000
    """
    types = get_type_hints(ServerSettings)
    if unknown := sorted(set(file or {}) - set(types)):
        raise InvalidParameterError(
            f"the settings file has the key {unknown[0]!r}; it takes {', '.join(sorted(types))}"
        )
    values: dict[str, Any] = {}
    for name, kind in types.items():
        if (flag := flags.get(name)) not in (None, ()):
            values[name] = _converted(name, kind, flag)
        elif text := _variable(environ, name):
            values[name] = _converted(name, kind, text)
        elif file is not None and name in file:
            values[name] = _converted(name, kind, file[name])
    return ServerSettings(**values)


def read_file(path: Path) -> dict[str, Any]:
    """Read a settings file.

    Raises
    ------
    InvalidParameterError
        It cannot be read, or is not TOML.
    """
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        return dict(toml.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InvalidParameterError(f"{path} cannot be read as TOML: {error}") from error


def _variable(environ: Mapping[str, str], name: str) -> str:
    variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
    if value := environ.get(variable):
        return value
    if file := environ.get(variable + _FILE_ENDING):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InvalidParameterError(f"{variable}{_FILE_ENDING} names {file}: {error.strerror}") from error
    return ""


def _converted(name: str, kind: Any, value: Any) -> Any:
    try:
        if kind is bool:
            return value if isinstance(value, bool) else _BOOLEANS[str(value).lower()]
        if kind in (int, float, str):
            if isinstance(value, bool) or (kind is int and float(value) != int(value)):
                raise ValueError
            return kind(value)
        values = value.split(",") if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)):
            raise TypeError
        return tuple(str(each).strip() for each in values)
    except (KeyError, TypeError, ValueError):
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(
            kind, "a list of texts"
        )
        shown = without_passwords(repr(value))
        raise InvalidParameterError(f"{name} is {shown}; it must be {expected}") from None


_BOOLEANS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
