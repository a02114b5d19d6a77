"""Results as a notebook shows them: images with captions, and rows of images."""

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from nearsight.errors import NearsightError
from nearsight.text_format import printable

# What is shown of a result: images of a list; rows, and images of a row.
_N_IMAGES, _N_ROWS, _N_IMAGES_OF_ROW = 50, 10, 10


class Thumbnails:
    """Reads JPEG thumbnails by id. A copy or a pickle has none: thumbnails come from an open store.

    Parameters
    ----------
    read : callable, optional
        `Collection.thumbnails`.
    """

    def __init__(self, read: Callable[[list[str]], Mapping[str, bytes]] | None = None) -> None:
        self._read = read

    def __call__(self, ids: list[str]) -> Mapping[str, bytes]:
        """Return the thumbnails; without any if an image was removed since."""
        try:
            return {} if self._read is None else self._read(ids)
        except NearsightError:
            return {}

    def __reduce__(self) -> tuple[type["Thumbnails"], tuple[()]]:
        return type(self), ()


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image of a result; empty texts are left out.

    Attributes
    ----------
    id, path : str
        Without a path, the beginning of the id is shown.
    caption : str
        Above the file name.
    """

    id: str
    path: str = ""
    caption: str = ""


def images_html(images: Sequence[ShownImage], thumbnails: Thumbnails, *, n_shown: int = _N_IMAGES) -> str:
    """Return the first images side by side, and how many more there are."""
    shown = images[:n_shown]
    by_id = thumbnails([image.id for image in shown if image.id])
    figures = "".join(_figure(image, by_id.get(image.id, b"")) for image in shown)
    rest = _rest(len(images) - len(shown))
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{figures}</div>{rest}'


def rows_html(rows: Sequence[tuple[str, Sequence[ShownImage]]], thumbnails: Thumbnails) -> str:
    """Return the first rows, each with its title and its first images, and how many more there are."""
    shown = rows[:_N_ROWS]
    parts = (
        f"<p>{escape(printable(title))}</p>{images_html(images, thumbnails, n_shown=_N_IMAGES_OF_ROW)}"
        for title, images in shown
    )
    return "".join(parts) + _rest(len(rows) - len(shown))


def _rest(n: int) -> str:
    return f"<p>and {n:,} more</p>" if n else ""


def _figure(image: ShownImage, thumbnail: bytes) -> str:
    name = image.path.rpartition("/")[2] or image.id[:12]
    text = "<br>".join(escape(printable(line)) for line in (image.caption, name) if line)
    source = f"data:image/jpeg;base64,{b64encode(thumbnail).decode()}"
    size = "width:128px;height:128px;object-fit:contain"
    return (
        '<figure style="margin:0;width:128px;overflow-wrap:anywhere">'
        + (f'<img src="{source}" alt="" style="{size}">' if thumbnail else f'<div style="{size}"></div>')
        + f'<figcaption title="{escape(printable(image.path))}">{text}</figcaption></figure>'
    )
