"""Copies among rows: the conformance suite, exact search as the oracle, groups that are stars."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.duplicates import NearDuplicates
from nearsight.estimators.duplicates.candidate_pairs import candidate_pairs
from nearsight.estimators.duplicates.hash_pairs import _bit_counts, hash_pairs
from nearsight.estimators.duplicates.proposals import pair_cosines, propose
from nearsight.estimators.duplicates.star_clusters import star_groups
from nearsight.testing import EstimatorTests


class TestConformance(EstimatorTests):
    @pytest.fixture
    def estimator(self):
        return NearDuplicates()


def unit(X: np.ndarray) -> np.ndarray:
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)


def copies(n: int = 400, n_copies: int = 60, dim: int = 32, seed: int = 0) -> np.ndarray:
    """Return n rows, and after them a near copy of each of the first."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, dim))
    return unit(np.concatenate([X, X[:n_copies] + 0.05 * rng.normal(size=(n_copies, dim))]))


def by_hand(X, k, least, splits=None, variants=()):
    found = {}
    for i in range(len(X)):
        looks = np.array([X[i], *(unit(variant[i : i + 1])[0] for variant in variants)])
        near = [
            (-float((looks @ X[j]).max()), j)
            for j in range(len(X))
            if j != i and (splits is None or (min(splits[i], splits[j]) >= 0 and splits[i] != splits[j]))
        ]
        for negative, j in sorted(near)[:k]:
            if -negative >= least:
                pair = min(i, j), max(i, j)
                found[pair] = max(-negative, found.get(pair, -1))
    return found


@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("sided", [False, True])
def test_candidates_are_what_comparing_all_with_all_gives(k, sided):
    X = copies(40, 10)
    splits = np.random.default_rng(1).integers(-1, 3, len(X)) if sided else None
    pairs, similarities = candidate_pairs(X, n_neighbors=k, min_similarity=0.1, splits=splits)
    expected = by_hand(X, k, 0.1, splits)
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    np.testing.assert_allclose(similarities, [expected[tuple(pair)] for pair in pairs.tolist()], atol=1e-6)


@pytest.mark.parametrize("sided", [False, True])
@pytest.mark.parametrize("n_variants", [1, 4])
def test_hashes_in_several_variants(n_variants, sided, monkeypatch):
    monkeypatch.setattr("nearsight.estimators.duplicates.hash_pairs._BLOCK_ROWS", 7)
    X, rng = copies(40, 10), np.random.default_rng(2)
    variants = rng.integers(-1, 2, (n_variants, *X.shape)).astype(np.int8)
    variants = np.concatenate([20 * np.roll(X, 3, axis=0)[None], variants[1:]])
    splits = rng.integers(-1, 3, len(X)) if sided else None
    pairs, similarities = hash_pairs(X, variants, n_neighbors=3, min_similarity=0.2, splits=splits)
    expected = by_hand(X, 3, 0.2, splits, variants)
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(expected)
    np.testing.assert_allclose(similarities, [expected[tuple(pair)] for pair in pairs.tolist()], atol=1e-6)


@pytest.mark.parametrize("share_equal", [0, 0.6])
def test_sorted_hashes_find_what_comparing_all_with_all_finds(share_equal):
    # Of hashes that are alike in most places, as in a collection of products on white, no fewer are found.
    rng = np.random.default_rng(0)
    n, is_alike = 1500, rng.random(63) < share_equal
    plain = np.where(is_alike & (rng.random((n, 63)) < 0.95), 1, rng.choice([-1, 1], (n, 63))).astype(np.int8)
    plain[5] = 0
    edited = np.stack([np.roll(plain, -1, axis=0), rng.choice([-1, 1], (n, 63))]).astype(np.int8)
    flipped = rng.random((n, 63)) < 0.09
    edited[0][flipped] *= -1
    edited[:, 5] = 0
    exact, exact_similarities = hash_pairs(plain, edited, n_neighbors=10, min_similarity=0.6)
    found, similarities = hash_pairs(plain, edited, n_neighbors=10, min_similarity=0.6, exact_rows=10)
    expected, both = (dict(zip(map(tuple, pairs.tolist()), values.tolist(), strict=True)) for pairs, values in
                      ((exact, exact_similarities), (found, similarities)))  # fmt: skip
    true = {(i, i + 1) for i in range(n - 1)} & expected.keys()
    assert len(true) > 0.7 * n
    assert len(true - both.keys()) <= 0.02 * n
    for pair in list(both.keys() & expected.keys())[:500]:
        assert both[pair] == pytest.approx(expected[pair], abs=1e-5)
    assert not {pair for pair in both if 5 in pair}


@pytest.mark.parametrize("share_zero", [0.0, 0.05])
def test_sorted_hashes_compare_signs_by_their_bits_alone(share_zero, monkeypatch):
    rng = np.random.default_rng(0)
    hashes = rng.choice([-1, 1], (3000, 63)).astype(np.int8)
    hashes[1500:] = np.where(rng.random((1500, 63)) < 0.1, -hashes[:1500], hashes[:1500])
    hashes[rng.random(hashes.shape) < share_zero] = 0
    n_products = []
    einsum = np.einsum
    monkeypatch.setattr(np, "einsum", lambda rule, a, b: n_products.append(len(a)) or einsum(rule, a, b))
    pairs, similarities = hash_pairs(
        hashes, hashes[None, :, ::-1], n_neighbors=3, min_similarity=0.6, exact_rows=1000
    )
    exact, _ = hash_pairs(hashes, hashes[None, :, ::-1], n_neighbors=3, min_similarity=0.6)
    assert len(np.setdiff1d(pairs @ [3000, 1], exact @ [3000, 1])) == 0
    assert len(pairs) > 0.98 * len(exact)
    assert (similarities >= 0.6).all()
    if not share_zero:
        # Each pair is seen from both sides, and each row meets itself; nothing else is multiplied.
        assert sum(n_products) <= 2 * len(pairs) + 3000 + 30


def test_sorted_hashes_without_bit_counts_of_numpy(monkeypatch):
    plain = np.random.default_rng(0).choice([-1, 1], (300, 63)).astype(np.int8)
    plain[200:] = plain[:100]
    plain[200:, 7] *= -1
    numbers = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    pairs = hash_pairs(plain, plain[None], n_neighbors=3, min_similarity=0.6, exact_rows=10)[0]
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert _bit_counts(numbers).tolist() == [0, 1, 1, 64]
    again = hash_pairs(plain, plain[None], n_neighbors=3, min_similarity=0.6, exact_rows=10)[0]
    assert again.tolist() == pairs.tolist() == [[i, 200 + i] for i in range(100)]


def test_cells_find_the_copies_that_exact_search_finds():
    X = copies(3000, 500)
    exact, _ = candidate_pairs(X, n_neighbors=5, min_similarity=0.8)
    cells, _ = candidate_pairs(X, n_neighbors=5, min_similarity=0.8, exact_rows=100)
    missed = {tuple(pair) for pair in exact.tolist()} - {tuple(pair) for pair in cells.tolist()}
    assert len(exact) == 500
    assert len(missed) <= 5


def test_cells_compare_across_splits_only():
    X = copies(600, 200)
    splits = np.arange(800) % 2
    pairs, _ = candidate_pairs(X, n_neighbors=3, min_similarity=0.8, exact_rows=50, splits=splits)
    assert (splits[pairs[:, 0]] != splits[pairs[:, 1]]).all()
    assert len(candidate_pairs(X, n_neighbors=3, min_similarity=0.8, exact_rows=50)[0]) > 150


def test_finds_the_copies_and_nothing_else():
    found = NearDuplicates().fit(copies())
    assert found.pairs_.tolist() == [[i, 400 + i] for i in range(60)]
    assert found.labels_[:60].tolist() == found.labels_[400:].tolist() == list(range(60))
    assert set(found.labels_[60:400]) == {-1}
    assert found.kept_.tolist() == list(range(60))


def test_like_is_not_the_same_where_the_second_signal_says_no():
    X = copies()
    asked = []

    def confirm(here, there):
        asked.extend(zip(here.tolist(), there.tolist(), strict=True))
        return np.where(here % 2 == 0, 0.9, np.nan)

    found = NearDuplicates(verify=confirm, threshold=0.5, min_similarity=0.8).fit(X)
    assert found.pairs_[:, 0].tolist() == list(range(0, 60, 2))
    assert set(asked) >= {(i, 400 + i) for i in range(60)}
    np.testing.assert_allclose(found.scores_, 0.9)


def test_what_is_kept_is_the_best():
    X = copies(50, 10)
    quality = np.arange(60) % 7
    for given_as in (quality, lambda rows, pairs: quality[rows]):
        found = NearDuplicates().fit(X, quality=given_as)
        assert found.kept_.tolist() == [i if quality[i] >= quality[50 + i] else 50 + i for i in range(10)]


def test_a_rate_needs_rows_enough():
    X = copies(40, 0)
    with pytest.raises(CalibrationError, match="needs at least 99 good examples; there are 40"):
        NearDuplicates(false_alarm_rate=0.01).fit(X)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_the_stated_rate_of_false_alarms_is_kept_among_copies(rate):
    # Truth: rows 1500.. are copies of the first 300. The scores of unlike pairs are normal numbers.
    realized, missed = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, noise = copies(1500, 300, seed=seed), rng.normal(size=(1800, 1800))

        def confirm(here, there, noise=noise):
            return np.where(there - here == 1500, 8 + noise[here, there] / 2, noise[here, there])

        found = NearDuplicates(
            verify=confirm, certain_score=5.0, false_alarm_rate=rate, min_similarity=0.2
        ).fit(X)
        wrong = found.pairs_[found.pairs_[:, 1] - found.pairs_[:, 0] != 1500]
        lonely = np.arange(300, 1500)
        realized.append(np.isin(lonely, wrong).mean())
        missed.append(300 - (found.pairs_[:, 1] - found.pairs_[:, 0] == 1500).sum())
    low, high = found.calibration_.observed_rate_interval(20 * 1200)
    # A row of a pair that is wrong is counted twice, which leaves the rate a little below.
    assert 0.7 * low <= np.mean(realized) <= high
    assert np.mean(missed) < 3


def shots(n, seed):
    """Made rows, ten of each scene, how well their pixels agree, and copies of the first fifth of them."""
    rng = np.random.default_rng(seed)
    X = unit(np.repeat(rng.normal(size=(n // 10, 32)), 10, axis=0) + 0.3 * rng.normal(size=(n, 32)))
    agreement = rng.beta(4, 3, size=(n, n))
    agreement[: n // 5, : n // 5] = agreement[: n // 5, : n // 5].T
    X = np.concatenate([X, X[: n // 5] + 0.01])

    def confirm(here, there):
        scene = np.minimum(agreement[here % n, there % n], agreement[there % n, here % n])
        return np.where(here % n == there % n, 0.97, scene)

    return X, confirm


def test_where_shots_agree_like_copies_a_rate_is_refused():
    X, confirm = shots(600, 0)
    with pytest.raises(CalibrationError, match=r"score 0.4 to 0.7, so .*\(distinct_where\)"):
        NearDuplicates(verify=confirm, certain_score=0.7, false_alarm_rate=0.05).fit(X)
    # Told, where no rate is stated.
    found = NearDuplicates(verify=confirm, certain_score=0.7, threshold=0.65).fit(X)
    alone = np.arange(120, 600)
    wrong = found.pairs_[found.pairs_[:, 1] - found.pairs_[:, 0] != 600]
    assert found.expected_rate_ == pytest.approx(np.isin(alone, wrong).mean(), abs=0.2)
    assert found.expected_rate_ > 0.3


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_learned_on_rows_that_are_distinct_the_rate_is_kept(rate):
    realized, n = [], 0
    for seed in range(10):
        X, confirm = shots(600, seed)
        distinct = np.arange(len(X)) < 600
        found = NearDuplicates(verify=confirm, certain_score=0.7, false_alarm_rate=rate, n_neighbors=40).fit(
            X, distinct_where=distinct
        )
        wrong = found.pairs_[found.pairs_[:, 1] - found.pairs_[:, 0] != 600]
        realized.append(np.isin(np.arange(120, 600), wrong).mean())
        n += 480
        assert found.calibration_.source == "background"
        assert found.expected_rate_ == found.calibration_.expected_rate <= rate
        assert found.threshold_ > 0.7
    assert 0.2 * rate < np.mean(realized) <= found.calibration_.observed_rate_interval(n)[1]


def test_too_few_distinct_ones_are_counted():
    with pytest.raises(CalibrationError, match="at least 199 distinct rows; there are 20, .* Give 179 more"):
        NearDuplicates(false_alarm_rate=0.01).fit(copies(40, 0), distinct_where=np.arange(40) < 20)


def test_what_is_distinct_needs_a_rate():
    with pytest.raises(InvalidParameterError, match="give false_alarm_rate as well"):
        NearDuplicates().fit(copies(4, 0), distinct_where=[True] * 4)


def test_nothing_alike_is_no_reason_to_declare_everything_the_same():
    X = unit(np.concatenate([np.eye(200), np.eye(200)[:1]]))
    found = NearDuplicates(false_alarm_rate=0.02, certain_score=0.99, threshold=0.9).fit(X)
    assert found.threshold_ == 0.9
    assert found.pairs_.tolist() == [[0, 200]]


def chain(n):
    return np.array([[i, i + 1] for i in range(n - 1)], np.int64)


def test_a_chain_whose_ends_have_nothing_in_common_is_no_group():
    labels, kept = star_groups(5, chain(5), np.zeros(5), lambda here, there: np.zeros(len(here), bool))
    assert labels.tolist() == [0, 0, 1, 1, -1]
    assert kept.tolist() == [0, 2]


def test_who_is_the_same_over_another_is_asked_about():
    asked = []

    def judge(here, there):
        asked.extend(zip(here.tolist(), there.tolist(), strict=True))
        return np.ones(len(here), bool)

    labels, kept = star_groups(3, chain(3), np.array([2.0, 0.0, 1.0]), judge)
    assert asked == [(0, 2)]
    assert labels.tolist() == [0, 0, 0]
    assert kept.tolist() == [0]


@pytest.mark.parametrize(("n_for", "comes_in"), [(1, False), (2, True), (3, True)])
def test_who_differs_from_the_kept_one_comes_in_by_most_of_its_copies(n_for, comes_in):
    # 0 is kept and takes 1, 2 and 3; 4 is the same as some of these only.
    pairs = np.array([(0, 1), (0, 2), (0, 3), *((row, 4) for row in (1, 2, 3)[:n_for])])
    quality = np.array([9.0, 1, 2, 3, 0])
    labels, kept = star_groups(5, pairs, quality, lambda here, there: np.zeros(len(here), bool))
    assert labels.tolist() == [0, 0, 0, 0, 0 if comes_in else -1]
    assert kept.tolist() == [0]


@settings(max_examples=60)
@given(st.integers(2, 12), st.randoms(use_true_random=False))
def test_every_member_is_the_same_as_the_kept_one_or_as_most_of_its_best_copies(n, random):
    same = {(i, j): random.random() < 0.4 for i in range(n) for j in range(i + 1, n)}
    pairs = np.array([p for p, yes in same.items() if yes and random.random() < 0.7], np.int64).reshape(-1, 2)
    quality = np.array([random.random() for _ in range(n)])

    def judge(here, there):
        return np.array([same[pair] for pair in zip(here.tolist(), there.tolist(), strict=True)], bool)

    labels, kept = star_groups(n, pairs, quality, judge)
    for label, keep in enumerate(kept.tolist()):
        members = np.flatnonzero(labels == label).tolist()
        assert keep in members
        assert len(members) > 1
        assert quality[keep] == quality[members].max()
        copies = [m for m in members if m != keep and same[min(keep, m), max(keep, m)]]
        best = sorted(copies, key=lambda row: -quality[row])[:5]
        for member in {*members} - {keep, *copies}:
            votes = sum(same[min(member, one), max(member, one)] for one in best)
            assert votes >= 2
            assert votes > len(best) / 2
    assert labels.max(initial=-1) == len(kept) - 1
    # Whoever is left alone has no copy among those left alone.
    assert (labels[pairs] >= 0).any(axis=1).all()


@pytest.mark.parametrize(
    ("parameters", "arrays", "message"),
    [
        ({"n_neighbors": 0}, {}, "n_neighbors is 0"),
        ({"min_similarity": 2}, {}, "min_similarity is 2"),
        ({"min_hash_similarity": -2}, {}, "min_hash_similarity is -2"),
        ({}, {"quality": [1.0]}, r"quality has shape \(1,\)"),
        ({}, {"quality": [np.nan] * 12}, "quality holds NaN"),
        ({}, {"splits": [0, 1]}, r"splits has shape \(2,\)"),
        ({"false_alarm_rate": 0.5}, {"distinct_where": [True]}, r"distinct_where has shape \(1,\)"),
        ({"verify": lambda here, there: [1.0]}, {}, r"verify returned an array of shape \(1,\)"),
    ],
)
def test_what_cannot_be_is_named(parameters, arrays, message):
    X = np.repeat(copies(4, 0), 3, axis=0)
    with pytest.raises(InvalidParameterError, match=message):
        NearDuplicates(**parameters).fit(X, **arrays)


def test_a_row_of_zeros_is_no_copy():
    X = np.zeros((4, 8))
    X[:2] = 1
    assert NearDuplicates().fit(X).labels_.tolist() == [0, 0, -1, -1]


def signs(n, seed=0):
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(n, 63))


@pytest.mark.parametrize("exact_rows", [20_000, 50])
def test_a_hash_finds_what_vectors_miss(exact_rows):
    # Vectors that say nothing; 0 looks like 100 but for five signs, 1 like the mirror image of 101.
    X, plain, mirrored = np.random.default_rng(0).normal(size=(200, 32)), signs(200), signs(200, 1)
    plain[100], plain[1] = plain[0], mirrored[101]
    mirrored[1] = plain[101]
    plain[100, :5] *= -1
    asked = []

    def confirm(here, there):
        asked.extend(zip(here.tolist(), there.tolist(), strict=True))
        return np.ones(len(here))

    model = NearDuplicates(verify=confirm, min_similarity=0.99, exact_rows=exact_rows)
    found = model.fit(X, hashes=[plain, mirrored])
    assert asked == [(0, 100), (1, 101)]
    np.testing.assert_allclose(
        found.similarities_, [unit(X)[i] @ unit(X)[i + 100] for i in (0, 1)], atol=1e-6
    )
    assert model.fit(X, hashes=[plain]).pairs_.tolist() == [[0, 100]]
    assert model.fit(X).pairs_.tolist() == []
    # Across splits only.
    splits = np.arange(200) // 100
    assert model.fit(X, hashes=[plain, mirrored], splits=splits).pairs_.tolist() == [[0, 100], [1, 101]]
    splits[:] = 0
    splits[0] = 1
    assert model.fit(X, hashes=[plain, mirrored], splits=splits).pairs_.tolist() == [[0, 100]]


def test_a_hash_of_an_edit_needs_a_similar_vector_unless_it_is_nearly_equal():
    X, plain = np.random.default_rng(0).normal(size=(200, 32)), signs(200)
    edited = signs(200, 1)
    edited[0], edited[1], edited[2] = plain[100], plain[101], plain[102]
    # Of 63 signs, 53 and 58 agree.
    edited[1, :10] *= -1
    edited[2, :5] *= -1
    X[100] = X[0] + 0.5
    model = NearDuplicates(verify=lambda here, there: np.ones(len(here)), min_similarity=0.75, n_neighbors=1)
    assert model.fit(X, hashes=[plain]).pairs_.tolist() == [[0, 100]]
    # The vectors of 1 and 101, and of 2 and 102, are unlike.
    assert model.fit(X, hashes=[plain], edited_hashes=[edited]).pairs_.tolist() == [[0, 100], [2, 102]]
    model.min_similarity = -1
    assert [1, 101] in model.fit(X, hashes=[plain], edited_hashes=[edited]).pairs_.tolist()


def test_edited_hashes_find_what_neither_vectors_nor_hashes_do():
    # All are so alike that a row's nearest say nothing.
    X, plain = np.random.default_rng(0).normal(size=(200, 32)) + 9, signs(200)
    edited = signs(200, 1)
    edited[0] = plain[100]
    asked = []

    def confirm(here, there):
        asked.extend(zip(here.tolist(), there.tolist(), strict=True))
        return np.zeros(len(here))

    model = NearDuplicates(verify=confirm, min_similarity=0.9, n_neighbors=1)
    model.fit(X, hashes=[plain])
    assert (0, 100) not in asked
    model.fit(X, hashes=[plain], edited_hashes=[edited])
    assert (0, 100) in asked


def test_what_one_description_proposes_the_other_may_rule_out():
    rng = np.random.default_rng(0)
    X, plain, edited = rng.normal(size=(200, 32)), signs(200), np.stack([signs(200, 1), signs(200, 2)])
    # Vectors propose all of 0 to 2 with 100 to 102: unlike hashes; equal edits of both; no hash.
    X[100:103] = X[:3] + 0.01
    edited[0, 1] = edited[1, 101]
    plain[102], edited[:, 102] = 0, 0
    model = NearDuplicates(verify=lambda here, there: np.ones(len(here)), min_similarity=0.9)
    find = partial(model.fit, X, hashes=[plain], edited_hashes=edited)
    assert find().pairs_.tolist() == [[0, 100], [1, 101], [2, 102]]
    model.min_hash_similarity = 0.55
    assert find().pairs_.tolist() == [[1, 101], [2, 102]]
    # Hashes propose 3, 4 and 5 with 103, 104 and 105, by 53, 53 and 55 signs; vectors say otherwise of two.
    plain[103:106] = plain[3:6]
    plain[103:105, :10] *= -1
    plain[105, :8] *= -1
    X[104], X[105] = X[4] + 0.8, -X[5]
    assert find().pairs_.tolist() == [[1, 101], [2, 102], [4, 104]]
    for n_threads in (1, 3):
        model.n_threads = n_threads
        assert find().pairs_.tolist() == [[1, 101], [2, 102], [4, 104]]


def test_rows_without_a_hash_have_none_in_common():
    X = np.random.default_rng(0).normal(size=(4, 32))
    found = NearDuplicates(threshold=-1, min_similarity=1).fit(X, hashes=np.zeros((2, 4, 63)))
    assert found.pairs_.tolist() == []


@pytest.mark.parametrize(
    ("looks", "message"),
    [
        (np.zeros((4, 63)), r"hashes has shape \(4, 63\); it must be \(n_variants, n, e\) with n = 4"),
        (np.zeros((1, 5, 63)), "n = 4"),
        (np.full((1, 4, 63), np.nan), "NaN or infinity"),
    ],
)
def test_hashes_that_do_not_fit_are_refused(looks, message):
    with pytest.raises(InvalidParameterError, match=message):
        NearDuplicates().fit(np.eye(4), hashes=looks)


@pytest.mark.parametrize(
    ("looks", "edited", "message"),
    [
        (None, np.zeros((1, 4, 63)), "give hashes as well"),
        (np.zeros((1, 4, 63)), np.zeros((1, 4, 8)), "n = 4 and e = 63"),
        (np.zeros((0, 4, 63)), None, "at least one variant"),
    ],
)
def test_edited_hashes_that_do_not_fit_are_refused(looks, edited, message):
    with pytest.raises(InvalidParameterError, match=message):
        NearDuplicates().fit(np.eye(4), hashes=looks, edited_hashes=edited)


def test_candidates_and_pairs_to_calibrate_on_are_verified_together():
    X, calls = copies(200, 0), []

    def confirm(here, there):
        calls.append(len(here))
        return np.random.default_rng(0).uniform(size=len(here))

    distinct = np.arange(len(X)) < 100
    NearDuplicates(verify=confirm, false_alarm_rate=0.05, min_similarity=-1, n_neighbors=3).fit(
        X, distinct_where=distinct
    )
    # Later calls ask about rows that share a duplicate.
    n_proposed, n_own = (
        len(propose(unit(rows), n_neighbors=3, min_similarity=-1)[0]) for rows in (X, X[distinct])
    )
    assert calls[0] == n_proposed + n_own


def test_blocks_of_pairs_take_bounded_memory():
    rng = np.random.default_rng(0)
    hashes, variants = rng.choice([-1.0, 1.0], (2000, 63)), rng.choice([-1.0, 1.0], (36, 2000, 63))
    vectors = rng.standard_normal((500, 1280)).astype(np.float32)
    pairs = rng.integers(0, 500, (60_000, 2))
    for compute in (
        lambda: hash_pairs(hashes, variants, n_neighbors=3, min_similarity=0.6),
        lambda: pair_cosines(vectors, pairs),
    ):
        tracemalloc.start()
        compute()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # All variants of a block at once took 300 MB in each thread, and all pairs 600 MB.
        assert peak < 250e6
