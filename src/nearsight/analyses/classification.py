"""Labels for images, learned from a few labeled ones."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nearsight.analyses.image_conditions import ImageConditions
from nearsight.analyses.labeled_images import (
    Contradictions,
    LabeledImages,
    embed_labeled,
    examples_of,
    read_labeled,
)
from nearsight.artifacts import read_artifact, write_artifact
from nearsight.collection import Collection
from nearsight.collection.arrays import batch_vectors, items_by_id, sample_vectors
from nearsight.collection.manifest import model_name
from nearsight.embedder import Embedder
from nearsight.errors import ImageFailure, InvalidParameterError
from nearsight.images import Limits, decode_path
from nearsight.models import Fingerprint
from nearsight.store import locate

if TYPE_CHECKING:
    from nearsight.estimators.classification import FewShotClassifier

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
    conditions : ImageConditions or None
        What the labeled images are like; None in files of earlier versions.
    labels : list of str
        Of the labeled images, to fit again on vectors of another model; empty in files of earlier versions.
    """

    estimator: "FewShotClassifier"
    fingerprint: Fingerprint
    model: str
    ids: list[str]
    counts: dict[str, int]
    failed: list[ImageFailure] = field(default_factory=list)
    conditions: ImageConditions | None = None
    labels: list[str] = field(default_factory=list)

    @classmethod
    def fit(
        cls,
        images: LabeledImages,
        fingerprint: Fingerprint,
        model: str,
        *,
        collection: Collection | None = None,
        unlabeled: NDArray[np.float32] | None = None,
        **parameters: Any,
    ) -> "FittedClassifier":
        """Fit on labeled images, with the parameters of `FewShotClassifier`.

        `collection` has the thumbnails of those that were not embedded for this; `unlabeled` are vectors of
        images without a label.

        Raises
        ------
        InvalidParameterError
            There are no images, or they are all of one class.
        """
        from nearsight.estimators.classification import FewShotClassifier

        failed = images.failed
        if not len(images.X):
            first = f" ({len(failed)} could not be used: {failed[0].reason})" if failed else ""
            raise InvalidParameterError(
                f"no labeled image was found{first}; give at least one for each class"
            )
        classes, counts = np.unique(images.y, return_counts=True)
        if len(classes) == 1:
            raise InvalidParameterError(
                f"all {counts[0]:,} labeled images are {str(classes[0])!r}, and a classifier chooses among at"
                " least two classes. Label images of a second class; or learn what these images have in"
                " common, and find those that differ: nearsight anomaly fit GOOD_DIR --to FILE.npz"
            )
        return cls(
            FewShotClassifier(**parameters).fit(images.X, images.y, unlabeled),
            fingerprint,
            model,
            images.ids,
            dict(zip(classes.tolist(), counts.tolist(), strict=True)),
            list(failed),
            images.conditions(collection),
            images.y.tolist(),
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
        return model_name(locate(directory), self.model)

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
            "labels": self.labels,
            "counts": self.counts,
            "conditions": self.conditions.to_dict() if self.conditions else None,
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
        from nearsight.estimators.classification import FewShotClassifier

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
                # Files of earlier versions have none.
                conditions=ImageConditions.from_dict(found) if (found := facts.get("conditions")) else None,
                labels=facts.get("labels", []),
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
    use_unlabeled: bool = False,
    random_state: int = 0,
    contradictions: Contradictions = "raise",
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
    use_unlabeled : bool, default False
        Learn from the collection's images without a label, too; of more than 10,000, from random ones. With
        fewer than about 20 examples a class, that is worth much; some may show none of the classes.
    random_state : int, default 0
        Chooses the images where `examples_per_class` is given, and those without a label.
    contradictions : {"raise", "drop"}
        Whether an image with two labels, under two names, is refused or left out.
    limits, n_threads, progress
        See `nearsight.Embedder`; for images that are not in the collection.

    Raises
    ------
    InvalidParameterError
        No labeled image can be used, all have one label, an image has two labels, or a parameter is out of
        its range.
    StorageError
        The file cannot be written.

    Notes
    -----
    Memory: the vectors of the labeled images, 4 bytes a number. For the time see `FewShotClassifier`.
    """
    names = examples_of(labels, examples_per_class, random_state)
    images = read_labeled(
        collection,
        {name: labels[name] for name in names},
        contradictions=contradictions,
        limits=limits,
        n_threads=n_threads,
        progress=progress,
    )
    classifier = FittedClassifier.fit(
        images,
        collection.fingerprint,
        collection.spec.id,
        collection=collection,
        unlabeled=_unlabeled(collection, images.ids, random_state) if use_unlabeled else None,
        method=method,
        false_alarm_rate=false_alarm_rate,
        confidence=confidence,
    )
    classifier.save(Path(file) if file is not None else collection.directory / FILENAME)
    return classifier


def _unlabeled(collection: Collection, labeled: Container[str], random_state: int = 0) -> NDArray[np.float32]:
    """Return the vectors of at most 10,000 images that are not among those with a label."""
    from nearsight.estimators.classification import MAX_UNLABELED

    sample = sample_vectors(collection, MAX_UNLABELED, random_state=random_state)
    rows: NDArray[np.float32] = sample.X[[id not in labeled for id in sample.ids]]
    return rows


def refit_classifier(collection: Collection, classifier: FittedClassifier) -> FittedClassifier:
    """Fit a classifier again on the same labels, by the vectors that the collection has now.

    Raises
    ------
    InvalidParameterError
        Its file is of an earlier version and has no labels, or some of its images are not in the collection.
    """
    by_id = dict(zip(classifier.ids, classifier.labels, strict=False))
    items = items_by_id(collection, list(by_id))
    if not by_id or len(items) < len(by_id):
        lacking = f"{len(by_id) - len(items):,} of its images are not in the collection"
        raise InvalidParameterError(lacking if by_id else "an earlier version wrote it without its labels")
    ids = list(by_id)
    images = LabeledImages(
        ids, [items[id].path for id in ids], collection.vectors(ids), np.array(list(by_id.values()))
    )
    parameters = classifier.estimator.get_params()
    others = _unlabeled(collection, by_id) if classifier.estimator.n_unlabeled_ else None
    fitted = FittedClassifier.fit(
        images, collection.fingerprint, collection.spec.id, unlabeled=others, **parameters
    )
    return replace(fitted, conditions=classifier.conditions)


def fit_classifier_on_files(
    embedder: Embedder,
    labels: Mapping[str, str],
    *,
    file: str | Path,
    examples_per_class: int | None = None,
    random_state: int = 0,
    contradictions: Contradictions = "raise",
    **parameters: Any,
) -> FittedClassifier:
    """Fit a classifier on labeled files, without a collection; see `fit_classifier`."""
    names = examples_of(labels, examples_per_class, random_state)
    images = embed_labeled(embedder, {name: labels[name] for name in names}, contradictions=contradictions)
    spec = embedder.backend.spec
    classifier = FittedClassifier.fit(images, spec.fingerprint, spec.id, **parameters)
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
    classifier = classifier_if_any(collection, file)
    return suggested(collection, classifier, n, where=where, random_state=random_state)


def classifier_if_any(collection: Collection, file: str | Path | None = None) -> FittedClassifier | None:
    """Return what `load_classifier` returns; None where no file is named and the collection has none."""
    if file is None and not (collection.directory / FILENAME).is_file():
        return None
    return load_classifier(collection, file)


def suggested(
    collection: Collection,
    classifier: FittedClassifier | None,
    n: int,
    *,
    where: str | None = None,
    random_state: int = 0,
    is_candidate: Callable[[str], bool] = lambda id: True,
    covered: Container[str] = (),
) -> list[Prediction]:
    """Suggest images to label next; see `suggest_labels`.

    Parameters
    ----------
    is_candidate : callable
        Whether an image of this id may be suggested.
    covered : container of str
        Ids that are never suggested and count as labeled, because they were labeled since the classifier was
        fitted, or because nobody could tell.
    """
    from nearsight.estimators.classification import suggest

    table = sample_vectors(collection, _MAX_SUGGESTION_CANDIDATES, where=where, random_state=random_state)
    labeled_ids = set(classifier.ids) if classifier else set()
    rows = np.array(
        [
            row
            for row, id in enumerate(table.ids)
            if id not in labeled_ids and id not in covered and is_candidate(id)
        ],
        np.intp,
    )
    if not len(rows):
        return []
    X = table.X[rows]
    present_ids = [
        id
        for batch in collection.iter_batches(["id"])
        for id in batch.column("id").to_pylist()
        if id in labeled_ids or id in covered
    ]
    suggestions = suggest(
        X,
        n,
        probabilities=classifier.estimator.predict_proba(X) if classifier else None,
        labeled=collection.vectors(present_ids) if present_ids else None,
    )
    ids = [table.ids[row] for row in rows[suggestions]]
    return predicted(collection, classifier, ids, X[suggestions])


def predicted(
    collection: Collection,
    classifier: FittedClassifier | None,
    ids: Sequence[str],
    X: NDArray[np.float32],
) -> list[Prediction]:
    """Return predictions of images of the collection; with an empty label where there is no classifier."""
    items = items_by_id(collection, ids)
    paths = [items[id].path if id in items else "" for id in ids]
    if classifier:
        return classifier.predict(X, ids, paths)
    return [Prediction(id, path, "", 0.0, True) for id, path in zip(ids, paths, strict=True)]
