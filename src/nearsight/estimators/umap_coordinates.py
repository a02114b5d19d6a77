"""UMAP coordinates from a neighbor graph: the only module that imports umap-learn."""

import sys
import warnings
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nearsight.errors import MissingExtraError
from nearsight.progress import bar, is_watched


def is_umap_installed() -> bool:
    """Whether umap-learn is installed; it is not imported for the answer."""
    return find_spec("umap") is not None


def require_umap(remedy: str) -> None:
    """Raise `MissingExtraError` unless umap-learn is installed.

    Parameters
    ----------
    remedy : str
        What else the caller can do, such as "or use method='pca'".
    """
    if not is_umap_installed():
        raise MissingExtraError(f"UMAP needs umap-learn: pip install 'nearsight[map]', {remedy}")


def unique_rows(X: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first of each set of equal rows, and for each row, which of these it equals.

    By hash, since sorting would copy all rows.

    Examples
    --------
    >>> [part.tolist() for part in unique_rows(np.array([[2.0], [1.0], [2.0]]))]
    [[0, 1], [0, 1, 0]]
    """
    number: dict[bytes, int] = {}
    of_row = np.empty(len(X), np.intp)
    first: list[int] = []
    for row, values in enumerate(X):
        own = number.setdefault(blake2b(values.tobytes(), digest_size=16).digest(), len(number))
        of_row[row] = own
        if own == len(first):
            first.append(row)
    return np.array(first, np.intp), of_row


def umap_coordinates(
    X: NDArray[np.floating],
    distances: ArrayLike,
    rows: ArrayLike,
    *,
    n_components: int,
    min_dist: float,
    random_state: int,
    progress: bool | None = False,
) -> NDArray[np.float64]:
    """Return the (n, n_components) UMAP coordinates of rows whose nearest neighbors are known.

    *Method*: UMAP (McInnes, Healy and Melville 2018, arXiv 1802.03426), on one thread, so that the same
    state gives the same coordinates. The neighbors are the caller's.

    Parameters
    ----------
    X : ndarray of shape (n, d), float
        Only their number is used, unless the graph is disconnected.
    distances, rows : array of shape (n, k)
        Of the nearest others of each row, the nearest first.
    n_components : int
        At least 1.
    min_dist : float
        In 0..1: the least distance of points.
    random_state : int
    progress : bool or None, default False
        Whether progress is shown on stderr.

    Notes
    -----
    Time is linear in n × k; about 8 s for 6,000 rows on one core. In addition, the first import in an
    environment compiles for about 15 s, and each later one takes 3 s.
    """
    n = len(X)
    # UMAP expects each row as its own first neighbor.
    own = np.arange(n)
    neighbors = np.column_stack([own, np.asarray(rows)]).astype(np.int32)
    lengths = np.column_stack([np.zeros(n), np.asarray(distances)]).astype(np.float32)
    with warnings.catch_warnings():
        # UMAP warns that a seed means one thread, and of its spectral start; both are intended.
        warnings.simplefilter("ignore")
        reducer = _umap_class(progress)(
            n_neighbors=neighbors.shape[1],
            n_components=n_components,
            precomputed_knn=(neighbors, lengths),
            min_dist=min_dist,
            metric="cosine",
            random_state=random_state,
            n_jobs=1,
            tqdm_kwds={
                "desc": "laying out",
                "unit": "epoch",
                "disable": not is_watched(progress),
                "leave": False,
            },
        )
        return np.asarray(reducer.fit_transform(X), np.float64)


def _umap_class(progress: bool | None) -> type:
    """Return umap-learn's class; its import compiles with numba, which takes seconds."""
    if "umap" in sys.modules:
        from umap import UMAP
    else:
        with bar("loading UMAP, which compiles for some seconds", 1, unit="package", progress=progress) as it:
            from umap import UMAP

            it.update()
    result: type = UMAP
    return result
