"""Which labels are probably wrong, and which classes are confused."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nearsight.analyses.labeled_images import Contradictions, LabeledImages, read_labeled
from nearsight.collection import Collection
from nearsight.errors import ImageFailure
from nearsight.estimators.classification import LabelCut, find_label_errors
from nearsight.text_format import ShortRepr, count

# Wrong labels among a cut's images below which it probably holds none.
_MIN_WRONG = 0.5


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image that looks more like another class than like that of its label.

    Attributes
    ----------
    id, path : str
    label, suggested : str
        The label, and the class that it looks like.
    probability : float
        In 0..1: of the suggested class, by a classifier that has not seen the image.
    margin : float
        In -1..0: probability of the label minus that of the suggested class.
    likely : bool
        Whether it is among the first so many as there are wrong labels by estimate.
    cut : str
        The first cut that holds it; see `LabelCheck.cuts`.
    """

    id: str
    path: str
    label: str
    suggested: str
    probability: float
    margin: float
    likely: bool
    cut: str = ""


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """One class: number of images, and share of them that are classified as it; None if it is not judged."""

    label: str
    images: int
    accuracy: float | None


@dataclass(frozen=True, repr=False)
class LabelCheck(ShortRepr):
    """The result of `check_labels`.

    Attributes
    ----------
    n_images : int
    accuracy : float
        Cross-validated, over the judged images.
    n_expected : int
        Estimated number of wrong labels.
    classes : list of ClassFacts
        By name.
    confusion : list of list of int
        Judged images by label (rows) and by predicted class (columns), in the order of `classes`.
    suspects : list of Suspect
        The most probable errors first.
    others : list of (str, str)
        Path, or id where there is none, and label of every other image.
    failed : list of ImageFailure
        Labeled images that could not be used.
    cuts : list of LabelCut
        The suspects in three cuts, with the share of wrong labels to be expected of each.
    """

    n_images: int
    accuracy: float
    n_expected: int
    classes: list[ClassFacts]
    confusion: list[list[int]]
    suspects: list[Suspect]
    others: list[tuple[str, str]]
    failed: list[ImageFailure]
    cuts: list[LabelCut] = field(default_factory=list)


def check_labels(
    collection: Collection,
    labels: Mapping[str, str],
    *,
    contradictions: Contradictions = "raise",
    progress: bool | None = None,
) -> LabelCheck:
    """Find labels that are probably wrong.

    *Method*: `estimators.classification.find_label_errors`: each image is classified by the others.

    Parameters
    ----------
    labels : mapping of str to str
        Labels by id or by path; images outside the collection are embedded, and not added.
    contradictions : {"raise", "drop"}
        Whether an image with two labels, under two names, is refused or left out.
    progress : bool, optional
        Whether to show progress; see `nearsight.progress.bar`.

    Raises
    ------
    InvalidParameterError
        Fewer than two classes have 5 images, or an image has two labels.

    Notes
    -----
    Time grows with the square of the number of labeled images: 8 s for 1,654 on two busy cores. Memory: their
    vectors in double precision, and one number for each image and class.
    """
    return check_labeled_images(
        read_labeled(collection, labels, contradictions=contradictions, progress=progress)
    )


def check_labeled_images(images: LabeledImages) -> LabelCheck:
    """Find labels that are probably wrong among images with vectors; see `check_labels`."""
    errors = find_label_errors(images.X, images.y)
    predicted, margins, ranked = errors.predicted, errors.margins, errors.ranked
    counts = np.bincount(errors.y, minlength=len(errors.classes))
    confusion = errors.confusion
    n_judged = confusion.sum(axis=1)
    classes = [
        ClassFacts(str(label), int(n), float(confusion[i, i] / n_judged[i]) if n_judged[i] else None)
        for i, (label, n) in enumerate(zip(errors.classes, counts, strict=True))
    ]
    cuts = errors.cuts
    suspects = [
        Suspect(
            images.ids[row],
            images.paths[row],
            str(images.y[row]),
            str(errors.classes[predicted[row]]),
            round(float(errors.probabilities[row, predicted[row]]), 4),
            round(float(margins[row]), 4),
            rank < errors.n_expected,
            next(cut.name for cut in cuts if rank < cut.n),
        )
        for rank, row in enumerate(ranked)
    ]
    suspected = set(ranked.tolist())
    others = [
        (images.paths[row] or images.ids[row], str(images.y[row]))
        for row in range(len(images.ids))
        if row not in suspected
    ]
    accuracy = float(np.trace(confusion) / max(1, confusion.sum()))
    return LabelCheck(
        n_images=len(images.ids),
        accuracy=accuracy,
        n_expected=errors.n_expected,
        classes=classes,
        confusion=confusion.tolist(),
        suspects=suspects,
        others=others,
        failed=images.failed,
        cuts=cuts,
    )


def cut_sentence(cut: LabelCut) -> str:
    """Return what to expect of the images of a cut, those of the cuts before included.

    Examples
    --------
    >>> cut_sentence(LabelCut("likely", 20, 0.75, 0.7))
    'likely: of the first 20 images, about 75 % have a wrong label; they have 70 % of all wrong labels'
    >>> cut_sentence(LabelCut("possible", 30, 0.002, 0.98))
    'possible: of the first 30 images, probably none has a wrong label'
    >>> cut_sentence(LabelCut("very likely", 1, 0.75, 0.2))
    'very likely: the first image has a wrong label with a probability of about 75 %'
    """
    if cut.precision is None:
        return f"{cut.name}: none"
    first = f"{cut.name}: of the first {count(cut.n, 'image')}"
    # A share of next to nothing tells nobody anything.
    if cut.n * cut.precision < _MIN_WRONG:
        return f"{first}, probably none has a wrong label"
    share = f"about {100 * cut.precision:.0f} %"
    if cut.n == 1:
        return f"{cut.name}: the first image has a wrong label with a probability of {share}"
    return f"{first}, {share} have a wrong label; they have {100 * cut.recall:.0f} % of all wrong labels"
