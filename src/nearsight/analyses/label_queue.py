"""Which images a person labels next, and how good the classifier is meanwhile."""

from collections.abc import Collection as SizedContainer
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearsight.analyses.classification import (
    FittedClassifier,
    Prediction,
    classifier_if_any,
    predicted,
    suggested,
)
from nearsight.analyses.labeled_images import labels_by_key, read_labeled
from nearsight.collection import Collection
from nearsight.parameters import require_whole

if TYPE_CHECKING:
    from nearsight.estimators.classification import HeldOut

#: The share of images that are shown at random instead of by what they teach.
CHECK_SHARE = 0.25
_ID_DIGITS = 8
# Of the images that were chosen, only how many are right counts.
_CHOSEN_FOLDS = 5


@dataclass(frozen=True, slots=True)
class QueuedImage:
    """An image to label.

    Attributes
    ----------
    prediction : Prediction
        What the classifier makes of it; with an empty label where there is no classifier.
    is_check : bool
        Whether it was drawn at random, to measure accuracy.
    """

    prediction: Prediction
    is_check: bool


def is_check_image(id: str) -> bool:
    """Return whether an image is one of the quarter that is only ever shown at random.

    The id is a hash of the content, so it has nothing to do with what the image shows, and nobody has to
    remember which images these are.

    Examples
    --------
    >>> is_check_image("00" * 16), is_check_image("ff" * 16)
    (True, False)
    """
    return int(id[:_ID_DIGITS], 16) < CHECK_SHARE * float(16**_ID_DIGITS)


def unlabeled(collection: Collection, key: str) -> str | None:
    """Return the filter of images without a label under a metadata key; None if that is all of them."""
    return f"metadata.{key} IS NULL" if key in collection.metadata_types() else None


def next_images(
    collection: Collection,
    key: str = "label",
    n: int = 12,
    *,
    skipped: SizedContainer[str] = (),
    file: str | Path | None = None,
) -> list[QueuedImage]:
    """Return the images to label next, the first one first.

    *Method*: three of four are those that teach the most (`suggest_labels`). About every fourth is a check
    image: one drawn at random, never chosen by what it shows, so that `held_out_accuracy` is that of the
    images which nobody has labeled. A check image is learned from as well.

    Parameters
    ----------
    key : str
        The metadata key of the labels.
    n : int
        Number of images; fewer where fewer are left.
    skipped : collection of str
        Ids of images that the person could not label.
    file : path, optional
        The classifier; by default the collection's own, if there is one.

    Raises
    ------
    InvalidParameterError
        `n` is below 1, or the file holds no classifier.
    FingerprintMismatchError
        The classifier was fitted on vectors of another model.
    """
    require_whole("n", n)
    classifier = classifier_if_any(collection, file)
    where = unlabeled(collection, key)
    labeled = set(labels_by_key(collection, key)) if where else set()
    chosen = suggested(
        collection,
        classifier,
        n,
        where=where,
        is_candidate=lambda id: not is_check_image(id),
        covered=labeled | set(skipped),
    )
    checks = _check_images(collection, classifier, where, n, skipped)
    queue: list[QueuedImage] = []
    n_checks = sum(map(is_check_image, labeled))
    while len(queue) < n and (chosen or checks):
        # Never two in a row, also where many others were labeled at once.
        is_due = n_checks + 1 <= CHECK_SHARE * (len(labeled) + len(queue) + 1)
        is_check = bool(checks) and (not chosen or (is_due and not (queue and queue[-1].is_check)))
        queue.append(QueuedImage((checks if is_check else chosen).pop(0), is_check))
        n_checks += is_check
    return queue


def _check_images(
    collection: Collection,
    classifier: FittedClassifier | None,
    where: str | None,
    n: int,
    skipped: SizedContainer[str],
) -> list[Prediction]:
    ids = [
        id
        for batch in collection.iter_batches(["id"], where)
        for id in batch.column("id").to_pylist()
        if is_check_image(id) and id not in skipped
    ]
    ids = sorted(ids)[:n]
    return predicted(collection, classifier, ids, collection.vectors(ids)) if ids else []


def held_out_accuracy(collection: Collection, key: str = "label") -> "HeldOut":
    """Judge a classifier on the labeled check images, each by a fit on all the other labels.

    Parameters
    ----------
    key : str
        The metadata key of the labels.

    Returns
    -------
    HeldOut
        Of the check images. Its accuracy is that of images which nobody has labeled, apart from those that
        were skipped, if check images were labeled in the order of `next_images`: that of the check images,
        without the difficult images that are labeled (`Selection`).

    Notes
    -----
    Costs fifteen fits; see `FewShotClassifier`.
    """
    from nearsight.estimators.classification import HeldOut, Selection, judge_held_out

    labels = labels_by_key(collection, key) if key in collection.metadata_types() else {}
    if len(set(labels.values())) < 2:
        return HeldOut(np.zeros(0, bool), np.zeros(0))
    images = read_labeled(collection, labels, progress=False)
    checks = np.array([is_check_image(id) for id in images.ids], bool)
    held_out = judge_held_out(images.X, images.y, np.flatnonzero(checks))
    if held_out.accuracy is None:
        return held_out
    chosen = judge_held_out(images.X, images.y, np.flatnonzero(~checks), n_folds=_CHOSEN_FOLDS)
    return replace(held_out, selection=Selection(len(collection), len(images.ids), chosen.right))
