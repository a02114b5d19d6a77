"""Labels to learn from, and labels of new images."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearsight import images
from nearsight.analyses.classification import (
    FILENAME,
    FittedClassifier,
    Prediction,
)
from nearsight.analyses.image_conditions import ConditionComparison, ImageConditions
from nearsight.analyses.labeled_images import labels_by_folder, labels_by_key
from nearsight.collection import Collection
from nearsight.collection.arrays import image_lookup
from nearsight.embedder import Embedded, Embedder
from nearsight.errors import ImageFailure, InvalidParameterError, MetadataError
from nearsight.images.image_lookup import ImageLookup, Resolution
from nearsight.images.path_encoding import absolute, is_url
from nearsight.models import DEFAULT_MODEL, Fingerprint, load_text_encoder
from nearsight.models.text.zero_shot import ZeroShotClassifier

# Images that are labeled together.
_BATCH_SIZE = 64


def labels_of(
    collection: Collection | None,
    labels: str,
    where: str | None = None,
    exclusions: images.Exclusions | None = None,
) -> dict[str, str]:
    """Return labels by id or path.

    Parameters
    ----------
    collection : Collection or None
    labels : str
        ``"folder"`` for the name of the folder that each image of the collection lies in, the path of a
        folder with one subfolder of images per class, or a metadata key of the collection.
    where : str, optional
        Only the images of the collection that match.
    exclusions : Exclusions, optional
        What is passed over in a folder of labels; see `images.find`.

    Raises
    ------
    InvalidParameterError
        There is no such folder or key, or the folder has no subfolders with images.
    """
    if labels == "folder" and collection is not None:
        return labels_by_folder(collection, where)
    if Path(labels).is_dir():
        return _labels_by_subfolder(Path(labels), exclusions)
    keys = list(collection.info()["metadata"]) if collection is not None else []
    if collection is not None and labels in keys:
        return labels_by_key(collection, labels, where)
    no_key = (
        f" and no metadata key (the keys are: {', '.join(keys) or 'none'})" if collection is not None else ""
    )
    raise InvalidParameterError(
        f"the labels {labels!r} are neither a folder nor a file{no_key}; name a folder with one subfolder per"
        " class, a CSV file with the columns path and label, or write `folder`"
    )


def resolve_labels(
    collection: Collection | None, pairs: Sequence[tuple[str, str]], table: Path
) -> tuple[list[tuple[str, str]], Resolution]:
    """Return labels by the path or id of the image that each row of a table names.

    A file need not be in the collection. Rows that name nothing, or several images, are left out.

    Raises
    ------
    InvalidParameterError
        That holds for more than half of the rows.
    """
    folder = str(table.parent)
    lookup = ImageLookup(()) if collection is None else image_lookup(collection)
    places: dict[str, str] = {}
    loose = []
    for name in dict.fromkeys(name for name, _ in pairs):
        if len(ids := lookup.find_file(name, folder)) == 1:
            places[name] = lookup.paths_of(absolute(name, folder), ids)[0]
        elif is_url(name):
            places[name] = name
        # A file that exists comes before another of its name in the collection.
        elif place := next((p for p in (absolute(name, folder), absolute(name)) if Path(p).is_file()), None):
            places[name] = place
        else:
            loose.append(name)
    resolution = lookup.resolve([name for name, _ in pairs if name not in places], folder)
    resolution.n_rows = len(pairs)
    resolution.require_most(str(table))
    for name in loose:
        if name in resolution.ids:
            places[name] = lookup.paths_of(name, [resolution.ids[name]])[0]
    return [(places[name], label) for name, label in pairs if name in places], resolution


def _labels_by_subfolder(folder: Path, exclusions: images.Exclusions | None) -> dict[str, str]:
    labels: dict[str, str] = {}
    for source in images.find([folder], exclusions=exclusions):
        if not isinstance(source, ImageFailure):
            parts = Path(source.path).relative_to(absolute(str(folder))).parts
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
    conditions : ImageConditions or None
        What the images are like that it was fitted on, where that is known.
    """

    predict: Callable[[list[Embedded], Fingerprint], list[Prediction]]
    model: str
    false_alarm_rate: float | None = None
    why_no_unknown: str = ""
    conditions: ImageConditions | None = None


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
    if file is None and not (directory / FILENAME).is_file():
        raise InvalidParameterError(
            f"the collection at {directory} has no classifier; fit one on a few images (nearsight classify"
            " fit --labels LABELS), or classify without examples (--names NAME,...)"
        )
    classifier = FittedClassifier.load(file or directory / FILENAME)

    def predict(embedded: list[Embedded], fingerprint: Fingerprint) -> list[Prediction]:
        classifier.require(fingerprint)
        X = np.array([image.vector for image in embedded], np.float32)
        ids, paths = [image.id for image in embedded], [image.source.path for image in embedded]
        return classifier.predict(X, ids, paths)

    threshold = classifier.estimator.threshold_
    return Labeler(
        predict,
        model or classifier.model_name(directory),
        threshold.false_alarm_rate if threshold else None,
        "" if threshold else classifier.estimator.why_no_threshold_,
        classifier.conditions,
    )


def label_images(
    labeler: Labeler,
    embedder: Embedder,
    results: Iterable[Embedded | ImageFailure],
    comparison: ConditionComparison | None = None,
) -> Iterator[tuple[Prediction, bytes | None] | ImageFailure]:
    """Label embedded images in batches; yield predictions with thumbnails and, as they come, failures.

    Where there is a `comparison`, the images are added to it.

    Raises
    ------
    FingerprintMismatchError
        The embedder makes other vectors than those that the classifier was fitted on.
    """
    fingerprint = embedder.backend.spec.fingerprint
    batch: list[Embedded] = []

    def labeled() -> Iterator[tuple[Prediction, bytes | None]]:
        predictions = labeler.predict(batch, fingerprint) if batch else []
        yield from zip(predictions, [image.thumbnail for image in batch], strict=True)
        batch.clear()

    for result in results:
        if isinstance(result, ImageFailure):
            yield result
            continue
        if comparison is not None:
            comparison.add(result.width, result.height, result.thumbnail)
        batch.append(result)
        if len(batch) == _BATCH_SIZE:
            yield from labeled()
    yield from labeled()


def require_free_key(collection: Collection, key: str, *, overwrite: bool = False) -> None:
    """Check whether labels can be saved under a metadata key.

    Raises
    ------
    MetadataError
        The key is not valid or holds numbers, or images have metadata under it already.
    """
    collection.check_metadata({key: ""})
    if overwrite or key not in collection.metadata_types():
        return
    if n_images := collection.count(f"metadata.{key} IS NOT NULL"):
        raise MetadataError(
            f"{n_images:,} images have metadata {key!r} already; choose another key, such as {key}_predicted,"
            " or overwrite it (--overwrite, overwrite=True)"
        )


def save_labels(
    collection: Collection, predictions: Iterable[Prediction], key: str, *, overwrite: bool = False
) -> int:
    """Save predicted labels as metadata of the images that are in the collection; return how many are.

    Parameters
    ----------
    predictions : iterable of Prediction
        An unknown image loses the key.
    key : str
        See `require_free_key`.
    overwrite : bool, default False
        Whether metadata under the key may be overwritten.
    """
    require_free_key(collection, key, overwrite=overwrite)
    id_by_path = {path: item.id for item in collection.items() for path in item.paths}
    labels: dict[str, str | None] = {}
    for prediction in predictions:
        path = absolute(prediction.path)
        if path in id_by_path:
            labels[id_by_path[path]] = None if prediction.unknown else prediction.label
    collection.update_metadata(list(labels), [{key: label} for label in labels.values()], missing_ok=True)
    return len(labels)
