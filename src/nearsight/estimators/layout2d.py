"""A map of vectors on a plane, on which nothing that has a place ever moves."""

import warnings
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as exact_trustworthiness
from sklearn.utils.validation import check_is_fitted, validate_data
from tqdm import tqdm

from nearsight.errors import InvalidParameterError, MissingExtraError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

METHODS = ("auto", "umap", "pca")
# So few rows have no neighborhoods to keep: they are laid out by PCA whatever is asked for.
_FEW = 10
# Neighbors that say where a new row belongs.
_GUIDES = 10
# Steps towards the point that is least far from the guides; they converge in fewer.
_STEPS = 30
_BLOCK = 1024


class Layout2D(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Lays rows out on a plane so that neighbors stay neighbors; later rows are placed among them.

    *Method*: UMAP (McInnes, Healy and Melville 2018, arXiv 1802.03426) on the cosine, with exact neighbors
    where the original looks for them by descent; or the first two principal components. `fit` lays out at
    most `most_fitted` different rows; all others are placed. With UMAP, a row is placed at the weighted
    geometric median (Weiszfeld 1937) of its 10 nearest fitted rows, where UMAP's own transform takes their
    mean and then optimizes anew: the median is in no void between two islands, does not depend on what else
    is placed with it, and costs no optimization. A row that was fitted is placed where it is. With PCA,
    placing is the projection itself.

    Parameters
    ----------
    method : {"auto", "umap", "pca"}, default "auto"
        "auto" is UMAP where umap-learn is installed, else PCA.
    n_neighbors : int, default 15
        At least 2. Of UMAP: more shows the whole better, fewer the detail.
    min_dist : float, default 0.1
        In 0..1. Of UMAP: how closely points may be packed.
    most_fitted : int, default 20_000
        At least 10: rows that UMAP lays out, chosen at random where there are more.
    random_state : int, default 0
    progress : bool, default False
        Whether `fit` shows bars on stderr.

    Attributes
    ----------
    embedding_ : ndarray of shape (n, 2), float32
        Where each row is.
    fitted_ : ndarray of shape (m,), int
        Rows that were laid out; the others were placed among them.
    method_ : {"umap", "pca"}
    n_features_in_ : int

    Notes
    -----
    UMAP runs on one thread, so that the map is the same every time; its time grows with the rows, that of the
    neighbors, m² × d, with their square, and its first use takes 15 s more. Placing costs m × d a row, PCA
    n × d. 0 rows are refused; 1 to 10 are laid out by PCA, one of them in the middle. NaN and infinity are
    refused. Duplicates share a place, and so do rows that are all the same.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.eye(4)[[0, 0, 1, 2, 3]]
    >>> map_ = Layout2D(method="pca").fit(X)
    >>> map_.embedding_.shape, bool(np.allclose(map_.transform(X), map_.embedding_))
    ((5, 2), True)
    """

    def __init__(
        self,
        *,
        method: str = "auto",
        n_neighbors: int = 15,
        min_dist: float = 0.1,
        most_fitted: int = 20_000,
        random_state: int = 0,
        progress: bool = False,
    ) -> None:
        self.method = method
        self.n_neighbors = n_neighbors
        self.min_dist = min_dist
        self.most_fitted = most_fitted
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: Any = None) -> "Layout2D":
        """Lay rows out.

        Parameters
        ----------
        X : array of shape (n, d), float
            Brought to unit length here.
        y : ignored

        Raises
        ------
        InvalidParameterError
            A parameter is out of its range.
        MissingExtraError
            UMAP is asked for and not installed.
        ValueError
            No rows, NaN or infinity.
        """
        self._check()
        rows = _unit(validate_data(self, X, dtype=[np.float32, np.float64]))
        firsts = _firsts(rows)
        self.method_ = "pca" if self.method == "pca" or len(firsts) <= _FEW else _available(self.method)
        if self.method_ == "pca":
            self._lay_out_by_pca(rows)
            return self
        chosen = firsts
        if len(chosen) > self.most_fitted:
            rng = np.random.default_rng(self.random_state)
            chosen = np.sort(rng.choice(chosen, self.most_fitted, replace=False))
        self.fitted_ = chosen
        self._guides = rows[chosen]
        self._places = _umap(self._guides, self.n_neighbors, self.min_dist, self.random_state, self.progress)
        self.embedding_ = self._placed(rows, progress=self.progress)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Places are float32, whatever comes in.
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _check(self) -> None:
        if self.method not in METHODS:
            raise InvalidParameterError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.n_neighbors < 2 or not 0 <= self.min_dist <= 1 or self.most_fitted < _FEW:
            raise InvalidParameterError(
                f"n_neighbors is {self.n_neighbors}, min_dist {self.min_dist} and most_fitted"
                f" {self.most_fitted}; they must be at least 2, in 0..1, and at least {_FEW}"
            )

    def _lay_out_by_pca(self, rows: NDArray[Any]) -> None:
        n_axes = min(2, *rows.shape)
        with warnings.catch_warnings():
            # A single row, or identical ones, have no variance to divide by.
            warnings.simplefilter("ignore", RuntimeWarning)
            pca = PCA(n_axes, svd_solver="auto", random_state=self.random_state).fit(rows)
        self._middle = pca.mean_
        self._axes = np.zeros((2, rows.shape[1]), rows.dtype)
        self._axes[:n_axes] = np.nan_to_num(pca.components_)
        self.fitted_ = np.arange(len(rows))
        self.embedding_ = self._placed(rows)

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the (n, 2) float32 places of rows, which move nothing that is there."""
        check_is_fitted(self, "embedding_")
        return self._placed(_unit(validate_data(self, X, reset=False, dtype=[np.float32, np.float64])))

    def _placed(self, rows: NDArray[Any], *, progress: bool = False) -> NDArray[np.float32]:
        if self.method_ == "pca":
            flat: NDArray[np.float32] = ((rows - self._middle) @ self._axes.T).astype(np.float32)
            return flat
        return place(rows, self._guides, self._places, progress=progress)


def place(
    X: ArrayLike, guides: ArrayLike, places: ArrayLike, *, progress: bool = False
) -> NDArray[np.float32]:
    """Return where rows belong on a map, by the rows that are on it.

    *Method*: see `Layout2D`.

    Parameters
    ----------
    X : array of shape (n, d), float
    guides : array of shape (m, d), float
        Rows on the map, at least one.
    places : array of shape (m, 2), float
        Where those are.
    progress : bool, default False
        Whether a bar is shown on stderr.

    Returns
    -------
    ndarray of shape (n, 2), float32

    Raises
    ------
    InvalidParameterError
        There are no guides, or not a place for each.
    """
    known, at = _unit(np.asarray(guides)), np.asarray(places, np.float64)
    if not len(known) or at.shape != (len(known), 2):
        raise InvalidParameterError(
            f"{len(known)} rows are on the map, with places of shape {at.shape}; at least one row is needed,"
            " with two numbers each"
        )
    rows = _unit(np.asarray(X))
    found = np.empty((len(rows), 2), np.float32)
    k = min(_GUIDES, len(known))
    starts = range(0, len(rows), _BLOCK)
    for start in tqdm(starts, desc="placing", unit="block", disable=not progress, leave=False):
        part = rows[start : start + _BLOCK]
        nearest, alike = _most_similar(part @ known.T, k)
        found[start : start + len(part)] = _medians(at[nearest], _weights(alike.astype(np.float64)))
    return found


def _most_similar(similarities: NDArray[Any], k: int) -> tuple[Ints, NDArray[Any]]:
    """Return where the `k` highest of each row are, in no order, and what they are."""
    nearest = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    return nearest, np.take_along_axis(similarities, nearest, axis=1)


def _neighbors(rows: NDArray[Any], k: int, *, progress: bool) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Return the `k` nearest of each row, itself the first, and how far they are: exact, 1 - cosine."""
    n = len(rows)
    found, distances = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    starts = range(0, n, _BLOCK)
    for start in tqdm(starts, desc="neighbors", unit="block", disable=not progress, leave=False):
        similarities = rows[start : start + _BLOCK] @ rows.T
        own = np.arange(len(similarities))
        # Rounding must not make another row nearer than the row itself.
        similarities[own, start + own] = np.inf
        nearest, alike = _most_similar(similarities, k)
        order = np.argsort(-alike, axis=1, kind="stable")
        block = slice(start, start + len(similarities))
        found[block] = np.take_along_axis(nearest, order, axis=1)
        distances[block] = np.maximum(1 - np.take_along_axis(alike, order, axis=1), 0)
    return found, distances


def _weights(similarities: Floats) -> Floats:
    """Return how much each guide counts: as in UMAP, less the further it is beyond the nearest."""
    distances = np.maximum(1 - similarities, 0)
    nearest = distances.min(axis=1, keepdims=True)
    beyond = distances - nearest
    spread = beyond.mean(axis=1, keepdims=True)
    weights = np.exp(-beyond / np.where(spread > 0, spread, 1.0))
    # The same row: it belongs where that one is.
    same = distances <= 1e-6
    counted: Floats = np.where(same.any(axis=1, keepdims=True), same.astype(float), weights)
    return counted


def _medians(points: Floats, weights: Floats) -> Floats:
    """Return the point of each row of (n, k, 2) points whose weighted distance to them is least."""
    total = weights.sum(axis=1, keepdims=True)
    middle = (points * weights[..., None]).sum(axis=1) / total
    for _ in range(_STEPS):
        distances = np.linalg.norm(points - middle[:, None], axis=2)
        pull = weights / np.maximum(distances, 1e-9)
        middle = (points * pull[..., None]).sum(axis=1) / pull.sum(axis=1, keepdims=True)
    medians: Floats = middle
    return medians


def trustworthiness(
    X: ArrayLike, places: ArrayLike, *, n_neighbors: int = 10, most: int = 2_000, random_state: int = 0
) -> float | None:
    """Return how far neighbors on a map are neighbors in truth: 1 is perfect, .5 is chance.

    *Method*: Venna and Kaski 2001, section 4, by cosine, among at most `most` random rows, whose number
    squared it costs.

    Parameters
    ----------
    X : array of shape (n, d), float
    places : array of shape (n, 2), float
    n_neighbors : int, default 10
        At least 1, and less than half of the rows, else fewer are taken.
    most : int, default 2000
    random_state : int, default 0
        Chooses the rows.

    Returns
    -------
    float or None
        In 0..1; None for fewer than 4 rows, among which nothing can be told.
    """
    rows, at = np.asarray(X), np.asarray(places)
    if len(rows) > most:
        chosen = np.sort(np.random.default_rng(random_state).choice(len(rows), most, replace=False))
        rows, at = rows[chosen], at[chosen]
    k = min(n_neighbors, (len(rows) - 1) // 2)
    if k < 1 or len(rows) < 4:
        return None
    return float(exact_trustworthiness(_unit(rows), at, n_neighbors=k, metric="euclidean"))


def _unit(X: NDArray[Any]) -> NDArray[Any]:
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    scaled: NDArray[Any] = X / np.where(lengths > 0, lengths, 1).astype(X.dtype)
    return scaled


def _firsts(rows: NDArray[Any]) -> Ints:
    """Return the first of each set of equal rows; by hash, since sorting would need a copy of them all."""
    seen: dict[bytes, int] = {}
    for number, row in enumerate(rows):
        seen.setdefault(blake2b(row.tobytes(), digest_size=16).digest(), number)
    return np.array(list(seen.values()), np.intp)


def _available(method: str) -> str:
    from importlib.util import find_spec

    if find_spec("umap") is not None:
        return "umap"
    if method == "umap":
        raise MissingExtraError("UMAP needs umap-learn: pip install 'nearsight[map]'; or take method='pca'")
    return "pca"


def _umap(rows: NDArray[Any], n_neighbors: int, min_dist: float, random_state: int, progress: bool) -> Floats:
    with warnings.catch_warnings():
        # It says that a seed means one thread, and what its spectral start does; both are meant.
        warnings.simplefilter("ignore")
        from umap import UMAP

        k = min(n_neighbors, len(rows) - 1)
        reducer = UMAP(
            n_neighbors=k,
            precomputed_knn=_neighbors(rows, k, progress=progress),
            min_dist=min_dist,
            metric="cosine",
            random_state=random_state,
            n_jobs=1,
            tqdm_kwds={"desc": "laying out", "unit": "epoch", "disable": not progress, "leave": False},
        )
        places: Floats = np.asarray(reducer.fit_transform(rows), np.float64)
    return places
