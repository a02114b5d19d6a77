"""What doors share about training: labeled images, near-duplicates among them, a contact sheet."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight import evaluation, images
from nearsight.artifacts import exported
from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.evaluation import LabeledFolder
from nearsight.images.path_encoding import absolute
from nearsight.services.collections import temporary_collection
from nearsight.services.csv_tables import read_labels
from nearsight.services.labels import resolve_labels
from nearsight.training import AUGMENTATIONS, contact_sheet


def labeled_images(
    folder: Path,
    labels: Path | None,
    exclusions: images.Exclusions,
    *,
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> tuple[LabeledFolder, NDArray[np.intp]]:
    """Return labeled images, and a number for each that near-duplicates share.

    Parameters
    ----------
    folder : Path
    labels : Path or None
        A table with the columns path and label; the label is then not the folder's name.
    exclusions, cache_dir, progress
        See `Collection.add`.

    Raises
    ------
    InvalidParameterError
        There are fewer than two classes, or most rows of the table name no image of the folder.
    """
    labeled = _from_table(folder, labels) if labels else evaluation.read_labeled_folder(folder, exclusions)
    with temporary_collection(labeled.paths, cache_dir=cache_dir, progress=progress) as (collection, _):
        return labeled, evaluation.duplicate_groups(collection, labeled.paths)


def _from_table(folder: Path, table: Path) -> LabeledFolder:
    pairs = [(absolute(path, str(folder)), label) for path, label in read_labels(table)]
    known, _ = resolve_labels(None, pairs, table)
    label_of = dict(known)
    if len(set(label_of.values())) < 2:
        raise InvalidParameterError(f"{table} has fewer than two labels; training needs two classes or more")
    splits = [
        evaluation.split_and_names(Path(path), folder)[0]
        if Path(path).is_relative_to(folder.absolute())
        else ""
        for path in label_of
    ]
    return LabeledFolder(list(label_of), list(label_of.values()), splits)


def write_contact_sheet(
    file: Path, paths: Sequence[str], augment: str, *, n_images: int = 8, n_views: int = 8
) -> None:
    """Write views of some images, spread over all of them, as one image.

    Parameters
    ----------
    file : Path
        Its ending gives the format.
    paths : sequence of str
    augment : str
        One of `training.AUGMENTATIONS`.
    n_images, n_views : int

    Raises
    ------
    InvalidParameterError
        The ending is of no image format.
    StorageError
        The disk refuses.
    """
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}.get(file.suffix.lower())
    if kind is None:
        raise InvalidParameterError(f"{file} must end in .jpg, .png or .webp")
    spread = [paths[round(i)] for i in np.linspace(0, len(paths) - 1, min(n_images, len(paths)))]
    opened = []
    for source in images.find(spread):
        # The training lists what cannot be decoded.
        with suppress(ImageError):
            if not isinstance(source, ImageFailure):
                opened.append(images.decode(source).image)
    sheet = contact_sheet(opened, AUGMENTATIONS[augment], n_views)
    with exported(file) as out:
        sheet.save(out, kind)
