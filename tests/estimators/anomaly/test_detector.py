import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from nearsight.errors import CalibrationError, InvalidParameterError
from nearsight.estimators.anomaly import MultiLevelAnomaly, ScoreScale, combine_scores
from nearsight.estimators.anomaly.detector import feature_moments
from nearsight.estimators.conformal import from_good, required_examples

LAYERS = ((8, 3), (4, 5))


def images(n: int, seed: int = 0, shift: float = 0.0) -> list[list[np.ndarray]]:
    """Two layers of noise each; a shift moves every place a little, as another fabric would."""
    rng = np.random.default_rng(seed)
    return [
        [rng.normal(shift, size=(side, side, d)).astype(np.float32) for side, d in LAYERS] for _ in range(n)
    ]


def with_a_spot(some: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    for layers in some:
        layers[0][2:5, 3:6] += 3
    return some


def quick(**changed) -> MultiLevelAnomaly:
    return MultiLevelAnomaly(**{"n_patches": 300, "false_alarm_rate": 0.1, **changed})


@pytest.fixture(scope="module")
def fitted() -> MultiLevelAnomaly:
    return quick().fit(images(90))


def auroc(detector: MultiLevelAnomaly, good: list, bad: list) -> float:
    scores = -detector.score_samples([*good, *bad])
    return float(roc_auc_score([0] * len(good) + [1] * len(bad), scores))


def test_the_combination_sees_what_either_level_sees() -> None:
    good = images(40, 1)
    spots, shifted = with_a_spot(images(40, 2)), images(40, 3, shift=0.25)
    seen = {}
    for level in ("image", "patch", "combined"):
        detector = quick(level=level).fit(images(90))
        seen[level] = (auroc(detector, good, spots), auroc(detector, good, shifted))
    assert seen["patch"][0] > 0.99
    assert seen["image"][1] > seen["patch"][1] + 0.1
    assert seen["combined"][0] > 0.98
    assert seen["combined"][1] > seen["image"][1] - 0.05


def test_heat_is_where_the_spot_is(fitted: MultiLevelAnomaly) -> None:
    [layers] = with_a_spot(images(1, 9))
    found = fitted.score_levels(layers)
    assert set(found.levels) == {"image", "places", "0", "1"}
    y, x = divmod(int(found.heat[0].argmax()), 8)
    assert (2 <= y < 5, 3 <= x < 6) == (True, True)
    assert fitted.predict([layers]).tolist() == [-1]


def test_the_stated_rate_is_kept_over_many_draws() -> None:
    alarms = []
    for seed in range(12):
        draw = images(110, seed)
        detector = quick(n_patches=100, false_alarm_rate=0.2).fit(draw[:60])
        alarms.append(float((detector.predict(draw[60:]) == -1).mean()))
    # 19 held out: a threshold's own rate has a spread of .087, and 50 images' add .057.
    assert abs(np.mean(alarms) - 0.2) < 3 * 0.104 / np.sqrt(12)


@pytest.mark.parametrize("rate", [0.2, 0.1, 0.05, 0.01])
@pytest.mark.parametrize("n", [40, 100, 157, 1000])
def test_as_many_are_held_out_as_meet_the_rate_exactly(n: int, rate: float) -> None:
    if n - required_examples(rate) < 10:
        return
    held = n - sum(MultiLevelAnomaly(false_alarm_rate=rate).split(n))
    assert from_good(np.arange(held), false_alarm_rate=rate).expected_rate == pytest.approx(rate)
    assert held >= n / 5


def test_the_held_out_are_never_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[float] = []
    monkeypatch.setattr(
        "nearsight.estimators.anomaly.detector.feature_moments",
        lambda layers: learned.append(1.0) or feature_moments(layers),
    )
    detector = quick(level="patch").fit(images(60))
    # Of the 41 others, 15 only say what is usual.
    assert len(learned) == 26
    assert detector.threshold_.n_examples == 19
    assert detector.n_images_seen_ == 60


def test_says_how_many_good_images_it_needs() -> None:
    with pytest.raises(CalibrationError, match=r"at least 29 good images.* there are 28"):
        MultiLevelAnomaly().fit(images(28))
    MultiLevelAnomaly(n_patches=50).fit(images(29))
    with pytest.raises(CalibrationError, match="at least 309"):
        MultiLevelAnomaly(false_alarm_rate=0.01, confidence=0.95).fit(images(100))
    for n in (0, 1, 2):
        with pytest.raises(CalibrationError, match=f"there are {n}"):
            MultiLevelAnomaly().fit(images(n))


def test_learns_on_in_bounded_memory_and_keeps_the_rate() -> None:
    detector = quick().fit(images(60))
    before = detector.threshold_
    for seed in range(1, 5):
        detector.partial_fit(images(50, seed))
    assert detector.n_images_seen_ == 260
    assert detector.threshold_.n_examples == before.n_examples + 200
    assert all(len(m.memory_) <= 300 for name, m in detector._members.items() if name != "image")
    new = images(200, 77)
    rate = float((detector.predict(new) == -1).mean())
    # Images were scored before they were learned, so the rate may only be lower.
    assert rate <= detector.threshold_.observed_rate_interval(200)[1]
    # And the threshold is not so high that nothing would exceed it: it is a quantile of good scores.
    scores = -detector.score_samples(new)
    assert float((scores > detector.threshold_.value - 1).mean()) > 0.1


def test_what_was_unusual_becomes_usual() -> None:
    detector = quick().fit(images(60))
    other = images(60, 5, shift=1.0)
    assert (detector.predict(other[40:]) == -1).all()
    before = detector.score_samples(other[40:]).mean()
    detector.partial_fit(other[:40])
    assert detector.score_samples(other[40:]).mean() > before / 3


def test_its_state_is_all_of_it_and_plain(fitted: MultiLevelAnomaly) -> None:
    facts, arrays = fitted.state()
    again = MultiLevelAnomaly.from_state(json.loads(json.dumps(facts)), arrays)
    some = [*images(5, 8), *with_a_spot(images(5, 9))]
    np.testing.assert_array_equal(fitted.score_samples(some), again.score_samples(some))
    assert again.threshold_ == fitted.threshold_
    assert {a.dtype.kind for a in arrays.values()} == {"f"}


def test_reproducible(fitted: MultiLevelAnomaly) -> None:
    again = quick().fit(iter(images(90)), n=90)
    some = images(5, 8)
    np.testing.assert_array_equal(fitted.score_samples(some), again.score_samples(some))


def test_images_that_are_all_the_same() -> None:
    same = [[np.ones((4, 4, 3), np.float32)] for _ in range(40)]
    detector = quick().fit(same)
    assert detector.predict(same[:3]).tolist() == [1, 1, 1]
    odd = [np.ones((4, 4, 3), np.float32)]
    odd[0][1, 1] = 5
    assert detector.predict([odd]).tolist() == [-1]


def test_refuses_what_it_cannot_work_with(fitted: MultiLevelAnomaly) -> None:
    with pytest.raises(InvalidParameterError, match="level is 'pixel'"):
        quick(level="pixel").fit(images(40))
    with pytest.raises(InvalidParameterError, match="no length"):
        quick().fit(iter(images(40)))
    with pytest.raises(InvalidParameterError, match=r"\(h, w, d\)"):
        quick().fit(np.ones((40, 8)))
    with pytest.raises(InvalidParameterError, match="3 levels; the fitted ones had"):
        fitted.score_levels([*images(1)[0], *images(1)[0]][:3])
    spoiled = images(1)[0]
    spoiled[0][0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fitted.score_levels(spoiled)


def test_one_blind_detector_does_not_hide_what_another_sees() -> None:
    assert combine_scores([np.array([-3.0, 0.5]), np.array([6.0, -0.5])]).tolist() == [6.0, 0.5]
    with pytest.raises(InvalidParameterError, match="0 detectors"):
        combine_scores([])
    with pytest.raises(InvalidParameterError, match="0 scores"):
        ScoreScale.fit(np.empty(0))
    assert np.isfinite(ScoreScale.fit(np.zeros(4)).standardized([1.0]))
