"""What a client can ask for about labels and classifiers; see `nearsight.client.operations`."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight.client.job_operations import finished
from nearsight.client.operations import collection_path
from nearsight.client.requests import Named, Operation, Request
from nearsight.errors import ImageFailure

if TYPE_CHECKING:
    from nearsight.analyses.classification import FittedClassifier, Prediction
    from nearsight.analyses.label_check import LabelCheck
    from nearsight.analyses.label_queue import QueuedImage

_KEY, _NAME = "label", "default"
_PAGE = 1000
_MAX_CHANGES, _MAX_IDS = 100, 10_000


def labels(collection: Named, key: str = _KEY) -> Operation[dict[str, str]]:
    """Return the label of each labeled image, by id."""
    found: dict[str, str] = {}
    cursor: str | None = None
    while True:
        params = {"key": key, "limit": _PAGE, **({} if cursor is None else {"cursor": cursor})}
        page = (yield Request("GET", collection_path(collection, "labels", "items"), params=params)).json()
        found |= {item["id"]: item["label"] for item in page["items"]}
        cursor = page["next"]
        if cursor is None:
            return found


def set_labels(
    collection: Named, labels: Mapping[str, str | None], *, key: str = _KEY
) -> Operation[list[int]]:
    """Give images labels; None takes a label away. What is returned is on the service's disk.

    Parameters
    ----------
    labels : mapping of str to str or None
        By id, or a unique start of it.

    Returns
    -------
    list of int
        A number for each label that was given, for `undo_labels`.
    """
    ids: dict[str | None, list[str]] = {}
    for id, label in labels.items():
        ids.setdefault(label, []).append(id)
    changes = [
        {"ids": each[start : start + _MAX_IDS], "label": label}
        for label, each in ids.items()
        for start in range(0, len(each), _MAX_IDS)
    ]
    numbers: list[int] = []
    for start in range(0, len(changes), _MAX_CHANGES):
        body = {"key": key, "changes": changes[start : start + _MAX_CHANGES]}
        answer = yield Request("POST", collection_path(collection, "labels"), json=body)
        numbers += answer.json()["changes"]
    return numbers


def undo_labels(
    collection: Named, change: int | None = None, *, key: str = _KEY
) -> Operation[dict[str, str | None]]:
    """Take back a change of labels, by default the last; return the labels that are back, by id.

    An image that got another label since keeps it.
    """
    body = {"key": key, "change": change}
    answer = yield Request("POST", collection_path(collection, "labels", "undo"), json=body)
    restored: dict[str, str | None] = answer.json()["labels"]
    return restored


def next_images(
    collection: Named,
    key: str = _KEY,
    n: int = 12,
    *,
    skipped: Sequence[str] = (),
    labeler: str | None = None,
    lease_s: float = 600.0,
    held: Sequence[str] = (),
) -> "Operation[list[QueuedImage]]":
    """Return the images to label next; see `nearsight.analyses.label_queue.next_images`.

    Parameters
    ----------
    labeler : str, optional
        Who labels them: others do not get them within `lease_s` seconds. What this labeler had before is free
        again, but for what is in `held`.
    """
    from nearsight.analyses.label_queue import QueuedImage

    body: dict[str, Any] = {"key": key, "n": n, "skipped": list(skipped)}
    if labeler is not None:
        body |= {"labeler": labeler, "lease_s": lease_s, "held": list(held)}
    answer = yield Request("POST", collection_path(collection, "labels", "queue"), json=body)
    return [QueuedImage(_prediction(each), bool(each["check"])) for each in answer.json()["images"]]


def label_accuracy(collection: Named, key: str = _KEY) -> Operation[dict[str, Any]]:
    """Return how often a classifier of these labels is right on images drawn at random that it has not seen.

    Returns
    -------
    dict
        ``judged`` and ``right`` (numbers of images), ``accuracy``, ``interval`` (95 %), ``mean_probability``,
        and ``calibration``: "too_few", "fits", "too_sure" or "too_cautious".
    """
    answer = yield Request("GET", collection_path(collection, "labels", "accuracy"), params={"key": key})
    facts: dict[str, Any] = answer.json()
    return facts


def check_labels(collection: Named, key: str = _KEY, *, doubtful: str = "refuse") -> "Operation[LabelCheck]":
    """Find labels that are probably wrong; see `Collection.check_labels`.

    Labels that a person has confirmed are left out, and `others` is empty.
    """
    from nearsight.analyses.label_check import ClassFacts, LabelCheck, Suspect
    from nearsight.estimators.classification import LabelCut

    body = {"key": key, "doubtful": doubtful}
    facts = (yield Request("POST", collection_path(collection, "labels", "check"), json=body)).json()
    if "state" in facts:
        yield from finished(facts)
        place = collection_path(collection, "labels", "check")
        facts = (yield Request("GET", place, params={"key": key})).json()
    return LabelCheck(
        n_images=facts["images"],
        accuracy=facts["accuracy"],
        n_expected=facts["expected_errors"],
        classes=[ClassFacts(**each) for each in facts["classes"]],
        confusion=facts["confusion"],
        suspects=[Suspect(**each) for each in facts["suspects"]],
        others=[],
        failed=[ImageFailure(**each) for each in facts["failed"]],
        cuts=[
            LabelCut(each["cut"], each["images"], each["precision"], each["recall"])
            for each in facts.get("cuts", ())
        ],
    )


def confirm_labels(collection: Named, ids: Sequence[str], *, key: str = _KEY) -> Operation[int]:
    """Note that the labels of images are right: `check_labels` names them no more. Return how many."""
    body = {"key": key, "ids": list(ids)}
    answer = yield Request("POST", collection_path(collection, "labels", "confirm"), json=body)
    return int(answer.json()["confirmed"])


def fit_classifier(
    collection: Named,
    key: str = _KEY,
    *,
    name: str = _NAME,
    doubtful: str = "refuse",
    method: str = "auto",
    false_alarm_rate: float = 0.05,
    examples_per_class: int | None = None,
    use_unlabeled: bool = False,
) -> "Operation[FittedClassifier]":
    """Fit a classifier on the labels, save it, and return it; see `Collection.fit_classifier`.

    Parameters
    ----------
    key : str
        The metadata key of the labels.
    name : str
        To save it under; "default" is the collection's own.
    doubtful : {"refuse", "merge", "drop", "keep"}
        What happens to labels that are probably not meant as they are written.
    """
    body = {
        "key": key,
        "name": name,
        "doubtful": doubtful,
        "method": method,
        "false_alarm_rate": false_alarm_rate,
        "examples_per_class": examples_per_class,
        "use_unlabeled": use_unlabeled,
    }
    facts = (yield Request("POST", collection_path(collection, "classifiers"), json=body)).json()
    if "state" in facts:
        yield from finished(facts)
    return (yield from load_classifier(collection, name))


def load_classifier(collection: Named, name: str = _NAME) -> "Operation[FittedClassifier]":
    """Return a classifier of the collection, for vectors on this machine."""
    from nearsight.analyses.classification import FittedClassifier

    content = (yield Request("GET", collection_path(collection, "classifiers", name, "file"))).content
    with tempfile.TemporaryDirectory(prefix="nearsight-") as folder:
        file = Path(folder) / "classifier.npz"
        file.write_bytes(content)
        return FittedClassifier.load(file)


def classifiers(collection: Named) -> Operation[list[str]]:
    """Return the names of the classifiers; "default" is the collection's own."""
    answer = yield Request("GET", collection_path(collection, "classifiers"))
    names: list[str] = answer.json()["classifiers"]
    return names


def save_classifier(collection: Named, name: str, *, source: str = _NAME) -> Operation[None]:
    """Keep a classifier under another name."""
    yield Request("PUT", collection_path(collection, "classifiers", name), json={"source": source})


def delete_classifier(collection: Named, name: str) -> Operation[None]:
    """Delete a classifier."""
    yield Request("DELETE", collection_path(collection, "classifiers", name))


def classify(
    collection: Named, *, where: str | None = None, name: str = _NAME
) -> "Operation[list[Prediction]]":
    """Return the predicted labels of all images, or of those that match; see `Collection.classify`."""
    place = collection_path(collection, "classifiers", name, "predictions")
    predictions: list[Prediction] = []
    cursor: str | None = None
    while True:
        params = {"limit": _PAGE, "where": where, "cursor": cursor}
        params = {key: value for key, value in params.items() if value is not None}
        page = (yield Request("GET", place, params=params)).json()
        predictions += [_prediction(each) for each in page["predictions"]]
        cursor = page["next"]
        if cursor is None:
            return predictions


def _prediction(facts: Mapping[str, Any]) -> "Prediction":
    from nearsight.analyses.classification import Prediction

    return Prediction(
        facts["id"], facts["path"], facts["label"] or "", facts["probability"] or 0.0, facts["unknown"]
    )
