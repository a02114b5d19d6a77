import pytest


def test_a_collection_of_shorter_vectors(indexed, photos, tmp_path):
    found = indexed.json("reduce-dim", "--dim", 3, "--out", tmp_path / "short")
    assert (found["images"], found["dim"]) == (6, 3)
    assert 0 < found["variance_kept"] < 1
    hits = indexed.json("search", photos / "3.png", "-c", tmp_path / "short", "-k", 1)["hits"]
    assert hits[0]["path"] == str(photos / "3.png")
    indexed("reduce-dim", "--dim", 6, "--out", tmp_path / "other", code=2)


@pytest.mark.slow
def test_the_number_type_of_the_new_vectors(indexed, photos, tmp_path):
    def storage(directory):
        facts = indexed.json("info", "-c", directory)
        return facts["storage"], facts["bytes_per_vector"]

    indexed("reduce-dim", "--dim", 3, "--out", tmp_path / "plain")
    assert storage(tmp_path / "plain") == ("float32", 12)
    indexed("reduce-dim", "--dim", 3, "--out", tmp_path / "half", "--storage", "float16")
    assert storage(tmp_path / "half") == ("float16", 6)
    hits = indexed.json("search", photos / "3.png", "-c", tmp_path / "half", "-k", 1)["hits"]
    assert hits[0]["path"] == str(photos / "3.png")
    # What nobody says is as it was in the collection that is projected.
    indexed("index", photos, "--storage", "float16", "-c", tmp_path / "small")
    indexed("reduce-dim", "--dim", 3, "--out", tmp_path / "again", "-c", tmp_path / "small")
    assert storage(tmp_path / "again") == ("float16", 6)
    refused = indexed("reduce-dim", "--dim", 3, "--out", tmp_path / "x", "--storage", "int8", code=2).stderr
    assert "int8" in refused
    assert "float16" in refused
    assert not (tmp_path / "x").exists()
