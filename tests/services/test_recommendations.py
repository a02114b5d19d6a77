"""Recommendations for many images at once are those for one after another."""

import csv

import numpy as np
import pytest

from nearsight import Collection
from nearsight.errors import InvalidParameterError, UnknownIdError
from nearsight.services.recommendations import (
    RecommendationOptions,
    items_of,
    recommend_each,
    recommend_images,
    write_recommendation_table,
)

from fake import FakeBackend

CATEGORIES = ("dress", "hat", "shoe")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    collection = Collection.create(tmp_path_factory.mktemp("shop") / "c", model=FakeBackend())
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
        facts = {"category": CATEGORIES[number % 3], "price": float(10 + number)}
        collection.add([pixels], metadata=facts, progress=False)
    return collection


@pytest.fixture(scope="module")
def recommender(shop):
    ids = [item.id for item in shop.items()]
    return shop.fit_recommender({n: [ids[n % 24], ids[(n + 5) % 24]] for n in range(60)}, progress=False)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        RecommendationOptions(k=3),
        RecommendationOptions(k=40),
        RecommendationOptions(k=3, diversity=0.6),
        RecommendationOptions(k=4, where="price < 20", rules=["category != item.category"]),
        RecommendationOptions(k=4, rules=["price <= 1.2 * item.price"], diversity=0.3),
        RecommendationOptions(k=2, where="price < 0"),
    ],
)
def test_many_at_once_get_what_each_gets_alone(shop, recommender, options, learned):
    by = recommender if learned else None
    items = list(shop.items())[::-2]
    found = list(recommend_each(shop, items, options, by))
    assert [item.id for item, _ in found] == [item.id for item in items]
    for item, recommendations in found:
        alone = recommend_images(shop, [item.id], options, by)
        assert [
            (each.id, each.score, each.why, each.path, each.metadata) for each in recommendations.items
        ] == [
            (each.id, pytest.approx(each.score, abs=1e-6), each.why, each.path, each.metadata)
            for each in alone.items
        ]


def test_what_is_wrong_is_told_as_for_one(shop):
    with pytest.raises(InvalidParameterError, match="k is 0"):
        list(recommend_each(shop, list(shop.items()), RecommendationOptions(k=0)))
    with pytest.raises(UnknownIdError):
        items_of(shop, ["0000"])
    assert list(recommend_each(shop, [], RecommendationOptions())) == []


def test_a_table_of_some(shop, tmp_path):
    ids = [item.id for item in shop.items()]
    file = tmp_path / "some.csv"
    wanted = [ids[5], ids[2][:12], ids[2]]
    told = write_recommendation_table(file, shop, RecommendationOptions(k=2), ids=wanted, progress=False)
    assert told == {"images": 2, "rows": 4}
    with file.open(newline="") as table:
        assert [row["id"] for row in csv.DictReader(table)] == [ids[5], ids[5], ids[2], ids[2]]
