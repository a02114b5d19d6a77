"""Segments of customers."""

import json

import numpy as np
import pytest
from analyses.conftest import truth_of

from nearsight import Collection
from nearsight.analyses.customer_segments import Segmentation
from nearsight.errors import FingerprintMismatchError, InvalidParameterError

from fake import FakeBackend


def bought(collection, n_customers=24):
    """Customers of two tastes, and what they bought."""
    rng = np.random.default_rng(0)
    truth = truth_of(collection)
    by_kind = {kind: [i for i in sorted(truth) if truth[i] == kind] for kind in range(4)}
    lines = []
    for number in range(n_customers):
        kinds = (0, 1) if number % 2 else (2, 3)
        lines += [(f"{number:02}", rng.choice(by_kind[kinds[j % 2]]), 1 + j % 3) for j in range(6)]
    return lines


def test_segments_are_customers_of_one_taste(collection):
    found = collection.segment_customers([*bought(collection), ("00", "gone.jpg", 1), ("99", "gone.jpg", 1)])
    assert len(found.segments) == 2
    assert found.unmatched == {"gone.jpg": 2}
    assert set(found.customers) == {f"{n:02}" for n in range(24)}
    assert len({found.customers[f"{n:02}"] for n in range(0, 24, 2)}) == 1
    truth = truth_of(collection)
    for segment in found.segments:
        assert {found.customers[c] for c in segment.customers} == {segment.id}
        kinds = {truth[i] for i in segment.representatives}
        assert kinds == ({0, 1} if int(segment.customers[0]) % 2 else {2, 3})
        assert 0 < segment.spread < 1
    assert found.silhouette > 0.2
    assert len(collection.segment_customers(bought(collection), 3).segments) == 3


def test_what_is_bought_twice_is_one_image_of_twice_the_weight(collection):
    once = collection.segment_customers(bought(collection), 2)
    twice = collection.segment_customers([line for line in bought(collection) for _ in range(2)], 2)
    assert [s.customers for s in twice.segments] == [s.customers for s in once.segments]
    np.testing.assert_allclose([s.spread for s in twice.segments], [s.spread for s in once.segments])
    with pytest.raises(InvalidParameterError, match="for customer 'a' is -1"):
        collection.segment_customers([("a", f"{0:032x}", 2), ("a", f"{0:032x}", -1)])


def test_segments_of_unknown_images_or_too_few_customers(collection):
    with pytest.raises(InvalidParameterError, match="none of the 1 lines"):
        collection.segment_customers([("a", "gone.jpg", 1)])
    with pytest.raises(InvalidParameterError, match="ask for at most 24"):
        collection.segment_customers(bought(collection), 25)
    with pytest.raises(InvalidParameterError, match="weight"):
        collection.segment_customers([("a", f"{0:032x}", 0)])


def test_later_customers_are_asked_for_by_a_file(collection, tmp_path):
    found = collection.segment_customers(bought(collection, 60))
    assert found.can_reject
    assert found.rejected == []
    found.save(tmp_path / "segments.npz")
    with np.load(tmp_path / "segments.npz", allow_pickle=False) as arrays:
        about = str(arrays["about"])
    assert json.loads(about)["fingerprint"] == collection.fingerprint.to_dict()
    assert '"00"' not in about
    loaded = Segmentation.load(tmp_path / "segments.npz")
    assert (loaded.customers, [s.customers for s in loaded.segments]) == ({}, [[], []])
    later = collection.assign_customers(
        loaded, [*[(f"new {c}", i, w) for c, i, w in bought(collection, 60)], ("new 1", "gone.jpg", 1)]
    )
    assert later.unmatched == {"gone.jpg": 1}
    assert set(later.customers) == {f"new {n:02}" for n in range(60)}
    # One in twenty may be turned away.
    assert len(later.rejected) <= 6
    for name, number in later.customers.items():
        assert number in (found.customers[name.removeprefix("new ")], -1)
    for one, before in zip(later.segments, found.segments, strict=True):
        assert {later.customers[c] for c in one.customers} == {one.id}
        assert (one.representatives, one.spread) == (before.representatives, before.spread)
    noise = [i for i, kind in truth_of(collection).items() if kind < 0]
    odd = collection.assign_customers(loaded, [(f"odd {n}", i, 1) for n, i in enumerate(noise[:20])])
    assert len(odd.rejected) > 15
    assert all(odd.customers[name] == -1 for name in odd.rejected)


def test_segments_of_other_vectors_are_refused(collection, tmp_path):
    found = collection.segment_customers(bought(collection))
    other = Collection.create(tmp_path / "other", model=FakeBackend(seed=1))
    with pytest.raises(FingerprintMismatchError, match="nearsight segment"):
        other.assign_customers(found, bought(collection))
