"""The page that the service serves: plain ES modules and styles, without a build step."""

from collections.abc import Iterator
from pathlib import Path


def files() -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of each file of the page."""
    folder = Path(__file__).parent
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            yield file.relative_to(folder).as_posix(), file.read_bytes()
