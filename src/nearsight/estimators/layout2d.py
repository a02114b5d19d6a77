"""Layouts of vectors in two dimensions, to which later rows are added without moving any other."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as exact_trustworthiness
from sklearn.utils.validation import check_is_fitted, validate_data

from nearsight.errors import InvalidParameterError
from nearsight.estimators.neighbors import highest, nearest_neighbors, similarity_blocks, unit_length
from nearsight.estimators.umap_coordinates import (
    is_umap_installed,
    require_umap,
    umap_coordinates,
    unique_rows,
)
from nearsight.progress import bar

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

METHODS = ("auto", "umap", "pca")
# Up to so many different rows have no neighborhoods to keep: they are laid out by PCA.
_MOST_PCA_ROWS = 10
# Fitted neighbors that determine the position of a new row.
_N_ANCHORS = 10
# Iterations of the geometric median; fewer suffice to converge.
_N_ITERATIONS = 30
# Rows whose distances differ less than this are the same.
_SAME_DISTANCE = 1e-6
_BLOCK_ROWS = 1024


class Layout2D(TransformerMixin, BaseEstimator):
    """Lay rows out in two dimensions so that neighbors stay neighbors, and place later rows among them.

    *Method*: UMAP (McInnes, Healy and Melville 2018, arXiv 1802.03426) by cosine, or the first two principal
    components. Deviations from UMAP: neighbors are exact; at most `max_fitted_rows` different rows are laid
    out and all others are placed; a row is placed at the weighted geometric median (Weiszfeld 1937) of its
    10 nearest fitted rows, instead of their mean followed by an optimization. The median does not fall
    between two islands, does not depend on the other placed rows, and costs no optimization. A fitted row is
    placed where it is. With PCA, rows are projected.

    Parameters
    ----------
    method : {"auto", "umap", "pca"}, default "auto"
        "auto" is UMAP where umap-learn is installed, else PCA.
    n_neighbors : int, default 15
        At least 2. Of UMAP: more preserve global structure, fewer preserve detail.
    min_dist : float, default 0.1
        In 0..1. Of UMAP: the least distance of points.
    max_fitted_rows : int, default 20_000
        At least 10: rows that UMAP lays out, a random sample if there are more.
    random_state : int, default 0
    progress : bool or None, default False
        Whether `fit` shows progress on stderr.

    Attributes
    ----------
    embedding_ : ndarray of shape (n, 2), float32
        The position of each row.
    fitted_ : ndarray of shape (m,), int
        The rows that were laid out; the others were placed among them.
    method_ : {"umap", "pca"}
    mean_, axes_ : ndarray of shape (d,) and (2, d)
        With PCA: positions are ``(rows - mean_) @ axes_.T``, for rows of unit length.
    n_features_in_ : int

    Notes
    -----
    UMAP runs on one thread, so that results are reproducible. It costs m² × d for the neighbors of m fitted
    rows, then time linear in m, and 15 s more on first use. Placing costs m × d a row, PCA n × d. 0 rows are
    refused; one to 10 are laid out by PCA. NaN and infinity are refused. Duplicate rows share a position, and
    so do rows that are all the same.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.eye(4)[[0, 0, 1, 2, 3]]
    >>> layout = Layout2D(method="pca").fit(X)
    >>> layout.embedding_.shape, bool(np.allclose(layout.transform(X), layout.embedding_))
    ((5, 2), True)
    """

    def __init__(
        self,
        *,
        method: str = "auto",
        n_neighbors: int = 15,
        min_dist: float = 0.1,
        max_fitted_rows: int = 20_000,
        random_state: int = 0,
        progress: bool | None = False,
    ) -> None:
        self.method = method
        self.n_neighbors = n_neighbors
        self.min_dist = min_dist
        self.max_fitted_rows = max_fitted_rows
        self.random_state = random_state
        self.progress = progress

    def fit(self, X: ArrayLike, y: Any = None) -> "Layout2D":
        """Lay rows out.

        Parameters
        ----------
        X : array of shape (n, d), float
            Scaled to unit length here.
        y : ignored

        Raises
        ------
        InvalidParameterError
            A parameter is out of its range.
        MissingExtraError
            `method` is "umap" and umap-learn is not installed: ``pip install 'nearsight[map]'``.
        ValueError
            No rows, NaN or infinity.
        """
        self._check()
        rows = unit_length(validate_data(self, X, dtype=[np.float32, np.float64]))
        different, _ = unique_rows(rows)
        self.method_ = (
            "pca" if self.method == "pca" or len(different) <= _MOST_PCA_ROWS else _available(self.method)
        )
        if self.method_ == "pca":
            self._fit_pca(rows)
            return self
        if len(different) > self.max_fitted_rows:
            rng = np.random.default_rng(self.random_state)
            different = np.sort(rng.choice(different, self.max_fitted_rows, replace=False))
        self.fitted_ = different
        self._anchors = rows[different]
        self._anchor_positions = _umap(
            self._anchors, self.n_neighbors, self.min_dist, self.random_state, self.progress
        )
        self.embedding_ = self._positions(rows, progress=self.progress)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Positions are float32, whatever the type of the rows.
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _check(self) -> None:
        if self.method not in METHODS:
            raise InvalidParameterError(f"method is {self.method!r}; choose one of {', '.join(METHODS)}")
        if self.n_neighbors < 2 or not 0 <= self.min_dist <= 1 or self.max_fitted_rows < _MOST_PCA_ROWS:
            raise InvalidParameterError(
                f"n_neighbors is {self.n_neighbors}, min_dist {self.min_dist} and max_fitted_rows"
                f" {self.max_fitted_rows}; they must be at least 2, in 0..1, and at least {_MOST_PCA_ROWS}"
            )

    def _fit_pca(self, rows: NDArray[Any]) -> None:
        n_axes = min(2, *rows.shape)
        with warnings.catch_warnings():
            # A single row, or identical ones, have no variance to divide by.
            warnings.simplefilter("ignore", RuntimeWarning)
            pca = PCA(n_axes, svd_solver="auto", random_state=self.random_state).fit(rows)
        self.mean_ = pca.mean_
        self.axes_ = np.zeros((2, rows.shape[1]), rows.dtype)
        self.axes_[:n_axes] = np.nan_to_num(pca.components_)
        self.fitted_ = np.arange(len(rows))
        self.embedding_ = self._positions(rows)

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the (n, 2) float32 positions of rows; fitted rows do not move."""
        check_is_fitted(self, "embedding_")
        return self._positions(
            unit_length(validate_data(self, X, reset=False, dtype=[np.float32, np.float64]))
        )

    def _positions(self, rows: NDArray[Any], *, progress: bool | None = False) -> NDArray[np.float32]:
        if self.method_ == "pca":
            projected: NDArray[np.float32] = ((rows - self.mean_) @ self.axes_.T).astype(np.float32)
            return projected
        return place_rows(rows, self._anchors, self._anchor_positions, progress=progress)


def place_rows(
    X: ArrayLike, anchors: ArrayLike, positions: ArrayLike, *, progress: bool | None = False
) -> NDArray[np.float32]:
    """Return the positions of rows in a layout, from the rows that are in it.

    *Method*: see `Layout2D`.

    Parameters
    ----------
    X : array of shape (n, d), float
    anchors : array of shape (m, d), float
        The rows of the layout, at least one.
    positions : array of shape (m, 2), float
        Their positions.
    progress : bool or None, default False
        Whether progress is shown on stderr.

    Returns
    -------
    ndarray of shape (n, 2), float32

    Raises
    ------
    InvalidParameterError
        There are no anchors, or not one position for each.
    """
    references, at = unit_length(np.asarray(anchors)), np.asarray(positions, np.float64)
    if not len(references) or at.shape != (len(references), 2):
        raise InvalidParameterError(
            f"the layout has {len(references)} rows and positions of shape {at.shape}; give at least one row,"
            " and two numbers for each"
        )
    rows = unit_length(np.asarray(X))
    placed = np.empty((len(rows), 2), np.float32)
    with bar("placing rows", len(rows), unit="rows", progress=progress) as shown:
        for block, similarities in similarity_blocks(
            rows, references, block_rows=_BLOCK_ROWS, progress=shown.update
        ):
            nearest, values = highest(similarities, _N_ANCHORS)
            placed[block] = _geometric_medians(at[nearest], _weights(values.astype(np.float64)))
    return placed


def _weights(similarities: Floats) -> Floats:
    """Return the weight of each anchor: as in UMAP, it falls with the distance beyond the nearest anchor."""
    distances = np.maximum(1 - similarities, 0)
    nearest = distances.min(axis=1, keepdims=True)
    beyond = distances - nearest
    spread = beyond.mean(axis=1, keepdims=True)
    weights = np.exp(-beyond / np.where(spread > 0, spread, 1.0))
    # A row that is an anchor gets the position of that anchor.
    is_same = distances <= _SAME_DISTANCE
    result: Floats = np.where(is_same.any(axis=1, keepdims=True), is_same.astype(float), weights)
    return result


def _geometric_medians(points: Floats, weights: Floats) -> Floats:
    """Return the (n, 2) points of least weighted distance to (n, k, 2) points."""
    total = weights.sum(axis=1, keepdims=True)
    medians: Floats = (points * weights[..., None]).sum(axis=1) / total
    for _ in range(_N_ITERATIONS):
        distances = np.linalg.norm(points - medians[:, None], axis=2)
        pull = weights / np.maximum(distances, 1e-9)
        medians = (points * pull[..., None]).sum(axis=1) / pull.sum(axis=1, keepdims=True)
    return medians


def trustworthiness(
    X: ArrayLike, positions: ArrayLike, *, n_neighbors: int = 10, max_rows: int = 2_000, random_state: int = 0
) -> float | None:
    """Return how far neighbors in a layout are neighbors in the data: 1 is perfect, 0.5 is random.

    *Method*: Venna and Kaski 2001, section 4, by cosine, on at most `max_rows` random rows, since it costs
    their number squared.

    Parameters
    ----------
    X : array of shape (n, d), float
    positions : array of shape (n, 2), float
    n_neighbors : int, default 10
        At least 1; less than half of the rows, else fewer are used.
    max_rows : int, default 2000
    random_state : int, default 0
        Draws the rows.

    Returns
    -------
    float or None
        In 0..1; None for fewer than 4 rows.
    """
    rows, at = np.asarray(X), np.asarray(positions)
    if len(rows) > max_rows:
        sample = np.sort(np.random.default_rng(random_state).choice(len(rows), max_rows, replace=False))
        rows, at = rows[sample], at[sample]
    k = min(n_neighbors, (len(rows) - 1) // 2)
    if k < 1 or len(rows) < 4:
        return None
    return float(exact_trustworthiness(unit_length(rows), at, n_neighbors=k, metric="euclidean"))


def _available(method: str) -> str:
    if method == "umap":
        require_umap("or use method='pca'")
    return "umap" if is_umap_installed() else "pca"


def _umap(
    rows: NDArray[Any], n_neighbors: int, min_dist: float, random_state: int, progress: bool | None
) -> Floats:
    k, n = min(n_neighbors, len(rows) - 1), len(rows)
    with bar("comparing neighbors", n, unit="rows", progress=progress) as shown:
        others, similarities = nearest_neighbors(rows, rows, k - 1, own=np.arange(n), progress=shown.update)
    return umap_coordinates(
        rows,
        np.maximum(1 - similarities, 0),
        others,
        n_components=2,
        min_dist=min_dist,
        random_state=random_state,
        progress=progress,
    )
