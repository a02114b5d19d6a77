"""Vectors of a vocabulary, kept on disk: embedding a thousand words takes seconds."""

import hashlib
import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nearsight.models.base import TextEncoder
from nearsight.models.cache import cached_bytes, user_cache_dir

Floats = NDArray[np.float32]

# Texts that are embedded at each call, to see whether the stored vectors are of this encoder.
_N_PROBES = 2
# Vectors of one encoder differ by rounding only, from machine to machine.
_LEAST_SAME_COSINE = 0.999


def word_vectors(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    cache_dir: Path | None = None,
    embed: Callable[[Sequence[str]], Floats] | None = None,
) -> Floats:
    """Return the vectors of texts, from the cache if the same encoder has embedded the same texts before.

    The file's name holds a hash of the fingerprint of the image model, the kind of encoder and the texts. A
    fingerprint does not cover the text encoder's own file. So two texts are embedded at each call, and if
    they differ from the stored ones, all are embedded again.

    Parameters
    ----------
    encoder : TextEncoder
    texts : sequence of str
        At least two.
    cache_dir : Path, optional
        By default the user's.
    embed : callable, optional
        By default `encoder.embed`; given to show progress.

    Returns
    -------
    ndarray of shape (n, d), float32
        Unit length.
    """
    directory = (cache_dir or user_cache_dir()) / "models"
    facts = [type(encoder).__qualname__, encoder.spec.fingerprint.to_dict(), list(texts)]
    stem = f"words-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]}"

    def build() -> bytes:
        file = BytesIO()
        np.save(file, (embed or encoder.embed)(texts), allow_pickle=False)
        return file.getvalue()

    def stored() -> Floats:
        vectors: Floats = np.load(BytesIO(cached_bytes(directory, stem, ".npy", build)), allow_pickle=False)
        return vectors

    vectors, probes = stored(), encoder.embed(texts[:_N_PROBES])
    if _are_same(vectors[:_N_PROBES], probes):
        return vectors
    for path in directory.glob(f"{stem}-*.npy"):
        path.unlink(missing_ok=True)
    return stored()


def _are_same(stored: Floats, probes: Floats) -> bool:
    return stored.shape == probes.shape and bool(((stored * probes).sum(1) > _LEAST_SAME_COSINE).all())
