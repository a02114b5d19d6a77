"""Vectors of unit length, and the nearest neighbors of rows: the one search of all estimators.

scikit-learn is loaded by the searches, since others only need the products.
"""

from nearsight.estimators.neighbors.best_rows import highest
from nearsight.estimators.neighbors.search import (
    EXACT_ROWS,
    choose_search,
    euclidean_neighbors,
    nearest_neighbors,
)
from nearsight.estimators.neighbors.similarities import ProgressCallback, similarity_blocks, unit_length

__all__ = [
    "EXACT_ROWS",
    "ProgressCallback",
    "choose_search",
    "euclidean_neighbors",
    "highest",
    "nearest_neighbors",
    "similarity_blocks",
    "unit_length",
]
