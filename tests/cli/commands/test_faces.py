"""`nearsight faces`, with faces that are squares and persons that are colors."""

import json

import numpy as np
import pytest
from fake_faces import ColorRecognizer, SquareDetector, album, fake_impostor_quantiles, photograph
from PIL import Image

from nearsight.estimators.faces.identifier import FaceIdentifier


@pytest.fixture(autouse=True)
def models(monkeypatch):
    values = fake_impostor_quantiles()
    monkeypatch.setattr("nearsight.faces.pipeline.load_detector", lambda name: SquareDetector())
    monkeypatch.setattr(
        "nearsight.faces.pipeline.load_recognizer", lambda name, cache_dir=None: ColorRecognizer()
    )
    for module in ("bank", "results"):
        monkeypatch.setattr(f"nearsight.faces.{module}.impostor_quantiles", lambda fingerprint: values)


@pytest.fixture
def people(tmp_path):
    return album(tmp_path / "people")


@pytest.fixture
def party(tmp_path):
    path = tmp_path / "party.png"
    photograph(("cy", 120, 110, 30), ("bob", 10, 20, 90), ("ann", 150, 30, 60), seed=7).save(path)
    return path


def test_enroll_identify_verify(nearsight, people, party, tmp_path):
    report = nearsight.json("faces", "enroll", people)
    assert report["enrolled"] == {"ann": 3, "bob": 3}
    assert (report["persons"], report["faces"], report["failed"]) == (2, 6, [])
    assert report["models"] == [
        {"model": "squares", "license": "MIT"},
        {"model": "colors", "license": "MIT"},
    ]
    document = nearsight.json("faces", "identify", party, "--draw", tmp_path / "drawn")
    assert [(f["name"], f["unknown"]) for f in document["faces"]] == [
        ("bob", False),
        ("ann", False),
        (None, True),
    ]
    assert document["faces"][0]["path"] == str(party)
    np.testing.assert_allclose(document["faces"][0]["box"], [10, 20, 100, 110], atol=3)
    assert document["faces"][0]["similarity"] > document["threshold"] > document["faces"][2]["similarity"]
    with Image.open(tmp_path / "drawn" / "party.jpg") as drawn, Image.open(party) as plain:
        assert drawn.size == plain.size
        assert np.abs(np.asarray(drawn, int) - np.asarray(plain, int)).max() > 60
    a, b = people / "ann" / "0.png", people / "ann" / "1.png"
    same = nearsight.json("faces", "verify", a, b)
    assert same["same"]
    assert same["similarity"] > same["threshold"]
    assert nearsight.json("faces", "verify", a, people / "bob" / "0.png")["same"] is False


def test_identify_fits_the_identifier_once_and_says_where_the_bank_is_small(
    nearsight, people, party, monkeypatch
):
    nearsight("faces", "enroll", people)
    fits, fit = [], FaceIdentifier.fit
    monkeypatch.setattr(FaceIdentifier, "fit", lambda self, X, y: fits.append(len(X)) or fit(self, X, y))
    assert "too few to check" not in nearsight("faces", "identify", party).stderr
    assert fits == [6]
    nearsight("faces", "rm", "ann", "bob", "--yes")
    nearsight("faces", "enroll", people / "ann" / "0.png", people / "bob" / "0.png")
    assert (
        "Only 2 images of 2 persons are enrolled, too few to check"
        in nearsight("faces", "identify", party).stderr
    )


def test_an_index_may_come_after_the_bank(nearsight, people):
    nearsight("faces", "enroll", people)
    nearsight("index", people)
    groups = nearsight.json("faces", "group")["groups"]
    assert [(g["name"], g["size"]) for g in groups] == [("ann", 3), ("bob", 3)]
    assert all(face["enrolled"] for g in groups for face in g["faces"])


def test_a_bank_keeps_its_models(nearsight, people):
    nearsight("faces", "enroll", people)
    for command in ("enroll", "group"):
        words = ("faces", command, people, "--detector", "centerface")
        assert "has its models already; leave out the detector" in nearsight(*words, code=2).stderr


def test_unreadable_images_are_an_error_only_if_strict(nearsight, people, tmp_path):
    nearsight("faces", "enroll", people)
    (tmp_path / "broken.png").write_bytes(b"x")
    words = ("faces", "identify", people / "ann" / "0.png", tmp_path / "broken.png")
    assert "1 image could not be read" in nearsight(*words).stderr
    nearsight(*words, "--strict", code=1)


def test_verify_needs_no_bank(nearsight, people):
    a, b = people / "ann" / "0.png", people / "ann" / "1.png"
    assert "the same person" in nearsight("faces", "verify", a, b).stdout


def test_images_without_a_face_and_broken_ones(nearsight, people, tmp_path):
    nearsight("faces", "enroll", people)
    photograph().save(tmp_path / "nobody.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    document = nearsight.json("faces", "identify", tmp_path / "nobody.png", tmp_path / "broken.png")
    assert document["faces"] == []
    assert document["without_faces"] == [str(tmp_path / "nobody.png")]
    assert document["failed"][0]["path"] == str(tmp_path / "broken.png")
    assert (
        "no face"
        in nearsight.json("faces", "verify", tmp_path / "nobody.png", people / "ann" / "0.png", code=2)[
            "error"
        ]["message"]
    )


def test_without_a_bank_the_way_is_told(nearsight, party):
    for words in (("identify", party), ("list",), ("rm", "ann", "--yes")):
        error = nearsight.json("faces", *words, code=2)["error"]
        assert error["type"] == "CollectionNotFoundError"
        assert "nearsight faces enroll" in error["message"]


def test_keeping_the_bank(nearsight, people, party, tmp_path):
    nearsight("faces", "enroll", people)
    assert nearsight.json("faces", "rename", "ann", "Ann Lee") == {"name": "Ann Lee", "faces": 3}
    assert "faces merge" in nearsight("faces", "rename", "bob", "Ann Lee", code=2).stderr
    listed = nearsight.json("faces", "list")
    assert listed["persons"] == [{"name": "Ann Lee", "faces": 3}, {"name": "bob", "faces": 3}]
    faces = nearsight.json("faces", "list", "bob")["faces"]
    assert nearsight.json("faces", "rm", "--face", faces[0]["id"], "-y")["removed"] == 1
    assert nearsight.json("faces", "merge", "bob", "Ann Lee", "--into", "everybody")["faces"] == 5
    nearsight("faces", "export", tmp_path / "bank.json")
    exported = json.loads((tmp_path / "bank.json").read_text())["faces"]
    assert {face["person"] for face in exported} == {"everybody"}
    nearsight("faces", "export", tmp_path / "bank.npz")
    with np.load(tmp_path / "bank.npz") as file:
        assert file["vectors"].shape == (5, 16)
        assert set(file["persons"]) == {"everybody"}
    assert "Add --yes" in nearsight("faces", "rm", "everybody", code=2).stderr
    assert "no person 'nobody'" in nearsight("faces", "rm", "nobody", code=2).stderr
    assert "no face 'f00'" in nearsight("faces", "rm", "--face", "f00", code=2).stderr
    assert nearsight.json("faces", "rm", "everybody", "--yes") == {"removed": 5, "persons": 0}
    assert nearsight.json("faces", "identify", party)["faces"][0]["name"] is None


def test_groups_are_named_once(nearsight, people, party):
    groups = nearsight.json("faces", "group", people, party)
    assert [(g["group"], g["size"]) for g in groups["groups"]] == [("g1", 4), ("g2", 4)]
    assert groups["alone"] == 1
    nearsight("faces", "name", "g1", "first")
    again = nearsight.json("faces", "group", people, party)["groups"]
    assert [(g["name"], g["group"]) for g in again] == [("first", None), (None, "g2")]
    assert nearsight.json("faces", "forget", "--unnamed")["removed"] == 5
    assert nearsight.json("faces", "forget", "--all", "--yes")["removed"] == 4
    nearsight("faces", "list", code=2)
    assert "either" in nearsight("faces", "forget", code=2).stderr


def test_decisions_hold_when_groups_are_computed_again(nearsight, people, party):
    groups = nearsight.json("faces", "group", people, party)["groups"]
    a, b, *_ = (face["id"] for face in groups[0]["faces"])
    assert nearsight.json("faces", "split", a, b, "--name", "Ann") == {
        "group": None,
        "name": "Ann",
        "faces": 2,
    }
    assert nearsight.json("faces", "undo") == {"action": "split", "faces": 2}
    nearsight("faces", "name", "g1", "Ann")
    assert nearsight.json("faces", "reject", a) == {"rejected": 1}
    assert nearsight.json("faces", "hide", "g2", "Ann") == {"hidden": 2}
    again = nearsight.json("faces", "group", people, party)
    assert [(g["name"], g["size"], g["hidden"]) for g in again["groups"]] == [
        (None, 4, True),
        ("Ann", 3, True),
    ]
    assert nearsight.json("faces", "confirm", a, "--name", "Ann") == {"confirmed": {"Ann": 1}}
    assert nearsight.json("faces", "hide", "--show", "Ann") == {"shown": 1}
    assert nearsight.json("faces", "merge", "g2", "Ann", "--into", "Zoe") == {"name": "Zoe", "faces": 8}
    for action in ("merge", "show", "assign", "hide", "reject", "name"):
        assert nearsight.json("faces", "undo")["action"] == action
    assert "nothing to undo" in nearsight("faces", "undo", code=2).stderr


def test_cautions_are_seen_by_a_person(nearsight, people, tmp_path):
    nearsight("faces", "enroll", people)
    photograph(("ann", 70, 30, 80), seed=99).save(tmp_path / "x.png")
    result = nearsight("faces", "enroll", "--name", "zoe", tmp_path / "x.png")
    assert "resembles ann" in result.stderr
    assert "zoe: 1 face enrolled" in result.stdout


def test_help_speaks_of_consent(nearsight):
    text = " ".join(nearsight("faces", "--help").stdout.split())
    for word in ("consent", "Everything stays on this machine", "No age, gender", "not proof"):
        assert word in text


def test_what_was_skipped_is_said_in_one_line(nearsight, people, tmp_path):
    photograph().save(people / "ann" / "nobody.png")
    photograph(seed=1).save(people / "ann" / "nobody too.png")
    (people / "bob" / "broken.png").write_bytes(b"x")
    result = nearsight("faces", "enroll", people)
    assert "Skipped 3 of 9 images: 2 without a face, 1 unreadable" in result.stderr.splitlines()
    assert "could not be read" not in result.stderr
    document = nearsight.json("faces", "enroll", people)
    assert document["skipped"] == {"without a face": 2, "unreadable": 1}
    assert document["already"] == 6


def test_two_faces_of_one_name_are_told(nearsight, people, tmp_path):
    nearsight("faces", "enroll", people)
    photograph(("ann", 10, 20, 60), ("ann", 150, 30, 60), seed=3).save(tmp_path / "twins.png")
    faces = nearsight.json("faces", "identify", tmp_path / "twins.png")["faces"]
    assert sorted(face["doubt"] for face in faces) == ["", "same image"]
    assert nearsight("faces", "identify", tmp_path / "twins.png").stdout.count("twice in this image?") == 1


def test_upgrade(nearsight, people, monkeypatch):
    monkeypatch.setattr("nearsight.faces.pipeline.SCAN_VERSION", 1)
    nearsight("faces", "enroll", people)
    assert nearsight.json("faces", "upgrade") == {"faces": 0, "removed": []}
    monkeypatch.setattr(ColorRecognizer, "template", ColorRecognizer.template + 0.5)
    refused = nearsight("faces", "identify", people, code=2).stderr
    assert "nearsight faces upgrade --bank" in refused
    assert "every face is unknown" not in refused
    assert nearsight.json("faces", "upgrade") == {"faces": 6, "removed": []}
    assert {face["name"] for face in nearsight.json("faces", "identify", people)["faces"]} == {"ann", "bob"}


def test_groups_are_shown_in_a_report(nearsight, people, party, tmp_path):
    page = tmp_path / "faces.html"
    result = nearsight("faces", "group", people, party, "--html", page)
    assert f"Report: {page}" in result.stderr
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg") == 9
    assert html.count("nearsight faces name --bank") == 2


def test_the_help_states_the_defaults_of_the_library(nearsight):
    from nearsight.estimators.faces.identifier import DEFAULT_FALSE_MATCH_RATE
    from nearsight.faces.models import MIN_CONFIDENCE, multiscale

    text = " ".join(nearsight("faces", "identify", "--help").stdout.split())
    assert f"matched to somebody. Default: {DEFAULT_FALSE_MATCH_RATE}." in text
    assert f"below this confidence. Default: {MIN_CONFIDENCE}." in text
    smallest = f"1/{round(1 / multiscale._SMALLEST_SHARE)} of the image's longer side, at least"
    assert f"Default: {smallest} {multiscale._SMALLEST_PX}." in text


def test_faces_that_differ_from_all_enrolled_ones_are_told(nearsight, people, tmp_path):
    nearsight("faces", "enroll", people)
    photograph(("ann", 10, 20, 60), ("bob", 150, 30, 18), seed=3).save(tmp_path / "x.png")
    result = nearsight("faces", "identify", tmp_path / "x.png")
    assert "1 of 2 faces differ from all enrolled faces (1 small)" in result.stderr
    faces = nearsight.json("faces", "identify", tmp_path / "x.png")["faces"]
    assert [face["differs"] for face in faces] == [[], ["small"]]
