"""The way of a batch of images to rows, in a thread of this process or of a worker process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nearsight.embedder.results import ImageRow
from nearsight.errors import ImageError, ImageFailure
from nearsight.images import ImageSource, Limits, Stat, content_id, decode, exif_of, may_show_more, thumbnail
from nearsight.models import Preparation

#: What is known of a content: nothing; its row; or a row of an earlier version of the decoder.
Knowledge = Literal["new", "known", "outdated"]

#: From the ids of several contents to what is known of each.
Known = Callable[[list[str]], list[Knowledge]]

#: From files to what the model takes instead of decoded images; None for those that must be decoded.
Encoded = Callable[[list[bytes]], list[Any]]

Source = ImageSource | ImageFailure

# Files are read ahead of the question whether they are known, but no more than this.
_MAX_READ_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What to do with each image.

    Attributes
    ----------
    limits : Limits
    thumbnails : bool
        Whether to make a thumbnail.
    """

    limits: Limits
    thumbnails: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded image, ready for the network.

    Attributes
    ----------
    path : str
    row : ImageRow
        Without its vector.
    value : Any
        What `Preparation.prepare` returned.
    """

    path: str
    row: ImageRow
    value: Any


@dataclass(frozen=True, slots=True)
class _Read:
    path: str
    stat: Stat
    id: str
    data: bytes


def prepare_batch(
    sources: Sequence[Source],
    preparation: Preparation,
    options: ReadOptions,
    known: Known | None,
    encoded: Encoded | None = None,
) -> list[Prepared | ImageRow | ImageFailure]:
    """Read, hash and decode images; return a row for those that need no vector.

    Parameters
    ----------
    sources : sequence of ImageSource or ImageFailure
        Failures are returned unchanged.
    preparation : Preparation
    options : ReadOptions
    known : callable, optional
        Asked for several contents at once, because a question of a worker process takes a while.
    encoded : callable, optional
        Given the bytes of new images, returns what the model takes instead of decoded images; None for those
        that must be decoded. Called before those are decoded.
    """
    results: list[Prepared | ImageRow | ImageFailure] = []
    max_bytes = 0 if known is None and encoded is None else _MAX_READ_BYTES
    for read in _read_ahead(sources, options.limits, max_bytes):
        files = [item for item in read if isinstance(item, _Read)]
        new: list[Knowledge] = ["new"] * len(files)
        knowledge = new if known is None else known([item.id for item in files])
        values = _values(files, knowledge, encoded)
        for item in read:
            if not isinstance(item, _Read):
                results.append(item)
                continue
            status, value = next(values)
            if value is None:
                results.append(_prepare(item, status, preparation, options))
            else:
                results.append(Prepared(item.path, ImageRow(item.stat, item.id), value))
    return results


def _values(
    files: list[_Read], knowledge: Sequence[Knowledge], encoded: Encoded | None
) -> Iterator[tuple[Knowledge, Any]]:
    """Yield what is known of each file, and what the model takes instead of a decoded image."""
    new = [item.data for item, status in zip(files, knowledge, strict=True) if status == "new"]
    values = iter(encoded(new) if encoded is not None else [None] * len(new))
    return iter([(status, next(values) if status == "new" else None) for status in knowledge])


def prepare_again(
    item: Prepared, data: bytes, preparation: Preparation, options: ReadOptions
) -> Prepared | ImageRow | ImageFailure:
    """Decode an image that the model did not take encoded."""
    return _prepare(_Read(item.path, item.row.stat, item.row.id, data), "new", preparation, options)


def finish(
    items: Sequence[Prepared | ImageRow | ImageFailure], vectors: NDArray[np.float32]
) -> list[ImageRow | ImageFailure]:
    """Return the rows with the vectors of the prepared images, which are in the same order."""
    rows = iter(vectors)
    return [_finish(item, next(rows)) if isinstance(item, Prepared) else item for item in items]


def _read_ahead(
    sources: Sequence[Source], limits: Limits, max_bytes: int
) -> Iterator[list[_Read | ImageFailure]]:
    read: list[_Read | ImageFailure] = []
    n_bytes = 0
    for source in sources:
        item = source if isinstance(source, ImageFailure) else _read(source, limits)
        read.append(item)
        n_bytes += len(item.data) if isinstance(item, _Read) else 0
        if n_bytes >= max_bytes:
            yield read
            read, n_bytes = [], 0
    if read:
        yield read


def _read(source: ImageSource, limits: Limits) -> _Read | ImageFailure:
    try:
        stat = source.stat()
        data = source.read(limits)
    except ImageError as error:
        return ImageFailure(error.path, error.reason)
    except MemoryError:
        return ImageFailure(source.path, "there is not enough memory to read it")
    return _Read(source.path, stat, content_id(data), data)


def _prepare(
    read: _Read, knowledge: Knowledge, preparation: Preparation, options: ReadOptions
) -> Prepared | ImageRow | ImageFailure:
    row = ImageRow(read.stat, read.id)
    try:
        if knowledge == "known":
            return row
        if knowledge == "outdated" and not may_show_more(read.data):
            row.exif = exif_of(read.data, limits=options.limits)
            return row
        image = decode(read.data, path=read.path, min_side_px=preparation.decode_px, limits=options.limits)
        if knowledge == "outdated" and image.rules_version == 1:
            row.exif = image.exif
            return row
        small = thumbnail(image.image) if options.thumbnails else None
        row = ImageRow(read.stat, read.id, None, image.width, image.height, small, image.exif, image.notes)
        return Prepared(read.path, row, preparation.prepare(image.image))
    except ImageError as error:
        return ImageFailure(error.path, error.reason)
    except MemoryError:
        return ImageFailure(read.path, "there is not enough memory to decode it")


def _finish(item: Prepared, vector: NDArray[np.float32]) -> ImageRow | ImageFailure:
    if not np.isfinite(vector).all() or not vector.any():
        return ImageFailure(item.path, "its vector has no direction: it is all zeros, or not finite")
    item.row.vector = vector
    return item.row
