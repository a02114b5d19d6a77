"""Paths of images as text that any database accepts, kinds of paths, and their errors in words."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH114, PTH115

import errno
import os
import re
import sys

from nearsight.images.optional_formats import readable_extensions

_URL = re.compile(r"[a-z][a-z0-9+.-]+(?:::|://)", re.IGNORECASE)
_NEEDS_ESCAPE = re.compile("[\udc80-\udcff\uef80-\uefff]+")
_ESCAPED = re.compile("[\uef80-\uefff]+")
_ESCAPE_BASE = 0xEF00
_NAMES_ARE_UTF8 = sys.getfilesystemencoding().lower() == "utf-8"
SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def encode_path(path: str) -> str:
    r"""Return a path as text that any database accepts, without loss.

    A byte that is not UTF-8 becomes the private character U+EF00 + byte (the mapping known as OPTU-8). Such a
    character in a name is escaped byte by byte, so that no two names collide.

    Parameters
    ----------
    path : str
        As `os.fsdecode` returns it.

    Returns
    -------
    str
        Valid Unicode; the path itself if it holds no such byte or character.

    Raises
    ------
    UnicodeEncodeError
        The path holds a surrogate that no file name can hold.

    Examples
    --------
    >>> encode_path("/a/été.jpg")
    '/a/été.jpg'
    >>> encode_path("/a/\udce9.jpg") == "/a/\uefe9.jpg"
    True
    """
    if path.isascii():
        return path
    if not _NAMES_ARE_UTF8:
        # In another locale, Python spells the same name differently.
        path = os.fsencode(path).decode("utf-8", "surrogateescape")
    encoded = _NEEDS_ESCAPE.sub(_escape, path)
    encoded.encode()  # refuses the remaining surrogates
    return encoded


def _escape(match: re.Match[str]) -> str:
    return "".join(chr(_ESCAPE_BASE + byte) for byte in match[0].encode("utf-8", "surrogateescape"))


def decode_path(text: str) -> str:
    r"""Return the path that `encode_path` encoded.

    Examples
    --------
    >>> decode_path(encode_path("/a/\udce9.jpg")) == "/a/\udce9.jpg"
    True
    """
    if text.isascii():
        return text
    path = _ESCAPED.sub(
        lambda match: bytes(ord(c) - _ESCAPE_BASE for c in match[0]).decode("utf-8", "surrogateescape"), text
    )
    return path if _NAMES_ARE_UTF8 else os.fsdecode(path.encode("utf-8", "surrogateescape"))


def is_url(text: str) -> bool:
    """Return whether a string is a URL, chained or not, with a scheme of two letters or more."""
    return _URL.match(text) is not None


def absolute(path: str, folder: str = "") -> str:
    """Return an image's path in a collection: absolute, without following links; URLs unchanged."""
    # Path.resolve follows links, Path.absolute keeps "..".
    return path if "://" in path else os.path.abspath(os.path.join(folder, path))  # noqa: PTH100, PTH118


def name_in(path: str) -> str:
    """Return the part of an image's path that names are looked for in.

    Examples
    --------
    >>> name_in("tar://shoes/1.jpg::/data/a.tar"), name_in("https://example.org/1.jpg?w=300")
    ('shoes/1.jpg', 'https://example.org/1.jpg')
    """
    if not is_url(path):
        return path
    member, chained, _ = path.partition("::")
    if chained:
        return member.partition("://")[2]
    return path.partition("?")[0] if path.lower().startswith(("http://", "https://")) else path


def is_image_name(name: str) -> bool:
    """Return whether a file in a folder or shard counts as an image."""
    _, dot, extension = name.rpartition(".")
    return dot == "." and extension.lower() in readable_extensions()


def is_shard_name(name: str) -> bool:
    """Return whether a name is that of a tar shard."""
    return name.lower().endswith(SHARD_SUFFIXES)


def describe_error(error: OSError | ValueError, path: str) -> str:
    """Return in words why a path cannot be used."""
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOENT, errno.ENOTDIR):
        if os.path.islink(path):
            return f"is a dangling link: it points to {os.readlink(path)!r}, which does not exist"
        return "does not exist"
    if code in (errno.EACCES, errno.EPERM):
        return "cannot be read: permission denied"
    if code == errno.ELOOP:
        return "is a loop of links: it leads back to itself"
    if code == errno.ENAMETOOLONG:
        return "cannot be read: its name is too long for this file system"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return f"is not a possible path: {error}"
