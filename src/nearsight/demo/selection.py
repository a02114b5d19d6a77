"""Chooses what a demonstration shows: telling queries, edits of an image, an order for a contact sheet."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Edit:
    """A change that leaves an image recognizable.

    Attributes
    ----------
    name : str
        What was done, for people.
    apply : callable
        From an RGB image to another.
    """

    name: str
    apply: Callable[[Image.Image], Image.Image]


def _crop_and_turn(image: Image.Image) -> Image.Image:
    width, height = image.size
    turned = image.rotate(10, Image.Resampling.BICUBIC)
    return turned.crop((round(width * 0.2), round(height * 0.2), round(width * 0.8), round(height * 0.8)))


def _mirror_and_relight(image: Image.Image) -> Image.Image:
    warm = ImageOps.colorize(ImageOps.grayscale(image), "#1a0f2e", "#ffdd9e")
    return ImageEnhance.Brightness(Image.blend(ImageOps.mirror(image), ImageOps.mirror(warm), 0.35)).enhance(
        0.6
    )


def _shrink_and_gray(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((160, 160))
    buffer = io.BytesIO()
    ImageOps.grayscale(small).save(buffer, "JPEG", quality=25)
    return Image.open(buffer).convert("RGB")


EDITS = (
    Edit("Turned by 10° and cropped", _crop_and_turn),
    Edit("Mirrored, in dim and warm light", _mirror_and_relight),
    Edit("Gray, 160 px, a poor JPEG", _shrink_and_gray),
)


def varied(vectors: NDArray[np.float32], n: int) -> list[int]:
    """Return the rows that differ most from each other.

    *Method.* Farthest-first traversal (Gonzalez 1985), from the row least like the mean.

    Parameters
    ----------
    vectors : array of shape (m, d), float32, unit length
    n : int
        How many at most.
    """
    if len(vectors) == 0:
        return []
    chosen = [int(np.argmin(vectors @ vectors.mean(axis=0)))]
    closest = vectors @ vectors[chosen[0]]
    while len(chosen) < min(n, len(vectors)):
        chosen.append(int(np.argmin(closest)))
        closest = np.maximum(closest, vectors @ vectors[chosen[-1]])
    return chosen


def telling(vectors: NDArray[np.float32], n: int) -> list[int]:
    """Return rows that have close neighbors and are unlike each other: their results are worth seeing.

    *Method.* Greedy: each step takes the row with the largest (1 - similarity to the nearest row taken)
    × (similarity to its own nearest neighbor) squared. An image without relatives scores low however
    far out it is, and so does a second one of the same kind.

    Parameters
    ----------
    vectors : array of shape (m, d), float32, unit length
        m squared numbers are held in memory.
    n : int
        How many at most.
    """
    if len(vectors) < 2:
        return list(range(len(vectors)))
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -1)
    kinship = np.clip(similarities.max(axis=1), 0, 1) ** 2
    closest = np.zeros(len(vectors), np.float32)
    chosen: list[int] = []
    while len(chosen) < min(n, len(vectors)):
        score = (1 - closest) * kinship
        score[chosen] = -1
        chosen.append(int(np.argmax(score)))
        closest = np.maximum(closest, similarities[chosen[-1]])
    return chosen


def arranged(vectors: NDArray[np.float32], n_groups: int = 12) -> list[int]:
    """Return all rows in an order in which look-alikes sit together.

    *Method.* Each row joins the most similar of `n_groups` varied anchors. Small groups come first, so
    that variety shows at a glance; rows within a group are ordered by similarity to its anchor.

    Parameters
    ----------
    vectors : array of shape (m, d), float32, unit length
    """
    if len(vectors) == 0:
        return []
    similarities = vectors @ vectors[varied(vectors, n_groups)].T
    group = similarities.argmax(axis=1)
    size = np.bincount(group)[group]
    return [int(row) for row in np.lexsort((-similarities.max(axis=1), group, size))]


def spread(n: int, most: int) -> list[int]:
    """Return at most `most` of the numbers 0..n-1, evenly spread.

    Examples
    --------
    >>> spread(3, 5), spread(10, 4)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    if n <= most:
        return list(range(n))
    return [int(i) for i in np.linspace(0, n - 1, most).round()]


def rank_of(wanted: str, ids: "Sequence[str]") -> int | None:
    """Return the place of an id in a result, counted from 1, or None."""
    return ids.index(wanted) + 1 if wanted in ids else None
