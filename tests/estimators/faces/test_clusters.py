import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.errors import InvalidParameterError
from nearsight.estimators.faces.clusters import FaceGrouper, same_image_similarities
from nearsight.estimators.neighbors import unit_length as unit
from nearsight.testing import EstimatorTests
from nearsight.testing.estimators import CENTERS, X, Y


class TestGrouper(EstimatorTests):
    min_rows = 1

    @pytest.fixture
    def estimator(self):
        return FaceGrouper(min_similarity=0.7)

    def output(self, estimator, X):
        return estimator.fit(X).labels_


def test_groups_are_found():
    labels = FaceGrouper(min_similarity=0.7).fit_predict(X)
    assert len(np.unique(labels)) == 3
    assert all(len(np.unique(labels[name == Y])) == 1 for name in np.unique(Y))


def naive_groups(X, images, least):
    groups = [[i] for i in range(len(X))]
    while True:
        best = None
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                pairs = [(i, j) for i in groups[a] for j in groups[b]]
                if {images[i] for i in groups[a]} & {images[j] for j in groups[b]}:
                    continue
                mean = np.mean([X[i] @ X[j] for i, j in pairs])
                if mean > least and (best is None or mean > best[0]):
                    best = mean, a, b
        if best is None:
            return {frozenset(group) for group in groups}
        _, a, b = best
        groups[a] += groups.pop(b)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 14), st.integers(1, 8), st.floats(0.3, 0.95))
def test_grouping_is_what_a_plain_loop_does(seed, n, n_images, least):
    rng = np.random.default_rng(seed)
    faces = unit(rng.normal(size=(3, 4))[rng.integers(0, 3, n)] + 0.3 * rng.normal(size=(n, 4)))
    images = rng.integers(0, n_images, n).tolist()
    labels = FaceGrouper(min_similarity=least).fit_predict(faces, images=images)
    found = {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}
    assert found == naive_groups(faces, images, least)


def test_two_faces_of_one_image_are_two_persons_even_if_identical():
    faces = np.repeat(unit(CENTERS[:1]), 6, axis=0)
    labels = FaceGrouper().fit_predict(faces, images=["a", "a", "b", "b", "c", "d"])
    for image in ((0, 1), (2, 3)):
        assert labels[image[0]] != labels[image[1]]
    assert len(np.unique(labels)) == 2


def test_parameters_are_checked():
    with pytest.raises(InvalidParameterError, match="min_similarity"):
        FaceGrouper(min_similarity=2).fit(X)
    with pytest.raises(InvalidParameterError, match="2 images for 60"):
        FaceGrouper().fit(X, images=["a", "b"])


def test_pairs_within_an_image_are_compared():
    faces = unit(np.random.default_rng(3).normal(size=(6, 4)))
    found = same_image_similarities(faces, list("aabbbc"))
    wanted = [faces[0] @ faces[1], faces[2] @ faces[3], faces[2] @ faces[4], faces[3] @ faces[4]]
    np.testing.assert_allclose(found, wanted)
    assert len(same_image_similarities(faces, list("abcdef"))) == 0


_ROWS = st.lists(st.integers(0, 11), min_size=1, max_size=3)


@given(st.integers(0, 2**32 - 1), st.lists(_ROWS, max_size=3), st.lists(st.tuples(_ROWS, _ROWS), max_size=4))
def test_decisions_hold_whatever_the_vectors_say(seed, together, apart):
    vectors = np.random.default_rng(seed).normal(size=(12, 2))
    labels = FaceGrouper(min_similarity=0.2).fit_predict(vectors, together=together, apart=apart)
    blocks = FaceGrouper(min_similarity=1.0).fit_predict(vectors, together=together)
    for rows in together:
        assert len(set(labels[rows])) == 1
    for some, others in apart:
        for a, b in itertools.product(some, others):
            assert labels[a] != labels[b] or blocks[a] == blocks[b]
