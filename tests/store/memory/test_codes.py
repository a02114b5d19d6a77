"""Vectors as bytes: how wrong they can be."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given
from hypothesis.extra.numpy import arrays

from nearsight.store.memory.codes import encode, inverse_norms, score_error

_NUMBERS = st.floats(-1e6, 1e6, width=32)
_PAIRS = arrays(np.float32, (2, 5), elements=_NUMBERS).filter(lambda X: (np.abs(X).max(axis=1) > 1e-3).all())


@given(_PAIRS)
def test_the_cosine_is_within_the_bound(X):
    norms = inverse_norms(X)
    stored, query = encode(X[:1], norms[:1]), encode(X[1:], norms[1:])
    product = int(stored.values[0].astype(int) @ query.values[0].astype(int))
    score = product * float(stored.scales[0]) * float(query.scales[0])
    wide = X.astype(np.float64)
    cosine = wide[0] @ wide[1] / np.linalg.norm(wide[0]) / np.linalg.norm(wide[1])
    assert abs(cosine - score) <= score_error(stored, query) + 1e-6


def test_no_rows():
    assert encode(np.empty((0, 3), np.float32), np.empty(0, np.float32)).values.shape == (0, 3)


def test_lengths_beyond_the_square_root_of_float32():
    assert inverse_norms(np.full((1, 4), 1e30, np.float32)) == np.float32(5e-31)
