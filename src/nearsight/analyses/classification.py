"""Labels for images, learned from a few that have one."""

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
from nearsight.images import Limits, decode_path
from nearsight.images.path_encoding import absolute
from nearsight.models import Fingerprint

# Of a fitted classifier, in the collection's directory.
FILENAME = "classifier.npz"
_KIND, _FORMAT = "classifier", 1
# Images that are weighed when some are to be suggested for labeling.
_MOST_WEIGHED = 20_000


@dataclass(frozen=True, slots=True)
class Prediction:
    """What an image was taken for.

    Attributes
    ----------
    id, path : str
        The image.
    label : str
        The likeliest class, also where `unknown`.
    probability : float
        In 0..1: that of the label, given that it is one of the classes.
    unknown : bool
        Whether it is probably none of the classes.
    """

    id: str
    path: str
    label: str
    probability: float
    unknown: bool


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier with what it was fitted on: one file, and no pickle.

    Attributes
    ----------
    estimator : FewShotClassifier
        See `nearsight.estimators.classification`.
    fingerprint : Fingerprint
        What made the vectors it was fitted on; of any other it can say nothing.
    model : str
        The name of that model.
    ids : list of str
        Images it was fitted on.
    counts : dict of str to int
        Examples by class.
    failed : list of ImageFailure
        Images with a label that could not be used; empty when read from a file.
    """

    estimator: Any
    fingerprint: Fingerprint
    model: str
    ids: list[str]
    counts: dict[str, int]
    failed: list[ImageFailure] = field(default_factory=list)

    def require(self, fingerprint: Fingerprint) -> None:
        """Refuse vectors of another model or preprocessing.

        Raises
        ------
        FingerprintMismatchError
            They cannot be compared with those it was fitted on.
        """
        remedy = "Fit it again on vectors of this model: nearsight classify fit"
        self.fingerprint.require_same(fingerprint, "the classifier", remedy)

    def predict(self, X: NDArray[np.float32], ids: Sequence[str], paths: Sequence[str]) -> list[Prediction]:
        """Label images by their (n, dim) vectors of this classifier's fingerprint."""
        if not len(X):
            return []
        p = self.estimator.predict_proba(X)
        best = p.argmax(axis=1)
        labels, unknown = self.estimator.classes_[best], self.estimator.unknown(X)
        return [
            Prediction(id, path, str(label), float(row[at]), bool(u))
            for id, path, label, row, at, u in zip(ids, paths, labels, p, best, unknown, strict=True)
        ]

    def save(self, file: Path) -> None:
        """Write one `.npz`, whole or not at all.

        Raises
        ------
        StorageError
            The disk refuses.
        """
        facts = {
            "model": self.model,
            "fingerprint": self.fingerprint.to_dict(),
            "ids": self.ids,
            "counts": self.counts,
        }
        write_artifact(file, _KIND, _FORMAT, facts, self.estimator.to_arrays())

    @classmethod
    def load(cls, file: str | Path) -> "Classifier":
        """Read what `save` wrote.

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
            )


def fit_classifier(
    self: Collection,
    labels: Mapping[str, str],
    *,
    file: str | Path | None = None,
    shots: int | None = None,
    method: str = "auto",
    false_alarm_rate: float = 0.05,
    confidence: float | None = None,
    random_state: int = 0,
    limits: Limits | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Classifier:
    """Learn classes from a few images that have a label, and keep what was learned.

    Images of the collection are not embedded again; others are embedded, and do not come in.

    Parameters
    ----------
    labels : mapping of str to str
        Labels by id or by path.
    file : path, optional
        Where to keep the classifier: by default in the collection's directory, for `classify`.
    shots : int, optional
        So many images of each label at most, chosen at random.
    method, false_alarm_rate, confidence
        See `nearsight.estimators.classification.FewShotClassifier`.
    random_state : int, default 0
        Chooses the images where `shots` is given.
    limits, n_threads, progress
        See `nearsight.Embedder`; for images that are not in the collection.

    Raises
    ------
    InvalidParameterError
        No image that can be used has a label, an image has two, or a parameter is out of its range.
    StorageError
        The file cannot be written.

    Notes
    -----
    The vectors of the images with a label are held in memory, 4 bytes a number. For the time see
    `FewShotClassifier`. One class is enough, and so is one image of it; nothing is called unknown then.
    """
    if shots is not None and shots < 1:
        raise InvalidParameterError(f"shots is {shots}; it must be at least 1")
    known = _ids_of(self, labels)
    chosen = _few(labels, shots, random_state)
    by_id: dict[str, str] = {}
    for name in chosen:
        if name in known:
            _note(by_id, known[name], labels[name], name)
    X = self.vectors(list(by_id))
    failed: list[ImageFailure] = []
    if outside := [name for name in chosen if name not in known]:
        embedder = self.embedder(limits=limits, n_threads=n_threads, progress=progress)
        more, failed = _embedded(embedder, outside, labels, by_id)
        X = np.concatenate([X, more])
    made = fitted(
        X,
        by_id,
        self.fingerprint,
        self.spec.id,
        failed,
        method=method,
        false_alarm_rate=false_alarm_rate,
        confidence=confidence,
    )
    made.save(Path(file) if file is not None else self.directory / FILENAME)
    return made


def fit_alone(
    embedder: Embedder,
    labels: Mapping[str, str],
    *,
    file: str | Path,
    shots: int | None = None,
    random_state: int = 0,
    **parameters: Any,
) -> Classifier:
    """Learn classes from images without a collection: see `fit_classifier`, and give paths."""
    by_id: dict[str, str] = {}
    X, failed = _embedded(embedder, _few(labels, shots, random_state), labels, by_id)
    spec = embedder.backend.spec
    made = fitted(X, by_id, spec.fingerprint, spec.id, failed, **parameters)
    made.save(Path(file))
    return made


def fitted(
    X: NDArray[np.float32],
    labels: Mapping[str, str],
    fingerprint: Fingerprint,
    model: str,
    failed: Sequence[ImageFailure] = (),
    **parameters: Any,
) -> Classifier:
    """Fit a classifier on (n, dim) vectors, whose ids are the keys of `labels`, in order.

    Raises
    ------
    InvalidParameterError
        There are none.
    """
    from nearsight.estimators.classification import FewShotClassifier

    if not len(X):
        first = f" ({len(failed)} could not be used: {failed[0].reason})" if failed else ""
        raise InvalidParameterError(
            f"no image with a label was found{first}; give at least one for each class"
        )
    y = np.array(list(labels.values()), dtype=str)
    estimator = FewShotClassifier(**parameters).fit(X, y)
    names, numbers = np.unique(y, return_counts=True)
    counts = dict(zip(names.tolist(), numbers.tolist(), strict=True))
    return Classifier(estimator, fingerprint, model, list(labels), counts, list(failed))


def _embedded(
    embedder: Embedder, names: list[str], labels: Mapping[str, str], by_id: dict[str, str]
) -> tuple[NDArray[np.float32], list[ImageFailure]]:
    """Embed images and note their labels by id; return the vectors of those that are new there."""
    found = embedder.embed(names)
    new: list[int] = []
    for row, id in enumerate(found.ids):
        if id not in by_id:
            new.append(row)
        name = names[found.positions[row]]
        _note(by_id, id, labels[name], name)
    return found.vectors[new], found.failed


def classifier(self: Collection, file: str | Path | None = None) -> Classifier:
    """Return the classifier that `fit_classifier` kept.

    Raises
    ------
    InvalidParameterError
        There is none.
    FingerprintMismatchError
        It is of another model than this collection.
    """
    found = Classifier.load(self.directory / FILENAME if file is None else file)
    found.require(self.fingerprint)
    return found


def classify(
    self: Collection, *, where: str | None = None, file: str | Path | None = None
) -> Iterator[Prediction]:
    """Label the images of the collection, or those that match, one after another.

    Parameters
    ----------
    where : str, optional
    file : path, optional
        Of the classifier; by default the collection's own.

    Raises
    ------
    InvalidParameterError
        No classifier was fitted.

    Notes
    -----
    A few thousand images are in memory at a time. For the time see `FewShotClassifier`. Without images,
    nothing comes.
    """
    found = classifier(self, file)
    return _classified(self, found, where)


def _classified(view: Collection, found: Classifier, where: str | None) -> Iterator[Prediction]:
    for batch in view.iter_batches(["id", "path", "vector"], where):
        paths = [decode_path(path) for path in batch.column("path").to_pylist()]
        yield from found.predict(batch_vectors(batch), batch.column("id").to_pylist(), paths)


def suggest_labels(
    self: Collection,
    n: int = 10,
    *,
    where: str | None = None,
    file: str | Path | None = None,
    random_state: int = 0,
) -> list[Prediction]:
    """Return which images to label next, the most useful first, each with what it is taken for now.

    Where no classifier was fitted yet, those that stand for most others, with an empty label.

    Parameters
    ----------
    n : int, default 10
        How many.
    where : str, optional
        Only among images that match.
    file : path, optional
        Of the classifier; by default the collection's own.
    random_state : int, default 0
        Chooses the 20,000 images that are weighed where there are more.

    Notes
    -----
    Memory grows with the images weighed; see `nearsight.estimators.classification.label_suggestions`
    for the method. Without images, or where all have a label, the answer is empty.
    """
    from nearsight.estimators.classification import suggest

    found = None
    if file is not None or (self.directory / FILENAME).is_file():
        found = classifier(self, file)
    rows = sample_vectors(self, _MOST_WEIGHED, where=where, random_state=random_state)
    done = set(found.ids) if found else set()
    open_ = np.array([at for at, id in enumerate(rows.ids) if id not in done], np.intp)
    X = rows.X[open_]
    if not len(X):
        return []
    here = _present(self, found.ids) if found else []
    chosen = suggest(
        X,
        n,
        probabilities=found.estimator.predict_proba(X) if found else None,
        labeled=self.vectors(here) if here else None,
    )
    ids = [rows.ids[at] for at in open_[chosen]]
    paths = [self.get(id).path for id in ids]
    if found:
        return found.predict(X[chosen], ids, paths)
    return [Prediction(id, path, "", 0.0, True) for id, path in zip(ids, paths, strict=True)]


def labels_by_folder(view: Collection, where: str | None = None) -> dict[str, str]:
    """Return the name of the folder that each image of a collection lies in, by its id."""
    return {item.id: Path(item.path).parent.name for item in view.items(where) if Path(item.path).parent.name}


def labels_by_key(view: Collection, key: str, where: str | None = None) -> dict[str, str]:
    """Return the metadata of one key of each image that has it, by its id.

    Raises
    ------
    InvalidParameterError
        There is no such key.
    """
    rows = [
        (batch.column("id").to_pylist(), batch.column(key).to_pylist())
        for batch in view.iter_batches(["id", key], where)
    ]
    return {
        id: str(int(value) if isinstance(value, float) and value.is_integer() else value)
        for ids, values in rows
        for id, value in zip(ids, values, strict=True)
        if value is not None
    }


def _ids_of(view: Collection, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the ids of those names that are ids or paths of images in the collection."""
    places = {name: absolute(name) for name in labels}
    wanted = set(places.values())
    ids: dict[str, str] = {}
    by_place: dict[str, str] = {}
    for item in view.items():
        if item.id in labels:
            ids[item.id] = item.id
        for path in item.paths:
            place = absolute(path)
            if place in wanted:
                by_place[place] = item.id
    return ids | {name: by_place[place] for name, place in places.items() if place in by_place}


def _few(labels: Mapping[str, str], shots: int | None, random_state: int) -> list[str]:
    """Return names, at most `shots` of each label."""
    if shots is None:
        return list(labels)
    rng = np.random.default_rng(random_state)
    by_label: dict[str, list[str]] = {}
    for name in sorted(labels):
        by_label.setdefault(labels[name], []).append(name)
    return [
        names[at]
        for names in by_label.values()
        for at in sorted(rng.choice(len(names), min(shots, len(names)), replace=False))
    ]


def _note(labels: dict[str, str], id: str, label: str, name: str) -> None:
    if labels.setdefault(id, label) != label:
        raise InvalidParameterError(
            f"{name} is labeled {label!r}, and the very same image {labels[id]!r} under another name;"
            " keep one of the two labels"
        )


def _present(view: Collection, ids: Sequence[str]) -> list[str]:
    wanted = set(ids)
    return [
        id for batch in view.iter_batches(["id"]) for id in batch.column("id").to_pylist() if id in wanted
    ]


def model_of(directory: Path, found: Classifier) -> str:
    """Return the name to load a classifier's model by: where it is a collection's own, its place."""
    return model_name(directory, found.model)
