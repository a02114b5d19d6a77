from typing import ClassVar

import numpy as np
import pytest
from estimators.conformance import CENTERS, EstimatorConformance, X, Y
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal import from_good
from nearsight.estimators.faces.identifier import FaceGrouper, FaceIdentifier, strangers


def unit(X):
    return X / np.linalg.norm(X, axis=-1, keepdims=True)


def people(n_persons, n_each, *, seed=0, spread=0.12, d=32):
    rng = np.random.default_rng(seed)
    persons = unit(rng.normal(size=(n_persons, d)))
    faces = np.repeat(persons, n_each, axis=0) + spread * rng.normal(size=(n_persons * n_each, d)) / np.sqrt(
        d / 8
    )
    return unit(faces), np.repeat([f"p{i:03}" for i in range(n_persons)], n_each), persons


class TestIdentifier(EstimatorConformance):
    supervised = True

    @pytest.fixture
    def estimator(self):
        return FaceIdentifier()

    expected_failed_checks: ClassVar = dict.fromkeys(
        (
            "check_estimators_pickle",
            "check_methods_sample_order_invariance",
            "check_methods_subset_invariance",
            "check_fit_idempotent",
        ),
        "it subtracts predictions, and a stranger's is None; `answers` below are compared instead",
    )

    def answers(self, estimator, X):
        return estimator.identify(X).similarity


class TestGrouper(EstimatorConformance):
    least_rows = 1

    @pytest.fixture
    def estimator(self):
        return FaceGrouper(min_similarity=0.7)

    def answers(self, estimator, X):
        return estimator.fit(X).labels_


def test_persons_are_named_and_strangers_are_not():
    faces, names, persons = people(120, 3, d=64)
    identifier = FaceIdentifier().fit(faces, names)
    assert (identifier.threshold_.source, identifier.threshold_.n_examples) == ("good", 120)
    again = unit(persons + 0.03 * np.random.default_rng(1).normal(size=persons.shape))
    assert identifier.predict(again).tolist() == np.unique(names).tolist()
    others, _, _ = people(300, 1, seed=5, d=64)
    low, high = identifier.threshold_.observed_rate_interval(300)
    assert low <= (~identifier.identify(others).unknown).mean() <= high


def test_the_rate_is_kept_on_average_though_faces_of_a_person_are_alike():
    """Lookalikes come with all their images: counted face by face, the rate would be several times this."""
    rates, naive = [], []
    for seed in range(60):
        faces, names, _ = people(25, 8, seed=seed, spread=0.02, d=8)
        identifier = FaceIdentifier(false_match_rate=0.05).fit(faces, names)
        others, _, _ = people(25, 8, seed=1000 + seed, spread=0.02, d=8)
        best = (others @ faces.T).max(1)
        rates.append((best > identifier.threshold_.value).mean())
        strange = np.where(names[:, None] == names[None], -1, faces @ faces.T).max(1)
        naive.append((best > from_good(strange, false_alarm_rate=0.05 / 5).value).mean())
    assert np.mean(rates) <= 0.055
    assert np.mean(naive) > 0.02


def test_with_few_persons_the_background_calibrates():
    faces, names, persons = people(3, 2)
    assert FaceIdentifier().fit(faces, names).threshold_ is None
    crowd = unit(np.random.default_rng(9).normal(size=(200, 32)))
    background = (crowd @ crowd.T)[np.triu_indices(200, 1)]
    identifier = FaceIdentifier(background=background).fit(faces, names)
    assert identifier.threshold_.source == "background"
    assert identifier.predict(persons).tolist() == ["p000", "p001", "p002"]
    others = unit(np.random.default_rng(10).normal(size=(1000, 32)))
    assert (~identifier.identify(others).unknown).mean() <= identifier.threshold_.observed_rate_interval(
        1000
    )[1]


def test_where_nothing_promises_the_rate_everybody_is_unknown_and_it_says_why():
    faces, names, persons = people(3, 2)
    identifier = FaceIdentifier().fit(faces, names)
    assert identifier.identify(persons).unknown.all()
    assert identifier.predict(persons).tolist() == [None] * 3
    assert "everybody is unknown" in identifier.reason_
    assert "at least 99" in identifier.reason_
    few = FaceIdentifier(background=np.linspace(0, 0.5, 20)).fit(faces, names)
    assert few.threshold_ is None
    assert "there are 20" in few.reason_


@pytest.mark.parametrize(
    ("n_persons", "n_background", "source", "rate"),
    [
        (40, 0, "good", 0.0244),
        (40, 50, "good", 0.0244),
        (3, 200, "background", 0.0295),
        (40, 10**5, "background", 0.01),
    ],
)
def test_where_less_can_be_promised_that_is_told(n_persons, n_background, source, rate):
    faces, names, _ = people(n_persons, 2, d=64)
    background = np.linspace(-1, 0.7, n_background) if n_background else None
    identifier = FaceIdentifier(background=background).fit(faces, names)
    assert identifier.threshold_.source == source
    assert identifier.threshold_.false_alarm_rate == pytest.approx(rate)
    assert (f"at most {rate} only" in identifier.reason_) == (rate > 0.01)


def test_a_single_near_face_outweighs_many_that_are_merely_similar():
    """Plain votes, even weighted by 1/distance, would go to whoever has the most images."""
    e = np.eye(16)
    query = e[0]
    near, far = unit(e[0] + 0.15 * e[1]), unit(e[0] + 0.6 * e[2])
    faces = np.stack([near, *[unit(far + 0.01 * e[3 + i]) for i in range(6)]])
    names = np.array(["one image", *["many images"] * 6])
    identifier = FaceIdentifier(background=np.linspace(-1, 0.8, 5000)).fit(faces, names)
    assert identifier.predict([query]).tolist() == ["one image"]
    plain = KNeighborsClassifier(5, weights="distance").fit(faces, names)
    assert plain.predict([query]).tolist() == ["many images"]


def test_twins_are_told_as_such():
    faces, names, persons = people(30, 4, d=64)
    twin = unit(persons[:1] + 0.01)
    faces, names = np.concatenate([faces, twin]), np.append(names, "twin")
    found = FaceIdentifier(background=np.linspace(-1, 0.8, 20_000)).fit(faces, names).identify(persons)
    assert found.ambiguous[0]
    assert {found.persons[0], found.rivals[0]} == {"p000", "twin"}
    assert not found.ambiguous[1:].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_votes_are_what_a_plain_loop_counts(seed, k):
    faces, names, _ = people(12, 9, seed=seed, spread=0.5)
    identifier = FaceIdentifier(n_neighbors=k, false_match_rate=0.3).fit(faces, names)
    queries = unit(np.random.default_rng(seed).normal(size=(5, 32)) * 0.3 + faces[::25])
    found = identifier.identify(queries)
    for i, query in enumerate(queries):
        similarity = faces @ query
        votes = {}
        for j in np.argsort(-similarity)[:k]:
            if similarity[j] > identifier.threshold_.value:
                votes[names[j]] = votes.get(names[j], 0) + (similarity[j] - identifier.threshold_.value) ** 2
        assert found.unknown[i] == (not votes)
        wanted = max(votes, key=votes.get) if votes else names[similarity.argmax()]
        assert found.persons[i] == wanted
        assert found.similarity[i] == pytest.approx(similarity[names == wanted].max())


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
    with pytest.raises(InvalidParameterError, match="n_neighbors"):
        FaceIdentifier(n_neighbors=0).fit(X, Y)
    with pytest.raises(InvalidParameterError, match="min_similarity"):
        FaceGrouper(min_similarity=2).fit(X)
    with pytest.raises(InvalidParameterError, match="2 images for 60"):
        FaceGrouper().fit(X, images=["a", "b"])


def test_strangers_are_the_pairs_within_an_image():
    faces = unit(np.random.default_rng(3).normal(size=(6, 4)))
    found = strangers(faces, list("aabbbc"))
    wanted = [faces[0] @ faces[1], faces[2] @ faces[3], faces[2] @ faces[4], faces[3] @ faces[4]]
    np.testing.assert_allclose(found, wanted)
    assert len(strangers(faces, list("abcdef"))) == 0
