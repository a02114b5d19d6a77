import pytest


@pytest.fixture
def filled(nearsight, photos):
    return nearsight.with_images(photos)


def metadata(cli):
    return {item["id"]: item["metadata"] for item in cli.json("ls")["items"]}


def test_many_images_are_tagged_at_once(filled):
    ids = list(metadata(filled))
    assert filled.json("tag", "season=winter", "year=2024", ids[0], ids[1][:8]) == {"tagged": 2}
    tagged = metadata(filled)
    assert tagged[ids[0]] == tagged[ids[1]] == {"season": "winter", "year": 2024}
    assert tagged[ids[2]] == {}


def test_ids_from_standard_input(filled):
    ids = list(metadata(filled))
    assert filled.json("tag", "seen=true", "-", input="\n".join(ids[:3]) + "\n") == {"tagged": 3}
    tagged = metadata(filled)
    assert [tagged[id].get("seen") for id in ids] == [True] * 3 + [None] * 3


def test_no_ids_on_standard_input_tag_nothing(filled):
    assert filled.json("tag", "seen=true", "-", input="") == {"tagged": 0}


def test_a_filter_names_the_images_and_an_empty_value_removes_the_key(filled):
    assert filled.json("tag", "wide=true", "--where", "width = 200") == {"tagged": 1}
    assert len(filled.json("ls", "--where", "wide = true")["items"]) == 1
    assert "1 image tagged" in filled("tag", "wide=", "--where", "width = 200").stdout
    assert filled.json("ls", "--where", "wide = true")["items"] == []


def test_one_unknown_id_and_nothing_changes(filled):
    ids = list(metadata(filled))
    error = filled.json("tag", "seen=true", ids[0], "ffffffffffff", code=2)["error"]
    assert error["type"] == "UnknownIdError"
    assert not any(metadata(filled).values())


@pytest.mark.parametrize(
    "words", [("--undo", "a=1"), ("abcd",), ("a=1",), ("a=1", "abcd", "--where", "width = 1"), ()]
)
def test_bad_usage(filled, words):
    assert filled.json("tag", *words, code=2)["error"]["type"] == "UsageError"


def test_the_last_change_is_taken_back(filled):
    assert filled.json("tag", "wide=true", "--where", "width = 200") == {"tagged": 1}
    assert filled.json("info")["metadata"] == {"wide": "bool"}
    assert filled.json("tag", "--undo") == {"tagged": 1}
    assert not any(metadata(filled).values())
    assert filled.json("info")["metadata"] == {}
    assert filled.json("tag", "--undo") == {"tagged": 0}
