"""Formats that the extra ``formats`` reads: the endings each package serves, and whether it is installed."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

from nearsight.images.limits import EXTENSIONS
from nearsight.images.strict_decoding import DecodingError

REMEDY: Final = "pip install 'nearsight[formats]'"

OPTIONAL_EXTENSIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "rawpy": frozenset(
            {"3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "iiq", "kdc", "mef", "mos", "mrw"}
            | {"nef", "nrw", "orf", "pef", "raf", "rw2", "rwl", "sr2", "srf", "srw", "x3f"}
        ),
        "psd_tools": frozenset({"psb", "psd"}),
        "imagecodecs": frozenset({"jxl"}),
        "resvg_py": frozenset({"svg", "svgz"}),
    }
)
"""Package to the endings it serves, lower case and without the dot."""


@cache
def readable_extensions() -> frozenset[str]:
    """Return the endings of images that this installation reads."""
    return EXTENSIONS.union(
        *(extensions for package, extensions in OPTIONAL_EXTENSIONS.items() if find_spec(package) is not None)
    )


def remedy(extension: str) -> str | None:
    """Return the command that makes an ending readable; None if there is none, or it is readable.

    Parameters
    ----------
    extension : str
        With or without its dot, in any case.

    Examples
    --------
    >>> remedy(".txt") is None, remedy("jpg") is None
    (True, True)
    """
    name = extension.lower().removeprefix(".")
    is_known = any(name in extensions for extensions in OPTIONAL_EXTENSIONS.values())
    return REMEDY if is_known and name not in readable_extensions() else None


def missing(kind: str) -> DecodingError:
    """Return the error for an image whose package is not installed."""
    return DecodingError(f"is {kind}; reading it needs an extra: {REMEDY}")
