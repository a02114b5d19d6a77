"""What an embedder returns."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import ImageFailure
from nearsight.images import Exif, ImageSource, Stat
from nearsight.text_format import ShortRepr

OnError = Literal["record", "raise"]


@dataclass(slots=True)
class ImageRow:
    """The vector of one image, and facts about the image; all that a worker process sends back.

    Attributes
    ----------
    stat : Stat
        Size and time stamp from before the bytes were read.
    id : str
        Hash of the content, 32 hex digits.
    vector : ndarray of shape (dim,), float32, or None
        None if the row of that id is known.
    width, height : int
        Size of the upright image in pixels; 0 if `vector` is None.
    thumbnail : bytes or None
        JPEG, if thumbnails were requested.
    exif : Exif or None
        When, where and with what the image was taken; None if `vector` is None and the row is not outdated.
    notes : tuple of str
        What of the file is not in the image, or was decided so that something is left to see.
    """

    stat: Stat
    id: str
    vector: NDArray[np.float32] | None = None
    width: int = 0
    height: int = 0
    thumbnail: bytes | None = None
    exif: Exif | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vector of one image, and facts about the image.

    Attributes
    ----------
    position : int
        Index of the image in the job, failures included.
    source : ImageSource
        Source of the image.
    stat : Stat
        Size and time stamp from before the bytes were read.
    id : str
        Hash of the content, 32 hex digits.
    vector : ndarray of shape (dim,), float32, or None
        None if `known` returned True for the id.
    width, height : int
        Size of the upright image in pixels; 0 if `vector` is None.
    thumbnail : bytes or None
        JPEG, if thumbnails were requested.
    exif : Exif or None
        When, where and with what the image was taken; None if `vector` is None and the row is not outdated.
    notes : tuple of str
        What of the file is not in the image, or was decided so that something is left to see.
    """

    position: int
    source: ImageSource
    stat: Stat
    id: str
    vector: NDArray[np.float32] | None
    width: int = 0
    height: int = 0
    thumbnail: bytes | None = None
    exif: Exif | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Embeddings(ShortRepr):
    """The vectors of a job, in input order, without failed images.

    Attributes
    ----------
    vectors : ndarray of shape (n, dim), float32
        Unit length if the model normalizes its vectors.
    paths, ids : list of str, length n
        Path of each image as given, and hash of its content.
    positions : ndarray of shape (n,), int64
        Index of each row's image in the input, failures included.
    failed : list of ImageFailure
        Images that could not be used, with the reason.
    skipped : dict of str to int
        What was passed over in folders, by kind: an ending such as ``".cr2"``, ``"hidden"`` or
        ``"excluded"``.
    """

    vectors: NDArray[np.float32]
    paths: list[str]
    ids: list[str]
    positions: NDArray[np.int64]
    failed: list[ImageFailure] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
