"""Rules that the command line, the demo and the server share, as plain functions without a user interface."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight import images
from nearsight.analyses.dimension_reduction import fill_reduced, require_storage
from nearsight.collection import AddReport, Collection, Match
from nearsight.embedder import Embedded, Embedder, OnError
from nearsight.errors import CollectionNotFoundError, ImageFailure, InvalidParameterError, UnknownIdError
from nearsight.models import DEFAULT_MODEL, Fingerprint, load_model
from nearsight.text_format import plain

if TYPE_CHECKING:
    from nearsight.analyses.classification import Prediction
    from nearsight.analyses.clusters import Clustering
    from nearsight.analyses.duplicates import Duplicates
    from nearsight.analyses.map import ImageMap
    from nearsight.collection.schema import Item
    from nearsight.faces import FaceBank

# Matches of a search whose keypoints are compared; each costs about 50 ms.
N_VERIFIED = 50
# Images that are labeled together.
_BATCH_SIZE = 64


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


@dataclass(frozen=True, slots=True)
class RedundantFiles:
    """Local files that can be deleted, since a duplicate of each is kept.

    Attributes
    ----------
    paths : list of str
    n_remote : int
        Redundant files that are not in `paths`, since they lie in shards or at URLs.
    n_without_kept : int
        Groups that are not in `paths`, since the file to keep is missing or has changed.
    """

    paths: list[str]
    n_remote: int
    n_without_kept: int


def redundant_files(duplicates: "Duplicates") -> RedundantFiles:
    """Return the files that can be deleted.

    Parameters
    ----------
    duplicates : Duplicates
        From `Collection.find_duplicates`.
    """
    groups = [group for group in duplicates.groups if _is_unchanged(group.keep)]
    redundant = [path for group in groups for path in group.redundant]
    local = [path for path in redundant if "://" not in path]
    return RedundantFiles(local, len(redundant) - len(local), len(duplicates.groups) - len(groups))


def _is_unchanged(item: "Item") -> bool:
    """Whether the file of an image has the size that it had when it was indexed; True for URLs."""
    if "://" in item.path:
        return True
    try:
        return Path(item.path).stat().st_size == item.size_bytes
    except OSError:
        return False


def clustering_file(collection: Collection) -> Path:
    """Return where a collection's own clusters are saved."""
    from nearsight.analyses.clusters import FILENAME

    return collection.directory / FILENAME


def save_clustering(
    collection: Collection, clustering: "Clustering", *, file: Path | None = None, where: str | None = None
) -> bool:
    """Save clusters, so that images can be assigned to them later; return whether they were saved.

    Parameters
    ----------
    file : Path, optional
        By default, the collection's own file, if the collection can be written to and all its images were
        clustered: the clusters of a part do not replace those of the whole.
    where : str, optional
        The images that were clustered, if not all.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    if file is None and (where is not None or not os.access(collection.directory, os.W_OK)):
        return False
    clustering.save(file or clustering_file(collection))
    return True


def image_ids(collection: Collection, names: Sequence[str]) -> list[str]:
    """Return the ids of images that are named by id, beginning of an id, path, file name, or its stem.

    Raises
    ------
    UnknownIdError
        No image has that name.
    InvalidParameterError
        Several images have that name. Give a path or an id.
    """
    from nearsight.analyses.recommendations import ImageLookup

    lookup: ImageLookup | None = None
    ids = []
    for name in names:
        try:
            ids.append(collection.get(name).id)
            continue
        except UnknownIdError as error:
            unknown = error
        lookup = lookup or ImageLookup(collection.items())
        matches = lookup.find(name)
        if not matches:
            raise unknown
        if len(matches) > 1:
            raise InvalidParameterError(
                f"{len(matches)} images have the name {name}; give the path or the id of one"
            )
        ids += matches
    return ids


def place_on_map(
    collection: Collection, layout: "ImageMap", where: str | None
) -> "tuple[list[Item], ImageMap]":
    """Return the images that match and are on a map, and the part of the map that shows them."""
    on_map = set(layout.ids)
    items = [item for item in collection.items(where) if item.id in on_map]
    return items, layout.subset([item.id for item in items])


def labels_of(collection: Collection | None, labels: str, where: str | None = None) -> dict[str, str]:
    """Return labels by id or path.

    Parameters
    ----------
    collection : Collection or None
    labels : str
        ``"folder"`` for the name of the folder that each image of the collection lies in, the path of a
        folder with one subfolder of images per class, or a metadata key of the collection.
    where : str, optional
        Only the images of the collection that match.

    Raises
    ------
    InvalidParameterError
        There is no such folder or key, or the folder has no subfolders with images.
    """
    from nearsight.analyses.classification import labels_by_folder, labels_by_key

    if labels == "folder" and collection is not None:
        return labels_by_folder(collection, where)
    if Path(labels).is_dir():
        return _labels_by_subfolder(Path(labels))
    keys = list(collection.info()["metadata"]) if collection is not None else []
    if collection is not None and labels in keys:
        return labels_by_key(collection, labels, where)
    no_key = f" and no metadata key (the keys are: {', '.join(keys) or 'none'})" if collection else ""
    raise InvalidParameterError(
        f"the labels {labels!r} are no folder, no file{no_key}; name a folder with one subfolder per class, a"
        " CSV file with the columns path and label, or write `folder`"
    )


def _labels_by_subfolder(folder: Path) -> dict[str, str]:
    labels: dict[str, str] = {}
    for source in images.find([folder]):
        if not isinstance(source, ImageFailure):
            parts = Path(source.path).relative_to(folder.absolute()).parts
            if len(parts) > 1:
                labels[source.path] = parts[0]
    if not labels:
        raise InvalidParameterError(f"{folder} has no subfolders with images; create one for each class")
    return labels


@dataclass(frozen=True, slots=True)
class Labeler:
    """A classifier of embedded images, zero-shot or fitted.

    Attributes
    ----------
    predict : callable
        Maps a list of `Embedded` and the fingerprint of their model to a list of `Prediction`.
    model : str
        Name to load the embedding model by.
    false_alarm_rate : float or None
        Share of known images that may be called unknown; None where nothing is promised.
    why_no_unknown : str
        Why no image can be called unknown; empty where images can.
    """

    predict: "Callable[[list[Embedded], Fingerprint], list[Prediction]]"
    model: str
    false_alarm_rate: float | None = None
    why_no_unknown: str = ""


def zero_shot_labeler(
    names: Sequence[str], *, model: str | None = None, cache_dir: Path | None = None
) -> Labeler:
    """Return a labeler that chooses among class names, without examples.

    Raises
    ------
    InvalidParameterError
        There is no name, an empty one, or one twice.
    UnknownModelError, MissingExtraError
        The model cannot read text, or what it needs for that is not installed.
    """
    import numpy as np

    from nearsight.analyses.classification import Prediction
    from nearsight.models import load_text_encoder
    from nearsight.models.text.zero_shot import ZeroShotClassifier

    model = model or DEFAULT_MODEL
    classifier = ZeroShotClassifier(load_text_encoder(model, cache_dir=cache_dir), names)

    def predict(embedded: list[Embedded], fingerprint: Fingerprint) -> list[Prediction]:
        result = classifier.predict(np.array([image.vector for image in embedded], np.float32))
        columns = zip(embedded, result.labels, result.probabilities, result.unknown, strict=True)
        return [
            Prediction(image.id, image.source.path, label, float(row.max()), bool(unknown))
            for image, label, row, unknown in columns
        ]

    return Labeler(predict, model)


def fitted_labeler(directory: Path, *, file: Path | None = None, model: str | None = None) -> Labeler:
    """Return the labeler that `fit_classifier` saved.

    Parameters
    ----------
    directory : Path
        Of the collection, which need not exist.
    file : Path, optional
        The classifier; by default the collection's own.
    model : str, optional
        Name to load the embedding model by, if it is not the one that the classifier names.

    Raises
    ------
    InvalidParameterError
        There is no such classifier.
    """
    import numpy as np

    from nearsight.analyses.classification import FILENAME, Classifier, Prediction, model_of

    if file is None and not (directory / FILENAME).is_file():
        raise InvalidParameterError(
            f"the collection at {directory} has no classifier; fit one on a few images (nearsight classify"
            " fit --labels LABELS), or classify without examples (--names NAME,...)"
        )
    classifier = Classifier.load(file or directory / FILENAME)

    def predict(embedded: list[Embedded], fingerprint: Fingerprint) -> list[Prediction]:
        classifier.require(fingerprint)
        X = np.array([image.vector for image in embedded], np.float32)
        ids, paths = [image.id for image in embedded], [image.source.path for image in embedded]
        return classifier.predict(X, ids, paths)

    threshold = classifier.estimator.threshold_
    return Labeler(
        predict,
        model or model_of(directory, classifier),
        threshold.false_alarm_rate if threshold else None,
        "" if threshold else classifier.estimator.why_no_threshold_,
    )


def label_images(
    labeler: Labeler, embedder: Embedder, results: "Iterable[Embedded | ImageFailure]"
) -> "Iterator[tuple[Prediction, bytes | None] | ImageFailure]":
    """Label embedded images in batches; yield predictions with thumbnails and, as they come, failures.

    Raises
    ------
    FingerprintMismatchError
        The embedder makes other vectors than those that the classifier was fitted on.
    """
    fingerprint = embedder.backend.spec.fingerprint
    batch: list[Embedded] = []

    def labeled() -> "Iterator[tuple[Prediction, bytes | None]]":
        predictions = labeler.predict(batch, fingerprint) if batch else []
        yield from zip(predictions, [image.thumbnail for image in batch], strict=True)
        batch.clear()

    for result in results:
        if isinstance(result, ImageFailure):
            yield result
            continue
        batch.append(result)
        if len(batch) == _BATCH_SIZE:
            yield from labeled()
    yield from labeled()


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
