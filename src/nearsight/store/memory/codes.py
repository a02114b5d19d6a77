"""Vectors as bytes: a quarter of the size, compared first, with a bound of how wrong they can be."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEVELS = 127


@dataclass(frozen=True, slots=True)
class Codes:
    """Unit vectors rounded to 127 levels of their own largest number.

    Attributes
    ----------
    values : ndarray of int8, shape (n, d)
    scales : ndarray of float32, shape (n,)
        The number of one level in the unit vector.
    error : float
        The longest distance of a rounded vector from its unit vector.
    """

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    error: float


def encode(vectors: NDArray[np.float32], inverse_norms: NDArray[np.float32]) -> Codes:
    """Return the codes of (n, d) vectors with the given reciprocals of their lengths.

    Examples
    --------
    >>> codes = encode(np.array([[3, 4]], np.float32), np.array([0.2], np.float32))
    >>> codes.values.tolist(), round(codes.error, 4)
    ([[95, 127]], 0.0016)
    """
    if not len(vectors):
        return Codes(np.empty(vectors.shape, np.int8), np.empty(0, np.float32), 0.0)
    unit = vectors * inverse_norms[:, None]
    scales = np.abs(unit).max(axis=1) / _LEVELS
    rounded = np.rint(unit / scales[:, None])
    unit -= rounded * scales[:, None]
    error = float(np.sqrt(np.einsum("ij,ij->i", unit, unit).max()))
    return Codes(rounded.astype(np.int8), scales.astype(np.float32), error)


def rounded(units: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return the values of the codes of (n, d) vectors of length 1.

    Examples
    --------
    >>> rounded(np.array([[0.6, 0.8]], np.float32)).tolist()
    [[95, 127]]
    """
    levels = units * (_LEVELS / np.abs(units).max(axis=1, keepdims=True))
    values: NDArray[np.int8] = np.rint(levels, out=levels).astype(np.int8)
    return values


def inverse_norms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the reciprocals of the lengths of (n, d) vectors, none of which is zero."""
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    reciprocals: NDArray[np.float32] = (1 / np.sqrt(squares)).astype(np.float32)
    return reciprocals


def score_error(codes: Codes, query: Codes) -> float:
    """Return how far the product of two rounded vectors can be from the cosine of the vectors."""
    return codes.error + (1 + codes.error) * query.error
