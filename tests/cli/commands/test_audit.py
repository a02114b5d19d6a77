"""`audit`, as a user runs it."""

import json
import re
import shlex
import shutil

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def shop(tmp_path_factory, save_image):
    folder = tmp_path_factory.mktemp("shop")
    for i in range(6):
        save_image(folder / f"{i}.png", i)
    Image.new("RGB", (300, 200), (90, 90, 90)).save(folder / "plain.png")
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_a_folder_is_audited_without_a_collection(nearsight, shop, tmp_path):
    page = tmp_path / "audit.html"
    result = nearsight("audit", shop, "--html", page, "--json")
    document = json.loads(result.stdout)
    assert document["schema"] == 1
    assert document["images"] == 7
    assert set(document["issues"][0]) == {"kind", "ids", "paths", "severity", "detail"}
    by_kind = {}
    for issue in document["issues"]:
        by_kind.setdefault(issue["kind"], []).append(issue)
    [unreadable] = by_kind["unreadable"]
    assert unreadable["paths"] == [str(shop / "broken.jpg")]
    assert [issue["paths"] for issue in by_kind["near_constant"]] == [[str(shop / "plain.png")]]
    assert [str(shop / "0.png"), str(shop / "copy.png")] in [sorted(i["paths"]) for i in by_kind["duplicate"]]
    assert document["counts"] == {kind: len(issues) for kind, issues in by_kind.items()}
    assert not nearsight.collection.exists()
    html = page.read_text()
    for text in ("Near constant (1)", "Unreadable (1)", "broken.jpg", "copy.png"):
        assert text in html
    nearsight("audit", shop, "--strict", code=1)


def test_a_collection_is_audited(indexed):
    document = indexed.json("audit")
    assert document["images"] == 6
    text = indexed("audit")
    assert "in 6 images" in text.stdout
    assert "labels were not given" in text.stderr


def test_limits_are_learned_on_good_images(indexed, shop):
    shipped = indexed.json("audit", "--false-alarm-rate", "0.2")
    own = indexed.json("audit", "--good", shop, "--false-alarm-rate", "0.6")
    assert set(own["limits"]) == set(shipped["limits"]) == {"blurred", "dark", "bright", "low_contrast"}
    assert own["limits"] != shipped["limits"]
    assert own["false_alarm_rate"] == 0.6


def test_labels_that_nothing_is_named_by_are_refused_before_images_are_embedded(nearsight, shop, monkeypatch):
    monkeypatch.delattr("nearsight.services.collections.temporary_collection")
    result = nearsight("audit", shop, "--labels", "folders", code=2)
    assert "the labels 'folders' are neither a folder nor a file" in result.stderr


def test_labels_of_a_table_with_two_labels_for_one_image(nearsight, shop, tmp_path):
    table = tmp_path / "labels.csv"
    rows = [
        ("0.png", "a"),
        ("copy.png", "b"),
        ("1.png", "a"),
        ("2.png", "B"),
        ("3.png", "b"),
        ("4.png", "n/a"),
    ]
    table.write_text("path,label\n" + "".join(f"{shop / name},{label}\n" for name, label in rows))
    result = nearsight("audit", shop, "--labels", table, "--json")
    document = json.loads(result.stdout)
    [conflict] = [issue for issue in document["issues"] if issue["kind"] == "label_conflict"]
    assert sorted(conflict["paths"]) == [str(shop / "0.png"), str(shop / "copy.png")]
    assert document["classes"] == {"a": 1, "b": 2}
    assert "Left out: 'n/a'" in result.stderr
    assert any("labels were not checked: 0 of 2 classes" in note for note in document["notes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "sift-vlad"], "leave out --model, or give PATH"),
        (["nowhere"], "there is nothing at nowhere"),
        (["--good", "nowhere"], "there is nothing at nowhere"),
        (["--split", "nothing"], "there is no column 'nothing'"),
        (["--false-alarm-rate", "0.0001"], "allow 0.0040 to"),
    ],
)
def test_bad_questions(indexed, words, message):
    assert message in indexed("audit", *words, code=2).stderr.replace("\n", " ")


@pytest.mark.slow
def test_decisions_are_carried_out_and_taken_back(nearsight, kinds, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(kinds, folder)
    shutil.copy(folder / "cat1.png", folder / "copy.png")
    nearsight("index", folder)
    table = tmp_path / "issues.csv"
    nearsight("audit", "--csv", table)
    header, *rows = table.read_text().splitlines()
    assert header == "path,issue,severity,detail,decision"
    chosen = [row + "remove" if "copy.png" in row else row for row in rows]
    assert chosen != rows
    table.write_text("\n".join([header, *chosen]))
    document = json.loads(nearsight("audit", "--apply", table, "--json").stdout)
    assert document["removed"] == [str(folder / "copy.png")]
    assert not (folder / "copy.png").exists()
    entries = json.loads(nearsight("trash", "--json").stdout)["entries"]
    assert [entry["id"] for entry in entries] == [document["trash_entry"]]
    assert "1 file put back" in nearsight("trash", "--restore", document["trash_entry"]).stdout
    assert (folder / "copy.png").exists()
    assert "is empty" in nearsight("trash").stdout
    assert "nothing else" in nearsight("audit", folder, "--apply", table, code=2).stderr


@pytest.mark.slow
def test_labels_go_back_to_the_key_that_they_were_read_from(nearsight, kinds, tmp_path):
    nearsight("index", kinds, "--meta", "category=cat")
    wrong = kinds / "cat1.png"
    nearsight("index", *kinds.glob("cup*.png"), wrong, "--meta", "category=tea")
    table = tmp_path / "issues.csv"
    told = nearsight("audit", "--labels", "category", "--csv", table).stderr
    command = shlex.split(re.search(r"Then: nearsight (.*)", told)[1])
    assert command[-2:] == ["--labels", "category"]
    table.write_text(f"path,decision\n{wrong},label=cat\n")
    assert "1 image labeled: metadata category." in nearsight(*command).stdout
    [item] = [i for i in json.loads(nearsight("ls", "--json").stdout)["items"] if i["path"] == str(wrong)]
    assert item["metadata"] == {"category": "cat"}
    assert (
        "no image has the metadata 'kategory'"
        in nearsight("audit", "--apply", table, "--labels", "kategory", code=2).stderr
    )
