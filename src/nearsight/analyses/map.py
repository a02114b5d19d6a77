"""The map of a collection: each image has a position on a plane, which later images do not change."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.artifacts import read_artifact, write_artifact
from nearsight.collection import Collection
from nearsight.collection.arrays import read_vectors
from nearsight.errors import InvalidParameterError
from nearsight.estimators.layout2d import Layout2D, place_rows, trustworthiness
from nearsight.estimators.neighbors import unit_length
from nearsight.models import Fingerprint
from nearsight.progress import steps
from nearsight.text_format import ShortRepr

# In the collection's directory.
FILENAME = "map.npz"
_KIND, _FORMAT = "map", 1


@dataclass(frozen=True, slots=True, repr=False)
class ImageMap(ShortRepr):
    """Positions of images on a plane.

    Attributes
    ----------
    ids : list of str, length n
    positions : ndarray of shape (n, 2), float32
        Similar images lie close together; the unit has no meaning.
    is_added : ndarray of shape (n,), bool
        Whether an image was added to an existing map, rather than laid out with it.
    method : {"umap", "pca"}
    trustworthiness : float or None
        How far neighbors on the map are neighbors by their vectors, in 0..1; None for fewer than 4 images.
    n_new : int
        Images that had no position before this call.
    is_new_layout : bool
        Whether this call laid the map out, so that every image has a new position.
    projection : dict of str to ndarray
        For the method "pca": ``middle`` and ``axes``, which project a vector.
    """

    ids: list[str]
    positions: NDArray[np.float32]
    is_added: NDArray[np.bool_]
    method: str
    trustworthiness: float | None
    n_new: int = 0
    is_new_layout: bool = False
    projection: dict[str, NDArray[Any]] = field(default_factory=dict)

    def subset(self, ids: Sequence[str]) -> "ImageMap":
        """Return the map of those of `ids` that are on it, in that order."""
        rows = {id: row for row, id in enumerate(self.ids)}
        selected = np.array([rows[id] for id in ids if id in rows], np.intp)
        return replace(
            self,
            ids=[self.ids[row] for row in selected],
            positions=self.positions[selected],
            is_added=self.is_added[selected],
        )


def layout_2d(
    collection: Collection,
    *,
    refit: bool = False,
    method: str | None = None,
    random_state: int = 0,
    progress: bool | None = None,
) -> ImageMap:
    """Return the collection's map: laid out the first time, and saved in the collection.

    Images that were added since get a position; the others do not move. `refit` lays out all images again.
    Where the collection cannot be written to, a warning says that the map is not saved.

    *Method*: `estimators.layout2d.Layout2D`.

    Parameters
    ----------
    refit : bool, default False
        Whether to make a new map, on which every image moves.
    method : {"auto", "umap", "pca"}, optional
        For a new map; "auto", the default, is UMAP where it is installed.
    random_state : int, default 0
    progress : bool, optional
        Show progress on stderr; by default only where that is a terminal.

    Raises
    ------
    InvalidParameterError
        There are no images, the saved map is of another method, or none of the images that it was laid out
        with is left.
    MissingExtraError
        `method` is "umap", which is not installed.

    Notes
    -----
    Memory: all vectors, 4 bytes a number; none where no image was added. A single image, and identical ones,
    have one position.
    """
    saved = None if refit else _load(collection)
    if saved is not None and method not in (None, "auto", saved.method):
        raise InvalidParameterError(
            f"the map of this collection is by {saved.method}; one by {method} moves every image: ask for"
            " that with refit=True (--refit)"
        )
    ids = [id for batch in collection.iter_batches(["id"]) for id in batch.column("id").to_pylist()]
    if not ids:
        raise InvalidParameterError("there are no images to lay out; nearsight index PATH adds some")
    if saved is None:
        with steps(2):
            image_map = _lay_out(collection, method or "auto", random_state, progress)
    elif set(ids) <= set(saved.ids):
        return saved.subset(ids)
    else:
        image_map = _add_images(collection, saved, progress)
    if os.access(collection.directory, os.W_OK):
        _save(collection, image_map)
    else:
        warnings.warn(f"{collection.directory} cannot be written to, so the map is not saved", stacklevel=2)
    return image_map


def _lay_out(collection: Collection, method: str, random_state: int, progress: bool | None) -> ImageMap:
    table = read_vectors(collection)
    layout = Layout2D(method=method, random_state=random_state, progress=progress).fit(table.X)
    is_added = np.ones(len(table), bool)
    is_added[layout.fitted_] = False
    projection = {"middle": layout.mean_, "axes": layout.axes_} if layout.method_ == "pca" else {}
    score = trustworthiness(table.X, layout.embedding_)
    return ImageMap(
        table.ids, layout.embedding_, is_added, layout.method_, score, len(table), True, projection
    )


def _add_images(collection: Collection, saved: ImageMap, progress: bool | None) -> ImageMap:
    """Give a position to the images that are not on the map."""
    table = read_vectors(collection)
    saved_rows = {id: row for row, id in enumerate(saved.ids)}
    rows = np.array([saved_rows.get(id, -1) for id in table.ids], np.intp)
    is_new = rows < 0
    positions, is_added = np.empty((len(table), 2), np.float32), is_new.copy()
    positions[~is_new], is_added[~is_new] = saved.positions[rows[~is_new]], saved.is_added[rows[~is_new]]
    if saved.method == "pca":
        vectors = unit_length(table.X[is_new])
        positions[is_new] = (vectors - saved.projection["middle"]) @ saved.projection["axes"].T
    else:
        if is_added.all():
            raise InvalidParameterError(
                "none of the images that the map was laid out with is left; make a new one with refit=True"
                " (--refit)"
            )
        laid_out = ~is_added
        positions[is_new] = place_rows(
            table.X[is_new], table.X[laid_out], positions[laid_out], progress=progress
        )
    score = trustworthiness(table.X, positions)
    return ImageMap(
        table.ids, positions, is_added, saved.method, score, int(is_new.sum()), False, saved.projection
    )


def _save(collection: Collection, image_map: ImageMap) -> None:
    facts = {
        "method": image_map.method,
        "trustworthiness": image_map.trustworthiness,
        "fingerprint": collection.fingerprint.to_dict(),
    }
    # The names of arrays are part of the file format.
    arrays = {
        "ids": np.array(image_map.ids, dtype="S32"),
        "places": image_map.positions,
        "placed": image_map.is_added,
        **image_map.projection,
    }
    write_artifact(collection.directory / FILENAME, _KIND, _FORMAT, facts, arrays)


def saved_method(file: Path) -> str:
    """Return the method of a saved map.

    Raises
    ------
    InvalidParameterError
        The file is damaged.
    """
    remedy = "make a new one: nearsight map --refit"
    with read_artifact(file, _KIND, _FORMAT, error=InvalidParameterError, remedy=remedy, only=()) as (
        facts,
        _,
    ):
        return str(facts["method"])


def _load(collection: Collection) -> ImageMap | None:
    """Return the collection's saved map, None where there is none.

    Raises
    ------
    InvalidParameterError
        The file is damaged.
    NewerFormatError
        A newer nearsight wrote it.
    FingerprintMismatchError
        It is of vectors of another model.
    """
    file = collection.directory / FILENAME
    if not file.is_file():
        return None
    remedy = "make a new one: nearsight map --refit"
    with read_artifact(file, _KIND, _FORMAT, error=InvalidParameterError, remedy=remedy) as (facts, arrays):
        fingerprint = Fingerprint.from_dict(facts["fingerprint"])
        fingerprint.require_same(collection.fingerprint, f"{file}", remedy.capitalize())
        return ImageMap(
            np.char.decode(arrays["ids"], "ascii").tolist(),
            arrays["places"],
            arrays["placed"],
            facts["method"],
            facts["trustworthiness"],
            projection={name: arrays[name] for name in ("middle", "axes") if name in arrays},
        )
