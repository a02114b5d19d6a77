"""Decisions about faces hold when groups are computed again, and can be undone; removals leave no trace."""

import time

import pytest
from fake_faces import photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from preloaded import Piped

from nearsight.errors import InvalidParameterError, NewerFormatError, NotACollectionError, UnknownIdError
from nearsight.faces import FaceBank
from nearsight.faces.decisions import FILENAME, FaceDecisions, PersonKey

FACES = [f"f{i}" for i in range(6)]
_SIDES = st.lists(st.sampled_from(FACES), unique=True, min_size=1, max_size=4)


@pytest.fixture
def bank(tmp_path, reader):
    """Five photographs of ann and bob together, and two of cy."""
    bank = FaceBank.create(tmp_path / "bank", reader=reader)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(5):
        photograph(("ann", 10, 20, 60), ("bob", 150, 30, 60), seed=i).save(folder / f"{i}.png")
    for i in range(2):
        photograph(("cy", 60, 30, 60), seed=50 + i).save(folder / f"cy{i}.png")
    bank.scan(folder)
    bank.group()
    return bank


def sizes(bank):
    return {group.person or group.group: len(group.faces) for group in bank.people.groups()}


def group(name):
    return PersonKey(name, "")


def person(name):
    return PersonKey("", name)


def ids(bank, name):
    return [face.id for g in bank.people.groups() if name in (g.person, g.group) for face in g.faces]


def again(bank, folder, seed=900, who="ann", n=1):
    """Add photographs, and group again."""
    for i in range(n):
        photograph((who, 10, 20, 60), seed=seed + i).save(folder / f"more{seed + i}.png")
    bank.scan(folder)
    bank.group()


def test_names_confirmed_and_rejected_faces_hold_when_groups_are_computed_again(bank, tmp_path):
    assert bank.people.name(group("g1"), "Ann") == 5
    again(bank, tmp_path / "images", n=3)
    [ann] = [g for g in bank.people.groups() if g.person == "Ann"]
    assert len(ann.faces) == 8
    assert len(ann.suggested) == 3
    right, wrong, open_one = ann.suggested
    assert bank.people.confirm([right]) == {"Ann": 1}
    assert bank.people.reject([wrong]) == 1
    for _ in range(2):
        bank.group()
        [ann] = [g for g in bank.people.groups() if g.person == "Ann"]
        assert set(ann.suggested) == {open_one}
        assert wrong not in {face.id for face in ann.faces}
        assert bank.persons() == {"Ann": 6}
    # A name that changes takes the decision along.
    bank.people.name(person("Ann"), "Anna")
    bank.group()
    assert wrong not in ids(bank, "Anna")
    # The latest decision counts.
    bank.people.assign([wrong], "Anna")
    bank.group()
    assert wrong in ids(bank, "Anna")


def test_merged_and_split_groups_stay_so(bank, tmp_path):
    people = bank.people
    assert sizes(bank) == {"g1": 5, "g2": 5, "g3": 2}
    assert people.merge([group("g2"), group("g3")]) == group("g2")
    first, *others = ids(bank, "g1")
    assert people.split(others[:2]) == group("g4")
    assert sizes(bank) == {"g2": 7, "g1": 3, "g4": 2}
    again(bank, tmp_path / "images", seed=300, who="cy", n=2)
    found = sizes(bank)
    # Two more of cy join the merged group, or stay by themselves: nothing that was decided comes apart.
    assert set(ids(bank, "g4")) == set(others[:2])
    assert {first, *others[2:]} <= set(ids(bank, "g1"))
    assert found["g2"] >= 7
    # A person is split off and merged again.
    people.name(group("g1"), "Ann")
    assert people.split(others[:1] + others[2:3], "Ann Lee") == person("Ann Lee")
    assert people.merge([person("Ann"), person("Ann Lee")]) == person("Ann")
    assert bank.persons() == {"Ann": 4}


def test_who_is_hidden_stays_hidden_under_any_name(bank, tmp_path):
    people = bank.people
    assert people.hide([group("g3")]) == 1
    assert people.hide([group("g3")]) == 0
    again(bank, tmp_path / "images", seed=300, who="cy", n=4)
    hidden = {g.group or g.person: g.hidden for g in people.groups()}
    assert hidden == {"g3": True, "g1": False, "g2": False}
    people.name(group("g3"), "Cy")
    people.name(person("Cy"), "Cyrus")
    bank.group()
    assert [g.person for g in people.groups() if g.hidden] == ["Cyrus"]
    # Who joins somebody that is shown is shown.
    people.merge([group("g1"), person("Cyrus")], "Ann")
    assert not any(g.hidden for g in people.groups())
    people.undo()
    assert people.hide([person("Cyrus")], hidden=False) == 1
    with pytest.raises(UnknownIdError, match="no group 'g99'"):
        people.hide([group("g99")])


def test_each_change_can_be_undone_in_turn(bank):
    people = bank.people
    states = [sizes(bank)]
    a, b = ids(bank, "g1")[:2]
    changes = [
        lambda: people.name(group("g1"), "Ann"),
        lambda: people.reject([a]),
        lambda: people.split([b], "Beth"),
        lambda: people.merge([group("g2"), group("g3")]),
        lambda: people.merge([person("Ann"), person("Beth")], "Zoe"),
        lambda: people.name(person("Zoe"), "Zoë"),
        lambda: people.assign(ids(bank, "g2")[:1], "Bob"),
        lambda: people.hide([person("Zoë")]),
    ]
    for change in changes:
        change()
        states.append((sizes(bank), people.decisions().hidden))
    with pytest.raises(InvalidParameterError, match="another change came after"):
        people.undo(people.history()[1].id)
    actions = [change.action for change in people.history()]
    assert actions == ["hide", "assign", "rename", "merge", "merge", "split", "reject", "name"]
    for state in reversed(states[1:-1]):
        people.undo(people.history()[0].id)
        assert (sizes(bank), people.decisions().hidden) == state
    people.undo()
    assert sizes(bank) == states[0]
    assert people.decisions() == FaceDecisions()
    with pytest.raises(InvalidParameterError, match="nothing to undo"):
        people.undo()


def test_who_is_removed_leaves_no_trace_and_does_not_come_back(bank, tmp_path):
    people = bank.people
    people.name(group("g1"), "Ann Oldname")
    people.name(person("Ann Oldname"), "Ann")
    people.name(group("g2"), "Bob")
    people.name(group("g3"), "Cy")
    people.hide([person("Ann")])
    again(bank, tmp_path / "images", n=2)
    rejected = ids(bank, "Ann")[-1]
    people.reject([rejected])
    gone = [face.id for face in bank.faces() if face.person in ("Ann", "Cy")]
    assert bank.remove(["Ann", "Cy"]) == 7
    content = b"".join(path.read_bytes() for path in bank.directory.rglob("*") if path.is_file())
    for word in ("Ann", "Oldname", "Cy", *gone):
        assert word.encode() not in content
    assert people.history() == []
    # What matched her matches nobody, and images that show only who was removed are not read again.
    again(bank, tmp_path / "images", seed=940)
    assert set(gone).isdisjoint(face.id for face in bank.faces())
    # To enroll somebody again is a decision of its own.
    bank.enroll([tmp_path / "images" / "cy0.png"], name="Cy")
    assert bank.persons() == {"Bob": 5, "Cy": 1}


def test_what_is_wrong_is_told_and_changes_nothing(bank):
    people = bank.people
    before = sizes(bank)
    face = ids(bank, "g1")[0]
    for act, error, words in (
        (lambda: people.name(group("g9"), "x"), UnknownIdError, "no group 'g9'"),
        (lambda: people.name(group("g1"), " "), InvalidParameterError, "empty"),
        (lambda: people.confirm([face]), InvalidParameterError, "matches nobody"),
        (lambda: people.reject(["ffff"]), UnknownIdError, "no face 'ffff'"),
        (lambda: people.split([]), InvalidParameterError, "no face"),
        (lambda: people.merge([]), InvalidParameterError, "nothing to merge"),
        (lambda: people.key("nobody"), UnknownIdError, "no person and no group 'nobody'"),
    ):
        with pytest.raises(error, match=words):
            act()
    assert sizes(bank) == before
    assert people.history() == []
    assert people.key("g1") == group("g1")
    (bank.directory / FILENAME).write_text('{"format": 1}')
    with pytest.raises(NotACollectionError, match="damaged"):
        people.groups()
    (bank.directory / FILENAME).write_text('{"format": 2}')
    with pytest.raises(NewerFormatError):
        people.groups()


def test_a_decision_during_the_grouping_is_not_lost(bank, monkeypatch):
    face = ids(bank, "g1")[0]
    identifier = bank.identifier

    def decide_meanwhile(rate):
        monkeypatch.setattr(bank, "identifier", identifier)
        bank.people.split([face])
        return identifier(rate)

    monkeypatch.setattr(bank, "identifier", decide_meanwhile)
    assert {len(g.faces) for g in bank.group() if face in {f.id for f in g.faces}} == {1}


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), _SIDES, _SIDES), max_size=8))
def test_of_two_decisions_about_a_pair_the_later_one_counts(steps):
    """The oracle is a table of all pairs."""
    decisions, oracle = FaceDecisions(), {}
    for is_together, some, others in steps:
        if is_together:
            decisions = decisions.joined(some)
            oracle |= {frozenset((a, b)): True for a in some for b in some if a != b}
        else:
            rest = [id for id in others if id not in some]
            decisions = decisions.separated(some, rest)
            oracle |= {frozenset((a, b)): False for a in some for b in rest}
    apart = {frozenset((a, b)) for some, others in decisions.apart for a in some for b in others}
    together = {frozenset((a, b)) for ids in decisions.together for a in ids for b in ids if a != b}
    assert {pair for pair, is_together in oracle.items() if not is_together} == apart
    assert together <= {pair for pair, is_together in oracle.items() if is_together}
    assert together.isdisjoint(apart)


WRITER = """
import sys
from nearsight.faces import FaceBank
from nearsight.faces.decisions import PersonKey
people = FaceBank.open(sys.argv[1]).people
for i in range(1, 100000):
    people.name(PersonKey("", f"Ann {i - 1}"), f"Ann {i}")
    print("named", i, flush=True)
    people.hide([PersonKey("", f"Ann {i}")], hidden=i % 3 > 0)
    print("hid", i, flush=True)
"""


@pytest.mark.slow
def test_kill_9_loses_no_decision_that_was_acknowledged(bank):
    people = bank.people
    people.name(group("g1"), "Ann 0")
    faces = sorted(ids(bank, "Ann 0"))
    for pause_s in (0.0, 0.03, 0.08):
        (current,) = bank.persons()
        people.name(person(current), "Ann 0")
        people.hide([person("Ann 0")], hidden=False)
        with Piped(WRITER, bank.directory) as process:
            said = [process.stdout.readline() for _ in range(4)]
            time.sleep(pause_s)
            process.kill()
            said += process.stdout.readlines()
        what, number = [line.split() for line in said if line.endswith("\n")][-1]
        n = int(number)
        # What was acknowledged, or what the next step makes of it.
        wanted = [(f"Ann {n}", n % 3 > 0), (f"Ann {n + 1}", n % 3 > 0)]
        if what == "named":
            wanted = [(f"Ann {n}", (n - 1) % 3 > 0), (f"Ann {n}", n % 3 > 0)]
        [ann] = [each for each in people.groups() if each.person]
        assert (ann.person, ann.hidden) in wanted
        assert sorted(face.id for face in ann.faces) == faces
