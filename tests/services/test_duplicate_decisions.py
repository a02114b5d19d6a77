import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearsight import Collection
from nearsight.errors import InvalidParameterError, StorageError
from nearsight.services.duplicate_decisions import DuplicateDecisions

from fake import FakeBackend


@pytest.fixture
def decisions(tmp_path):
    return DuplicateDecisions(Collection.create(tmp_path / "c", model=FakeBackend()))


def group(*ids):
    others = list(ids[1:])
    return {
        "keep": ids[0],
        "ids": list(ids),
        "certain": True,
        "verified_against": [ids[0]] * len(others),
        "doubts": [f"doubt {id}" for id in others],
        "redundant": ["file"],
        "review": [],
    }


def test_a_decision_holds_and_can_be_taken_back(decisions, tmp_path):
    assert decisions.decide(["b", "a"], "different") == 1
    assert DuplicateDecisions(Collection.open(tmp_path / "c")).all() == {("a", "b"): "different"}
    assert decisions.decide(["a", "b", "c"], "keep_both") == 3
    assert decisions.all()["a", "b"] == "keep_both"
    decisions.decide(["a", "b"], "undecided")
    assert set(decisions.all()) == {("a", "c"), ("b", "c")}


def test_what_was_decided_does_not_come_back(decisions):
    groups = [group("a", "b"), group("c", "d", "e"), group("f", "g")]
    assert decisions.undecided_groups(groups) == groups
    decisions.decide(["b", "a"], "different")
    decisions.decide(["c", "d"], "keep_both")
    [second, third] = decisions.undecided_groups(groups)
    assert (second["ids"], second["doubts"], second["certain"]) == (["c", "e"], ["doubt e"], False)
    assert second["redundant"] == []
    assert third == groups[2]


@given(st.lists(st.sets(st.integers(0, 9), min_size=2, max_size=4).map(lambda s: [str(i) for i in s])))
def test_a_decided_pair_is_never_shown_with_the_image_to_keep(pairs):
    class Memory(DuplicateDecisions):
        def __init__(self):
            self.pairs = {}

        def all(self):
            return self.pairs

    decisions = Memory()
    for ids in pairs:
        decisions.pairs.update({(min(a, b), max(a, b)): "different" for a in ids for b in ids if a != b})
    for shown in decisions.undecided_groups([group(*map(str, range(10)))]):
        keep = shown["keep"]
        assert not any((min(id, keep), max(id, keep)) in decisions.pairs for id in shown["ids"] if id != keep)
        assert len(shown["doubts"]) == len(shown["ids"]) - 1


@pytest.mark.parametrize(
    ("ids", "decision"), [(["a"], "different"), (["a", "a"], "different"), (["a", "b"], "x")]
)
def test_bad_decisions_are_refused(decisions, ids, decision):
    with pytest.raises(InvalidParameterError):
        decisions.decide(ids, decision)


def test_a_damaged_file_is_told(decisions):
    decisions._path.write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        decisions.all()
