"""Collections of shorter or centered vectors: projected from a collection, or built in one go."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from nearsight.collection import Collection, manifest
from nearsight.collection.arrays import sample_vectors
from nearsight.collection.create import load_if_needed, make_free_directory, spec_of
from nearsight.errors import FingerprintMismatchError, InvalidParameterError
from nearsight.models import DEFAULT_MODEL, Backend, find_model
from nearsight.models.model_name import CENTERED, ModelVariant
from nearsight.models.pca import Projection, fit_center, fit_projection
from nearsight.store import Location, is_directory, locate

_Report = TypeVar("_Report")

# More images hardly change the principal directions.
_MAX_FIT_IMAGES = 20_000


def reduce_dim(
    collection: Collection,
    dim: int,
    directory: str | Path,
    *,
    storage: str | None = None,
    random_state: int = 0,
) -> Projection:
    """Make a collection of the same images with shorter vectors, without embedding them again.

    *Method*: principal component analysis of at most 20,000 vectors. Metadata and thumbnails are copied.
    Images that are added to the new collection are embedded and projected. The collection holds its
    projection itself, so it can be moved.

    Parameters
    ----------
    dim : int
        Length of the new vectors: at least 1, less than the model's own, less than the number of images.
    directory : path or URI
        Place of the new collection: nothing is there.
    storage : {"float32", "float16"}, optional
        Number format of the new vectors; by default that of this collection.
    random_state : int, default 0
        Chooses the images to fit on where there are more than 20,000.

    Returns
    -------
    Projection
        Its `variance_kept` is the share of the variance that is left.

    Raises
    ------
    InvalidParameterError
        `dim` is out of its range, or this collection is projected already.
    NotACollectionError
        The directory holds something.
    """
    return _copied(collection, locate(directory), storage, random_state, dim)


def center(
    collection: Collection, directory: str | Path, *, storage: str | None = None, random_state: int = 0
) -> Projection:
    """Make a collection of the same images with centered vectors, without embedding them again.

    *Method*: the mean of at most 20,000 vectors is subtracted from each, and unit length taken. Images that
    are added or searched for are centered on the same mean, so similarities are lower than before, and
    thresholds differ. See `reduce_dim` for what else is copied.

    Parameters
    ----------
    directory, storage, random_state
        See `reduce_dim`.

    Raises
    ------
    InvalidParameterError
        There are fewer than 50 images, or this collection is projected already; projected vectors are
        centered, too.
    NotACollectionError
        The directory holds something.
    """
    return _copied(collection, locate(directory), storage, random_state, None)


def _copied(
    collection: Collection, location: Location, storage: str | None, random_state: int, dim: int | None
) -> Projection:
    if is_reduced(collection):
        raise InvalidParameterError(
            f"{collection.uri} has reduced or centered vectors already; start from the collection that"
            " it was made from"
        )
    if location.files.resolve() == collection.directory.resolve():
        raise InvalidParameterError(
            f"{location.uri} is this collection; choose another place for the new one"
        )
    X, spec = sample_vectors(collection, _MAX_FIT_IMAGES, random_state=random_state).X, collection.spec
    projection = fit_center(X, spec) if dim is None else fit_projection(X, dim, spec)
    collection.copy_projected(location, projection, storage=storage)
    return projection


def fill_reduced(
    directory: str | Path,
    dim: int | None,
    add_images: Callable[[Collection], _Report],
    *,
    model: str | None = None,
    storage: str | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
) -> _Report:
    """Add images to a collection of shorter or centered vectors; create the collection if necessary.

    *Method*: a Matryoshka model's vectors are truncated. Otherwise the images are first embedded into a
    collection of full vectors inside the directory, and for a URI among the collection's files on this
    machine. `reduce_dim` or `center` makes the collection from it, and the full vectors are deleted. After an
    interruption, the same call continues, on the same machine. Two processes of a machine take turns.

    Parameters
    ----------
    directory : path or URI
        Missing, empty, left by an interrupted call, or a collection of vectors of `dim` numbers.
    dim : int or None
        At least 1, less than the model's own, less than the number of images. None for the model's own length
        and vectors that are centered on their mean.
    add_images : callable
        Adds the images to the collection it is given; its result is returned.
    model : str, optional
        By default the collection's own, or the default model.
    storage : {"float32", "float16"}, optional
        By default the collection's own, or what its place prefers.
    device : str, default "auto"
        See `load_model`.
    cache_dir : Path, optional
        Directory of converted models.

    Raises
    ------
    InvalidParameterError
        `dim` is out of its range or not the collection's, or there are too few images. Images that were
        embedded are kept: with more images or a smaller `dim`, none of them is embedded again.
    FingerprintMismatchError
        The collection is of another model.
    NotACollectionError
        The directory holds something else.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from nearsight.analyses.dimension_reduction import fill_reduced
    >>> noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = fill_reduced(folder, 3, lambda collection: collection.add(list(noise)))
    ...     report.added, Collection.open(folder).spec.dim
    (5, 3)
    """
    location = locate(directory)
    storage_of_new = storage or location.default_storage
    name = model or DEFAULT_MODEL
    if location.read_document(manifest.FILENAME) is None:
        if dim is not None and find_model(name).spec.matryoshka_dims:
            truncated = ModelVariant(dim=dim).applied_to(name)
            return add_images(
                Collection.create(
                    directory,
                    model=truncated,
                    storage=storage_of_new,
                    device=device,
                    cache_dir=cache_dir,
                )
            )
        if location.read_document(manifest.COPY) is not None:
            raise manifest.unfinished_copy(location)
        if is_directory(location):
            make_free_directory(location.files)
    full_directory = location.files / manifest.FULL
    with FileLock(location.files / manifest.BUILD_LOCK):
        if location.read_document(manifest.FILENAME) is not None:
            # A process may have stopped before it deleted the full vectors.
            shutil.rmtree(full_directory, ignore_errors=True)
            collection = Collection.open(location, device=device, cache_dir=cache_dir)
            _require(collection, dim, None if model is None else load_if_needed(model, device, cache_dir))
            require_storage(collection, storage)
        else:
            full = Collection.create(full_directory, model=name, device=device, cache_dir=cache_dir)
            report = add_images(full)
            try:
                _copied(full, location, storage_of_new, 0, dim)
            except InvalidParameterError as error:
                more = "more images" if dim is None else "more images or a smaller dim"
                raise InvalidParameterError(
                    f"{error}. The embedded images are kept: with {more}, none is embedded again"
                ) from error
            shutil.rmtree(full_directory, ignore_errors=True)
            return report
    return add_images(collection)


def is_reduced(collection: Collection) -> bool:
    """Return whether the vectors are projected or centered, which is done once only."""
    return " > " in collection.spec.layer


def require_storage(collection: Collection, storage: str | None) -> None:
    """Refuse a number format that is not the collection's.

    Raises
    ------
    InvalidParameterError
        The collection has another format.
    """
    if storage not in (None, collection.storage):
        raise InvalidParameterError(
            f"{collection.uri} stores its vectors as {collection.storage}, not {storage}. Omit"
            " --storage, or index into another directory with -c DIR"
        )


def _require(collection: Collection, dim: int | None, model: str | Backend | None) -> None:
    """Refuse a form of vectors or a model that is not the collection's."""
    spec, directory = collection.spec, collection.uri
    if dim is None and f" > {CENTERED}-" not in spec.layer:
        raise InvalidParameterError(
            f"the vectors of {directory} are not centered. Omit #centered, choose another directory with -c"
            " DIR, or center this collection: nearsight reduce-dim --center --out DIR"
        )
    if dim is not None and spec.dim != dim:
        raise InvalidParameterError(
            f"{directory} holds vectors of {spec.dim} numbers, not {dim}. Omit --dim, choose another"
            " directory with -c DIR, or reduce this collection: nearsight reduce-dim"
            f" --dim {dim} --out DIR"
        )
    if model is None:
        return
    requested = spec_of(model)
    if spec.id == manifest.OWN_PROJECTION:
        # Asked for its name, the collection makes sure that the file is there.
        spec = Projection.load(Path(collection.model_name.partition(":")[2])).base
    elif dim is not None and requested.matryoshka_dims:
        requested = find_model(ModelVariant(dim=dim).applied_to(requested.id)).spec
    if spec.fingerprint != requested.fingerprint:
        raise FingerprintMismatchError(
            f"{directory} holds vectors of {spec.id}, not of {requested.id}. Omit --model, or index into"
            " another directory with -c DIR"
        )
