"""Rules of recommendations become filters of one image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight import Collection
from nearsight.collection import Item
from nearsight.errors import FilterError
from nearsight.services.recommendation_rules import check_rules, condition

from fake import FakeBackend

PRODUCTS = [
    {"category": "dress", "price": 40.0, "in_stock": True},
    {"category": "dress", "price": 90.0, "in_stock": True},
    {"category": "hat", "price": 44.0, "in_stock": False},
    {"category": "men's", "price": 30.0, "in_stock": True},
    {"price": 41.0},
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    collection = Collection.create(tmp_path_factory.mktemp("rules") / "c", model=FakeBackend())
    for number, facts in enumerate(PRODUCTS):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), np.uint8)
        collection.add([pixels], metadata=facts, progress=False)
    return collection


def allowed(shop, number, *rules, where=None):
    items = list(shop.items())
    text = condition(shop, items[number], rules, where)
    matches = {item.id for item in shop.items(text)}
    return [place for place, item in enumerate(items) if item.id in matches]


def test_a_reference_stands_for_the_value_of_the_image(shop):
    assert allowed(shop, 0, "category != item.category") == [2, 3]
    assert allowed(shop, 3, "category = item.category") == [3]
    assert allowed(shop, 0, "price BETWEEN 0.8 * item.price AND item.price * 1.2") == [0, 2, 4]
    assert allowed(shop, 0, "price < item.price OR in_stock = item.in_stock") == [0, 1, 3]
    assert allowed(shop, 0, "in_stock", "price < 2*item.price", where="price > 35") == [0]
    assert allowed(shop, 0, "category != 'item.category'") == [0, 1, 2, 3]


def test_a_rule_does_not_apply_to_an_image_that_lacks_the_value(shop):
    assert allowed(shop, 4, "category = item.category") == [0, 1, 2, 3, 4]
    assert allowed(shop, 4, "category = item.category", "price < item.price") == [0, 3]
    assert condition(shop, next(shop.items()), []) is None


def test_rules_that_mean_nothing_are_refused(shop):
    for rule, message in {
        "category = item.brand": "no image has the field brand",
        "price < 2 * item.category": "only a number can be multiplied",
        "price < 2 * item.in_stock": "only a number can be multiplied",
        "price <": "not understood",
        "nope = 1": "nope",
    }.items():
        with pytest.raises(FilterError, match=message):
            check_rules(shop, [rule])
    with pytest.raises(FilterError, match="at most 20"):
        check_rules(shop, ["in_stock"] * 21)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
def test_any_text_is_quoted(shop, text):
    item = Item("0" * 32, "", [], {"category": text})
    assert shop.count(condition(shop, item, ["category = item.category"])) == sum(
        facts.get("category") == text for facts in PRODUCTS
    )
