from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from nearsight.errors import InvalidParameterError
from nearsight.estimators.conformal import from_good
from nearsight.estimators.faces.identifier import FaceIdentifier
from nearsight.estimators.faces.impostor_quantiles import ImpostorQuantiles
from nearsight.estimators.neighbors import unit_length
from nearsight.testing import EstimatorTests
from nearsight.testing.estimators import X, Y

RATES = 10 ** -np.arange(0.3, 5, 0.1)


def quantiles(low=-0.2, high=0.8):
    """The same for any number of images."""
    return ImpostorQuantiles([1, 2], RATES, [np.linspace(low, high, len(RATES))] * 2, [50_000] * 2)


def background(d, *, n=600, spread=0.12, seed=77):
    """Quantiles of a crowd of the kind that `people` draws from."""
    rows = []
    for n_each in (1, 3):
        faces, _, _ = people(n, n_each + 1, seed=seed, spread=spread, d=d)
        faces = faces.reshape(n, n_each + 1, d)
        means = unit(faces[:, :n_each].sum(1))
        similarities = faces[:, n_each] @ means.T
        rows.append(np.quantile(similarities[~np.eye(n, dtype=bool)], 1 - RATES))
    return ImpostorQuantiles([1, 3], RATES, rows, [n * (n - 1)] * 2)


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
        means = unit(faces.reshape(25, 8, -1).sum(1))
        best = (others @ means.T).max(1)
        rates.append((best > identifier.threshold_.value).mean())
        strange = np.where(names[:, None] == np.unique(names)[None], -1, faces @ means.T).max(1)
        naive.append((best > from_good(strange, false_alarm_rate=0.05 / 5).value).mean())
    assert np.mean(rates) <= 0.055
    assert np.mean(naive) > 0.02


def test_with_a_background_few_persons_calibrate_and_the_rate_holds():
    """The whole method on a crowd that the table has not seen."""
    crowd, rates, named = background(16), [], []
    for seed in range(40):
        faces, names, persons = people(20, 3, seed=seed, d=16)
        identifier = FaceIdentifier(false_match_rate=0.05, impostor_quantiles=crowd).fit(faces, names)
        assert (identifier.threshold_.source, identifier.reason_) == ("background", "")
        others, _, _ = people(200, 1, seed=1000 + seed, d=16)
        rates.append((~identifier.identify(others).unknown).mean())
        named.append((identifier.predict(persons) == np.unique(names)).mean())
    assert 0.02 <= np.mean(rates) <= 0.055
    assert np.mean(named) > 0.99


def test_the_rate_is_lower_for_more_persons_by_sidak():
    crowd = quantiles()
    for n in (1, 5, 40):
        faces, names, _ = people(n, 1, d=64)
        fitted = FaceIdentifier(impostor_quantiles=crowd).fit(faces, names)
        assert fitted.threshold_.value - fitted.guard_ == pytest.approx(
            crowd.at_rate(1 - 0.99 ** (1 / n)), abs=1e-6
        )


def test_persons_who_are_more_alike_than_the_background_raise_the_threshold():
    """A family: without the guard, the rate would be several times the stated one."""
    crowd = background(16)
    rng, kept, unguarded = np.random.default_rng(0), [], []
    for seed in range(30):
        common = unit(rng.normal(size=16))
        faces, names, _ = people(40, 2, seed=seed, d=16)
        family = unit(faces + 0.8 * common)
        identifier = FaceIdentifier(false_match_rate=0.05, impostor_quantiles=crowd).fit(family, names)
        assert identifier.guard_ > 0
        others, _, _ = people(200, 1, seed=1000 + seed, d=16)
        best = identifier.identify(unit(others + 0.8 * common)).similarity
        kept.append((best > identifier.threshold_.value).mean())
        unguarded.append((best > identifier.threshold_.value - identifier.guard_).mean())
    assert np.mean(unguarded) > 3 * np.mean(kept)


@pytest.mark.parametrize(
    ("n_persons", "n_each", "is_said"), [(20, 1, True), (49, 1, True), (50, 1, False), (20, 2, False)]
)
def test_few_persons_with_one_image_each_come_with_a_caution(n_persons, n_each, is_said):
    faces, names, _ = people(n_persons, n_each, d=64)
    fitted = FaceIdentifier(impostor_quantiles=quantiles()).fit(faces, names)
    assert ("three images of each person" in fitted.caution_) == is_said
    # A bank that calibrates itself says in `reason_` what it cannot promise.
    assert FaceIdentifier(false_match_rate=0.1).fit(faces, names).caution_ == ""


def test_the_guard_is_the_97th_percentile_of_all_cross_comparisons():
    faces, names, _ = people(10, 4, d=16)
    low = quantiles(-0.9, 0.2)
    identifier = FaceIdentifier(impostor_quantiles=low).fit(faces, names)
    means = {name: unit(faces[names == name].sum(0)) for name in np.unique(names)}
    others = [
        face @ mean
        for face, own in zip(faces, names, strict=True)
        for name, mean in means.items()
        if name != own
    ]
    excess = np.quantile(others, 0.97) - low.at_rate(0.03)
    assert identifier.guard_ == pytest.approx(excess * 10 / 30, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(1, 60),
    st.booleans(),
    st.floats(0.0005, 0.6),
    st.floats(0.0005, 0.6),
)
def test_a_lower_rate_never_names_a_face_that_a_higher_rate_leaves_unknown(seed, n, shipped, a, b):
    faces, names, _ = people(n, 1 + seed % 3, seed=seed, spread=0.4, d=8)
    queries, _, _ = people(50, 1, seed=seed + 1, d=8)
    table = quantiles(0.2, 0.95) if shipped else None
    strict, loose = (
        FaceIdentifier(false_match_rate=rate, impostor_quantiles=table).fit(faces, names).identify(queries)
        for rate in sorted((a, b))
    )
    # A rate that cannot be kept is replaced by the lowest one, so both may be the same.
    assert not (loose.unknown & ~strict.unknown).any()


def test_where_nothing_promises_the_rate_every_face_is_unknown_and_it_says_why():
    faces, names, persons = people(3, 2)
    identifier = FaceIdentifier().fit(faces, names)
    assert identifier.identify(persons).unknown.all()
    assert identifier.predict(persons).tolist() == [None] * 3
    assert "every face is unknown" in identifier.reason_
    assert "at least 99" in identifier.reason_


@pytest.mark.parametrize(
    ("n_persons", "rate", "has_table", "source", "kept"),
    [
        (40, 0.01, False, "good", 0.0244),
        (40, 0.01, True, "background", 0.01),
        (40, 0.0001, True, "background", 0.0005),
        (400, 0.003, True, "good", 0.003),
    ],
)
def test_a_rate_that_cannot_be_kept_is_replaced_by_the_best_one(n_persons, rate, has_table, source, kept):
    faces, names, _ = people(n_persons, 2, d=64)
    table = quantiles() if has_table else None
    identifier = FaceIdentifier(false_match_rate=rate, impostor_quantiles=table).fit(faces, names)
    assert identifier.threshold_.source == source
    assert identifier.threshold_.false_alarm_rate == pytest.approx(kept, rel=0.05)
    assert ("instead of" in identifier.reason_) == (kept > rate)


def test_twins_are_ambiguous():
    faces, names, persons = people(30, 4, d=64)
    twin = unit(persons[:1] + 0.01)
    faces, names = np.concatenate([faces, twin]), np.append(names, "twin")
    found = FaceIdentifier(impostor_quantiles=quantiles()).fit(faces, names).identify(persons)
    assert found.ambiguous[0]
    assert {found.persons[0], found.rivals[0]} == {"p000", "twin"}
    assert not found.ambiguous[1:].any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_most_similar_mean_face_wins_as_in_scikit_learn(seed):
    faces, names, _ = people(12, 5, seed=seed, spread=0.5)
    identifier = FaceIdentifier(false_match_rate=0.3).fit(faces, names)
    queries = unit(np.random.default_rng(seed).normal(size=(20, 32)) * 0.3 + faces[::3])
    found = identifier.identify(queries)
    means = np.stack([unit(faces[names == name].sum(0)) for name in np.unique(names)])
    oracle = KNeighborsClassifier(1, metric="cosine").fit(means, np.unique(names))
    assert found.persons.tolist() == oracle.predict(queries).tolist()
    np.testing.assert_allclose(found.similarity, (queries @ means.T).max(1))
    np.testing.assert_allclose(found.rival_similarity, np.sort(queries @ means.T)[:, -2])


def test_parameters_are_checked():
    for rate in (0, 1, 7):
        with pytest.raises(InvalidParameterError, match="false_match_rate"):
            FaceIdentifier(false_match_rate=rate).fit(X, Y)
