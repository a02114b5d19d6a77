"""What the methods of a collection return."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from nearsight.collection.notebook import ShownImage, Thumbnails, images_html
from nearsight.errors import ImageFailure
from nearsight.text_format import ShortRepr

#: What a user attaches to an image: text, numbers, and true or false by key.
Metadata = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Match:
    """An image of a search result.

    Attributes
    ----------
    id : str
        Hash of the content, 32 hex digits.
    path : str
        Of its file; empty for an image that never was a file.
    similarity : float
        Cosine in -1..1; higher is closer.
    metadata : dict
        Attached by the user.
    """

    id: str
    path: str
    similarity: float
    metadata: dict[str, Any] = field(default_factory=dict)


class Matches(list[Match]):
    """A list of matches that a notebook shows as images.

    Parameters
    ----------
    matches : list of Match
    thumbnails : callable
        Maps ids to JPEG thumbnails; called when a notebook shows the list.
    """

    def __init__(self, matches: list[Match], thumbnails: Callable[[list[str]], Mapping[str, bytes]]) -> None:
        super().__init__(matches)
        self._thumbnails = Thumbnails(thumbnails)

    def __reduce__(self) -> tuple[type, tuple[list[Match]]]:
        # Pickled and copied as a plain list: thumbnails come from an open store.
        return list, (list(self),)

    def _repr_html_(self) -> str:
        images = [ShownImage(match.id, match.path, f"{match.similarity:.3f}") for match in self]
        return images_html(images, self._thumbnails)


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a collection.

    Attributes
    ----------
    id : str
        Hash of the content, 32 hex digits.
    path : str
        The first of `paths`; empty for an image that never was a file.
    paths : list of str
        Every file with this content, as it was given (absolute where a folder was walked).
    metadata : dict
        Attached by the user.
    width, height : int
        Of the upright image, in pixels.
    size_bytes : int
        Of the file.
    modified, added : datetime
        When the file changed last, and when it came into the collection; UTC.
    taken : datetime or None
        When the image was taken by the camera's clock, without a time zone; from EXIF, like what follows.
    camera, lens : str or None
        What it was taken with.
    lat, lon : float or None
        Degrees north and east; both or neither.
    orientation : int or None
        1 to 8, which the pixels were turned by; None if the file was not read for it yet.
    """

    id: str
    path: str
    paths: list[str]
    metadata: dict[str, Any] = field(default_factory=dict)
    width: int = 0
    height: int = 0
    size_bytes: int = 0
    modified: datetime | None = None
    added: datetime | None = None
    taken: datetime | None = None
    camera: str | None = None
    lens: str | None = None
    lat: float | None = None
    lon: float | None = None
    orientation: int | None = None

    def exif(self) -> dict[str, Any]:
        """Return what is known of when, where and with what it was taken, as one would read it."""
        values = {
            "taken": self.taken and self.taken.isoformat(sep=" ", timespec="seconds"),
            "camera": self.camera,
            "lens": self.lens,
            "place": None if self.lat is None or self.lon is None else f"{self.lat:.5f}, {self.lon:.5f}",
        }
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, slots=True, repr=False)
class AddReport(ShortRepr):
    """The images of one `Collection.add`, by what became of them.

    Attributes
    ----------
    added, updated, unchanged : int
        Files that are new, that changed or moved, and that are as they were.
    removed : int
        Files that were removed: those in `excluded`, and with ``prune`` those in `vanished`.
    embedded : int
        Images that the model embedded.
    same_content : int
        Files of `added` whose content another file of the collection has; the two are one image.
    vanished : list of str
        Files of the collection below the inputs that are gone from disk.
    excluded : list of str
        Files of the collection that are still on disk, but that a walk of the inputs now excludes.
    failed : list of ImageFailure
        Images that could not be used, and why.
    skipped : dict of str to int
        What was passed over in folders, globs and shards, by kind, the most frequent first: an ending such as
        ``".cr2"``, ``"hidden"`` or ``"excluded"``. A folder counts once.
    seconds, images_per_second : float
        Wall-clock time, and the number of files divided by it.
    notes : dict of str to int
        What of some files is not in their vectors, such as all frames but the first, and of how many files.
    """

    added: int
    updated: int
    unchanged: int
    removed: int
    embedded: int
    vanished: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    failed: list[ImageFailure] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    images_per_second: float = 0.0
    notes: dict[str, int] = field(default_factory=dict)
    same_content: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
