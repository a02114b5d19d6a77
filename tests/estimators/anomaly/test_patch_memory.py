import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.base import clone

from nearsight.errors import InvalidParameterError
from nearsight.estimators.anomaly import PatchMemory

rng = np.random.default_rng(7)
GOOD = rng.normal(size=(12, 6, 5, 4)).astype(np.float32)


def paper(**changed) -> PatchMemory:
    """As the paper has it."""
    return PatchMemory(**{"shrinkage": None, "top_share": 0.0, "n_reweight": 0, "neighborhood": 1, **changed})


def test_without_a_bound_it_is_the_nearest_of_all_patches() -> None:
    memory = paper(n_rows=10_000).fit(GOOD)
    asked = rng.normal(size=(2, 3, 7, 4)).astype(np.float32)
    exact = cdist(asked.reshape(-1, 4), GOOD.reshape(-1, 4)).min(1).reshape(2, 3, 7)
    np.testing.assert_allclose(memory.distances(asked), exact, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(-memory.score_samples(asked), exact.reshape(2, -1).max(1), rtol=1e-4)


def test_a_bounded_memory_is_off_by_no_more_than_its_cover() -> None:
    memory = paper(n_rows=60).fit(GOOD)
    assert len(memory.memory_) == 60
    asked = rng.normal(size=(1, 4, 4, 4)).astype(np.float32)
    exact = cdist(asked.reshape(-1, 4), GOOD.reshape(-1, 4)).min(1).reshape(1, 4, 4)
    found = memory.distances(asked)
    assert (found >= exact - 1e-4).all()
    assert (found <= exact + memory.cover_ + 1e-4).all()


def test_neighborhoods_are_averaged() -> None:
    maps = rng.normal(size=(1, 5, 5, 2)).astype(np.float32)
    found = PatchMemory(neighborhood=3)._patches(maps)
    padded = np.pad(maps[0], ((1, 1), (1, 1), (0, 0)), "edge")
    for y in range(5):
        for x in range(5):
            np.testing.assert_allclose(found[0, y, x], padded[y : y + 3, x : x + 3].mean((0, 1)), atol=1e-6)


def test_fine_maps_are_averaged_in_blocks() -> None:
    maps = np.arange(35, dtype=np.float32).reshape(1, 5, 7, 1)
    found = PatchMemory(neighborhood=1, max_side=4)._patches(maps)[0, ..., 0]
    assert found.shape == (3, 4)
    assert found[0, 0] == maps[0, :2, :2].mean()
    assert found[2, 3] == maps[0, 4, 6, 0]


def test_the_weight_is_equation_7() -> None:
    memory = paper(n_rows=500, n_reweight=3, top_share=0.0).fit(GOOD)
    asked = rng.normal(size=(1, 4, 4, 4)).astype(np.float32) * 2
    away = cdist(asked.reshape(-1, 4) - memory.mean_, memory.memory_)
    worst = away.min(1).argmax()
    nearest = away[worst].argmin()
    around = np.argsort(cdist(memory.memory_[nearest : nearest + 1], memory.memory_)[0])[:3]
    weight = 1 - np.exp(away[worst, nearest]) / np.exp(away[worst, around]).sum()
    assert -memory.score_samples(asked)[0] == pytest.approx(weight * away[worst, nearest], rel=1e-4)


def test_whitening_lets_a_quiet_feature_speak() -> None:
    good = np.concatenate([100 * GOOD[..., :2], GOOD[..., 2:]], -1)
    odd = good[:1].copy()
    odd[0, 2, 3, 3] += 6

    def place(memory: PatchMemory) -> int:
        return int(memory.fit(good[1:]).distances(odd)[0].argmax())

    assert divmod(place(paper(shrinkage=0.0)), 5) == (2, 3)
    assert divmod(place(paper()), 5) != (2, 3)


def test_a_stream_of_maps_of_any_size_is_learned() -> None:
    memory = PatchMemory(n_rows=50).fit(
        rng.normal(size=(n, 4, n + 1, 3)).astype(np.float32) for n in (1, 2, 3)
    )
    assert memory.n_patches_seen_ == sum(n * 4 * (n + 1) for n in (1, 2, 3))
    memory.partial_fit(rng.normal(size=(2, 4, 4, 3)).astype(np.float32))
    assert len(memory.memory_) == 50


def test_more_good_images_make_their_like_usual() -> None:
    memory = PatchMemory().fit(GOOD)
    other = GOOD + 15
    before = memory.score_samples(other).mean()
    assert memory.partial_fit(other).score_samples(other).mean() > before / 100
    again = memory.fit(GOOD).score_samples(other).mean()
    assert again == pytest.approx(before)  # fit starts anew


@pytest.mark.parametrize("n", [1, 2])
def test_one_map_is_enough(n: int) -> None:
    memory = PatchMemory().fit(GOOD[:n])
    assert np.isfinite(memory.score_samples(GOOD)).all()


def test_maps_that_are_all_the_same() -> None:
    same = np.full((4, 5, 5, 3), 2.0, np.float32)
    memory = PatchMemory().fit(same)
    assert memory.score_samples(same).tolist() == [0, 0, 0, 0]
    assert memory.score_samples(same + 1)[0] < -1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_numbers_that_are_not_finite(bad: float) -> None:
    spoiled = GOOD.copy()
    spoiled[3, 2, 1, 0] = bad
    with pytest.raises(InvalidParameterError, match="NaN"):
        PatchMemory().fit(spoiled)
    with pytest.raises(InvalidParameterError, match="NaN"):
        PatchMemory().fit(GOOD).distances(spoiled)


@pytest.mark.parametrize(
    ("maps", "message"),
    [(GOOD[0], "shape"), (GOOD[:0], "shape"), ([], "0 maps")],
)
def test_refuses_what_is_no_map(maps, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        PatchMemory().fit(maps)


@pytest.mark.parametrize(
    "bad", [{"neighborhood": 2}, {"max_side": 0}, {"shrinkage": 1.5}, {"top_share": -0.1}]
)
def test_refuses_parameters_out_of_range(bad: dict) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(bad))):
        PatchMemory(**bad).fit(GOOD)


def test_other_features_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="3 features"):
        PatchMemory().fit(GOOD).distances(GOOD[..., :3])


def test_is_an_estimator_and_reproducible() -> None:
    memory = PatchMemory(n_rows=30, random_state=4)
    scores = clone(memory).fit(GOOD).score_samples(GOOD)
    np.testing.assert_array_equal(scores, clone(memory).fit(GOOD).score_samples(GOOD))


def test_a_score_does_not_depend_on_its_batch() -> None:
    memory = PatchMemory(n_rows=30).fit(GOOD)
    one_by_one = [memory.score_samples(GOOD[i : i + 1])[0] for i in range(len(GOOD))]
    assert memory.score_samples(GOOD).tolist() == one_by_one


def test_its_state_is_all_of_it() -> None:
    memory = PatchMemory(n_rows=30).fit(GOOD)
    again = PatchMemory.from_state(*memory.state())
    np.testing.assert_array_equal(memory.distances(GOOD + 1), again.distances(GOOD + 1))
    more = rng.normal(size=(5, 6, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        memory.partial_fit(more).distances(GOOD), again.partial_fit(more).distances(GOOD)
    )
