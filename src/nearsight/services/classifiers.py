"""The classifiers of a collection: its own, and those that were saved under a name."""

import re
from pathlib import Path
from typing import Any

from nearsight.analyses.classification import FILENAME, FittedClassifier, load_classifier
from nearsight.artifacts import exported
from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError, StorageError
from nearsight.services.documents import classifier_document, label_check_document
from nearsight.services.doubtful_labels import LabelTreatment, settle_labels
from nearsight.services.label_sets import LabelSet

DIRECTORY = "classifiers"
#: The name of the collection's own classifier.
DEFAULT = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def classifier_file(collection: Collection, name: str = DEFAULT) -> Path:
    """Return where a classifier is, or would be saved.

    Raises
    ------
    InvalidParameterError
        It is not a name.
    """
    if name == DEFAULT:
        return collection.directory / FILENAME
    if not _NAME.fullmatch(name):
        raise InvalidParameterError(
            f"{name[:80]!r} is not a name: a classifier's has up to 64 letters, digits, - and _, and no - or"
            " _ in front"
        )
    return collection.directory / DIRECTORY / f"{name}.npz"


def classifier_names(collection: Collection) -> list[str]:
    """Return the names of all classifiers, the collection's own first."""
    own = [DEFAULT] if (collection.directory / FILENAME).is_file() else []
    return own + sorted(file.stem for file in (collection.directory / DIRECTORY).glob("*.npz"))


def named_classifier(collection: Collection, name: str = DEFAULT) -> FittedClassifier:
    """Return a classifier of the collection.

    Raises
    ------
    InvalidParameterError
        There is none of that name.
    FingerprintMismatchError
        It was fitted on vectors of another model.
    """
    require_classifier(collection, name)
    return load_classifier(collection, classifier_file(collection, name))


def require_classifier(collection: Collection, name: str) -> Path:
    """Return the file of a classifier.

    Raises
    ------
    InvalidParameterError
        There is none of that name.
    """
    file = classifier_file(collection, name)
    if not file.is_file():
        known = ", ".join(classifier_names(collection)) or "none"
        raise InvalidParameterError(
            f"the collection has no classifier {name!r} (it has: {known}); fit one on labeled images"
        )
    return file


def save_classifier(collection: Collection, name: str, *, source: str = DEFAULT) -> None:
    """Keep a classifier under another name.

    Raises
    ------
    InvalidParameterError
        There is no such classifier, or `name` is not a name.
    StorageError
        The file cannot be written.
    """
    content = require_classifier(collection, source).read_bytes()
    file = classifier_file(collection, name)
    make_directory(file)
    with exported(file) as handle:
        handle.write(content)


def make_directory(file: Path) -> None:
    """Make the directory of a classifier's file.

    Raises
    ------
    StorageError
        It cannot be made.
    """
    try:
        file.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(f"{file.parent} cannot be made ({error.strerror})") from error


def delete_classifier(collection: Collection, name: str) -> None:
    """Delete a classifier.

    Raises
    ------
    InvalidParameterError
        There is none of that name.
    """
    require_classifier(collection, name).unlink(missing_ok=True)


def fit_on_labels(
    collection: Collection,
    key: str,
    *,
    name: str = DEFAULT,
    doubtful: LabelTreatment = "refuse",
    progress: bool | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Fit a classifier on the labels under a metadata key, save it, and return its document.

    Parameters
    ----------
    key : str
        The metadata key of the labels.
    name : str
        See `classifier_file`.
    doubtful : {"refuse", "merge", "drop", "keep"}
        See `settle_labels`.
    **options
        See `fit_classifier`.

    Raises
    ------
    InvalidParameterError
        Labels are doubtful, or there are fewer than two classes.
    """
    labels, _ = settle_labels(list(LabelSet(collection, key).labels().items()), doubtful)
    file = classifier_file(collection, name)
    make_directory(file)
    classifier = collection.fit_classifier(labels, file=file, progress=progress, **options)
    return {"name": name, **classifier_document(classifier), "model": classifier.model}


def check_on_labels(
    collection: Collection, key: str, *, doubtful: LabelTreatment = "refuse", progress: bool | None = None
) -> dict[str, Any]:
    """Check the labels under a metadata key, and return the document; see `check_labels`.

    Raises
    ------
    InvalidParameterError
        Labels are doubtful, or fewer than two classes have 5 images.
    """
    labels, _ = settle_labels(list(LabelSet(collection, key).labels().items()), doubtful)
    return label_check_document(collection.check_labels(labels, progress=progress))
