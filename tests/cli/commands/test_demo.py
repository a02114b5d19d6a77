from pathlib import Path

import pytest

from nearsight.demo import sources


@pytest.fixture
def family(tmp_path, save_image):
    """Twelve images in a folder."""
    folder = tmp_path / "family"
    folder.mkdir()
    for seed in range(12):
        save_image(folder / f"{seed}.jpg", seed, (320, 240))
    return folder


def test_demo_of_the_users_own_images(nearsight, family, tmp_path):
    out = tmp_path / "out"
    document = nearsight.json("demo", family, "--out", out, "-k", 3)
    assert document["report"] == str(out / "index.html")
    assert (document["images"], document["embedded"], document["failed"]) == (12, 12, [])
    assert len(document["edits"]) == 3
    assert len(document["queries"]) == 6
    assert all(len(query["hits"]) == 3 for query in document["queries"])
    assert document["licenses"] == {"efficientnet-lite0": "Apache-2.0"}
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "All 12, similar images side by side." in html
    assert sorted(p.name for p in out.iterdir()) == ["collection", "index.html"]
    # The second run finds everything as it was, and its commands work.
    again = nearsight.json("demo", family, "--out", out)
    assert (again["embedded"], again["images"]) == (0, 12)
    [by_id] = [command for command in again["next"] if "--id" in command]
    assert nearsight(*by_id.split()[1:]).stdout


def test_demo_for_people(nearsight, family, tmp_path):
    result = nearsight("demo", family, "--out", tmp_path / "out")
    assert "Images in family: 12 images embedded" in result.stdout
    assert "Model: efficientnet-lite0, Apache-2.0." in result.stdout
    assert "Next:" in result.stdout
    assert "index.html" in result.stderr


def test_demo_shows_only_the_folder_asked_for(nearsight, family, photos, tmp_path):
    nearsight("demo", family, "--out", tmp_path / "out")
    assert nearsight.json("demo", photos, "--out", tmp_path / "out")["images"] == 6


def test_demo_of_a_folder_that_is_not_there(nearsight, tmp_path):
    error = nearsight.json("demo", tmp_path / "nowhere", "--out", tmp_path / "out", code=2)["error"]
    assert "nowhere" in error["message"]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_demo_of_the_packages_images(nearsight, tmp_path):
    document = nearsight.json("demo", "--out", tmp_path / "out")
    assert document["images"] == sum(map(len, sources.PHOTOGRAPHS.values())) + sum(sources.FABRICS.values())
    assert document["failed"] == []
    assert [edit["rank"] for edit in document["edits"]] == [1, 1, 1]
    assert {Path(edit["path"]).name for edit in document["edits"]} == set(sources.EDITED_FIRST)
    assert "MIT" in document["licenses"].values()
    for query in document["queries"]:
        kinds = {hit["metadata"]["kind"] for hit in query["hits"]}
        assert query["where"] == f"kind = '{kinds.pop()}'"
        assert not kinds
