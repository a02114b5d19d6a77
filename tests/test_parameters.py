"""Numbers that are none, or out of range, are refused by name."""

import numpy as np
import pytest

from nearsight import AnomalyDetector, Collection, Embedder
from nearsight.errors import InvalidParameterError, VectorError
from nearsight.parameters import require_number, require_whole

from fake import FakeBackend


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(1)])
def test_whole_numbers_pass(value):
    require_whole("k", value)
    require_number("k", value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("3", "k is '3'; it must be a whole number of at least 1, such as k=3"),
        ("three", "k is 'three'; it must be a whole number of at least 1, such as k=1"),
        (3.7, "k is 3.7; it must be a whole number of at least 1, such as k=3"),
        (float("nan"), "k is nan; it must be a whole number of at least 1, such as k=1"),
        (True, "k is True; it must be a whole number of at least 1, such as k=1"),
        (None, "k is None; it must be a whole number of at least 1, such as k=1"),
        (0, "k is 0; it must be at least 1"),
        (np.int32(-2), "k is -2; it must be at least 1"),
    ],
)
def test_what_is_no_whole_number_is_refused_by_name(value, message):
    with pytest.raises(InvalidParameterError) as refused:
        require_whole("k", value)
    assert str(refused.value) == message


def test_none_is_a_value_of_what_is_optional():
    require_whole("n_threads", None, optional=True)
    require_whole("n_processes", 0, least=0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.05", "rate is '0.05'; it must be a number, such as rate=0.05"),
        (None, "rate is None; it must be a number, such as rate=0.5"),
        (False, "rate is False; it must be a number, such as rate=0.5"),
    ],
)
def test_what_is_no_number_is_refused_by_name(value, message):
    with pytest.raises(InvalidParameterError) as refused:
        require_number("rate", value)
    assert str(refused.value) == message
    require_number("rate", np.float32(0.5))


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    collection = Collection.create(tmp_path_factory.mktemp("numbers") / "c", model=FakeBackend())
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    collection.add(list(pixels), progress=False)
    return collection


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("k", lambda c, value: c.search(np.zeros((8, 8, 3), np.uint8), k=value)),
        ("k", lambda c, value: c.outliers(value)),
        ("n_neighbors", lambda c, value: c.outliers(n_neighbors=value)),
        ("k", lambda c, value: c.cluster(value)),
        ("k", lambda c, value: c.recommend(next(c.items()).id, k=value)),
        ("diversity", lambda c, value: c.recommend(next(c.items()).id, diversity=value)),
        ("n", lambda c, value: c.suggest_labels(value)),
        ("dim", lambda c, value: c.reduce_dim(value, c.directory / "short")),
        ("n_neighbors", lambda c, value: c.find_duplicates(n_neighbors=value, progress=False)),
        ("min_similarity", lambda c, value: c.find_duplicates(min_similarity=value, progress=False)),
        ("false_alarm_rate", lambda c, value: c.find_duplicates(false_alarm_rate=value, progress=False)),
        ("n_threads", lambda c, value: c.find_duplicates(n_threads=value, progress=False)),
        ("false_alarm_rate", lambda c, value: c.audit(false_alarm_rate=value, progress=False)),
        ("n_threads", lambda c, value: c.add([], n_threads=value)),
        ("n_processes", lambda c, value: Embedder(FakeBackend(), n_processes=value)),
        ("max_tiles", lambda c, value: AnomalyDetector(max_tiles=value)),
        ("scale", lambda c, value: AnomalyDetector(scale=value)),
    ],
)
def test_public_methods_refuse_a_number_in_quotes(collection, name, call):
    with pytest.raises(InvalidParameterError, match=rf"^{name} is '3'; it must be a .*such as {name}=3"):
        call(collection, "3")


def test_search_vectors_refuses_it_as_a_store_does(collection):
    with pytest.raises(VectorError, match="k is '3'"):
        collection.search_vectors(np.ones((1, 64)), k="3")
