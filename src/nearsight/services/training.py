"""What doors share about training: labeled images, near-duplicates among them, a contact sheet."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from nearsight import evaluation, images
from nearsight.analyses.duplicate_groups import N_STEPS
from nearsight.artifacts import exported
from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.evaluation import LabeledFolder
from nearsight.images.path_encoding import absolute, decode_path
from nearsight.progress import steps
from nearsight.services.collections import temporary_collection
from nearsight.services.csv_tables import read_image_pairs, read_labels
from nearsight.services.labels import resolve_labels
from nearsight.text_format import nfc
from nearsight.training import (
    AUGMENTATIONS,
    FeatureEmbedder,
    Training,
    contact_sheet,
    count_steps,
    feature_embedder,
    require_free,
    train,
)


def n_steps(depth: str, **model: Any) -> int:
    """Return how many progress bars a training opens: one to embed images, near-duplicates, and its own.

    Parameters
    ----------
    depth, **model
        See `training.count_steps`.
    """
    return 1 + N_STEPS + count_steps(depth, **model)


def trained(
    folder: Path,
    to_folder: Path,
    *,
    labels: Path | None = None,
    pairs: Path | None = None,
    exclusions: images.Exclusions,
    on_paths: Callable[[Sequence[str]], None] | None = None,
    depth: str = "auto",
    augment: str = "photos",
    model: str | None = None,
    n_views: int | None = None,
    cache_dir: Path | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Training:
    """Train a model on labeled images; it is not written yet.

    What it needs to go on after an interruption is in `state_folder`.

    Parameters
    ----------
    folder : Path
    to_folder : Path
        Where the model will be.
    labels, pairs, exclusions, on_paths
        See `labeled_images`.
    depth, augment, model, n_views, **options
        See `training.train`.

    Raises
    ------
    InvalidParameterError
        There is something else at `to_folder`, or see `labeled_images`.
    """
    require_free(to_folder)
    shared: dict[str, Any] = {"cache_dir": cache_dir, "progress": progress}
    given = {"model": model, "n_views": n_views}
    of_model: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    embedder = feature_embedder(**of_model, augment=augment, **shared)
    with steps(n_steps(depth, **({} if model is None else {"model": model}))):
        labeled, groups = labeled_images(
            folder, labels, exclusions, pairs=pairs, embedder=embedder, on_paths=on_paths, **shared
        )
        return train(
            labeled,
            groups,
            **of_model,
            **options,
            depth=depth,
            augment=augment,
            embedder=embedder,
            state_folder=state_folder(to_folder),
            **shared,
        )


def labeled_images(
    folder: Path,
    labels: Path | None,
    exclusions: images.Exclusions,
    *,
    pairs: Path | None = None,
    embedder: FeatureEmbedder | None = None,
    on_paths: Callable[[Sequence[str]], None] | None = None,
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> tuple[LabeledFolder, NDArray[np.intp]]:
    """Return labeled images, and a number for each that near-duplicates share.

    Parameters
    ----------
    folder : Path
    labels : Path or None
        A table with the columns path and label, which names the images; a label that it leaves empty is the
        folder's name.
    pairs : Path, optional
        A table with the columns first and second, two images of the same thing in each row, in place of
        labels. Images that pairs connect, and their near-duplicates, get one label.
    embedder : FeatureEmbedder, optional
        Embeds the images, by whose vectors near-duplicates are proposed, and keeps their features.
    on_paths : callable, optional
        Called with the paths before an image is embedded.
    exclusions, cache_dir, progress
        See `Collection.add`.

    Raises
    ------
    InvalidParameterError
        There are fewer than two classes, or most rows of the table name no image of the folder.
    """
    if labels and pairs:
        raise InvalidParameterError("labels and pairs were given; give one of them")
    edges: NDArray[np.intp] = np.empty((0, 2), np.intp)
    if pairs:
        labeled, edges = _from_pairs(folder, pairs)
    elif labels:
        labeled = _from_table(folder, labels)
    else:
        labeled = evaluation.read_labeled_folder(folder, exclusions)
    if on_paths is not None:
        on_paths(labeled.paths)
    groups = _groups(labeled, embedder, cache_dir, progress)
    if pairs:
        labeled = replace(labeled, labels=[str(number) for number in things(edges, groups)])
    return labeled, groups


def _groups(
    labeled: LabeledFolder,
    embedder: FeatureEmbedder | None,
    cache_dir: Path | None,
    progress: bool | None,
) -> NDArray[np.intp]:
    """Return a number for each image that near-duplicates share."""
    options: dict[str, Any] = {"cache_dir": cache_dir, "progress": progress}
    if embedder is None:
        with temporary_collection(labeled.paths, **options) as (collection, _):
            return evaluation.duplicate_groups(collection, labeled.paths)
    judges = [path for path, split in zip(labeled.paths, labeled.splits, strict=True) if split == "test"]
    others = [path for path, split in zip(labeled.paths, labeled.splits, strict=True) if split != "test"]
    options["embedder"] = embedder.vector_embedder()
    with ExitStack() as stack:
        with embedder.one_bar(len(labeled.paths)):
            collection, _ = stack.enter_context(temporary_collection(others, **options))
            if judges:
                collection.add(judges, embedder=embedder.vector_embedder(n_views=1))
        return evaluation.duplicate_groups(collection, labeled.paths)


def things(edges: NDArray[np.integer], groups: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return a number for each image that images share where pairs and near-duplicates connect them.

    Parameters
    ----------
    edges : ndarray of shape (n_pairs, 2), int
        Positions of the images of each pair.
    groups : ndarray of shape (n,), int
        Near-duplicates share a number.

    Examples
    --------
    >>> things(np.array([[0, 1], [2, 3]]), np.array([0, 1, 1, 3, 4])).tolist()
    [0, 0, 0, 0, 1]
    """
    n = len(groups)
    first_of_group = np.unique(groups, return_index=True, return_inverse=True)
    rows = np.concatenate([edges[:, 0], np.arange(n)])
    columns = np.concatenate([edges[:, 1], first_of_group[1][first_of_group[2]]])
    graph = scipy.sparse.coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    numbers: NDArray[np.intp]
    _, numbers = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return numbers.astype(np.intp)


def _from_pairs(folder: Path, table: Path) -> tuple[LabeledFolder, NDArray[np.intp]]:
    """Return the images that pairs name, without labels yet, and the positions of each pair's images."""
    named = [tuple(absolute(name, str(folder)) for name in pair) for pair in read_image_pairs(table)]
    paths = list(dict.fromkeys(path for pair in named for path in pair))
    # A few files that are gone are listed as failed; of many, the folder is the wrong one.
    missing = [path for path in paths if not Path(decode_path(path)).is_file()]
    if len(missing) > len(paths) / 2:
        raise InvalidParameterError(
            f"{len(missing):,} of the {len(paths):,} images that {table} names are not there, such as "
            f"{missing[0]}; paths are relative to {folder}"
        )
    position = {path: number for number, path in enumerate(paths)}
    edges = np.array([[position[path] for path in pair] for pair in named], np.intp)
    return LabeledFolder(paths, [""] * len(paths), [""] * len(paths), holds_pairs=True), edges


def _from_table(folder: Path, table: Path) -> LabeledFolder:
    """Return the images that a table names; the label that it leaves empty is the folder's name."""
    pairs = [(absolute(path, str(folder)), label) for path, label in read_labels(table, keep_empty=True)]
    known, resolution = resolve_labels(None, pairs, table)
    for line in resolution.report(str(table)):
        warnings.warn(line, stacklevel=3)
    label_of, given, splits = dict[str, str](), dict[str, str](), dict[str, str]()
    for path, label in known:
        names = list[str]()
        if Path(path).is_relative_to(absolute(str(folder))):
            splits[path], names = evaluation.split_and_names(Path(path), folder)
        if label:
            if given.setdefault(path, nfc(label)) != nfc(label):
                raise InvalidParameterError(
                    f"{table} gives {path} two labels, {given[path]!r} and {label!r}; delete one of the rows"
                )
            label_of[path] = given[path]
        elif names:
            label_of.setdefault(path, nfc(names[0]))
    if len(set(label_of.values())) < 2:
        raise InvalidParameterError(f"{table} has fewer than two labels; training needs two classes or more")
    return LabeledFolder(list(label_of), list(label_of.values()), [splits.get(path, "") for path in label_of])


def state_folder(model: Path) -> Path:
    """Return the folder beside a model in which its training keeps what it needs to go on."""
    return model.with_name(f".{model.absolute().name}.training")


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
