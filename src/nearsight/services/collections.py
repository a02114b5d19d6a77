"""Open or create a collection, add images to it, embed, and search."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight import images
from nearsight.analyses.dimension_reduction import fill_reduced, require_storage
from nearsight.collection import AddReport, Collection, Match, copy_collection
from nearsight.collection.arrays import image_lookup
from nearsight.collection.reader import PREFIX_DIGITS
from nearsight.embedder import Embedded, Embedder, NoNetwork, OnError
from nearsight.errors import (
    CollectionNotFoundError,
    FingerprintMismatchError,
    ImageError,
    ImageFailure,
    InvalidParameterError,
    NearsightError,
    NotACollectionError,
    StorageError,
    UnknownIdError,
)
from nearsight.images.image_lookup import ImageLookup, Resolution
from nearsight.images.path_encoding import is_url
from nearsight.models import DEFAULT_MODEL, find_model, load_model, named_with_decode
from nearsight.models.model_name import without_centering
from nearsight.text_format import SHORT_ID_DIGITS, shortened

# Matches of a search whose keypoints are compared; each costs about 50 ms.
N_VERIFIED = 50


def open_or_create(
    uri: str,
    *,
    model: str | None = None,
    storage: str | None = None,
    device: str = "auto",
    decode: str | None = None,
    cache_dir: Path | None = None,
) -> Collection:
    """Open a collection, or create it where there is none.

    Parameters
    ----------
    uri : str
        Where the collection is.
    model : str, optional
        The model that it must have. A new collection gets the default model.
    storage : {"float32", "float16"}, optional
        The number type that it must have. A new collection gets float32 in a directory, float16 in Postgres.
    device : str, default "auto"
        Where the model runs; see `load_model`.
    decode : {"auto", "draft", "full"}, optional
        How far JPEGs are decoded; see `models.decode_mode`. A new collection gets ``auto``.
    cache_dir : Path, optional
        Directory of converted models.

    Raises
    ------
    FingerprintMismatchError, InvalidParameterError
        The collection has another model, another way of decoding or number type. Leave the argument out, or
        name another collection.
    """
    model = _model_to_use(uri, model, decode, device)
    try:
        collection = Collection.open(uri, model=model, device=device, cache_dir=cache_dir)
    except CollectionNotFoundError:
        # Loaded first: a model that fails to load must not leave an empty collection behind.
        backend = load_model(model or DEFAULT_MODEL, device=device, cache_dir=cache_dir)
        return Collection.create(uri, model=backend, storage=storage, device=device, cache_dir=cache_dir)
    require_storage(collection, storage)
    return collection


def added_since(time: datetime) -> str:
    """Return the filter of the images that were added at a time or later; without a zone, it is UTC."""
    moment = time.astimezone(timezone.utc) if time.tzinfo else time
    return f"added >= '{moment:%Y-%m-%d %H:%M:%S}'"


def copied(source: str, target: str, *, shown: str, **options: Any) -> dict[str, Any]:
    """Copy a collection, and return what that did as plain data; `shown` is how the copy is named.

    See `copy_collection` for the options, and for what is raised.
    """
    started = time.perf_counter()
    report = copy_collection(source, target, **options)
    return {
        "images": report.n_images,
        "copied": report.n_copied,
        "files": report.n_files,
        "verified": report.is_verified,
        "collection": shown,
        "seconds": round(time.perf_counter() - started, 3),
    }


def reduced(
    collection: Collection, target: str, *, shown: str, dim: int | None = None, storage: str | None = None
) -> dict[str, Any]:
    """Make a collection of shorter vectors, or without `dim` of centered ones; return it as plain data."""
    if dim is None:
        projection = collection.center(target, storage=storage)
    else:
        projection = collection.reduce_dim(dim, target, storage=storage)
    facts = Collection.open(target, cache_dir=collection.cache_dir).info()
    return {
        "images": facts["images"],
        "dim": projection.dim,
        "variance_kept": round(projection.variance_kept, 4),
        "collection": shown,
        "bytes_per_image": facts["bytes_per_image"],
    }


def compacted(collection: Collection) -> dict[str, Any]:
    """Compact a collection, and return what that changed as plain data."""
    before, started = collection.info(), time.perf_counter()
    collection.compact()
    seconds, after = time.perf_counter() - started, collection.info()
    return {
        "images": after["images"],
        "size_bytes": after["size_bytes"],
        "freed_bytes": before["size_bytes"] - after["size_bytes"],
        "seconds": round(seconds, 3),
    }


def has_collection(uri: str) -> bool:
    """Whether there is a collection, or something that is opened with an error of its own.

    Raises
    ------
    StorageError
        The storage is away: whoever opens the collection next would wait for it again.
    """
    try:
        Collection.open(uri)
    except CollectionNotFoundError:
        return False
    except StorageError:
        raise
    except NearsightError:
        pass
    return True


def unreadable_inputs(
    uri: str,
    paths: Sequence[str],
    *,
    exclusions: images.Exclusions | None = None,
    limits: images.Limits | None = None,
    on_error: OnError = "record",
) -> AddReport | None:
    """Look for an image that can be read, so that no collection is created for inputs without one.

    The search ends at the first one. Where there is a collection already, or an input is remote, there is no
    search.

    Parameters
    ----------
    uri : str
        Where the collection is, or will be.
    paths, exclusions
        See `images.find`.
    limits : Limits, optional
        On each image.
    on_error : {"record", "raise"}
        See `Collection.add`.

    Returns
    -------
    AddReport or None
        What would become of the inputs if no image can be read; None if one can.
    """
    if any(is_url(path) for path in paths) or has_collection(uri):
        return None
    started, skipped = time.monotonic(), Counter[str]()
    failed = []
    for source in images.find(list(paths), exclusions=exclusions, skipped=skipped):
        failure = _failure_of(source, limits or images.Limits())
        if failure is None:
            return None
        if on_error == "raise":
            raise ImageError(failure.path, failure.reason)
        failed.append(failure)
    seconds = time.monotonic() - started
    return AddReport(
        added=0,
        updated=0,
        unchanged=0,
        removed=0,
        embedded=0,
        failed=failed,
        skipped=dict(skipped.most_common()),
        seconds=round(seconds, 3),
        images_per_second=round(len(failed) / seconds, 1) if seconds else 0.0,
    )


def _failure_of(source: images.ImageSource | ImageFailure, limits: images.Limits) -> ImageFailure | None:
    if isinstance(source, ImageFailure):
        return source
    try:
        images.decode(source, limits=limits, min_side_px=1)
    except ImageError as error:
        return ImageFailure(error.path, error.reason)
    return None


def add_images(
    uri: str,
    add: Callable[[Collection], AddReport],
    *,
    model: str | None = None,
    dim: int | None = None,
    storage: str | None = None,
    device: str = "auto",
    decode: str | None = None,
    cache_dir: Path | None = None,
) -> AddReport:
    """Open or create a collection, and add images to it.

    Parameters
    ----------
    add : callable
        Calls `Collection.add` on the collection, and returns its report.
    dim : int, optional
        Dimensions that a vector must have: fewer than the model's own are cut or projected; see
        `fill_reduced`. A model ``NAME#centered`` keeps its dimensions.
    uri, model, storage, device, decode, cache_dir
        See `open_or_create`.
    """
    model, is_centered = (None, False) if model is None else without_centering(model)
    if is_centered and dim is not None:
        raise InvalidParameterError(
            "#centered keeps the length of vectors, and --dim shortens and centers them; give one of the two"
        )
    if is_centered or dim is not None:
        model = _model_to_use(uri, model, decode, device)
        return fill_reduced(uri, dim, add, model=model, storage=storage, device=device, cache_dir=cache_dir)
    return add(
        open_or_create(uri, model=model, storage=storage, device=device, decode=decode, cache_dir=cache_dir)
    )


def _model_to_use(uri: str, model: str | None, decode: str | None, device: str) -> str | None:
    """Return the model with the way of decoding that a collection has, or that a new one gets."""
    try:
        collection = Collection.open(uri)
    except (CollectionNotFoundError, NotACollectionError):
        return named_with_decode(model or DEFAULT_MODEL, decode or "auto", device=device)
    if decode not in (None, "auto", collection.decode):
        raise FingerprintMismatchError(
            f"{collection.uri} was made with --decode {collection.decode}, and its vectors cannot be compared"
            f" with those of --decode {decode}. Omit --decode, or index into another collection with -c DIR"
        )
    if model is None or collection.decode == "draft" or find_model(model).variants is None:
        return model
    return named_with_decode(model, "full")


@contextmanager
def temporary_collection(
    paths: Sequence[str],
    *,
    model: str | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    embedder: Embedder | None = None,
    **options: Any,
) -> Iterator[tuple[Collection, AddReport]]:
    """Index images into a collection that is removed at the end of the block.

    Parameters
    ----------
    paths : sequence of str
    model, device, cache_dir
        See `open_or_create`; `model` and `device` are of no effect with `embedder`.
    embedder : Embedder, optional
        Embeds the images; the collection is of its model, which is not loaded again.
    **options
        See `Collection.add`.
    """
    with TemporaryDirectory(prefix="nearsight-") as folder:
        uri = str(Path(folder) / "collection")
        if embedder is None:
            collection = open_or_create(uri, model=model, device=device, cache_dir=cache_dir)
        else:
            backend = NoNetwork(embedder.spec, embedder.backend.decode_px)
            collection = Collection.create(uri, model=backend, cache_dir=cache_dir)
        yield collection, collection.add(list(paths), embedder=embedder, **options)


def embed_paths(
    embedder: Embedder,
    paths: Sequence[str],
    *,
    allow_remote: bool = False,
    exclusions: images.Exclusions | None = None,
    skipped: Counter[str] | None = None,
    on_error: OnError = "record",
    thumbnails: bool = False,
) -> Iterator[Embedded | ImageFailure]:
    """Embed folders, files, globs, tar shards and URLs in their order, with a progress bar.

    Parameters
    ----------
    embedder : Embedder
    paths : sequence of str
    allow_remote : bool, default False
        Whether http and https URLs may be downloaded.
    exclusions, skipped
        See `images.find`.
    on_error : {"record", "raise"}
        Whether an image that cannot be read is yielded as `ImageFailure` or raises `ImageError`.
    thumbnails : bool, default False
        Whether each result carries a thumbnail.

    Raises
    ------
    InvalidParameterError
        There is no image at all.
    """
    options: dict[str, Any] = {"allow_remote": allow_remote, "exclusions": exclusions}
    images.require_any(paths, **options)
    sources = images.find(paths, **options, skipped=skipped)
    total = images.count(paths, **options) if embedder.can_count(paths) else None
    with embedder.bar(total) as bar:
        for result in embedder.stream(sources, on_error=on_error, thumbnails=thumbnails):
            bar.update()
            yield result


def search_verified(
    collection: Collection,
    query: Any = None,
    *,
    id: str | None = None,
    vector: NDArray[np.float32] | None = None,
    k: int = 10,
    **options: Any,
) -> list[Match]:
    """Search, and put first the images in which keypoints confirm the very object of the query.

    Parameters
    ----------
    collection : Collection
    query, id, k, **options
        See `Collection.search`. At least `N_VERIFIED` matches are compared.
    vector : array of shape (dim,), optional
        That of the query, where it is known.

    Raises
    ------
    MissingExtraError
        OpenCV is not installed; the message holds the install command.
    """
    from nearsight.verification.keypoints import geometric_rerank

    sought = query if vector is None else None
    matches = collection.search(sought, id=id, vector=vector, k=max(k, N_VERIFIED), **options)
    image = query if id is None else collection.get(id).path
    order = geometric_rerank(image, [match.path for match in matches], mirror=True)
    return [matches[verified.position] for verified in order[:k]]


def lookup_if_any(uri: str) -> ImageLookup | None:
    """Return what finds the images of a collection by their names; None where there is no collection."""
    try:
        return image_lookup(Collection.open(uri))
    except (CollectionNotFoundError, NotACollectionError):
        return None


def resolve_names(collection: Collection, names: Sequence[str], table: Path) -> Resolution:
    """Return the images that the rows of a table name.

    Raises
    ------
    InvalidParameterError
        More than half of the rows name no image of the collection, or several.
    """
    resolution = image_lookup(collection).resolve(names, str(table.parent))
    resolution.require_most(str(table))
    return resolution


def image_ids(collection: Collection, names: Sequence[str]) -> list[str]:
    """Return the ids of images that are named by id, beginning of an id, path, file name, or its stem.

    Raises
    ------
    UnknownIdError
        No image has that name.
    InvalidParameterError
        Several images have that name. Give a path or an id.
    """
    lookup: ImageLookup | None = None
    ids = []
    for name in names:
        if len(name) >= SHORT_ID_DIGITS:
            with suppress(UnknownIdError):
                ids.append(collection.get(name).id)
                continue
        # A file name comes before the beginning of an id: 4711 is an article number.
        lookup = lookup or image_lookup(collection)
        matches = lookup.find(name, id_digits=PREFIX_DIGITS)
        if len(matches) > 1:
            raise InvalidParameterError(
                f"{len(matches)} images have the name {name}, such as"
                f" {shortened(sorted(lookup.paths_of(name, matches)), 3)}; give the path or the id of one"
            )
        ids += matches or {collection.get(name).id}
    return ids
