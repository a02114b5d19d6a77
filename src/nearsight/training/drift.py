"""Whether new images are of kinds that are not known, or of another mix than before.

One test cannot tell both: a few foreign images hardly move a mean, and another mix of known kinds holds
nothing foreign.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearsight.errors import InvalidParameterError
from nearsight.estimators.neighbors import nearest_neighbors, unit_length
from nearsight.parameters import require_whole

Floats = NDArray[np.floating]

#: Fewer images than this say little.
MIN_IMAGES = 100
#: Share of known images beyond the limit of what is usual.
SHARE_BEYOND = 0.05
_N_NEIGHBORS = 3
_N_PERMUTATIONS = 999
_N_COMPONENTS = 64
_RIDGE = 1.0


@dataclass(frozen=True)
class UnknownKinds:
    """Whether more of the new images lie far from all known ones than known images do from each other.

    Attributes
    ----------
    share : float
        Of new images, those beyond the limit.
    usual_share : float
        Of known images that were held out, the same.
    p : float
        Fisher's exact test, one-sided.
    rows : ndarray of int
        The new images beyond the limit, the farthest first.
    """

    share: float
    usual_share: float
    p: float
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class ChangedMix:
    """Whether new images are distributed otherwise than known ones.

    Attributes
    ----------
    mmd : float
        Squared maximum mean discrepancy, unbiased; about 0 for the same distribution.
    p : float
        Permutation test over all images together.
    auc : float
        How well a linear classifier tells new images from known ones, out of sample: 0.5 is not at all.
    """

    mmd: float
    p: float
    auc: float


def unknown_kinds(known: Floats, new: Floats, *, random_state: int = 0) -> UnknownKinds:
    """Test whether new images are of kinds that the known ones lack.

    *Method*: half of the known images, chosen at random, are the reference. The limit is the distance to its
    nearest neighbors there that 5 % of the other half exceed; how many of each exceed it is compared exactly
    (Fisher 1935), since the limit is itself an estimate.

    Parameters
    ----------
    known : ndarray of shape (n, d)
    new : ndarray of shape (m, d)
    random_state : int

    Raises
    ------
    InvalidParameterError
        There are fewer than 100 of either.
    """
    from scipy.stats import fisher_exact

    _require_enough(known, new)
    require_whole("random_state", random_state, least=0)
    order = np.random.default_rng(random_state).permutation(len(known))
    reference, held_out = (unit_length(known[half]) for half in np.array_split(order, 2))
    usual = _distances(held_out, reference)
    distances = _distances(unit_length(new), reference)
    limit = np.quantile(usual, 1 - SHARE_BEYOND)
    beyond, usual_beyond = int((distances > limit).sum()), int((usual > limit).sum())
    table = [[beyond, len(new) - beyond], [usual_beyond, len(usual) - usual_beyond]]
    p = float(fisher_exact(table, alternative="greater").pvalue)
    farthest = np.argsort(-distances, kind="stable")[:beyond]
    return UnknownKinds(beyond / len(new), usual_beyond / len(usual), p, farthest)


def changed_mix(known: Floats, new: Floats, *, random_state: int = 0) -> ChangedMix:
    """Test whether new images are distributed otherwise than known ones.

    *Method*: maximum mean discrepancy (Gretton et al. 2012) with a Gaussian kernel of the median distance, on
    64 principal components. p comes from permutations of all images together, the observed value counted
    among them.

    Parameters
    ----------
    known : ndarray of shape (n, d)
    new : ndarray of shape (m, d)
    random_state : int

    Raises
    ------
    InvalidParameterError
        There are fewer than 100 of either.

    Notes
    -----
    Takes 8 (n + m)² bytes of memory.
    """
    _require_enough(known, new)
    require_whole("random_state", random_state, least=0)
    rng = np.random.default_rng(random_state)
    X = unit_length(np.concatenate([known, new]).astype(np.float32))
    centered = X - X.mean(axis=0)
    _, _, axes = np.linalg.svd(centered[rng.permutation(len(X))[:1000]], full_matrices=False)
    points = (centered @ axes[:_N_COMPONENTS].T).astype(np.float64)
    kernel = _gaussian_kernel(points)
    is_new = np.arange(len(X)) >= len(known)
    observed = _mmd(kernel, is_new[None, :])[0]
    permuted = np.stack([rng.permutation(is_new) for _ in range(_N_PERMUTATIONS)])
    n_extreme = int((_mmd(kernel, permuted) >= observed - 1e-12).sum())
    return ChangedMix(float(observed), (1 + n_extreme) / (1 + _N_PERMUTATIONS), _left_out_auc(points, is_new))


def _require_enough(known: Floats, new: Floats) -> None:
    if min(len(known), len(new)) < MIN_IMAGES:
        remedy = "Wait for more, or take a longer time"
        if len(known) < MIN_IMAGES <= len(new):
            remedy = "Take fewer images as new, such as those of a shorter time"
        raise InvalidParameterError(
            f"there are {len(known):,} known and {len(new):,} new images; a comparison needs {MIN_IMAGES} of "
            f"each. {remedy}"
        )


def _distances(X: Floats, reference: Floats) -> NDArray[np.float64]:
    similarities = nearest_neighbors(X, reference, _N_NEIGHBORS)[1]
    distances: NDArray[np.float64] = 1 - similarities.mean(axis=1, dtype=np.float64)
    return distances


def _gaussian_kernel(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the kernel of all pairs, without each point's with itself."""
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0)
    scale = np.median(distances[np.triu_indices(len(points), 1)])
    kernel: NDArray[np.float64] = np.exp(-distances / max(scale, 1e-12))
    np.fill_diagonal(kernel, 0)
    return kernel


def _mmd(kernel: NDArray[np.float64], is_new: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the unbiased estimate for each row of `is_new`."""
    m, n = int(is_new[0].sum()), int((~is_new[0]).sum())
    weights = np.where(is_new, 1 / np.sqrt(m * (m - 1)), 0.0)
    others = np.where(is_new, 0.0, 1 / np.sqrt(n * (n - 1)))
    from_new, from_known = weights @ kernel, others @ kernel
    within = (from_new * weights).sum(axis=1) + (from_known * others).sum(axis=1)
    between = (from_new * others).sum(axis=1) * np.sqrt(m * (m - 1.0) * n * (n - 1.0)) / (m * n)
    result: NDArray[np.float64] = within - 2 * between
    return result


def _left_out_auc(points: NDArray[np.float64], is_new: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve of a ridge classifier, each image left out in turn."""
    # Loads scikit-learn.
    from nearsight.estimators.classification import heads

    targets = is_new[:, None].astype(np.float64)
    scores = heads.Ridge(unit_length(points)).left_out(targets, _RIDGE)[:, 0]
    new, known = scores[is_new], np.sort(scores[~is_new])
    below = np.searchsorted(known, new, "left") + np.searchsorted(known, new, "right")
    return float(below.mean() / (2 * len(known)))
