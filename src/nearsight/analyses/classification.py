"""Labels for images, learned from a few labeled ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight.artifacts import read_artifact, write_artifact
from nearsight.collection import Collection
from nearsight.collection.arrays import batch_vectors, sample_vectors
from nearsight.collection.manifest import model_name
from nearsight.embedder import Embedder
from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.estimators.classification import FewShotClassifier, suggest
from nearsight.images import Limits, decode_path
from nearsight.images.path_encoding import absolute
from nearsight.models import Fingerprint

#: File of the collection's own classifier, in its directory.
FILENAME = "classifier.npz"
_KIND, _FORMAT = "classifier", 1
_MAX_SUGGESTION_CANDIDATES = 20_000


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted label of an image.

    Attributes
    ----------
    id, path : str
        The image.
    label : str
        The most probable class, also where `unknown`.
    probability : float
        In 0..1: probability of the label, given that the image shows one of the classes.
    unknown : bool
        Whether the image probably shows none of the classes.
    """

    id: str
    path: str
    label: str
    probability: float
    unknown: bool


@dataclass(frozen=True)
class FittedClassifier:
    """A fitted classifier with the model it was fitted for.

    Attributes
    ----------
    estimator : FewShotClassifier
    fingerprint : Fingerprint
        Of the vectors that it was fitted on; it can label no others.
    model : str
        The name of the embedding model.
    ids : list of str
        The labeled images.
    counts : dict of str to int
        Number of labeled images of each class.
    failed : list of ImageFailure
        Labeled images that could not be used; empty when read from a file.
    """

    estimator: FewShotClassifier
    fingerprint: Fingerprint
    model: str
    ids: list[str]
    counts: dict[str, int]
    failed: list[ImageFailure] = field(default_factory=list)

    @classmethod
    def fit(
        cls,
        X: NDArray[np.float32],
        labels: Mapping[str, str],
        fingerprint: Fingerprint,
        model: str,
        failed: Sequence[ImageFailure] = (),
        **parameters: Any,
    ) -> "FittedClassifier":
        """Fit on (n, dim) vectors, whose ids are the keys of `labels`, in order.

        Raises
        ------
        InvalidParameterError
            There are none.
        """
        if not len(X):
            first = f" ({len(failed)} could not be used: {failed[0].reason})" if failed else ""
            raise InvalidParameterError(
                f"no labeled image was found{first}; give at least one for each class"
            )
        y = np.array(list(labels.values()), dtype=str)
        classes, counts = np.unique(y, return_counts=True)
        return cls(
            FewShotClassifier(**parameters).fit(X, y),
            fingerprint,
            model,
            list(labels),
            dict(zip(classes.tolist(), counts.tolist(), strict=True)),
            list(failed),
        )

    def require(self, fingerprint: Fingerprint) -> None:
        """Refuse vectors of another model or preprocessing.

        Raises
        ------
        FingerprintMismatchError
            They cannot be compared with the vectors that it was fitted on.
        """
        remedy = "Fit it again on vectors of this model: nearsight classify fit"
        self.fingerprint.require_same(fingerprint, "the classifier", remedy)

    def model_name(self, directory: Path) -> str:
        """Return the name that loads the embedding model of a collection's classifier."""
        return model_name(directory, self.model)

    def predict(self, X: NDArray[np.float32], ids: Sequence[str], paths: Sequence[str]) -> list[Prediction]:
        """Label images by their (n, dim) vectors, which must have this classifier's fingerprint."""
        if not len(X):
            return []
        probabilities = self.estimator.predict_proba(X)
        columns = probabilities.argmax(axis=1)
        labels, unknown = self.estimator.classes_[columns], self.estimator.unknown(X)
        return [
            Prediction(id, path, str(label), float(row[column]), bool(is_unknown))
            for id, path, label, row, column, is_unknown in zip(
                ids, paths, labels, probabilities, columns, unknown, strict=True
            )
        ]

    def save(self, file: Path) -> None:
        """Write a ``.npz`` file that `load` reads; it holds no pickle.

        Raises
        ------
        StorageError
            The file cannot be written.
        """
        facts = {
            "model": self.model,
            "fingerprint": self.fingerprint.to_dict(),
            "ids": self.ids,
            "counts": self.counts,
        }
        write_artifact(file, _KIND, _FORMAT, facts, self.estimator.to_arrays())

    @classmethod
    def load(cls, file: str | Path) -> "FittedClassifier":
        """Read a file that `save` wrote.

        Raises
        ------
        InvalidParameterError
            The file is missing, or no classifier.
        NewerFormatError
            A newer nearsight wrote it.
        """
        remedy = "fit one first: nearsight classify fit --labels LABELS"
        with read_artifact(Path(file), _KIND, _FORMAT, error=InvalidParameterError, remedy=remedy) as (
            facts,
            arrays,
        ):
            return cls(
                FewShotClassifier.from_arrays(arrays),
                Fingerprint.from_dict(facts["fingerprint"]),
                facts["model"],
                facts["ids"],
                facts["counts"],
            )


def fit_classifier(
    collection: Collection,
    labels: Mapping[str, str],
    *,
    file: str | Path | None = None,
    examples_per_class: int | None = None,
    method: str = "auto",
    false_alarm_rate: float = 0.05,
    confidence: float | None = None,
    random_state: int = 0,
    limits: Limits | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> FittedClassifier:
    """Fit a classifier on a few labeled images, and save it.

    Images of the collection are not embedded again. Others are embedded, and not added to the collection.

    *Method*: `estimators.classification.FewShotClassifier`.

    Parameters
    ----------
    labels : mapping of str to str
        Labels by id or by path.
    file : path, optional
        Where to save the classifier; by default in the collection, for `classify`.
    examples_per_class : int, optional
        Use at most so many images of each class, chosen at random.
    method, false_alarm_rate, confidence
        See `nearsight.estimators.classification.FewShotClassifier`.
    random_state : int, default 0
        Chooses the images where `examples_per_class` is given.
    limits, n_threads, progress
        See `nearsight.Embedder`; for images that are not in the collection.

    Raises
    ------
    InvalidParameterError
        No labeled image can be used, an image has two labels, or a parameter is out of its range.
    StorageError
        The file cannot be written.

    Notes
    -----
    Memory: the vectors of the labeled images, 4 bytes a number. For the time see `FewShotClassifier`. A
    single class is enough, and so is a single image of it; no image is called unknown then.
    """
    known_ids = _ids_by_name(collection, labels)
    names = _examples(labels, examples_per_class, random_state)
    label_by_id: dict[str, str] = {}
    for name in names:
        if name in known_ids:
            _add_label(label_by_id, known_ids[name], labels[name], name)
    X = collection.vectors(list(label_by_id))
    failed: list[ImageFailure] = []
    if outside := [name for name in names if name not in known_ids]:
        embedder = collection.embedder(limits=limits, n_threads=n_threads, progress=progress)
        embedded, failed = _embed_labeled(embedder, outside, labels, label_by_id)
        X = np.concatenate([X, embedded])
    classifier = FittedClassifier.fit(
        X,
        label_by_id,
        collection.fingerprint,
        collection.spec.id,
        failed,
        method=method,
        false_alarm_rate=false_alarm_rate,
        confidence=confidence,
    )
    classifier.save(Path(file) if file is not None else collection.directory / FILENAME)
    return classifier


def fit_classifier_on_files(
    embedder: Embedder,
    labels: Mapping[str, str],
    *,
    file: str | Path,
    examples_per_class: int | None = None,
    random_state: int = 0,
    **parameters: Any,
) -> FittedClassifier:
    """Fit a classifier on labeled files, without a collection; see `fit_classifier`."""
    label_by_id: dict[str, str] = {}
    names = _examples(labels, examples_per_class, random_state)
    X, failed = _embed_labeled(embedder, names, labels, label_by_id)
    spec = embedder.backend.spec
    classifier = FittedClassifier.fit(X, label_by_id, spec.fingerprint, spec.id, failed, **parameters)
    classifier.save(Path(file))
    return classifier


def load_classifier(collection: Collection, file: str | Path | None = None) -> FittedClassifier:
    """Return the classifier that `fit_classifier` saved.

    Raises
    ------
    InvalidParameterError
        There is none.
    FingerprintMismatchError
        It was fitted on vectors of another model.
    """
    classifier = FittedClassifier.load(collection.directory / FILENAME if file is None else file)
    classifier.require(collection.fingerprint)
    return classifier


def classify(
    collection: Collection, *, where: str | None = None, file: str | Path | None = None
) -> Iterator[Prediction]:
    """Label the images of the collection one after another.

    Parameters
    ----------
    where : str, optional
        Only the images that match.
    file : path, optional
        The classifier; by default the collection's own.

    Raises
    ------
    InvalidParameterError
        No classifier was fitted.

    Notes
    -----
    Memory: a few thousand images at a time. For the time see `FewShotClassifier`.
    """
    # Not a generator itself, so that a missing classifier is an error of this call.
    return _predictions(collection, load_classifier(collection, file), where)


def _predictions(
    collection: Collection, classifier: FittedClassifier, where: str | None
) -> Iterator[Prediction]:
    for batch in collection.iter_batches(["id", "path", "vector"], where):
        paths = [decode_path(path) for path in batch.column("path").to_pylist()]
        yield from classifier.predict(batch_vectors(batch), batch.column("id").to_pylist(), paths)


def suggest_labels(
    collection: Collection,
    n: int = 10,
    *,
    where: str | None = None,
    file: str | Path | None = None,
    random_state: int = 0,
) -> list[Prediction]:
    """Suggest the images to label next, the most useful first, each with its prediction.

    Without a classifier: the images that represent most others, with an empty label.

    *Method*: `nearsight.estimators.classification.label_suggestions`, among at most 20,000 images.

    Parameters
    ----------
    n : int, default 10
        Number of images.
    where : str, optional
        Only among the images that match.
    file : path, optional
        The classifier; by default the collection's own.
    random_state : int, default 0
        Chooses the candidates where there are more than 20,000 images.

    Returns
    -------
    list of Prediction
        Empty where all images are labeled.
    """
    classifier = None
    if file is not None or (collection.directory / FILENAME).is_file():
        classifier = load_classifier(collection, file)
    table = sample_vectors(collection, _MAX_SUGGESTION_CANDIDATES, where=where, random_state=random_state)
    labeled_ids = set(classifier.ids) if classifier else set()
    rows = np.array([row for row, id in enumerate(table.ids) if id not in labeled_ids], np.intp)
    if not len(rows):
        return []
    X = table.X[rows]
    present_ids = [
        id
        for batch in collection.iter_batches(["id"])
        for id in batch.column("id").to_pylist()
        if id in labeled_ids
    ]
    suggestions = suggest(
        X,
        n,
        probabilities=classifier.estimator.predict_proba(X) if classifier else None,
        labeled=collection.vectors(present_ids) if present_ids else None,
    )
    ids = [table.ids[row] for row in rows[suggestions]]
    paths = [collection.get(id).path for id in ids]
    if classifier:
        return classifier.predict(X[suggestions], ids, paths)
    return [Prediction(id, path, "", 0.0, True) for id, path in zip(ids, paths, strict=True)]


def labels_by_folder(collection: Collection, where: str | None = None) -> dict[str, str]:
    """Return the name of each image's folder, by id."""
    folders = {item.id: Path(item.path).parent.name for item in collection.items(where)}
    return {id: folder for id, folder in folders.items() if folder}


def labels_by_key(collection: Collection, key: str, where: str | None = None) -> dict[str, str]:
    """Return the metadata under a key, as text, of each image that has it, by id.

    Raises
    ------
    InvalidParameterError
        There is no such key.
    """
    labels: dict[str, str] = {}
    for batch in collection.iter_batches(["id", key], where):
        for id, value in zip(batch.column("id").to_pylist(), batch.column(key).to_pylist(), strict=True):
            if value is not None:
                labels[id] = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return labels


def _embed_labeled(
    embedder: Embedder, names: list[str], labels: Mapping[str, str], label_by_id: dict[str, str]
) -> tuple[NDArray[np.float32], list[ImageFailure]]:
    """Embed images and add their labels by id; return the vectors of the ids that were added."""
    result = embedder.embed(names)
    added_rows: list[int] = []
    for row, id in enumerate(result.ids):
        if id not in label_by_id:
            added_rows.append(row)
        name = names[result.positions[row]]
        _add_label(label_by_id, id, labels[name], name)
    return result.vectors[added_rows], result.failed


def _ids_by_name(collection: Collection, names: Mapping[str, str]) -> dict[str, str]:
    """Return the ids of those names that are ids or paths of images in the collection."""
    path_by_name = {name: absolute(name) for name in names}
    paths = set(path_by_name.values())
    ids: dict[str, str] = {}
    id_by_path: dict[str, str] = {}
    for item in collection.items():
        if item.id in names:
            ids[item.id] = item.id
        for path in map(absolute, item.paths):
            if path in paths:
                id_by_path[path] = item.id
    return ids | {name: id_by_path[path] for name, path in path_by_name.items() if path in id_by_path}


def _examples(labels: Mapping[str, str], examples_per_class: int | None, random_state: int) -> list[str]:
    """Return the names of all labeled images, or of some of each class."""
    if examples_per_class is None:
        return list(labels)
    if examples_per_class < 1:
        raise InvalidParameterError(f"examples_per_class is {examples_per_class}; it must be at least 1")
    rng = np.random.default_rng(random_state)
    names_by_label: dict[str, list[str]] = {}
    for name in sorted(labels):
        names_by_label.setdefault(labels[name], []).append(name)
    return [
        names[i]
        for names in names_by_label.values()
        for i in sorted(rng.choice(len(names), min(examples_per_class, len(names)), replace=False))
    ]


def _add_label(label_by_id: dict[str, str], id: str, label: str, name: str) -> None:
    if label_by_id.setdefault(id, label) != label:
        raise InvalidParameterError(
            f"{name} is labeled {label!r}, and the very same image {label_by_id[id]!r} under another name;"
            " keep one of the two labels"
        )
