from nearsight import Collection


def test_a_copy_is_verified_and_searched(indexed, photos, tmp_path):
    found = indexed.json("copy", indexed.collection, tmp_path / "copy", "--verify")
    assert found.pop("seconds") > 0
    assert found == {
        "images": 6, "copied": 6, "files": 0, "verified": True, "collection": str(tmp_path / "copy"),
    }  # fmt: skip
    hits = indexed.json("search", photos / "3.png", "-c", tmp_path / "copy", "-k", 1)["hits"]
    assert hits[0]["path"] == str(photos / "3.png")
    said = indexed("copy", indexed.collection, tmp_path / "copy", "--verify").output
    assert "6 images" in said
    assert "every row was compared" in said
    changed = Collection.open(tmp_path / "copy")
    id = next(changed.items()).id
    changed.update_metadata([id], {"shelf": "top"})
    changed.remove([id])
    document = indexed.json("copy", indexed.collection, tmp_path / "copy", "--verify", code=1)
    assert document["error"]["type"] == "CopyDifferenceError"
    assert document["differences"]["first"] == [f"{id} is missing"]
    refused = indexed("copy", indexed.collection, tmp_path / "copy", "--verify", code=1)
    assert f"{id} is missing" in refused.stdout
    assert "1 image missing" in refused.stderr


def test_what_is_there_is_not_replaced(indexed, tmp_path):
    (tmp_path / "notes").write_text("mine")
    error = indexed.json("copy", indexed.collection, tmp_path, code=2)["error"]
    assert "is not empty and not a nearsight collection" in error["message"]
    assert "no collection at" in indexed("copy", tmp_path / "nothing", tmp_path / "other", code=2).stderr
