"""A collection of four clusters and noise."""

import numpy as np
import pytest

from nearsight import Collection
from nearsight.estimators.clustering import kmeans

from fake import DIM, FakeBackend

N_EACH = 60


def make_collection(folder, *, seed=0, n_each=N_EACH, noise=30, first=0):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(4, DIM))
    X = np.concatenate(
        [
            np.repeat(centers, n_each, axis=0) + 0.4 * rng.normal(size=(4 * n_each, DIM)),
            rng.normal(size=(noise, DIM)),
        ]
    )
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    collection = Collection.create(folder, model=FakeBackend(), cache_dir=folder.parent / "cache")
    truth = [*np.repeat(range(4), n_each).tolist(), *[-1] * noise]
    collection.add_vectors(
        X.astype(np.float32),
        ids=[f"{first + i:032x}" for i in range(len(X))],
        fingerprint=collection.fingerprint,
        metadata=[{"truth": t} for t in truth],
    )
    return collection


@pytest.fixture(autouse=True)
def _without_umap(monkeypatch):
    """k-means takes the same course wherever umap-learn is installed."""
    monkeypatch.setattr(kmeans, "is_umap_installed", lambda: False)


@pytest.fixture
def collection(tmp_path):
    return make_collection(tmp_path / "c")


def truth_of(collection):
    return {item.id: item.metadata["truth"] for item in collection.items()}
