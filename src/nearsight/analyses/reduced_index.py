"""Makes a collection of shorter vectors in one go: images in full first, then projected."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from nearsight.collection import manifest
from nearsight.collection.collection import Collection
from nearsight.collection.create import load_if_needed, make_free_directory, spec_of
from nearsight.errors import FingerprintMismatchError, InvalidParameterError, NotACollectionError
from nearsight.models import DEFAULT_MODEL, Backend, find_model
from nearsight.models.model_name import Variant
from nearsight.models.pca import Projection

_Report = TypeVar("_Report")


def fill_short(
    directory: str | Path,
    dim: int,
    fill: Callable[[Collection], _Report],
    *,
    model: str | None = None,
    storage: str | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
) -> _Report:
    """Fill a collection whose vectors have `dim` numbers; make it if it is not there.

    The vectors of a model that was trained to be cut are cut. Otherwise images are first embedded into a
    collection of vectors in full, inside the directory; a projection onto what they differ in is learned on
    at most 20,000 of them; then the directory becomes the collection, at once, and what it was made from
    goes. Whenever that is interrupted, the same call goes on from there. Two processes at it take turns.

    Parameters
    ----------
    directory : path
        Missing, empty, what an interrupted call left, or a collection of `dim` numbers.
    dim : int
        At least 1, less than the model's own, and less than there are images.
    fill : callable
        Adds the images to the collection it is given, and returns what is to be returned.
    model : str, optional
        Whose vectors are shortened; by default the collection's own, or the default model's.
    storage : {"float32", "float16"}, optional
        What each number is kept as; by default float32, or what it is already.
    device : str, default "auto"
        Where the model runs, see `load_model`.
    cache_dir : Path, optional
        Where converted models are kept.

    Raises
    ------
    InvalidParameterError
        `dim` is out of its range or not the collection's, or there are too few images. Those that were
        embedded are kept: with more images, or for fewer numbers, none of them is embedded again.
    FingerprintMismatchError
        The collection is of another model.
    NotACollectionError
        The directory holds something else.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from nearsight.analyses.reduced_index import fill_short
    >>> noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = fill_short(folder, 3, lambda collection: collection.add(list(noise)))
    ...     report.added, Collection.open(folder).spec.dim
    (5, 3)
    """
    directory = Path(directory)
    name = model or DEFAULT_MODEL
    if directory.exists() and not directory.is_dir():
        raise NotACollectionError(f"{directory} is a file; a collection is a directory")
    if not (directory / manifest.FILENAME).exists():
        if find_model(name).spec.matryoshka_dims:
            cut = Variant(dim=dim).applied_to(name)
            return fill(
                Collection.create(
                    directory, model=cut, storage=storage or "float32", device=device, cache_dir=cache_dir
                )
            )
        make_free_directory(directory)
    with FileLock(directory / manifest.BUILD_LOCK):
        if (directory / manifest.FILENAME).exists():
            # It may have been stopped between its last two steps.
            shutil.rmtree(directory / manifest.FULL, ignore_errors=True)
            collection = Collection.open(directory, device=device, cache_dir=cache_dir)
            _require(collection, dim, None if model is None else load_if_needed(model, device, cache_dir))
            require_storage(collection, storage)
        else:
            full = Collection.create(
                directory / manifest.FULL, model=name, device=device, cache_dir=cache_dir
            )
            report = fill(full)
            _project(full, dim, directory, storage or "float32")
            shutil.rmtree(directory / manifest.FULL, ignore_errors=True)
            return report
    return fill(collection)


def require_storage(collection: Collection, storage: str | None) -> None:
    """Refuse to keep vectors otherwise than a collection does.

    Raises
    ------
    InvalidParameterError
        It keeps them otherwise.
    """
    kept = collection.storage
    if storage not in (None, kept):
        raise InvalidParameterError(
            f"{collection.directory} keeps its vectors in {kept}, not {storage}. Leave --storage away, or"
            " index into another directory with -c DIR"
        )


def _project(full: Collection, dim: int, directory: Path, storage: str) -> None:
    try:
        full.reduce_dim(dim, directory, storage=storage)
    except InvalidParameterError as error:
        raise InvalidParameterError(
            f"{error}. What was embedded is kept: with more images or a smaller dim, none is embedded again"
        ) from error


def _require(collection: Collection, dim: int, model: str | Backend | None) -> None:
    """Refuse another length or another model than a collection has."""
    spec, directory = collection.spec, collection.directory
    if spec.dim != dim:
        raise InvalidParameterError(
            f"{directory} holds vectors of {spec.dim} numbers, not {dim}. Leave --dim away, choose another"
            " directory with -c DIR, or make a collection out of this one: nearsight project"
            f" --dim {dim} --out DIR"
        )
    if model is None:
        return
    wanted = spec_of(model)
    if spec.id == manifest.OWN_PROJECTION:
        spec = Projection.load(directory / manifest.PROJECTION).base
    elif wanted.matryoshka_dims:
        wanted = find_model(Variant(dim=dim).applied_to(wanted.id)).spec
    if spec.fingerprint != wanted.fingerprint:
        raise FingerprintMismatchError(
            f"{directory} holds vectors of {spec.id}, not of {wanted.id}. Leave --model away, or index into"
            " another directory with -c DIR"
        )
