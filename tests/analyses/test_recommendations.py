"""Recommendations from a collection: names, filters, and the same answers as the estimator's."""

import json

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.analyses.recommended_images import _shortened
from nearsight.errors import (
    FilterError,
    FingerprintMismatchError,
    InvalidParameterError,
    UnknownIdError,
)
from nearsight.estimators.recommendation import Recommender

from fake import FakeBackend


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Twelve images in three folders, the names 0.png to 3.png in each; nobody may change it."""
    folder = tmp_path_factory.mktemp("shop")
    for number in range(12):
        kind, name = divmod(number, 4)
        (folder / f"kind{kind}").mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"kind{kind}/{name}.png")
    collection = Collection.create(folder / "collection", model=FakeBackend())
    for kind in range(3):
        collection.add(folder / f"kind{kind}", metadata={"kind": kind})
    return collection


@pytest.fixture(scope="module")
def orders():
    """Who buys 0 of a kind buys 1 of the next; enough to learn from."""
    rng = np.random.default_rng(0)
    baskets = {}
    for number in range(100):
        kind = rng.integers(3)
        baskets[f"order {number}"] = [
            f"kind{kind}/0.png",
            f"kind{(kind + 1) % 3}/1.png",
            f"kind{rng.integers(3)}/{rng.integers(4)}.png",
        ]
    return baskets


def id_of(shop, end):
    [item] = [item for item in shop.items() if item.path.endswith(end)]
    return item.id


def test_lookalikes_are_those_of_the_estimator(shop):
    ids = [item.id for item in shop.items()]
    asked = [ids[2], ids[7]]
    fitted = Recommender().fit(shop.vectors(ids))
    for diversity in (0.0, 0.6):
        found = shop.recommend(asked, k=4, diversity=diversity).items
        expected = fitted.recommend([2, 7], k=4, diversity=diversity)
        assert [one.id for one in found] == [ids[one.item] for one in expected]
        assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-5)
        assert all(one.why.startswith("looks like ") for one in found)


def test_what_is_bought_together_comes_first_and_says_so(shop, orders):
    found = shop.recommend(id_of(shop, "kind0/0.png")[:8], baskets=orders, k=3)
    best = found.items[0]
    assert best.path.endswith("kind1/1.png")
    assert "bought with 0 in" in best.why
    assert (found.n_baskets, found.unmatched, found.learned) == (100, {}, True)
    assert 0 < best.score <= 1
    assert best.metadata == {"kind": 1}


def test_a_filter_limits_what_is_recommended_and_not_what_is_learned(shop, orders):
    asked = id_of(shop, "kind0/0.png")
    whole = {s.id: s.score for s in shop.recommend(asked, baskets=orders, k=12).items}
    part = shop.recommend(asked, baskets=orders, k=12, where="kind = 2").items
    assert len(part) == 4
    assert all(s.metadata["kind"] == 2 and s.score == whole[s.id] for s in part)
    assert [s.metadata["kind"] for s in shop.recommend(asked, where="kind = 2").items] == [2] * 4


def test_unknown_items_are_counted_and_listed(shop, orders):
    baskets = {**orders, "a": ["nothing.png", "kind0/0.png"], "b": ["nothing.png"], "c": ["0.png"]}
    recommender = shop.fit_recommender(baskets)
    # 0.png is the name of three images.
    assert dict(recommender.unmatched) == {"nothing.png": 2, "0.png": 1}
    assert recommender.recommend(id_of(shop, "kind0/0.png")).n_baskets == 101


def test_baskets_of_nothing_known_are_refused(shop):
    with pytest.raises(InvalidParameterError, match=r"'x.png'.*nearsight ls"):
        shop.recommend(id_of(shop, "kind0/0.png"), baskets={"a": ["x.png"]})


def test_what_nobody_bought_comes_last_unless_it_is_new(shop, orders):
    unsold = {name: [item for item in items if "/3" not in item] for name, items in orders.items()}
    recommender = shop.fit_recommender(unsold)
    places = {}
    for include_new_items in (False, True):
        found = recommender.recommend(
            id_of(shop, "kind0/0.png"), k=12, include_new_items=include_new_items
        ).items
        places[include_new_items] = [place for place, one in enumerate(found) if one.path.endswith("/3.png")]
    assert places[False] == [8, 9, 10]
    assert places[True][0] < 8


def test_a_fitted_recommender_answers_like_the_collection(shop, orders):
    recommender = shop.fit_recommender(orders)
    for end in ("kind0/0.png", "kind2/3.png"):
        asked = id_of(shop, end)
        assert recommender.recommend(asked, k=5) == shop.recommend(asked, baskets=orders, k=5)


def test_a_saved_recommender_answers_the_same(shop, orders, tmp_path):
    made = shop.fit_recommender({**orders, "a": ["gift wrap"]})
    made.save(tmp_path / "kept.npz")
    with np.load(tmp_path / "kept.npz", allow_pickle=False) as arrays:
        assert json.loads(str(arrays["about"]))["fingerprint"] == shop.fingerprint.to_dict()
        assert "X" not in arrays
    kept = shop.load_recommender(tmp_path / "kept.npz")
    for options in ({}, {"where": "kind = 2"}, {"diversity": 0.4, "include_new_items": True}):
        for asked in (id_of(shop, "kind0/0.png"), [id_of(shop, "kind2/3.png"), id_of(shop, "kind1/1.png")]):
            found, expected = (one.recommend(asked, k=5, **options) for one in (kept, made))
            assert [s.score for s in found.items] == pytest.approx(
                [s.score for s in expected.items], rel=1e-9
            )
            assert [(s.id, s.why) for s in found.items] == [(s.id, s.why) for s in expected.items]
            assert (found.n_baskets, found.unmatched) == (100, {"gift wrap": 1})


def test_what_came_and_went_since_a_recommender_was_saved(tmp_path, orders):
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(tmp_path / f"{number}.png")
    collection = Collection.create(tmp_path / "collection", model=FakeBackend())
    collection.add([tmp_path / f"{number}.png" for number in range(5)])
    baskets = {f"{n}": ["0", "1" if n % 3 else "2"] for n in range(60)}
    made = collection.fit_recommender(baskets)
    made.save(tmp_path / "kept.npz")
    gone, asked = id_of(collection, "1.png"), id_of(collection, "0.png")
    before = {s.id: s.score for s in made.recommend(asked).items}
    collection.remove([gone])
    collection.add(tmp_path / "5.png")
    kept = collection.load_recommender(tmp_path / "kept.npz")
    found = kept.recommend(asked, k=4)
    assert found.n_new == 1
    del before[gone]
    assert {s.id: s.score for s in found.items} == pytest.approx(before, rel=1e-6)
    with pytest.raises(UnknownIdError, match="fit it again"):
        kept.recommend(id_of(collection, "5.png"))


def test_a_file_of_an_earlier_version_opens(shop, orders, tmp_path):
    shop.fit_recommender(orders).save(tmp_path / "saved.npz")
    with np.load(tmp_path / "saved.npz", allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        assert about["kind"] == "nearsight recommender"
        earlier = json.dumps({**about, "kind": "nearsight catalogue"})
        np.savez(tmp_path / "earlier.npz", **{**arrays, "about": np.array(earlier)})
    history = id_of(shop, "kind0/0.png")
    saved, of_earlier = (shop.load_recommender(tmp_path / f"{name}.npz") for name in ("saved", "earlier"))
    assert of_earlier.recommend(history, k=3) == saved.recommend(history, k=3)


def test_a_saved_recommender_of_something_else_is_refused(shop, orders, tmp_path):
    shop.fit_recommender(orders).save(tmp_path / "kept.npz")
    other = Collection.create(tmp_path / "other", model=FakeBackend(seed=1))
    with pytest.raises(FingerprintMismatchError, match=r"weights_sha256.* nearsight recommend --baskets CSV"):
        other.load_recommender(tmp_path / "kept.npz")
    empty = Collection.create(tmp_path / "empty", model=FakeBackend())
    with pytest.raises(InvalidParameterError, match="none of the 12 images"):
        empty.load_recommender(tmp_path / "kept.npz")
    with pytest.raises(InvalidParameterError, match="no recommender at"):
        shop.load_recommender(tmp_path / "none.npz")
    shop.layout_2d(method="pca")
    with pytest.raises(InvalidParameterError, match="it is a nearsight map"):
        shop.load_recommender(shop.directory / "map.npz")


def test_an_image_that_came_later_is_told(tmp_path, orders):
    for number in range(3):
        Image.new("RGB", (32, 32), (number * 80, 0, 90)).save(tmp_path / f"{number}.png")
    collection = Collection.create(tmp_path / "collection", model=FakeBackend())
    collection.add([tmp_path / "0.png", tmp_path / "1.png"])
    recommender = collection.fit_recommender({"a": ["0", "1"]})
    collection.add(tmp_path / "2.png")
    with pytest.raises(UnknownIdError, match="fit it again"):
        recommender.recommend(id_of(collection, "2.png"))


def test_bad_questions(shop, orders):
    asked = id_of(shop, "kind0/0.png")
    few = dict(list(orders.items())[:4])
    for baskets in (None, few):
        with pytest.raises(UnknownIdError):
            shop.recommend("ffffffffffff", baskets=baskets)
        with pytest.raises(InvalidParameterError, match="no id"):
            shop.recommend([], baskets=baskets)
        with pytest.raises(InvalidParameterError, match="k is 0"):
            shop.recommend(asked, baskets=baskets, k=0)
        with pytest.raises(InvalidParameterError, match="diversity"):
            shop.recommend(asked, baskets=baskets, diversity=-1)
        with pytest.raises(FilterError):
            shop.recommend(asked, baskets=baskets, where="kind =")


def test_long_names_leave_room_for_the_sentence():
    assert _shortened("bread") == "bread"
    assert _shortened("047b4988-aeb2-423b-8a2e-163477a6cae2") == "047b4988-aeb…a6cae2"
