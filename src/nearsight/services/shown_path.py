"""Paths as clients of the service see them."""

from collections.abc import Mapping
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
