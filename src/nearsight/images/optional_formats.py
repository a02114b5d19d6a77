"""Formats that the extra ``formats`` reads: the endings each package serves, and whether it is installed."""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

from nearsight.images.limits import EXTENSIONS
from nearsight.images.strict_decoding import DecodingError
from nearsight.text_format import counts, shortened

REMEDY: Final = "pip install 'nearsight[formats]'"

OPTIONAL_EXTENSIONS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "rawpy": frozenset(
            {"3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "iiq", "kdc", "mef", "mos", "mrw"}
            | {"nef", "nrw", "orf", "pef", "raf", "rw2", "rwl", "sr2", "srf", "srw", "x3f"}
        ),
        "psd_tools": frozenset({"psb", "psd"}),
        "imagecodecs": frozenset({"jxl"}),
        "pydicom": frozenset({"dcm", "dicom"}),
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


def skipped_text(skipped: Mapping[str, int]) -> str:
    """Return in words what a walk has passed over, with the command that makes it readable.

    Parameters
    ----------
    skipped : mapping of str to int
        Number of files by kind: an ending with its dot, or another reason.

    Examples
    --------
    >>> skipped_text({".mp4": 3, "hidden": 1})
    'skipped: 3 .mp4, 1 hidden'
    """
    endings = sorted(kind for kind in skipped if remedy(kind))
    hint = f" (for {shortened(endings)}: {REMEDY})" if endings else ""
    return f"skipped: {counts(skipped)}{hint}"


def missing(kind: str) -> DecodingError:
    """Return the error for an image whose package is not installed."""
    return DecodingError(f"is {kind}; reading it needs an extra: {REMEDY}")
