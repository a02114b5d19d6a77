import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import adjusted_rand_score

from nearsight.errors import InvalidParameterError
from nearsight.estimators.customer_segments import CustomerSegments, CustomerVectors, SegmentCenters
from nearsight.estimators.neighbors import unit_length
from nearsight.testing import EstimatorTests


@pytest.mark.slow
class TestConformance(EstimatorTests):
    min_rows = 3

    @pytest.fixture
    def estimator(self) -> CustomerSegments:
        # Trying many numbers would make scikit-learn's checks take half a minute.
        return CustomerSegments(n_segments=3)

    def output(self, estimator: CustomerSegments, X: np.ndarray) -> np.ndarray:
        return estimator.predict(X)


def test_the_mean_and_the_spread_of_each_customer_by_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 8)) + 1
    owners = rng.choice(["a", "b", "c"], 60)
    made = CustomerVectors.from_images(X, owners)
    vectors = unit_length(X.astype(np.float32))
    for i, name in enumerate(made.names):
        own = vectors[owners == name]
        np.testing.assert_allclose(made.means[i], unit_length(own.mean(0)[None])[0], atol=1e-6)
        # Without weights, the spread is 1 - the mean cosine of all pairs of different images.
        pairs = (own @ own.T)[np.triu_indices(len(own), 1)]
        assert made.spreads[i] == pytest.approx(1 - pairs.mean(), abs=1e-5)
    assert made.n_images.tolist() == [np.sum(owners == n) for n in made.names]


def test_a_weight_is_a_number_of_times() -> None:
    X = np.random.default_rng(1).normal(size=(3, 5))
    weighted = CustomerVectors.from_images(X, ["a", "a", "a"], [3, 1, 2])
    repeated = CustomerVectors.from_images(np.repeat(X, [3, 1, 2], axis=0), ["a"] * 6)
    np.testing.assert_allclose(weighted.means, repeated.means, atol=1e-6)


def test_the_spread_does_not_depend_on_how_many_images_there_are() -> None:
    rng = np.random.default_rng(2)
    owners = np.concatenate([np.repeat([f"few {i}" for i in range(300)], 2), ["many"] * 600])
    made = CustomerVectors.from_images(rng.normal(size=(1200, 16)) + 1, owners)
    assert made.spreads[:-1].mean() == pytest.approx(made.spreads[-1], abs=0.03)


def test_tastes_and_breadth_of_taste_make_segments() -> None:
    rng = np.random.default_rng(0)
    themes = rng.normal(size=(3, 24))
    tastes = [[0], [1], [2]]
    owners, rows, truth = [], [], []
    for c in range(45):
        truth.append(c % 3)
        for _ in range(8):
            owners.append(f"{c:03}")
            rows.append(themes[rng.choice(tastes[c % 3])] + 0.5 * rng.normal(size=24))
    made = CustomerVectors.from_images(np.array(rows), owners)
    found = CustomerSegments().fit(made.features)
    assert found.n_segments_ == 3
    assert found.silhouette_ > 0.5
    assert adjusted_rand_score(found.labels_, truth) == 1.0
    np.testing.assert_array_equal(found.predict(made.features), found.labels_)
    assert np.unique(CustomerSegments(n_segments=5).fit_predict(made.features)).tolist() == [0, 1, 2, 3, 4]


def test_customers_with_one_taste_are_told_apart_by_its_breadth() -> None:
    rng = np.random.default_rng(4)
    theme = rng.normal(size=16)
    owners = np.repeat([f"{c:03}" for c in range(40)], 30)
    width = np.repeat(np.where(np.arange(40) < 20, 0.2, 1.0), 30)[:, None]
    made = CustomerVectors.from_images(theme + width * rng.normal(size=(1200, 16)), owners)
    assert made.spreads[:20].max() < made.spreads[20:].min()
    scaled = made.features[:, -1]
    assert scaled[:20].max() < scaled[20:].min()
    share = scaled.var() / made.means.var(0).sum()
    assert share == pytest.approx(0.1**2, rel=1e-3)


def test_one_image_each_says_nothing_of_the_spread() -> None:
    made = CustomerVectors.from_images(np.eye(3), ["a", "b", "c"])
    assert np.isnan(made.spreads).all()
    assert (made.features[:, -1] == 0).all()


def test_no_segments_where_there_are_none() -> None:
    assert CustomerSegments().fit(np.random.default_rng(0).normal(size=(120, 20))).n_segments_ == 1


@pytest.mark.slow
def test_a_group_far_out_does_not_hide_the_others() -> None:
    rng = np.random.default_rng(1)
    centers = np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0], [40, 40, 40]])
    X = np.repeat(centers, 20, axis=0) + 0.5 * rng.normal(size=(80, 3))
    found = CustomerSegments().fit(X)
    assert found.n_segments_ == 4
    assert adjusted_rand_score(found.labels_, np.repeat(range(4), 20)) == 1.0


def test_few_or_equal_customers_are_one_segment() -> None:
    assert CustomerSegments().fit_predict(np.eye(1)).tolist() == [0]
    assert CustomerSegments().fit_predict(np.eye(2)).tolist() == [0, 0]
    assert CustomerSegments().fit_predict(np.ones((9, 3))).tolist() == [0] * 9
    assert CustomerSegments(n_segments=2).fit_predict(np.ones((9, 3))).tolist() == [0] * 9


def test_bad_input_is_named() -> None:
    with pytest.raises(InvalidParameterError, match="2 vectors, 1 customers"):
        CustomerVectors.from_images(np.eye(2), ["a"])
    for weight in (0, -1, np.nan):
        with pytest.raises(InvalidParameterError, match="weight"):
            CustomerVectors.from_images(np.eye(2), ["a", "b"], [1, weight])
    with pytest.raises(InvalidParameterError, match="ask for at most 2"):
        CustomerSegments(n_segments=3).fit(np.eye(2))


def drawn(n: int, rng: np.random.Generator, *, foreign: bool = False, most: int = 12) -> tuple:
    """Customers of three tastes, with one to `most` images each; foreign ones have another."""
    themes = np.random.default_rng(77).normal(size=(4, 24))
    taste = np.full(n, 3) if foreign else rng.integers(3, size=n)
    sizes = rng.integers(1, most + 1, n)
    owners = np.repeat(np.arange(n), sizes)
    rows = themes[taste[owners]] + 0.9 * rng.normal(size=(len(owners), 24))
    return rows, np.array([f"{owner:04}" for owner in owners])


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_later_customers_are_turned_away_at_the_stated_rate_and_strangers_nearly_always(rate: float) -> None:
    realized, strangers, n = [], [], 100
    for seed in range(40):
        rng = np.random.default_rng(seed)
        made = CustomerVectors.from_images(*drawn(150, rng))
        found = CustomerSegments(n_segments=3, false_alarm_rate=rate, random_state=seed)
        found.fit(made.features, n_images=made.n_effective)
        for foreign, answers in ((False, realized), (True, strangers)):
            new = CustomerVectors.from_images(*drawn(n, rng, foreign=foreign), spread_scale=made.spread_scale)
            answers.append((found.predict(new.features, n_images=new.n_effective) < 0).mean())
    # All splits together: what is turned away, and the luck of each threshold's 150 examples.
    spread = np.sqrt(rate * (1 - rate) * (1 / n + 1 / 150) / len(realized))
    assert abs(np.mean(realized) - rate) < 3 * spread
    low, high = binom.ppf([0.025, 0.975], n, rate) / n
    assert np.mean([low <= one <= high for one in realized]) >= 0.7
    assert np.mean(strangers) > 0.9


@pytest.mark.slow
def test_few_images_are_no_reason_to_be_turned_away() -> None:
    away = {"with": [], "without": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        made = CustomerVectors.from_images(*drawn(300, rng))
        new = CustomerVectors.from_images(*drawn(200, rng, most=1), spread_scale=made.spread_scale)
        for name, old, later in (
            ("with", made.n_effective, new.n_effective),
            ("without", None, None),
        ):
            found = CustomerSegments(n_segments=3, false_alarm_rate=0.1, random_state=seed)
            found.fit(made.features, n_images=old)
            away[name].append((found.predict(new.features, n_images=later) < 0).mean())
    assert np.mean(away["with"]) < 0.2
    assert np.mean(away["without"]) > 0.4


def test_limits_rest_on_centers_that_the_customer_had_no_part_in() -> None:
    rng = np.random.default_rng(6)
    X = np.repeat(rng.normal(size=(3, 5)), 30, axis=0) + 0.2 * rng.normal(size=(90, 5))
    found = CustomerSegments(n_segments=3, false_alarm_rate=0.1).fit(X)
    scores, nearest = np.empty(90), np.empty(90, int)
    # The segments lie apart, so that without a tenth they are the same, and centers plain means.
    for out in np.array_split(np.random.default_rng(0).permutation(90), 10):
        kept = np.setdiff1d(np.arange(90), out)
        centers = np.array([X[kept][found.labels_[kept] == c].mean(0) for c in range(3)])
        for i in out:
            squared = ((X[i] - centers) ** 2).sum(1)
            scores[i], nearest[i] = squared.min(), squared.argmin()
    # All have as many images, so novelty is this distance over the mean one; 90 examples, rank 9.
    usual = found.centers_.typical.sum()
    assert usual == pytest.approx(np.mean(scores), rel=1e-6)
    medians = np.array([np.median(scores[nearest == c]) for c in range(3)])
    together = np.sort(scores / medians[nearest])[-9]
    np.testing.assert_allclose(found.centers_.limits, together * medians / usual, rtol=1e-6)


@pytest.mark.slow
def test_centers_survive_a_file() -> None:
    made = CustomerVectors.from_images(*drawn(80, np.random.default_rng(1)))
    for rate in (None, 0.05):
        found = CustomerSegments(false_alarm_rate=rate).fit(made.features).centers_
        again = SegmentCenters.from_arrays(found.to_arrays())
        assert again.false_alarm_rate == rate
        np.testing.assert_array_equal(
            again.assign(made.features, made.n_effective), found.assign(made.features, made.n_effective)
        )


def test_too_few_customers_turn_nobody_away() -> None:
    found = CustomerSegments(false_alarm_rate=0.05).fit(np.eye(4))
    assert np.isinf(found.centers_.limits).all()
    assert found.predict(100 * np.ones((1, 4))).tolist() == [0]
    same = CustomerSegments(false_alarm_rate=0.05).fit(np.ones((30, 4)))
    assert same.predict(np.ones((2, 4))).tolist() == [0, 0]
    assert same.predict(-np.ones((1, 4))).tolist() == [-1]


def test_numbers_of_images_are_checked() -> None:
    for numbers in ([1, 2], [1, 2, 0], [1, 2, np.nan]):
        with pytest.raises(InvalidParameterError, match="n_images"):
            CustomerSegments(n_segments=1).fit(np.eye(3), n_images=numbers)


@pytest.mark.slow
def test_progress_is_shown_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    X = np.random.default_rng(0).normal(size=(40, 6))
    shown = CustomerSegments(progress=True).fit(X)
    told = capsys.readouterr().err
    assert "choosing the number of segments" in told
    assert "fitting segments" in told
    silent = CustomerSegments().fit(X)
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(shown.labels_, silent.labels_)
