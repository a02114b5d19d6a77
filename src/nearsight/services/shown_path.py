"""Paths as clients of the service see them."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nearsight.text_format import printable


def shown_path(path: str, roots: Mapping[str, Path]) -> str:
    r"""Return the path of an image below its root, or only the name of the file.

    A name that is not valid UTF-8 has escapes, because JSON cannot hold it.

    Examples
    --------
    >>> roots = {"archive": Path("/srv/archive")}
    >>> shown_path("/srv/archive/2024/a.jpg", roots), shown_path("/home/me/a.jpg", roots)
    ('archive/2024/a.jpg', 'a.jpg')
    """
    if "://" in path or not path:
        return printable(path)
    for name, root in roots.items():
        if Path(path).is_relative_to(root):
            return printable(f"{name}/{Path(path).relative_to(root).as_posix()}")
    return printable(Path(path).name)


def without_places(text: str, places: Mapping[str, str]) -> str:
    r"""Return a text with names instead of the places of this machine that it tells.

    Examples
    --------
    >>> places = {"/srv/photos": "archive", "/srv/data/": ""}
    >>> without_places("/srv/photos/a.jpg is gone; /srv/photos2 and /srv/data/shop stay", places)
    'archive/a.jpg is gone; /srv/photos2 and shop stay'
    """
    for place in sorted(places, key=len, reverse=True):
        end = "" if place.endswith("/") else r"(?![\w-])"
        text = places[place].join(re.split(re.escape(place) + end, text))
    return text


def shown_folders(folders: Iterable[str], roots: Mapping[str, Path]) -> list[str]:
    """Return those folders that lie below roots; in each root first the one that holds all the others.

    Examples
    --------
    >>> roots = {"line": Path("/srv/line")}
    >>> shown_folders(["/srv/line/b/good", "/srv/line/b/torn", "/home/me"], roots)
    ['line/b', 'line/b/good', 'line/b/torn']
    >>> shown_folders(["/srv/line"], roots)
    ['line']
    """
    # Parts of paths are compared, not paths: there may be a hundred thousand.
    places, shown = sorted(folder.rstrip("/").split("/") for folder in folders), list[str]()
    for name, root in roots.items():
        above = str(root).rstrip("/").split("/")
        named = ["/".join([name, *parts[len(above) :]]) for parts in places if parts[: len(above)] == above]
        # They are sorted: what the first and the last have in common, all have.
        shown += dict.fromkeys([os.path.commonpath([named[0], named[-1]]), *named]) if named else ()
    return [printable(folder) for folder in shown]
