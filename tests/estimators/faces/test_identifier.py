from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal import from_good
from nearsight.estimators.faces.identifier import FaceIdentifier
from nearsight.estimators.neighbors import unit_length
from nearsight.testing import EstimatorTests
from nearsight.testing.estimators import X, Y


def unit(X):
    return unit_length(np.atleast_2d(X)).reshape(np.shape(X))


def people(n_persons, n_each, *, seed=0, spread=0.12, d=32):
    rng = np.random.default_rng(seed)
    persons = unit(rng.normal(size=(n_persons, d)))
    faces = np.repeat(persons, n_each, axis=0) + spread * rng.normal(size=(n_persons * n_each, d)) / np.sqrt(
        d / 8
    )
    return unit(faces), np.repeat([f"p{i:03}" for i in range(n_persons)], n_each), persons


class TestIdentifier(EstimatorTests):
    needs_labels = True

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
        "it subtracts predictions, and that of an unknown face is None; `output` below is compared instead",
    )

    def output(self, estimator, X):
        return estimator.identify(X).similarity


def test_persons_are_named_and_others_are_unknown():
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


def test_with_few_persons_impostor_pairs_calibrate():
    faces, names, persons = people(3, 2)
    assert FaceIdentifier().fit(faces, names).threshold_ is None
    crowd = unit(np.random.default_rng(9).normal(size=(200, 32)))
    background = (crowd @ crowd.T)[np.triu_indices(200, 1)]
    identifier = FaceIdentifier(impostor_similarities=background).fit(faces, names)
    assert identifier.threshold_.source == "background"
    assert identifier.predict(persons).tolist() == ["p000", "p001", "p002"]
    others = unit(np.random.default_rng(10).normal(size=(1000, 32)))
    assert (~identifier.identify(others).unknown).mean() <= identifier.threshold_.observed_rate_interval(
        1000
    )[1]


def test_where_nothing_promises_the_rate_every_face_is_unknown_and_it_says_why():
    faces, names, persons = people(3, 2)
    identifier = FaceIdentifier().fit(faces, names)
    assert identifier.identify(persons).unknown.all()
    assert identifier.predict(persons).tolist() == [None] * 3
    assert "every face is unknown" in identifier.reason_
    assert "at least 99" in identifier.reason_
    few = FaceIdentifier(impostor_similarities=np.linspace(0, 0.5, 20)).fit(faces, names)
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
def test_a_rate_that_cannot_be_kept_is_replaced_by_the_best_one(n_persons, n_background, source, rate):
    faces, names, _ = people(n_persons, 2, d=64)
    background = np.linspace(-1, 0.7, n_background) if n_background else None
    identifier = FaceIdentifier(impostor_similarities=background).fit(faces, names)
    assert identifier.threshold_.source == source
    assert identifier.threshold_.false_alarm_rate == pytest.approx(rate)
    assert (f"is {rate} instead of" in identifier.reason_) == (rate > 0.01)


def test_a_single_near_face_outweighs_many_that_are_merely_similar():
    """Plain votes, even weighted by 1/distance, would go to whoever has the most images."""
    e = np.eye(16)
    query = e[0]
    near, far = unit(e[0] + 0.15 * e[1]), unit(e[0] + 0.6 * e[2])
    faces = np.stack([near, *[unit(far + 0.01 * e[3 + i]) for i in range(6)]])
    names = np.array(["one image", *["many images"] * 6])
    identifier = FaceIdentifier(impostor_similarities=np.linspace(-1, 0.8, 5000)).fit(faces, names)
    assert identifier.predict([query]).tolist() == ["one image"]
    plain = KNeighborsClassifier(5, weights="distance").fit(faces, names)
    assert plain.predict([query]).tolist() == ["many images"]


def test_twins_are_ambiguous():
    faces, names, persons = people(30, 4, d=64)
    twin = unit(persons[:1] + 0.01)
    faces, names = np.concatenate([faces, twin]), np.append(names, "twin")
    found = (
        FaceIdentifier(impostor_similarities=np.linspace(-1, 0.8, 20_000)).fit(faces, names).identify(persons)
    )
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


def test_parameters_are_checked():
    with pytest.raises(InvalidParameterError, match="n_neighbors"):
        FaceIdentifier(n_neighbors=0).fit(X, Y)
