"""Find the images that paths, folders, globs, shards, URLs and objects in memory stand for."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH100, PTH112, PTH116, PTH120

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from glob import has_magic
from typing import Any, TypeAlias
from urllib.parse import unquote

import numpy as np
from PIL import Image

from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.images.exclusions import EXCLUDED, Exclusions, PathRules, count_skipped
from nearsight.images.glob_patterns import expand, literal_base, matches
from nearsight.images.optional_formats import skipped_text
from nearsight.images.path_encoding import describe_error, is_shard_name, is_url
from nearsight.images.remote import canonical_url, exists_remote, find_remote, refusal_reason
from nearsight.images.shards import find_member, has_member, is_member_url, members
from nearsight.images.sources import FileSource, ImageSource, MemorySource
from nearsight.images.walk import walk
from nearsight.text_format import shortened

Input: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any] | tuple[str, Any]"
Inputs: TypeAlias = "Input | Iterable[Input]"

_COMMON_ENDINGS = ".jpg, .png, .webp, .tif, .gif, .bmp, .heic, .avif, .jp2"

# Prefixes of roots that are not a path with everything below it; no absolute path starts so.
_GLOB = "glob:"
_FILE_ONLY = "one:"


def find(
    inputs: Inputs,
    *,
    allow_remote: bool = False,
    exclusions: Exclusions | None = None,
    skipped: Counter[str] | None = None,
) -> Iterator[ImageSource | ImageFailure]:
    """Find images, lazily and in the order of the inputs.

    Parameters
    ----------
    inputs : str, path, bytes, PIL image, uint8 array, or an iterable of those
        A string is a folder (walked in order; files without an image's extension are passed over), a file
        (whatever its extension), a glob, a tar shard (``.tar``, ``.tar.gz``, ``.tgz``) or a URL that fsspec
        knows. Bytes are an encoded image. An array of four dimensions is a stack of images.
        ``(name, image)`` names an image in memory.
    allow_remote : bool
        Whether addresses other than object stores, such as ``https://``, may be fetched.
    exclusions : Exclusions, optional
        What is passed over in folders, globs and shards; by default hidden names and what `Exclusions` always
        excludes. A file that is named by itself is passed over only if a pattern says so.
    skipped : Counter, optional
        Counts what is passed over, by kind: ``".cr2"``, ``"hidden"``, ``"excluded"``. A folder counts once.

    Yields
    ------
    ImageSource or ImageFailure
        A failure for a path that does not exist or may not be read, and for a pattern without a match. Only
        compressed and remote shards are read already; their members hold their bytes.

    Raises
    ------
    TypeError
        `inputs` has another type.

    Notes
    -----
    A million files need no list: at most 250,000 names of one folder are in memory at a time.

    Examples
    --------
    >>> [failure] = find("no/such/image.jpg")
    >>> failure
    ImageFailure(path='no/such/image.jpg', reason='does not exist')
    """
    exclusions = exclusions or Exclusions()
    for position, item in enumerate(_each(inputs), start=1):
        name = f"<image {position}>"
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
            name, item = item
            if isinstance(item, (str, os.PathLike)):
                yield ImageFailure(name, "has both a name and a path; give the path alone")
                continue
        if isinstance(item, (str, os.PathLike)):
            yield from _find_path(os.fsdecode(item), allow_remote, exclusions, skipped)
        elif isinstance(item, (bytes, bytearray, memoryview)):
            yield MemorySource(name, item if isinstance(item, bytes) else bytes(item))
        elif isinstance(item, (Image.Image, np.ndarray)):
            yield MemorySource(name, item)
        else:
            kind = type(item).__name__
            yield ImageFailure(name, f"is of type {kind}; give a path, bytes, a PIL image or a uint8 array")


def _each(inputs: Any) -> Iterable[Any]:
    if isinstance(inputs, np.ndarray):
        return inputs if inputs.ndim == 4 else [inputs]
    if isinstance(inputs, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)):
        return [inputs]
    if isinstance(inputs, Iterable):
        return inputs
    raise TypeError(
        f"cannot look for images in an object of type {type(inputs).__name__}; "
        "give a path, bytes, a PIL image, a uint8 array, or an iterable of those"
    )


def _local(path: str) -> str | None:
    """Return the local path that a string names; None for a URL that is not local."""
    if not is_url(path):
        return path
    if "::" in path or not path.lower().startswith(("file://", "local://")):
        return None
    rest = path.partition("://")[2]
    return unquote(rest) if "%" in rest and not os.path.lexists(rest) else rest


def _find_path(
    path: str, allow_remote: bool, exclusions: Exclusions, skipped: Counter[str] | None
) -> Iterator[ImageSource | ImageFailure]:
    local = _local(path)
    if local is None:
        refused = refusal_reason(path, allow_remote=allow_remote)
        if refused is not None:
            yield ImageFailure(path, refused)
        elif is_member_url(path):
            shard = _local(path.partition("::")[2])
            yield find_member(path, shard or path.partition("::")[2], remote=shard is None)
        elif is_shard_name(path):
            yield from members(path, canonical_url(path), remote=True, exclusions=exclusions, skipped=skipped)
        else:
            yield from find_remote(path, exclusions, skipped)
        return
    try:
        info = os.stat(local)
    except (OSError, ValueError) as error:
        if has_magic(local) and not os.path.lexists(local):
            yield from _find_matching(path, local, exclusions, skipped)
        else:
            yield ImageFailure(path, describe_error(error, local))
        return
    if not stat.S_ISDIR(info.st_mode) and exclusions.names(local):
        count_skipped(skipped, EXCLUDED)
        return
    yield from _find_existing(path, os.path.abspath(local), info.st_mode, exclusions, skipped)


def _find_existing(
    path: str, key: str, mode: int, exclusions: Exclusions, skipped: Counter[str] | None
) -> Iterator[ImageSource | ImageFailure]:
    if stat.S_ISDIR(mode):
        for entry in walk(key, exclusions=exclusions, skipped=skipped):
            yield FileSource(entry, entry) if isinstance(entry, str) else entry
    elif is_shard_name(key):
        yield from members(path, key, exclusions=exclusions, skipped=skipped)
    else:
        yield FileSource(path, key)


def _find_matching(
    path: str, pattern: str, exclusions: Exclusions, skipped: Counter[str] | None
) -> Iterator[ImageSource | ImageFailure]:
    n_skipped = sum(skipped.values()) if skipped is not None else 0
    n_matches = 0
    for match in expand(pattern, exclusions=exclusions, skipped=skipped):
        n_matches += 1
        try:
            mode = os.stat(match).st_mode
        except OSError as error:
            yield ImageFailure(match, describe_error(error, match))
            continue
        yield from _find_existing(match, os.path.abspath(match), mode, exclusions, skipped)
    if not n_matches and (skipped is None or sum(skipped.values()) == n_skipped):
        yield ImageFailure(path, "does not exist, and as a pattern it matches nothing")


def count(inputs: Inputs, *, allow_remote: bool = False, exclusions: Exclusions | None = None) -> int | None:
    """Count what `find` will yield, for a progress bar; cheap, and not exact while files come and go.

    Parameters
    ----------
    inputs : as for `find`
        Read, not opened.
    allow_remote : bool
        As for `find`; an address that may not be fetched counts as one failure.
    exclusions : Exclusions, optional
        As for `find`.

    Returns
    -------
    int or None
        None where counting would use the inputs up (an iterator) or cost a download or a pass through
        a shard.
    """
    if isinstance(inputs, Iterator):
        return None
    exclusions, total = exclusions or Exclusions(), 0
    for item in _each(inputs):
        is_path = isinstance(item, (str, os.PathLike))
        n_images = _count_path(os.fsdecode(item), allow_remote, exclusions) if is_path else 1
        if n_images is None:
            return None
        total += n_images
    return total


def require_any(inputs: Inputs, *, allow_remote: bool = False, exclusions: Exclusions | None = None) -> None:
    """Refuse inputs in which there is no image at all, before anything is made for them.

    The search ends at the first image, and opens no file; what is remote counts as an image.

    Raises
    ------
    InvalidParameterError
        There is none; the message says what was passed over instead.
    """
    if isinstance(inputs, Iterator):
        return
    exclusions, skipped = exclusions or Exclusions(), Counter[str]()
    failures: list[ImageFailure] = []
    for item in _each(inputs):
        if not isinstance(item, (str, os.PathLike)):
            return
        if _has_image(os.fsdecode(item), allow_remote, exclusions, skipped, failures):
            return
    raise InvalidParameterError(no_image_text(inputs, skipped, failures))


def no_image_text(inputs: Inputs, skipped: Mapping[str, int], failures: Sequence[ImageFailure] = ()) -> str:
    """Return what to tell of inputs in which there is no image at all.

    Parameters
    ----------
    inputs
        See `find`.
    skipped : mapping of str to int
        What `find` has passed over, by kind.
    failures : sequence of ImageFailure
        What could not be searched.
    """
    paths = [] if isinstance(inputs, Iterator) else _each(inputs)
    names = [os.fsdecode(path) for path in paths if isinstance(path, (str, os.PathLike))]
    reasons = [f"{failure.path} {failure.reason}" for failure in failures[:3]]
    if skipped:
        reasons.append(skipped_text(skipped))
    return (
        f"there is no image in {shortened(names) or 'the inputs'}{': ' * bool(reasons)}{'; '.join(reasons)}."
        f" Of a folder, files count that end in {_COMMON_ENDINGS} or the like; name a folder with such files,"
        " or single files, which may end in anything"
    )


def _has_image(
    path: str,
    allow_remote: bool,
    exclusions: Exclusions,
    skipped: Counter[str],
    failures: list[ImageFailure],
) -> bool:
    local = _local(path)
    if local is None:
        return True
    if os.path.isdir(local):
        found: Iterator[Any] = walk(
            os.path.abspath(local), ordered=False, exclusions=exclusions, skipped=skipped
        )
    else:
        found = _find_path(path, allow_remote, exclusions, skipped)
    for one in found:
        if not isinstance(one, ImageFailure):
            return True
        failures.append(one)
    return False


def _count_path(path: str, allow_remote: bool, exclusions: Exclusions) -> int | None:
    local = _local(path)
    if local is None:
        return 1 if is_member_url(path) or refusal_reason(path, allow_remote=allow_remote) else None
    is_pattern = has_magic(local) and not os.path.lexists(local)
    total = 0
    for match in expand(local, exclusions=exclusions) if is_pattern else [local]:
        if not os.path.isdir(match):
            if is_shard_name(match):
                return None
            total += not exclusions.names(match)
            continue
        total += sum(1 for _ in walk(os.path.abspath(match), ordered=False, exclusions=exclusions))
    return max(1, total) if is_pattern else total


def roots(inputs: Inputs) -> list[str]:
    """Return what the inputs cover: absolute paths, URLs, shards and patterns, for `covers`.

    A path that does not exist covers only its own name and nothing below it, so that an unmounted disk does
    not look like an emptied one. Images in memory cover nothing. An iterator is used up.
    """
    covered = []
    for item in _each(inputs):
        if not isinstance(item, (str, os.PathLike)):
            continue
        path = os.fsdecode(item)
        local = _local(path)
        if local is None:
            covered += (
                [canonical_url(path)]
                if not has_magic(path)
                else [canonical_url(path), _GLOB + canonical_url(path)]
            )
        elif has_magic(local) and not os.path.lexists(local):
            covered.append(_GLOB + os.path.abspath(local))
        elif os.path.lexists(local):
            covered.append(os.path.abspath(local))
        elif os.path.isdir(os.path.dirname(os.path.abspath(local))):
            covered.append(_FILE_ONLY + os.path.abspath(local))
    return covered


def covers(roots: Iterable[str], key: str) -> bool:
    """Return whether an image's key lies at or below one of the roots.

    Examples
    --------
    >>> covers(["/photos"], "/photos/2024/a.jpg"), covers(["/photos"], "/photos2/a.jpg")
    (True, False)
    >>> covers(["/data/a.tar"], "tar://0001.jpg::/data/a.tar")
    True
    """
    # A root that covers a shard covers its members.
    outer = key.partition("::")[2] if is_member_url(key) else ""
    return any(_covers(root, key) or (bool(outer) and _covers_shard(root, outer)) for root in roots)


def _covers(root: str, key: str) -> bool:
    if root.startswith(_GLOB):
        return matches(root.removeprefix(_GLOB), key)
    if root.startswith(_FILE_ONLY):
        return key == root.removeprefix(_FILE_ONLY)
    return key == root or key.startswith(root if root.endswith(("/", os.sep)) else root + "/")


def _covers_shard(root: str, shard: str) -> bool:
    # A shard is read when it is named or matched, not when a folder above it is walked.
    return shard == root or (root.startswith(_GLOB) and matches(root.removeprefix(_GLOB), shard))


def excluded_from(roots: Iterable[str], exclusions: Exclusions) -> Callable[[str], bool]:
    """Return a function from an image's key to whether a walk of a root that covers it would exclude it.

    A hidden image is not excluded: it stays where it was once included.

    Parameters
    ----------
    roots : iterable of str
        As `roots` returns them; files, shards and URLs exclude nothing.
    exclusions : Exclusions
    """
    # Hidden names are walked here: they hide, but do not exclude.
    exclusions = replace(exclusions, include_hidden=True)
    rules: list[tuple[str, PathRules]] = []
    for root in roots:
        folder = literal_base(root.removeprefix(_GLOB)) if root.startswith(_GLOB) else root
        if os.path.isdir(folder):
            rules.append((folder.rstrip(os.sep) + os.sep, PathRules(exclusions, folder)))

    def is_excluded(key: str) -> bool:
        reasons = [below.reason(key[len(prefix) :]) for prefix, below in rules if key.startswith(prefix)]
        # One root that includes it is enough.
        return bool(reasons) and all(reasons)

    return is_excluded


def exists(key: str) -> bool:
    """Return whether an image found earlier still exists.

    False only where that is certain. An image that may not be looked at, or lies on a server that does not
    answer, counts as existing, so that it is not removed from a collection by mistake.
    """
    if is_member_url(key) and (shard := _local(key.partition("::")[2])) is not None:
        return has_member(key, shard)
    if is_url(key):
        return exists_remote(key)
    try:
        os.stat(key)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True
