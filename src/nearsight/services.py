"""Rules that the command line, the demo and the server share, as plain functions without a user interface."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight import images
from nearsight.analyses.dimension_reduction import fill_reduced, require_storage
from nearsight.collection import AddReport, Collection, Match
from nearsight.embedder import Embedded, Embedder, OnError
from nearsight.errors import CollectionNotFoundError, ImageFailure, InvalidParameterError
from nearsight.models import DEFAULT_MODEL, load_model
from nearsight.text_format import plain

if TYPE_CHECKING:
    from nearsight.faces import FaceBank

# Matches of a search whose keypoints are compared; each costs about 50 ms.
N_VERIFIED = 50


def open_or_create(
    uri: str,
    *,
    model: str | None = None,
    storage: str | None = None,
    device: str = "auto",
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
        The number type that it must have. A new collection gets float32.
    device : str, default "auto"
        Where the model runs; see `load_model`.
    cache_dir : Path, optional
        Directory of converted models.

    Raises
    ------
    FingerprintMismatchError, InvalidParameterError
        The collection has another model or number type. Leave the argument out, or name another collection.
    """
    try:
        collection = Collection.open(uri, model=model, device=device, cache_dir=cache_dir)
    except CollectionNotFoundError:
        # Loaded first: a model that fails to load must not leave an empty collection behind.
        backend = load_model(model or DEFAULT_MODEL, device=device, cache_dir=cache_dir)
        return Collection.create(
            uri, model=backend, storage=storage or "float32", device=device, cache_dir=cache_dir
        )
    require_storage(collection, storage)
    return collection


def add_images(
    uri: str,
    add: Callable[[Collection], AddReport],
    *,
    model: str | None = None,
    dim: int | None = None,
    storage: str | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
) -> AddReport:
    """Open or create a collection, and add images to it.

    Parameters
    ----------
    add : callable
        Calls `Collection.add` on the collection, and returns its report.
    dim : int, optional
        Dimensions that a vector must have: fewer than the model's own are cut or projected; see
        `fill_reduced`.
    uri, model, storage, device, cache_dir
        See `open_or_create`.
    """
    if dim is not None:
        return fill_reduced(uri, dim, add, model=model, storage=storage, device=device, cache_dir=cache_dir)
    return add(open_or_create(uri, model=model, storage=storage, device=device, cache_dir=cache_dir))


def embed_paths(
    embedder: Embedder,
    paths: Sequence[str],
    *,
    allow_remote: bool = False,
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
    on_error : {"record", "raise"}
        Whether an image that cannot be read is yielded as `ImageFailure` or raises `ImageError`.
    thumbnails : bool, default False
        Whether each result carries a thumbnail.
    """
    sources = images.find(paths, allow_remote=allow_remote)
    total = images.count(paths, allow_remote=allow_remote) if embedder.can_count(paths) else None
    with embedder.bar(total) as bar:
        for result in embedder.stream(sources, on_error=on_error, thumbnails=thumbnails):
            bar.update()
            yield result


def search_verified(
    collection: Collection, query: Any = None, *, id: str | None = None, k: int = 10, **options: Any
) -> list[Match]:
    """Search, and put first the images in which keypoints confirm the very object of the query.

    Parameters
    ----------
    collection : Collection
    query, id, k, **options
        See `Collection.search`. At least `N_VERIFIED` matches are compared.

    Raises
    ------
    MissingExtraError
        OpenCV is not installed; the message holds the install command.
    """
    from nearsight.verification.keypoints import geometric_rerank

    matches = collection.search(query, id=id, k=max(k, N_VERIFIED), **options)
    image = query if id is None else collection.get(id).path
    order = geometric_rerank(image, [match.path for match in matches], mirror=True)
    return [matches[verified.position] for verified in order[:k]]


def open_or_create_bank(
    directory: Path, *, detector: str | None = None, recognizer: str | None = None, **reader_options: Any
) -> "FaceBank":
    """Open the face bank in a directory, or create it.

    Parameters
    ----------
    directory : Path
    detector, recognizer : str, optional
        Models of a new bank; the default models otherwise.
    **reader_options
        For `FaceReader`.

    Raises
    ------
    InvalidParameterError
        The bank exists, and `detector` or `recognizer` is given. Leave it out, or name another directory.
    MissingExtraError
        The models are not installed; the message holds the command that installs them.
    """
    from nearsight.faces import FaceBank

    models = {"detector": detector, "recognizer": recognizer}
    chosen: dict[str, Any] = {key: name for key, name in models.items() if name}
    try:
        bank = FaceBank.open(directory, **reader_options)
    except CollectionNotFoundError:
        return FaceBank.create(directory, **chosen, **reader_options)
    if chosen:
        raise InvalidParameterError(
            f"the face bank at {directory} has its models already; leave out the {' and '.join(chosen)}, or"
            " create another bank (--bank DIR)"
        )
    return bank


def export_faces(bank: "FaceBank", file: Path) -> int:
    """Write the faces of a bank to a file; return their number.

    Parameters
    ----------
    bank : FaceBank
    file : Path
        A ``.json`` file gets everything except the vectors, an ``.npz`` file the vectors with ids, persons
        and paths. It is replaced whole.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    import numpy as np

    from nearsight.artifacts import exported

    faces, vectors = bank.vectors()
    with exported(file) as stream:
        if file.suffix.lower() == ".json":
            rows = [plain(asdict(face)) for face in faces]
            stream.write(json.dumps({"faces": rows}, indent=1).encode("ascii"))
        else:
            paths = [face.path.encode("utf-8", "backslashreplace").decode() for face in faces]
            np.savez(
                stream,
                vectors=vectors,
                ids=np.array([face.id for face in faces]),
                persons=np.array([face.person for face in faces]),
                paths=np.array(paths),
            )
    return len(faces)
