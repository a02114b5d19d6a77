"""Uploaded images: files first, then rows. What was acknowledged is on disk."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearsight.artifacts import replacing
from nearsight.collection import Collection
from nearsight.errors import StorageError
from nearsight.images import EXTENSIONS, Limits, content_id

_UNSAFE = re.compile(r"[^\w.,()+@ -]")
# Bytes, of the 255 that file systems allow: the id comes before it, and an ending may come after it.
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """An image that a client sent.

    Attributes
    ----------
    name : str
        Of the file, as the client has it; only its last part counts.
    data : bytes
    metadata : mapping
    """

    name: str
    data: bytes
    metadata: Mapping[str, Any]


def add_uploads(
    collection: Collection, folder: Path, uploads: Sequence[UploadedImage], *, limits: Limits | None = None
) -> list[dict[str, Any]]:
    """Store images, add them to a collection, and return what became of each.

    The result of each image has ``status``: ``added``, ``exists`` (its content is there already, and gets the
    metadata), or ``failed`` with a ``reason``.

    Raises
    ------
    MetadataError
        Metadata does not fit; nothing was added.
    StorageError
        The disk is full or gone.
    """
    for upload in uploads:
        collection.check_metadata(upload.metadata)
    ids = [content_id(upload.data) for upload in uploads]
    present = {item.id for item in collection.items(ids=list(dict.fromkeys(ids)))}
    files: dict[str, UploadedImage] = {}
    places: dict[str, str] = {}
    for id, upload in zip(ids, uploads, strict=True):
        if id not in present and id not in places:
            place = folder / id[:2] / id[2:12] / file_name(upload.name, upload.data)
            write_file(place, upload.data)
            places[id] = str(place)
            files[str(place)] = upload
    failed: dict[str, str] = {}
    if files:
        report = collection.add(
            list(files),
            metadata=lambda path: files[path].metadata if path in files else {},
            limits=limits,
            progress=False,
        )
        failed = {failure.path: failure.reason for failure in report.failed}
        for path in failed:
            Path(path).unlink(missing_ok=True)
    changed = {
        id: dict(u.metadata) for id, u in zip(ids, uploads, strict=True) if id in present and u.metadata
    }
    if changed:
        collection.update_metadata(list(changed), list(changed.values()))
    results = []
    for i, id in enumerate(ids):
        reason = failed.get(places.get(id, ""))
        if reason is not None:
            results.append({"index": i, "status": "failed", "reason": reason})
        else:
            results.append({"index": i, "id": id, "status": "exists" if id in present else "added"})
    return results


def remove_unlisted(
    collection: Collection, folder: Path, *, before_s: float, but: Iterable[str | os.PathLike[str]] = ()
) -> int:
    """Remove uploaded files that no image of a collection belongs to; return how many there were.

    A service that is killed leaves files whose rows were never written, and never acknowledged. A file stays
    if its content has a row, wherever that row says the image lies.

    Parameters
    ----------
    before_s : float
        Only files that were last changed before this moment, in seconds since the epoch.
    but : iterable of path
        Files that stay: the trash may be about to put them back.
    """
    known = {id[:12] for batch in collection.iter_batches(["id"]) for id in batch.column("id").to_pylist()}
    kept = {Path(path).resolve() for path in but}
    n_removed = 0
    for path in folder.glob("??/??????????/*"):
        if f"{path.parent.parent.name}{path.parent.name}" in known or path.stat().st_mtime >= before_s:
            continue
        if path.resolve() in kept or path.is_dir():
            continue
        path.unlink(missing_ok=True)
        n_removed += 1
    return n_removed


def file_name(name: str, data: bytes) -> str:
    r"""Return a safe name of a file, which ends as an image does.

    Examples
    --------
    >>> file_name("../../etc/pass\0wd", b"")
    'pass_wd.img'
    >>> file_name("C:\\photos\\a b.JPG", b"")
    'a b.JPG'
    """
    safe = _UNSAFE.sub("_", re.split(r"[/\\]", name)[-1]).strip(". ")
    last = safe.encode()[-_MAX_NAME:].decode(errors="ignore") or "image"
    if last.rpartition(".")[2].lower() in EXTENSIONS:
        return last
    return f"{last}.{_ending(data)}"


def _ending(data: bytes) -> str:
    starts = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
    return next((ending for start, ending in starts.items() if data.startswith(start)), "img")


def write_file(place: Path, data: bytes) -> None:
    """Write a file whole, and wait until it is on disk; its folder is made.

    Raises
    ------
    StorageError
        The disk refuses.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(f"an upload cannot be stored: {error}") from error
