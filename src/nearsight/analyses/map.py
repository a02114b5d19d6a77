"""A map of the collection's images that stays as it is when images come in."""

import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.artifacts import read_artifact, write_artifact
from nearsight.collection import Collection
from nearsight.collection.arrays import read_vectors
from nearsight.errors import InvalidParameterError
from nearsight.models import Fingerprint

# In the collection's directory.
FILENAME = "map.npz"
_KIND, _FORMAT = "map", 1


@dataclass(frozen=True, slots=True)
class Map:
    """Where images are on a plane.

    Attributes
    ----------
    ids : list of str, length n
    places : ndarray of shape (n, 2), float32
        In units that mean nothing; near is alike.
    placed : ndarray of shape (n,), bool
        Whether an image was placed on the map that was there, rather than laid out with it.
    method : {"umap", "pca"}
    trustworthiness : float or None
        How far neighbors on the map are neighbors in truth, in 0..1; None with fewer than 4 images.
    n_new : int
        Images that had no place before this call.
    moved : bool
        Whether the map was laid out by this call: every image has a new place.
    axes : dict of str to ndarray
        Of PCA: what projects a vector.
    """

    ids: list[str]
    places: NDArray[np.float32]
    placed: NDArray[np.bool_]
    method: str
    trustworthiness: float | None
    n_new: int = 0
    moved: bool = False
    axes: dict[str, NDArray[Any]] = field(default_factory=dict)

    def only(self, ids: Sequence[str]) -> "Map":
        """Return the map of some of its images, in that order."""
        rows = {id: row for row, id in enumerate(self.ids)}
        chosen = np.array([rows[id] for id in ids if id in rows], np.intp)
        return Map(
            [self.ids[row] for row in chosen],
            self.places[chosen],
            self.placed[chosen],
            self.method,
            self.trustworthiness,
            self.n_new,
            self.moved,
            self.axes,
        )


def layout_2d(
    self: Collection,
    *,
    refit: bool = False,
    method: str | None = None,
    random_state: int = 0,
    progress: bool | None = None,
) -> Map:
    """Return the map of the images: made the first time, and kept with the collection.

    Images that came in later are placed on it; none that was there moves. `refit` lays all out anew. Where
    the collection cannot be written to, a warning says that the map is not kept.

    Parameters
    ----------
    refit : bool, default False
        Whether to make a new map, in which every image moves.
    method : {"auto", "umap", "pca"}, optional
        Of a new map: by default "auto", which is UMAP where it is installed.
    random_state : int, default 0
    progress : bool, optional
        Show progress bars on stderr; by default only when that is a terminal.

    Raises
    ------
    InvalidParameterError
        There are no images, the map that is there is of another method, or none of its images are left.
    MissingExtraError
        UMAP is asked for and not installed.

    Notes
    -----
    All vectors are held, 4 bytes a number, while images are laid out or placed; a map without new images
    reads none. One image, and images that are all the same, lie in one place.
    """
    kept = None if refit else _read(self)
    if kept is not None and method not in (None, "auto", kept.method):
        raise InvalidParameterError(
            f"the map of this collection is by {kept.method}; one by {method} moves every image: ask for"
            " that with refit=True (--refit)"
        )
    ids = [id for batch in self.iter_batches(["id"]) for id in batch.column("id").to_pylist()]
    if not ids:
        raise InvalidParameterError("there are no images to make a map of; nearsight index PATH adds some")
    shown = sys.stderr.isatty() if progress is None else progress
    if kept is not None:
        known = set(kept.ids)
        if all(id in known for id in ids):
            return kept.only(ids)
        made = _placed(self, kept, shown)
    else:
        made = _laid_out(self, method or "auto", random_state, shown)
    if os.access(self.directory, os.W_OK):
        _write(self, made)
    else:
        warnings.warn(f"{self.directory} cannot be written to, so the map is not kept", stacklevel=2)
    return made


def _laid_out(view: Collection, method: str, random_state: int, progress: bool) -> Map:
    from nearsight.estimators.layout2d import Layout2D, trustworthiness

    rows = read_vectors(view)
    made = Layout2D(method=method, random_state=random_state, progress=progress).fit(rows.X)
    placed = np.ones(len(rows), bool)
    placed[made.fitted_] = False
    axes = {"middle": made._middle, "axes": made._axes} if made.method_ == "pca" else {}
    trust = trustworthiness(rows.X, made.embedding_)
    return Map(rows.ids, made.embedding_, placed, made.method_, trust, len(rows), True, axes)


def _placed(view: Collection, kept: Map, progress: bool) -> Map:
    """Place the images that are not on the map."""
    from nearsight.estimators.layout2d import place, trustworthiness

    rows = read_vectors(view)
    on_it = {id: row for row, id in enumerate(kept.ids)}
    at = np.array([on_it.get(id, -1) for id in rows.ids], np.intp)
    new = at < 0
    places = np.empty((len(rows), 2), np.float32)
    places[~new] = kept.places[at[~new]]
    placed = new.copy()
    placed[~new] = kept.placed[at[~new]]
    if kept.method == "pca":
        lengths = np.linalg.norm(rows.X[new], axis=1, keepdims=True)
        unit = rows.X[new] / np.where(lengths > 0, lengths, 1)
        places[new] = (unit - kept.axes["middle"]) @ kept.axes["axes"].T
    else:
        guides = ~placed
        if not guides.any():
            raise InvalidParameterError(
                "none of the images that the map was laid out with is left; make a new one with refit=True"
                " (--refit)"
            )
        places[new] = place(rows.X[new], rows.X[guides], places[guides], progress=progress)
    trust = trustworthiness(rows.X, places)
    return Map(rows.ids, places, placed, kept.method, trust, int(new.sum()), False, kept.axes)


def _write(view: Collection, made: Map) -> None:
    facts = {
        "method": made.method,
        "trustworthiness": made.trustworthiness,
        "fingerprint": view.fingerprint.to_dict(),
    }
    arrays = {
        "ids": np.array(made.ids, dtype="S32"),
        "places": made.places,
        "placed": made.placed,
        **made.axes,
    }
    write_artifact(view.directory / FILENAME, _KIND, _FORMAT, facts, arrays)


def _read(view: Collection) -> Map | None:
    """Return the map that is kept with a collection.

    Raises
    ------
    InvalidParameterError
        It is damaged.
    NewerFormatError
        A newer nearsight wrote it.
    FingerprintMismatchError
        It is of vectors of another model.
    """
    file = view.directory / FILENAME
    if not file.is_file():
        return None
    remedy = "make a new one: nearsight map --refit"
    with read_artifact(file, _KIND, _FORMAT, error=InvalidParameterError, remedy=remedy) as (facts, arrays):
        fingerprint = Fingerprint.from_dict(facts["fingerprint"])
        fingerprint.require_same(view.fingerprint, f"{file}", remedy.capitalize())
        return Map(
            np.char.decode(arrays["ids"], "ascii").tolist(),
            arrays["places"],
            arrays["placed"],
            facts["method"],
            facts["trustworthiness"],
            axes={name: arrays[name] for name in ("middle", "axes") if name in arrays},
        )
