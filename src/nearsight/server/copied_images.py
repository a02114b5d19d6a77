"""Images of one collection of the service in another: their rows, and their uploaded files."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from nearsight.collection import Collection
from nearsight.errors import StorageError
from nearsight.images import decode_path, encode_path


def copy_images(
    source: Collection, target: Collection, ids: Sequence[str], *, uploads: Path, new_uploads: Path
) -> int:
    """Copy rows, with vectors, thumbnails and metadata; return how many are new.

    Files in folders stay where they are, and both collections name them. Uploaded files belong to one
    collection, and go when an image is taken out of it: the other one gets its own. No model is needed.

    Parameters
    ----------
    uploads : Path
        Above the directories of all uploads: the source may be a copy, and name those of another collection.
    new_uploads : Path
        The directory of the uploads of the target.

    Raises
    ------
    FingerprintMismatchError
        The collections are of different models.
    StorageError
        A file cannot be copied; no row was.
    """
    rows = source.rows(ids)

    def moved(name: str) -> str:
        path = Path(decode_path(name))
        if not path.is_relative_to(uploads):
            return name
        place = new_uploads.joinpath(*path.relative_to(uploads).parts[1:])
        _copy_file(path, place)
        return encode_path(str(place))

    for column in ("path", "paths", "keys"):
        values = rows[column].to_pylist()
        changed = [moved(each) if isinstance(each, str) else [moved(one) for one in each] for each in values]
        at = rows.schema.get_field_index(column)
        rows = rows.set_column(at, rows.schema.field(at), pa.array(changed, rows.schema.field(at).type))
    n_new = target.restore_rows(rows)
    target.maintain()
    return n_new


def _copy_file(path: Path, place: Path) -> None:
    """Copy a file that is there; its content never changes, so that a hard link does."""
    if place.exists() or not path.exists():
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, place)
        except OSError:  # another disk, or one without links
            shutil.copy2(path, place)
    except OSError as error:
        raise StorageError(f"an uploaded file cannot be copied: {error}") from error
