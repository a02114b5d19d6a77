"""Recommendations from made catalogs whose truth is known."""

import json
from typing import ClassVar

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone

from nearsight.errors import InvalidParameterError
from nearsight.estimators.recommendation import Recommender
from nearsight.testing import EstimatorTests


class TestWithoutBaskets(EstimatorTests):
    expected_failed_checks: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def estimator(self):
        return Recommender()

    def output(self, estimator, X):
        return np.array([estimator.scores([row]) for row in range(len(X))])


class TestWithBaskets(TestWithoutBaskets):
    """The same promises, with every image's baskets made from its row's number."""

    def fit(self, estimator, X, y=None):
        n = len(X)
        rng = np.random.default_rng(0)
        baskets = rng.random((40, n)) < 0.2
        return estimator.fit(X, baskets=baskets)


def world(*, substitutes, n_baskets=300, seed=0):
    """Forty items of ten looks. Customers take one look after the other, or one and its lookalike.

    Where lookalikes are substitutes, a basket holds one item of each of three looks that go together;
    otherwise it holds all that look alike.
    """
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(10, 32))
    look = np.repeat(np.arange(10), 4)
    X = looks[look] + 0.25 * rng.normal(size=(40, 32))
    baskets = np.zeros((n_baskets, 40), bool)
    for basket in baskets:
        first = rng.integers(10)
        if substitutes:
            for other in (first, (first + 1) % 10, (first + 2) % 10):
                basket[rng.choice(np.flatnonzero(look == other))] = True
        else:
            basket[rng.permutation(np.flatnonzero(look == first))[:3]] = True
            basket[rng.integers(40)] = True
    return X, look, baskets


def test_lookalikes_without_baskets_are_the_nearest():
    X, _, _ = world(substitutes=True)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    similarity = unit @ unit.T
    found = Recommender().fit(X).recommend([3, 20], k=5)
    expected = np.maximum(similarity[3], similarity[20])
    expected[[3, 20]] = -np.inf
    assert [one.item for one in found] == np.argsort(-expected)[:5].tolist()
    np.testing.assert_allclose([one.score for one in found], np.sort(expected)[::-1][:5], rtol=1e-5)
    for one in found:
        [why] = one.why
        assert why.kind == "similarity"
        assert why.similarity == pytest.approx(similarity[why.item, one.item], abs=1e-5)


@pytest.mark.parametrize("substitutes", [True, False])
def test_whether_lookalikes_complement_or_compete_is_learned(substitutes):
    X, look, baskets = world(substitutes=substitutes)
    fitted = Recommender().fit(X, baskets=baskets)
    assert (fitted.similar_pair_lift_ < 0.2) if substitutes else (fitted.similar_pair_lift_ > 2)
    # Hide the direct evidence: what do images alone say of an item that nobody has bought?
    unseen = baskets.copy()
    unseen[:, 0] = False
    fitted = Recommender().fit(X, baskets=unseen)
    best = [one.item for one in fitted.recommend([0], k=3)]
    same_look = (look[best] == look[0]).mean()
    assert same_look == (0 if substitutes else 1)


def test_what_nobody_bought_is_found_by_its_lookalikes():
    X, look, baskets = world(substitutes=True)
    baskets[:, [0, 17, 30]] = False
    fitted = Recommender().fit(X, baskets=baskets)
    # Item 17 has look 4; what has look 3 or 2, 5 or 6 goes with it.
    scores = fitted.scores([int(np.flatnonzero(look == 3)[0])], include_new_items=True)
    assert scores[17] > scores[30] > 0
    assert scores[17] > scores[0]
    among = np.zeros(40, bool)
    among[17] = True
    [one] = fitted.recommend([int(np.flatnonzero(look == 3)[0])], among=among)
    assert one.item == 17
    [why] = [reason for reason in one.why if reason.kind == "lookalike"]
    assert look[why.lookalike] == look[17]
    assert baskets[:, why.item].sum() == why.of
    assert (baskets[:, why.item] & baskets[:, why.lookalike]).sum() == why.times


def test_unsold_items_are_as_rare_as_such_items_were_and_keep_their_order():
    X, _, baskets = world(substitutes=True)
    baskets[:, [0, 17, 30]] = False
    fitted = Recommender().fit(X, baskets=baskets)
    fresh, unsold = (fitted.scores([5], include_new_items=f) for f in (True, False))
    bought = baskets.any(axis=0)
    np.testing.assert_array_equal(fresh[bought], unsold[bought])
    # In these baskets nothing is ever bought for the first time.
    assert (unsold[~bought] < fresh[~bought] / 20).all()
    assert np.argsort(unsold[~bought]).tolist() == np.argsort(fresh[~bought]).tolist()


def test_an_item_that_nobody_bought_draws_what_its_lookalikes_draw():
    X, look, baskets = world(substitutes=True)
    baskets[:, 0] = False
    fitted = Recommender().fit(X, baskets=baskets)
    found = fitted.recommend([0], k=8)
    assert {int(look[one.item]) for one in found} <= {1, 2, 8, 9}
    why = found[0].why[0]
    assert (why.item, look[why.stand_in]) == (0, 0)
    assert "looks like" in why.text(str)


def test_the_evidence_is_counted_right():
    X, _, baskets = world(substitutes=False)
    fitted = Recommender().fit(X, baskets=baskets)
    for one in fitted.recommend([5, 9], k=10):
        for why in one.why:
            if why.kind == "together":
                assert why.times == (baskets[:, why.item] & baskets[:, one.item]).sum() > 0
                assert why.of == baskets[:, why.item].sum()
            if why.kind == "popularity":
                assert (why.times, why.of) == (baskets[:, one.item].sum(), len(baskets))


@pytest.mark.parametrize("substitutes", [True, False])
def test_the_blend_beats_each_of_its_parts_on_baskets_it_has_not_seen(substitutes):
    X, _, baskets = world(substitutes=substitutes)
    train, test = baskets[:200], baskets[200:]
    fitted = Recommender().fit(X, baskets=train)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    ranks = {"blend": [], "popularity": [], "images": []}
    for basket in test:
        items = np.flatnonzero(basket)
        for target in items:
            rest = items[items != target]
            told = {
                "blend": fitted.scores(rest),
                "popularity": train.sum(axis=0).astype(float),
                "images": (unit @ unit[rest].T).max(axis=1),
            }
            for name, scores in told.items():
                scores = scores.copy()
                scores[rest] = -np.inf
                ranks[name].append((scores > scores[target]).sum() < 5)
    recall = {name: np.mean(found) for name, found in ranks.items()}
    assert recall["blend"] > recall["popularity"] + 0.2
    assert recall["blend"] > recall["images"] - 0.01
    if substitutes:
        assert recall["blend"] > recall["images"] + 0.2


def test_a_score_is_the_chance_to_be_next():
    X, _, baskets = world(substitutes=True, n_baskets=800)
    fitted = Recommender().fit(X, baskets=baskets[:600])
    stated, came = [], []
    for basket in baskets[600:]:
        items = np.flatnonzero(basket)
        for target in items:
            rest = items[items != target]
            others = np.setdiff1d(np.arange(40), rest)
            stated.append(fitted.scores(rest)[others])
            came.append(others == target)
    stated, came = np.concatenate(stated), np.concatenate(came)
    likely = stated > 0.1
    assert stated.mean() == pytest.approx(came.mean(), rel=0.25)
    assert stated[likely].mean() == pytest.approx(came[likely].mean(), rel=0.25)


def test_few_baskets_are_enough_for_a_rule():
    X, _, _ = world(substitutes=True)
    baskets = np.zeros((3, 40))
    baskets[:, [1, 2]] = 1
    baskets[0, 9] = 1
    fitted = Recommender().fit(X, baskets=baskets)
    assert fitted.blends_ is None
    scores = fitted.scores([1])
    assert scores.sum() == pytest.approx(1)
    assert fitted.recommend([1], k=1)[0].item == 2
    assert fitted.recommend([1], k=1)[0].why[0].text(str) == "bought with 1 in 3 of its 3 baskets"


def test_no_baskets_at_all_leave_nothing_but_zeros():
    fitted = Recommender().fit(np.eye(3), baskets=np.zeros((0, 3)))
    assert fitted.scores([0]).tolist() == [0, 0, 0]
    assert [one.why[0].of for one in fitted.recommend([0])] == [0, 0]


def test_where_baskets_say_nothing_looks_decide():
    X = np.array([[1.0, 0, 0], [0, 1, 0], [0.2, 0.1, 1], [1, 0.2, 0]])
    first, *_ = Recommender().fit(X, baskets=np.array([[1, 0, 0, 0]])).recommend([0])
    assert first.item == 3
    assert "in no basket so far" in first.why[0].text(str)


def test_sparse_and_dense_baskets_are_the_same_and_stay_as_they_were():
    X, _, baskets = world(substitutes=False)
    amounts = sparse.csr_matrix(baskets * 3.0)
    first = Recommender().fit(X, baskets=amounts)
    assert amounts.data.tolist() == [3.0] * amounts.nnz
    second = clone(first).fit(X, baskets=baskets)
    np.testing.assert_array_equal(first.scores([4]), second.scores([4]))


def test_history_and_what_is_not_allowed_are_left_out():
    X, _, baskets = world(substitutes=False)
    among = np.arange(40) % 2 == 0
    found = Recommender().fit(X, baskets=baskets).recommend([2, 4, 2], k=40, among=among)
    items = [one.item for one in found]
    assert sorted(items) == [i for i in range(0, 40, 2) if i not in (2, 4)]
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_a_varied_list_has_fewer_lookalikes():
    X, look, _ = world(substitutes=False)
    fitted = Recommender().fit(X)
    plain, varied = (fitted.recommend([0], k=6, diversity=d) for d in (0.0, 0.7))
    assert varied[0] == plain[0]
    assert len({look[one.item] for one in varied}) > len({look[one.item] for one in plain})


def test_items_without_an_image_and_of_the_same_image():
    X, _, baskets = world(substitutes=False)
    X[7] = 0
    X[8] = X[9]
    fitted = Recommender().fit(X, baskets=baskets)
    found = fitted.recommend([7], k=40)
    assert len(found) == 39
    assert np.isfinite([one.score for one in found]).all()
    assert not any(why.kind == "similarity" for one in found for why in one.why)


@pytest.mark.parametrize(
    ("history", "message"),
    [([], "at least one"), ([40], "0 to 39"), ([-1], "0 to 39"), ([0.5], "whole numbers")],
)
def test_bad_histories(history, message):
    X, _, _ = world(substitutes=True)
    with pytest.raises(InvalidParameterError, match=message):
        Recommender().fit(X).recommend(history)


@pytest.mark.parametrize("name", ["n_related", "n_neighbors", "n_examples"])
def test_bad_parameters(name):
    with pytest.raises(InvalidParameterError, match=f"{name} is 0"):
        Recommender(**{name: 0}).fit(np.eye(3))


def test_bad_questions():
    fitted = Recommender().fit(np.eye(3))
    with pytest.raises(InvalidParameterError, match="k is 0"):
        fitted.recommend([0], k=0)
    with pytest.raises(InvalidParameterError, match="diversity is 2"):
        fitted.recommend([0], diversity=2)
    with pytest.raises(InvalidParameterError, match="one bool an item"):
        fitted.recommend([0], among=[True])


def test_progress_is_shown_where_asked_for(capsys):
    X, _, baskets = world(substitutes=True)
    first = Recommender(progress=True).fit(X, baskets=baskets)
    told = capsys.readouterr().err
    assert "comparing items" in told
    assert "baskets" in told
    second = Recommender().fit(X, baskets=baskets)
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(first.scores([3]), second.scores([3]))


@pytest.mark.parametrize(
    ("n_baskets", "max_regressed_items"), [(300, 4000), (300, 10), (3, 4000), (None, 4000)]
)
def test_what_was_learned_survives_a_file(n_baskets, max_regressed_items):
    X, _, baskets = world(substitutes=True)
    fitted = Recommender(max_regressed_items=max_regressed_items, n_related=15).fit(
        X, baskets=None if n_baskets is None else baskets[:n_baskets]
    )
    facts, arrays = fitted.state()
    assert (facts["blends"] is None) == (n_baskets != 300)
    again = Recommender.from_state(json.loads(json.dumps(facts)), {k: v.copy() for k, v in arrays.items()})
    assert again.get_params() == fitted.get_params()
    assert (again.similar_pair_lift_, again.similar_above_) == (
        fitted.similar_pair_lift_,
        fitted.similar_above_,
    )
    for history in ([3], [3, 20, 7]):
        for fresh in (False, True):
            np.testing.assert_allclose(
                again.scores(history, include_new_items=fresh),
                fitted.scores(history, include_new_items=fresh),
                rtol=1e-12,
            )
        found, expected = again.recommend(history, diversity=0.3), fitted.recommend(history, diversity=0.3)
        assert [(one.item, one.why) for one in found] == [(one.item, one.why) for one in expected]


def test_a_state_that_does_not_fit_is_refused():
    X, _, baskets = world(substitutes=True)
    facts, arrays = Recommender().fit(X, baskets=baskets).state()
    with pytest.raises(ValueError, match="39 vectors"):
        Recommender.from_state(facts, {**arrays, "X": arrays["X"][:39]})
    with pytest.raises(ValueError, match="indices"):
        Recommender.from_state(facts, {**arrays, "related.indices": arrays["related.indices"] + 40})
    with pytest.raises(KeyError):
        Recommender.from_state(facts, {"X": arrays["X"], "baskets.data": arrays["baskets.data"]})


@pytest.mark.parametrize("seed", ["0", -1, np.random.default_rng()])
def test_a_seed_that_is_none_is_refused_by_name(seed):
    with pytest.raises(InvalidParameterError, match="random_state is .*must be .*at least 0"):
        Recommender(random_state=seed).fit(np.eye(4))
