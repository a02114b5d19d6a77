"""Edits of an image, and the search for its original."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from PIL import Image, ImageEnhance, ImageOps

from nearsight import images
from nearsight.collection import Collection, Item, Match
from nearsight.errors import ImageError, ImageFailure

_N_MATCHES = 5
_THUMBNAIL_PX = 256


@dataclass(frozen=True, slots=True)
class Edit:
    """A change that leaves an image recognizable.

    Attributes
    ----------
    name : str
        What it does, for people.
    loss : str
        What it takes from the image, as a sentence: the reason if the original is not the first match.
    apply : callable
        From an RGB image to another.
    """

    name: str
    loss: str
    apply: Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class EditedImage:
    """An edited image, and the matches of a search with it.

    Attributes
    ----------
    item : Item
        The original.
    edit : Edit
    thumbnail : bytes
        JPEG of the edited image.
    matches : list of Match
    similarity : float
        Cosine of the edited image and its original.
    """

    item: Item
    edit: Edit
    thumbnail: bytes
    matches: list[Match]
    similarity: float

    @property
    def rank(self) -> int | None:
        """Rank of the original among the matches, from 1; None if it is not there."""
        ids = [match.id for match in self.matches]
        return ids.index(self.item.id) + 1 if self.item.id in ids else None

    @property
    def reason(self) -> str:
        """Why the original is not the first match; empty if it is."""
        if self.rank == 1:
            return ""
        n_before = len(self.matches) if self.rank is None else self.rank - 1
        subject = "image is" if n_before == 1 else "images are"
        return (
            f"{self.edit.loss} So {n_before}{' or more' if self.rank is None else ''} other {subject} more"
            f" similar to it (up to {self.matches[0].similarity:.2f}) than its original"
            f" ({self.similarity:.2f})."
        )


def _rotate_and_crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    rotated = image.rotate(10, Image.Resampling.BICUBIC)
    return rotated.crop((round(width * 0.2), round(height * 0.2), round(width * 0.8), round(height * 0.8)))


def _mirror_and_relight(image: Image.Image) -> Image.Image:
    warm = ImageOps.colorize(ImageOps.grayscale(image), "#1a0f2e", "#ffdd9e")
    blend = Image.blend(ImageOps.mirror(image), ImageOps.mirror(warm), 0.35)
    return ImageEnhance.Brightness(blend).enhance(0.6)


def _shrink_and_gray(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((160, 160))
    buffer = io.BytesIO()
    ImageOps.grayscale(small).save(buffer, "JPEG", quality=25)
    return Image.open(buffer).convert("RGB")


EDITS = (
    Edit(
        "Rotated by 10° and cropped",
        "The crop keeps 36 % of the image, and the network was not trained on rotated images.",
        _rotate_and_crop,
    ),
    Edit(
        "Mirrored, in dim and warm light",
        "The light changes every color, and the vector describes colors as well as shapes.",
        _mirror_and_relight,
    ),
    Edit(
        "Gray, 160 px, JPEG of low quality",
        "Color and fine texture are gone, and the vector describes both.",
        _shrink_and_gray,
    ),
)


def search_edited(collection: Collection, candidates: Iterable[Item]) -> list[EditedImage]:
    """Apply each edit to another image, and search for its original; those that find it come first.

    Parameters
    ----------
    collection : Collection
    candidates : iterable of Item
        The first images that can be read are edited.
    """
    edited: dict[str, EditedImage] = {}
    for item in candidates:
        if len(edited) == len(EDITS):
            break
        if item.id in edited:
            continue
        edit = EDITS[len(edited)]
        try:
            source = next(images.find([item.path]))
            if isinstance(source, ImageFailure):
                continue
            image = edit.apply(images.decode(source, min_side_px=2 * _THUMBNAIL_PX).image)
        except ImageError:
            continue
        vector = collection.embed_query(image)
        matches = collection.search(vector=vector, k=_N_MATCHES)
        similarity = float(collection.vectors([item.id])[0] @ vector)
        thumbnail = images.thumbnail(image, _THUMBNAIL_PX)
        edited[item.id] = EditedImage(item, edit, thumbnail, matches, similarity)
    return sorted(edited.values(), key=lambda edited: edited.rank or _N_MATCHES + 1)
