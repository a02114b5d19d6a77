import numpy as np
import pytest

from nearsight import Collection


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


def test_centered_collections(nearsight, photos, tmp_path, monkeypatch):
    # The photographs of the fixture are six.
    monkeypatch.setattr("nearsight.models.pca.MIN_TO_CENTER", 6)
    nearsight("index", photos)
    made = nearsight.json("reduce-dim", "--center", "--out", tmp_path / "a")
    assert (made["images"], made["dim"], made["variance_kept"]) == (6, 1280, 1)
    name = "efficientnet-lite0#centered"
    assert nearsight.json("index", photos, "--model", name, "-c", tmp_path / "b")["added"] == 6
    for place in ("a", "b"):
        # Once with the name, once without: nothing is embedded again.
        for words in ((), ("--model", name)):
            again = nearsight.json("index", photos, *words, "-c", tmp_path / place)
            assert (again["embedded"], again["unchanged"]) == (0, 6)
        [hit] = nearsight.json("search", photos / "3.png", "-c", tmp_path / place, "-k", 1)["hits"]
        assert hit["path"] == str(photos / "3.png")
        assert hit["similarity"] == pytest.approx(1, abs=1e-4)
    # The mean is subtracted: what is left points in all directions.
    full, centered = Collection.open(nearsight.collection), Collection.open(tmp_path / "b")
    ids = [item.id for item in full.items()]
    assert np.linalg.norm(centered.vectors(ids).mean(axis=0)) < 0.2
    assert np.linalg.norm(full.vectors(ids).mean(axis=0)) > 0.5
    assert centered.fingerprint == Collection.open(tmp_path / "a").fingerprint != full.fingerprint
    for words, message in (
        (("index", photos, "--model", name), "are not centered"),
        (("index", photos, "--model", name, "--dim", 3, "-c", tmp_path / "c"), "give one of the two"),
        (
            ("reduce-dim", "--center", "--out", tmp_path / "d", "-c", tmp_path / "a"),
            "centered vectors already",
        ),
        (("reduce-dim", "--out", tmp_path / "d"), "--dim D or --center"),
        (("embed", photos, "--model", name, "--out", tmp_path / "x.npz"), "only a collection has it."),
    ):
        assert message in " ".join(nearsight(*words, code=2).stderr.split())
