import pytest


@pytest.fixture
def filled(nearsight, photos):
    return nearsight.with_images(photos)


def test_rm_by_id_leaves_the_file(filled, photos):
    ids = [item["id"] for item in filled.json("ls")["items"]]
    assert filled.json("rm", ids[0], ids[1][:10]) == {"removed": 2}
    assert [item["id"] for item in filled.json("ls")["items"]] == ids[2:]
    assert len(list(photos.iterdir())) == 6


def test_one_unknown_id_and_nothing_is_removed(filled):
    ids = [item["id"] for item in filled.json("ls")["items"]]
    error = filled.json("rm", ids[0], "ffffffffffff", code=2)["error"]
    assert error["type"] == "UnknownIdError"
    assert len(filled.json("ls")["items"]) == 6


def test_rm_by_filter_wants_a_yes(filled):
    error = filled.json("rm", "--where", "width = 200", code=2)["error"]
    assert "1 image would be removed; add --yes" in error["message"]
    assert len(filled.json("ls")["items"]) == 6
    assert filled.json("rm", "--where", "width = 200", "--yes") == {"removed": 1}
    assert "0 images removed" in filled("rm", "--where", "width = 200", "-y").stdout


def test_rm_asks_at_a_terminal(filled, monkeypatch):
    monkeypatch.setattr("nearsight.cli.options.is_interactive", lambda: True)
    result = filled("rm", "--where", "width = 200", code=1, input="n\n")
    assert "Remove 1 image from" in result.stderr
    assert "Nothing was removed." in result.stderr
    assert "1 image removed" in filled("rm", "--where", "width = 200", input="y\n").stdout


@pytest.mark.parametrize("words", [(), ("abcd", "--where", "width = 1")])
def test_rm_wants_either_ids_or_a_filter(filled, words):
    assert filled.json("rm", *words, code=2)["error"]["type"] == "UsageError"
