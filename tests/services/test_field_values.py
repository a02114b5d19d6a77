"""Values of fields as the codes of a map, against plain counting."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight import Collection
from nearsight.errors import InvalidParameterError
from nearsight.services.field_values import HIGHEST, NONE, OTHER, field_values

from fake import DIM, FakeBackend

IDS = [f"{i:032x}" for i in range(40)]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    collection = Collection.create(tmp_path_factory.mktemp("values") / "c", model=FakeBackend())
    X = np.random.default_rng(0).standard_normal((len(IDS), DIM)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    kinds = [f"kind {i % 13}" for i in range(39)]
    metadata = [
        {"kind": kind, "price": 10.0 ** (i / 10), "side": float(i % 3), "sold": i % 2 == 0}
        for i, kind in enumerate(kinds)
    ]
    collection.add_vectors(X, ids=IDS, fingerprint=collection.fingerprint, metadata=[*metadata, {}])
    return collection


def test_the_ten_most_frequent_values_and_the_others(collection):
    values = field_values(collection, "kind", IDS)
    counts = Counter(f"kind {i % 13}" for i in range(39))
    assert values.kind == "category"
    assert dict(values.categories) == {name: counts[name] for name, _ in values.categories}
    assert len(values.categories) == 10
    assert (values.n_other, values.n_none) == (39 - sum(n for _, n in values.categories), 1)
    for i, code in enumerate(values.codes[:39].tolist()):
        assert code == OTHER or values.categories[code][0] == f"kind {i % 13}"
    assert values.codes[39] == NONE
    assert (values.codes == OTHER).sum() == values.n_other


def test_numbers_are_a_scale_but_a_few_whole_ones_and_truths_are_names(collection):
    price = field_values(collection, "price", IDS[::-1])
    assert (price.kind, price.codes[0], price.n_none) == ("number", NONE, 1)
    rising = price.codes[1:][::-1].astype(int)
    assert (np.diff(rising) >= 0).all()
    assert (rising[0], rising[-1]) == (0, HIGHEST)
    assert [name for name, _ in field_values(collection, "side", IDS).categories] == ["0", "1", "2"]
    assert {name for name, _ in field_values(collection, "sold", IDS).categories} == {"True", "False"}


def test_dates_and_what_is_not_there(collection):
    added = field_values(collection, "added", IDS)
    assert added.kind == "date"
    assert added.ends[0] <= added.ends[1]
    assert len(added.ends[0]) == len("2026-01-01")
    camera = field_values(collection, "camera", IDS)
    assert (camera.categories, camera.n_none) == ([], len(IDS))
    assert field_values(collection, "kind", ["f" * 32]).codes.tolist() == [NONE]
    with pytest.raises(InvalidParameterError):
        field_values(collection, "nope", IDS)


@given(st.lists(st.one_of(st.none(), st.floats(-1e300, 1e300)), max_size=30))
def test_a_scale_keeps_the_order(numbers):
    from nearsight.services.field_values import _scale

    codes = _scale("number", numbers).codes.tolist()
    known = sorted((value, code) for value, code in zip(numbers, codes, strict=True) if value is not None)
    assert [code for _, code in known] == sorted(code for _, code in known)
    assert all(code <= HIGHEST for _, code in known)
    assert codes.count(NONE) == numbers.count(None)
