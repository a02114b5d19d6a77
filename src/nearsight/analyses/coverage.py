"""Which images of a test split the training images have nothing like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nearsight.estimators.neighbors import nearest_neighbors, unit_length

# Images whose distance to the nearest other one makes the radius.
_N_REFERENCES = 2000
# Near-duplicates that may stand before the nearest other image.
_N_NEIGHBORS = 10
#: Fewer training images say nothing about what is usual.
MIN_TRAINING = 20
_USUAL_SHARE = 0.95


@dataclass(frozen=True)
class Coverage:
    """How much of some images lies near training images.

    Attributes
    ----------
    split : str
        What was searched among the training images.
    n : int
    share : float
        In 0..1: of the images within the radius. About 0.95 are, if both were drawn alike.
    radius : float
        Cosine distance to the nearest other image that 95 % of the training images do not exceed.
    uncovered : list of (str, float)
        Id and distance of the images beyond the radius, the farthest first.
    by_class : dict of str to (int, int)
        Images, and those within the radius, by class; empty without labels.
    """

    split: str
    n: int
    share: float
    radius: float
    uncovered: list[tuple[str, float]]
    by_class: dict[str, tuple[int, int]] = field(default_factory=dict)


def coverage(
    ids: Sequence[str],
    X: NDArray[np.floating],
    splits: Mapping[str, set[str]],
    groups: Mapping[str, str],
    labels: Mapping[str, str] | None = None,
) -> list[Coverage]:
    """Return how much of each other split the split ``train`` covers.

    An image is covered if it has a training image within the radius: the distance from its nearest other
    image that 95 % of the training images do not exceed. Near-duplicates of an image count neither for the
    radius nor for coverage; so a leak covers nothing.

    Parameters
    ----------
    ids : sequence of str, length n
    X : ndarray of shape (n, d)
    splits : mapping of str to set of str
        Splits of an image, by id.
    groups : mapping of str to str
        A name for each group of near-duplicates, by id; an image without one is alone.
    labels : mapping of str to str, optional

    Returns
    -------
    list of Coverage
        Empty without 20 training images and another split.
    """
    vectors = unit_length(np.asarray(X, np.float32))
    group = np.unique([groups.get(id, id) for id in ids], return_inverse=True)[1]
    is_train = np.array([splits.get(id) == {"train"} for id in ids], bool)
    train = np.flatnonzero(is_train)
    if len(train) < MIN_TRAINING:
        return []
    drawn = np.sort(np.random.default_rng(0).permutation(train)[:_N_REFERENCES])
    radius = float(np.quantile(_distances(vectors, drawn, train, group), _USUAL_SHARE))
    found = []
    for split in sorted(set[str]().union(*splits.values()) - {"train"}):
        rows = np.array([row for row, id in enumerate(ids) if splits.get(id) == {split}], np.intp)
        if not len(rows):
            continue
        distances = _distances(vectors, rows, train, group)
        is_covered = distances <= radius
        order = np.argsort(-distances, kind="stable")
        by_class: dict[str, tuple[int, int]] = {}
        for row, covered in zip(rows, is_covered, strict=True):
            if labels and (label := labels.get(ids[row])) is not None:
                n, n_covered = by_class.get(label, (0, 0))
                by_class[label] = (n + 1, n_covered + int(covered))
        uncovered = [(ids[rows[at]], float(distances[at])) for at in order if not is_covered[at]]
        found.append(Coverage(split, len(rows), float(is_covered.mean()), radius, uncovered, by_class))
    return found


def _distances(
    X: NDArray[np.float32], rows: NDArray[np.intp], among: NDArray[np.intp], group: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return the cosine distance of each row to the nearest of others that is of no group of its own."""
    columns, similarities = nearest_neighbors(X[rows], X[among], min(_N_NEIGHBORS, len(among)))
    is_own = group[among[columns]] == group[rows][:, None]
    # Where all neighbors are of its group, the last one bounds the distance from below.
    is_own[:, -1] = False
    first = is_own.argmin(axis=1)
    return np.asarray(1 - similarities[np.arange(len(rows)), first], np.float64)
