"""Short versions of long vectors, whose products tell which pairs are worth the product of the whole."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

#: Directions in which vectors differ most, by which they are put into parts.
N_DIRECTIONS = 64

# Random sums of what those directions leave, and standard errors by which an estimate may be too low: of
# pairs right at the limit, one in 60 to one in 700 is lost (the former of equal rests), and of others fewer.
# Searches measure what they find in any case.
_N_SUMS, _N_ERRORS = 127, 3.0
# Shorter vectors are compared as they are.
_LEAST_TIMES = 2
# Rows that the directions are fitted on, and rows that are shortened together.
_SAMPLE_ROWS, _BLOCK_ROWS = 4096, 4096


@dataclass(frozen=True, slots=True)
class Sketches:
    """What makes vectors short.

    *Method*: the principal directions (Halko et al. 2011, https://doi.org/10.1137/090771806), not centered;
    random sums of what they leave (Johnson & Lindenstrauss 1984); and the length of what they leave, so that
    the product of two sketches is the estimate of the product of the vectors plus `_N_ERRORS` standard
    errors of it.

    Attributes
    ----------
    weights : ndarray of shape (d, s)
        The first `N_DIRECTIONS` columns are the directions.
    """

    weights: Floats

    @classmethod
    def of(cls, references: Floats, random_state: int | None) -> "Sketches | None":
        """Return what makes vectors like these short, or None if they are too few or too short to gain."""
        m, d = references.shape
        if m < N_DIRECTIONS or d < _LEAST_TIMES * (N_DIRECTIONS + _N_SUMS):
            return None
        from sklearn.utils.extmath import randomized_svd

        rng = np.random.default_rng(random_state)
        sample = np.sort(rng.choice(m, min(m, _SAMPLE_ROWS), replace=False))
        _, _, directions = randomized_svd(
            references[sample], N_DIRECTIONS, n_iter=2, random_state=int(rng.integers(1 << 31))
        )
        sums = rng.standard_normal((d, _N_SUMS)).astype(references.dtype) / np.sqrt(_N_SUMS)
        sums -= directions.T @ (directions @ sums)
        return cls(np.hstack([directions.T, sums]).astype(references.dtype))

    def sketch(self, X: Floats) -> Floats:
        """Return the (n, s + 1) sketches: their products are hardly ever below those of the vectors."""
        sketches = np.empty((len(X), self.weights.shape[1] + 1), self.weights.dtype)
        for start in range(0, len(X), _BLOCK_ROWS):
            rows, short = X[start : start + _BLOCK_ROWS], sketches[start : start + _BLOCK_ROWS]
            np.matmul(rows, self.weights, out=short[:, :-1])
            directed = short[:, :N_DIRECTIONS]
            left = np.einsum("ij,ij->i", rows, rows) - np.einsum("ij,ij->i", directed, directed)
            short[:, -1] = np.sqrt(np.maximum(left, 0) * (_N_ERRORS / np.sqrt(_N_SUMS)))
        return sketches
