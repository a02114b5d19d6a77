"""`classify fit`, `classify predict` and `classify suggest`, as a user runs them."""

import csv
import json
import re
import shutil

import pytest
from PIL import Image

from nearsight.analyses.classification import Prediction
from nearsight.reports import classification


@pytest.fixture(scope="module")
def classes(tmp_path_factory, save_image):
    """Two classes that differ plainly, and images of neither."""
    folder = tmp_path_factory.mktemp("classes")
    for kind in ("train", "test"):
        for name, seed in (("stripes", 1), ("blobs", 2)):
            (folder / kind / name).mkdir(parents=True)
            for i in range(12 if kind == "train" else 2):
                path = folder / kind / name / f"{i}.png"
                save_image(path, 100 * seed + i + (50 if kind == "test" else 0))
                if name == "stripes":
                    lines = Image.open(path).convert("RGB")
                    for x in range(0, 160, 16):
                        lines.paste((0, 0, 0), (x, 0, x + 8, 120))
                    lines.save(path)
    return folder


@pytest.fixture
def fitted(nearsight, classes):
    nearsight.with_images(classes / "train")
    nearsight("classify", "fit", "--labels", "folder")
    return nearsight


def test_labels_are_the_folders(nearsight, classes):
    nearsight.with_images(classes / "train")
    output = nearsight.json("classify", "fit", "--labels", "folder")
    assert output["classes"] == [{"label": "blobs", "examples": 12}, {"label": "stripes", "examples": 12}]
    assert (output["method"], output["chosen_by"], output["false_alarm_rate"]) == ("probe", "rule", 0.05)
    assert output["why_no_unknown"] == ""
    assert output["accuracy"] > 0.9
    assert output["file"] == str(nearsight.collection / "classifier.npz")
    document = nearsight.json("classify", "predict", classes / "test")
    assert set(document) == {"predictions", "failed", "model", "false_alarm_rate", "differences"}
    assert document["differences"] == []
    assert set(document["predictions"][0]) == {"path", "label", "probability", "unknown"}
    assert [p["label"] for p in document["predictions"]] == ["blobs", "blobs", "stripes", "stripes"]
    assert document["predictions"][0]["path"] == str(classes / "test/blobs/0.png")


def test_predict_tells_what_it_passes_over(nearsight, classes, tmp_path):
    shutil.copytree(classes / "test", tmp_path / "mixed")
    (tmp_path / "mixed" / "notes.txt").touch()
    nearsight("classify", "fit", "--labels", classes / "train", "--to", tmp_path / "c.npz")
    result = nearsight("classify", "predict", tmp_path / "mixed", "--from", tmp_path / "c.npz")
    assert "skipped: 1 .txt" in result.stderr
    assert "skipped" not in result.stdout


def test_labels_of_a_folder_a_table_and_a_key(nearsight, classes, tmp_path):
    nearsight("index", classes / "train/stripes", "--meta", "what=stripes")
    nearsight("index", classes / "train/blobs", "--meta", "what=blobs")
    by_folder = nearsight.json("classify", "fit", "--labels", classes / "train")["classes"]
    assert nearsight.json("classify", "fit", "--labels", "what")["classes"] == by_folder
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        rows = [[str(path), path.parent.name] for path in sorted(classes.rglob("train/*/*.png"))]
        csv.writer(file).writerows([["path", "label"], *rows, [str(classes / "test/blobs/0.png"), ""]])
    assert nearsight.json("classify", "fit", "--labels", table)["classes"] == by_folder


def test_no_collection_is_needed(nearsight, classes, tmp_path):
    file = tmp_path / "c.npz"
    nearsight("classify", "fit", "--labels", classes / "train", "--to", file)
    document = nearsight.json("classify", "predict", "--from", file, classes / "test/stripes/0.png")
    assert document["predictions"][0]["label"] == "stripes"
    assert not nearsight.collection.exists()


def test_too_few_promise_nothing_and_say_so(nearsight, classes):
    nearsight.with_images(classes / "train")
    result = nearsight("classify", "fit", "--labels", "folder", "--examples-per-class", "3")
    assert "No image will be called unknown" in result.stderr
    assert "needs at least 19 good examples; there are 6" in result.stderr.replace("\n", " ")
    output = nearsight.json("classify", "predict", classes / "test")
    assert output["false_alarm_rate"] is None
    assert not any(p["unknown"] for p in output["predictions"])


def test_images_without_a_label_are_learned_from(nearsight, classes):
    nearsight.with_images(classes / "train")
    words = ("classify", "fit", "--labels", "folder", "--examples-per-class", "2", "--use-unlabeled")
    document = nearsight.json(*words)
    assert document["method"] == "label-spreading"
    assert document["unlabeled"] == len(list((classes / "train").rglob("*.png"))) - 4
    assert f"and {document['unlabeled']} images without a label" in nearsight(*words).stdout
    result = nearsight("classify", "fit", "--labels", "folder", "--method", "label-spreading", code=2)
    assert "needs --use-unlabeled" in result.stderr
    result = nearsight(*words, "--method", "probe", code=2)
    assert "probe does not learn from images without a label" in " ".join(result.stderr.split())
    result = nearsight(*words, "-c", "nowhere", "--to", "c.npz", code=2)
    assert "takes images from a collection" in result.stderr


def test_other_conditions_are_said(fitted, classes, tmp_path):
    image = Image.open(classes / "test/blobs/0.png").convert("RGB")
    image.resize((40, 30)).save(tmp_path / "small.png")
    image.convert("L").save(tmp_path / "gray.png")
    image.point(lambda v: v * 0.2).save(tmp_path / "dark.png")
    names = [tmp_path / f"{name}.png" for name in ("small", "gray", "dark")]
    notes = fitted.json("classify", "predict", *names, classes / "test/blobs/1.png")["differences"]
    assert sorted(note.split(": ", 1)[1].split(",")[0].split(" (")[0] for note in notes) == [
        "gray", "much darker", "much smaller",
    ]  # fmt: skip
    assert all(note.startswith("1 of 4 images") for note in notes)
    assert "Unlike the images" in fitted("classify", "predict", names[0]).stderr


def test_what_is_none_of_the_classes(fitted, tmp_path):
    data = pytest.importorskip("skimage.data")
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.png")
    result = fitted("classify", "predict", tmp_path / "cat.png")
    assert result.stdout.splitlines()[1].split()[0] == "unknown"


def test_labels_are_saved_and_exported(fitted, classes, tmp_path):
    arguments = ("classify", "predict", classes / "train", classes / "test", "--save-as", "kind")
    result = fitted(*arguments)
    assert "24 of 28 images are in the collection" in result.stderr
    fitted("export", tmp_path / "kinds.csv")
    with (tmp_path / "kinds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["kind"] for row in rows if "stripes" in row["path"]} <= {"stripes", ""}
    assert sum(row["kind"] == "blobs" for row in rows if "blobs" in row["path"]) >= 10
    # The user's own metadata is never overwritten without a word.
    message = fitted.json(*arguments, code=2)["error"]["message"]
    assert "images have metadata 'kind' already" in message
    fitted(*arguments, "--overwrite")
    fitted("classify", "predict", classes / "test", "--overwrite", code=2)


def test_a_page_of_labels(fitted, classes, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    page = tmp_path / "page.html"
    fitted("classify", "predict", classes / "test", tmp_path / "bad.jpg", "--html", page)
    html = page.read_text()
    assert html.count("<figure") == 4 + 2
    assert html.count("data:image/jpeg") == 4
    assert "at most 5.0% of known images" in html
    assert "the least certain first" in html
    assert html.count("<script") == 1  # the page's own


def test_suggestions_can_be_filled_in(nearsight, classes, tmp_path):
    nearsight.with_images(classes / "train")
    table = tmp_path / "next.csv"
    first = nearsight.json("classify", "suggest", "-n", "4", "--out", table)["predictions"]
    assert set(first[0]) == {"id", "path", "label", "probability", "unknown"}
    assert [(s["label"], s["probability"], s["unknown"]) for s in first] == [(None, None, True)] * 4
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label"]
    assert [row[0] for row in rows] == [s["path"] for s in first]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([header, *([path, path.split("/")[-2]] for path, _ in rows)])
    output = nearsight.json("classify", "fit", "--labels", table)
    assert sum(c["examples"] for c in output["classes"]) == 4
    then = nearsight.json("classify", "suggest", "-n", "4")["predictions"]
    assert not {s["id"] for s in then} & {s["id"] for s in first}
    assert all(s["label"] and 0 < s["probability"] <= 1 for s in then)
    nearsight("classify", "fit", "--labels", "folder")
    nothing_left = nearsight("classify", "-c", nearsight.collection, "suggest")
    assert "All images have a label already" in nothing_left.stderr
    assert "No image matches" in nearsight("classify", "suggest", "--where", "width = 1").stderr


def test_suggestions_are_shown(nearsight, classes, tmp_path):
    nearsight.with_images(classes / "train")
    page, table = tmp_path / "next.html", tmp_path / "next.csv"
    nearsight("classify", "suggest", "-n", "4", "--html", page, "--out", table)
    assert page.read_text().count("data:image/jpeg") == 4
    with table.open(newline="") as file:
        paths = [row[0] for row in csv.reader(file)][1:]
    shown = re.findall(r'<a href="file://([^"]+)"', page.read_text())
    assert shown == paths


def test_wrong_labels_are_ranked_and_written(nearsight, classes, tmp_path):
    nearsight.with_images(classes / "train")
    paths = sorted(classes.rglob("train/*/*.png"))
    wrong = paths[0]
    table, review, page = tmp_path / "labels.csv", tmp_path / "review.csv", tmp_path / "check.html"
    rows = [[str(path), "stripes" if path == wrong else path.parent.name] for path in paths]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label"], *rows])
    result = nearsight.json("classify", "check", "--labels", table, "--out", review, "--html", page)
    assert set(result) == {
        "images", "accuracy", "expected_errors", "classes", "confusion", "suspects", "failed",
        "cuts",
    }  # fmt: skip
    first = result["suspects"][0]
    assert (first["path"], first["label"], first["suggested"]) == (str(wrong), "stripes", "blobs")
    assert first["margin"] < 0 < first["probability"] <= 1
    assert result["images"] == sum(map(sum, result["confusion"])) == 24
    with review.open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[:2] == [["path", "label", "suggested"], [str(wrong), "stripes", "blobs"]]
    assert sorted(line[0] for line in lines[1:]) == [str(path) for path in paths]
    lines[1][1] = "blobs"
    with review.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    counts = nearsight.json("classify", "fit", "--labels", review)["classes"]
    assert counts == [{"label": "blobs", "examples": 12}, {"label": "stripes", "examples": 12}]
    assert "Confusion matrix" in page.read_text()
    assert str(wrong) in nearsight("classify", "check", "--labels", table).stdout


def test_labels_of_an_export_are_questioned(nearsight, classes, tmp_path):
    nearsight.with_images(classes / "train")
    paths = [str(path) for path in sorted(classes.rglob("train/*/*.png"))]
    labels = [path.split("/")[-2] for path in paths]
    labels[0], labels[1], labels[-1] = "Blobs ", "n/a", "stripes;blobs"
    table = tmp_path / "export.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["path", "label"], *zip(paths, labels, strict=True), [paths[2], "stripes"]]
        )
    for command in ("fit", "check"):
        message = nearsight("classify", command, "--labels", table, code=2).stderr
        for text in (
            "'Blobs' are probably one",
            "'n/a' is a word",
            "'stripes;blobs'",
            paths[2],
            "labels merge",
        ):
            assert text in message
    result = nearsight("classify", "fit", "--labels", table, "--doubtful-labels", "merge", "--json")
    classes_of = {c["label"]: c["examples"] for c in json.loads(result.stdout)["classes"]}
    assert classes_of == {"blobs": 10, "stripes": 11}
    assert "Merged: 'blobs', 'Blobs'" in result.stderr
    assert "Left out: 'n/a'" in result.stderr


def test_one_class_is_refused(nearsight, classes, tmp_path):
    nearsight("index", classes / "train/blobs")
    result = nearsight("classify", "fit", "--labels", "folder", code=2)
    assert "nearsight anomaly fit GOOD_DIR" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["fit", "--labels", "nowhere"],
            "are neither a folder nor a file and no metadata key (the keys are: none)",
        ),
        (["fit", "--labels", "{empty}"], "has no subfolders with images"),
        (["fit", "--labels", "{table}"], "needs the columns path and label"),
        (["fit", "--labels", "folder", "--model", "sift-vlad"], "leave out --model"),
        (["predict", "x.jpg", "--names", "a", "--from", "b.npz"], "there is nothing at x.jpg"),
        (["predict", "{image}", "--names", "a", "--from", "b.npz"], "give only one of them"),
        (["predict", "{image}", "--from", "b.npz"], "there is no classifier at b.npz"),
        (["predict", "{image}"], "nearsight classify fit --labels"),
    ],
)
def test_bad_questions(nearsight, classes, tmp_path, words, message):
    nearsight.with_images(classes / "test")
    (tmp_path / "empty").mkdir()
    (tmp_path / "table.csv").write_text("path,name\na.jpg,b\n")
    places = {
        "empty": tmp_path / "empty",
        "table": tmp_path / "table.csv",
        "image": classes / "test/blobs/0.png",
    }
    words = [word.format(**places) for word in words]
    result = nearsight("classify", *words, "--json", code=2)
    assert message in json.loads(result.stdout)["error"]["message"]


def test_without_a_collection_a_file_must_be_named(nearsight, classes):
    result = nearsight("classify", "fit", "--labels", classes / "train", code=2)
    assert "name a file: --to FILE.npz" in result.stderr.replace("\n", " ")


def test_a_page_of_too_many_shows_the_least_certain(tmp_path, monkeypatch):
    monkeypatch.setattr(classification, "MAX_IMAGES", 2)
    images = [(Prediction(str(p), f"{p}.jpg", "cat", p, False), None) for p in (0.9, 0.2, 0.7, 0.4)]
    classification.write_predictions(tmp_path / "page.html", images, model="m", false_alarm_rate=None)
    html = (tmp_path / "page.html").read_text()
    assert "The 2 least certain of 4" in html
    assert [p for p in ("0.9", "0.2", "0.7", "0.4") if f">{p}.jpg<" in html] == ["0.2", "0.4"]
