"""`anomaly fit` and `anomaly score`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nearsight import AnomalyDetector
from nearsight.anomaly.heatmap import reason
from nearsight.reports import anomalies


def save(path, seed, torn=False):
    pixels = np.clip(np.random.default_rng(seed).normal(128, 30, (96, 96)), 0, 255).astype(np.uint8)
    if torn:
        pixels[30:50, 40:60] = 255
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("factory")
    for name in ("good", "new", "more"):
        (folder / name).mkdir()
    for seed in range(40):
        save(folder / "good" / f"{seed}.png", seed)
    for seed in range(50, 55):
        save(folder / "more" / f"{seed}.png", seed)
    save(folder / "new" / "a.png", 62)
    save(folder / "new" / "b.png", 61, torn=True)
    (folder / "new" / "c.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def fitted(factory):
    path = factory / "made.npz"
    AnomalyDetector(n_patches=300).fit(factory / "good").save(path)
    return path


@pytest.mark.slow
def test_fit_tells_how_sure_the_rate_is(nearsight, factory, tmp_path):
    output = nearsight("anomaly", "fit", factory / "good", "--to", tmp_path / "d.npz")
    assert "expected false alarms: 5.0% of good images" in output.stdout
    assert "With 19 images held out, the rate of this detector is between 0.1% and 17.6%" in output.stderr
    assert nearsight("anomaly", "fit", factory / "good", "--to", tmp_path / "d.npz", "-q").stderr == ""


def test_good_images_that_are_all_the_same_count_once(nearsight, tmp_path):
    """Nothing varies, so nothing is known of what may."""
    (tmp_path / "same").mkdir()
    for i in range(30):
        Image.new("RGB", (32, 32), (120, 80, 40)).save(tmp_path / f"same/{i}.png", dpi=(i + 1, i + 1))
    output = nearsight("anomaly", "fit", tmp_path / "same", "--to", tmp_path / "d.npz", code=2)
    assert "there are 1" in output.stderr
    assert "29 duplicates" in output.stderr
    assert not (tmp_path / "d.npz").exists()


def test_score_gives_what_the_library_gives(nearsight, factory, fitted):
    document = nearsight.json("anomaly", "score", "--from", fitted, factory / "new")
    assert set(document) == {"scores", "failed", "model"}
    own = AnomalyDetector.load(fitted).score(factory / "new")[:2]
    assert document["scores"] == [
        {
            "path": str(factory / "new" / name),
            "score": result.score,
            "threshold": result.threshold,
            "defect": result.defect,
            "why": reason(result),
            "notes": [],
        }
        for name, result in zip(("a.png", "b.png"), own, strict=True)
    ]
    assert [row["defect"] for row in document["scores"]] == [False, True]
    assert [row["path"] for row in document["failed"]] == [str(factory / "new" / "c.jpg")]


def test_what_differs_from_the_good_images_is_said(nearsight, factory, fitted, tmp_path):
    with Image.open(factory / "new" / "a.png") as image:
        image.resize([2 * side for side in image.size]).save(tmp_path / "large.png")
        image.resize((image.width, 3 * image.height)).save(tmp_path / "long.png")
    output = nearsight("anomaly", "score", "--from", fitted, tmp_path)
    assert "1 image: resampled from" in output.stderr
    document = nearsight.json("anomaly", "score", "--from", fitted, tmp_path)
    assert [len(row["notes"]) for row in document["scores"]] == [1]
    assert "another shape than the good images" in document["failed"][0]["reason"]


def test_good_images_are_not_learned_twice(nearsight, factory, fitted, tmp_path):
    output = nearsight("anomaly", "fit", factory / "good", "--from", fitted, "--to", tmp_path / "again.npz")
    assert "40 duplicates skipped" in output.stderr
    assert AnomalyDetector.load(tmp_path / "again.npz").n_images_seen_ == 40
    words = ("fit", factory / "good", "--from", fitted, "--to", tmp_path / "again.npz")
    assert len(nearsight.json("anomaly", *words)["duplicates"]) == 40


def test_defects_are_no_failure_of_the_run(nearsight, factory, fitted):
    result = nearsight("anomaly", "score", "--from", fitted, factory / "new" / "b.png", code=0)
    assert result.stdout.splitlines()[1].split()[0] == "DEFECT"


@pytest.mark.slow
def test_fit_says_what_it_made_also_in_the_forms_of_version_0_1(nearsight, factory, tmp_path):
    old, new = tmp_path / "old.npz", tmp_path / "new.npz"
    document = nearsight.json("anomaly", "fit", factory / "good", "--to", new)
    assert document["images"] == 40
    assert document["held_out"] == 19
    assert document["false_alarm_rate"] == 0.05
    assert document["failed"] == []
    assert document["file"] == str(new)
    assert AnomalyDetector.load(new).threshold_.value == document["threshold"]
    before = nearsight.json("anomaly", "fit", factory / "good", "--out", old)
    assert before == {**document, "file": str(old)}
    images = (factory / "new" / "a.png", factory / "new" / "b.png")
    assert nearsight.json("anomaly", "score", old, *images) == nearsight.json(
        "anomaly", "score", "--from", new, *images
    )
    assert "--out" not in nearsight("anomaly", "fit", "--help").stdout


def test_unreadable_images_are_an_error_only_if_strict(nearsight, factory, fitted):
    words = ("anomaly", "score", "--from", fitted, factory / "new")
    assert "1 image could not be read" in nearsight(*words).stderr
    assert "c.jpg" in nearsight(*words, "--strict", code=1).stderr


def test_heatmaps_are_images(nearsight, factory, fitted, tmp_path):
    one, same = factory / "new" / "b.png", factory / "new" / ".." / "new" / "b.png"
    document = nearsight.json(
        "anomaly", "score", "--from", fitted, one, same, "--heatmaps", tmp_path / "h" / "x"
    )
    drawn = [row["heatmap"] for row in document["scores"]]
    assert drawn == [str(tmp_path / "h" / "x" / name) for name in ("b.png", "b-2.png")]
    for path in drawn:
        with Image.open(path) as image:
            assert min(image.size) > 500
    document = nearsight.json(
        "anomaly",
        "score",
        "--from",
        fitted,
        factory / "new" / "a.png",
        "--heatmaps",
        tmp_path / "y",
        "--defects-only",
    )
    assert document["scores"][0]["heatmap"] is None
    assert list((tmp_path / "y").iterdir()) == []


def test_a_page_with_defects_first(nearsight, factory, fitted, tmp_path):
    page = tmp_path / "page.html"
    output = nearsight("anomaly", "score", "--from", fitted, factory / "new", "--html", page)
    html = page.read_text()
    assert f"Report: {page}" in output.stderr
    assert "1 defect in 2 images" in html
    # The defect, then the threshold, then what lies below it, folded.
    assert html.index("b.png") < html.index("Threshold ") < html.index("<details>") < html.index("a.png")
    assert "in the outlined places." in html
    assert html.count("data:image/jpeg") == 2
    assert html.count("<script") == 1  # the page's own


def test_a_page_shows_the_most_unusual(monkeypatch, fitted, factory, tmp_path):
    monkeypatch.setattr(anomalies, "MAX_IMAGES", 2)
    detector, report = AnomalyDetector.load(fitted), anomalies.AnomalyReport()
    results = detector.score([factory / "good" / f"{seed}.png" for seed in range(7)], heatmaps=True)
    for result in results:
        report.add(result)
    report.write(tmp_path / "page.html", detector.threshold_, model="m")
    html = (tmp_path / "page.html").read_text()
    assert "The 2 most anomalous images of 7." in html
    for result in sorted(results, key=lambda result: -result.score)[:2]:
        assert Path(result.path).name in html


def test_a_detector_learns_on(nearsight, factory, fitted, tmp_path):
    document = nearsight.json(
        "anomaly", "fit", factory / "more", "--from", fitted, "--to", tmp_path / "e.npz"
    )
    assert (document["images"], document["held_out"]) == (45, 24)
    assert AnomalyDetector.load(fitted).n_images_seen_ == 40


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (("fit", "more"), "UsageError", "--to FILE.npz"),
        (("fit", "more", "--to", "x.zip"), "UsageError", ".npz"),
        (("fit", "more", "--to", "x.npz"), "CalibrationError", "at least 29 good images"),
        (("fit", "more", "--from", "made.npz", "--level", "image"), "UsageError", "leave out --level"),
        (("fit", "more", "--to", "x.npz", "--model", "sift-vlad"), "UnknownModelError", "no inner layers"),
        (("score", "new"), "UsageError", "--from FILE"),
        (("score", "--from", "nowhere.npz", "new"), "DetectorFileError", "anomaly fit"),
        (("score", "--from", "new/a.png", "new"), "DetectorFileError", "no sound detector"),
        (("score", "--from", "made.npz", "nowhere"), "BadInputError", "nothing at"),
        (("score", "made.npz", "nowhere"), "BadInputError", "nothing at"),
    ],
)
def test_bad_input(nearsight, factory, fitted, monkeypatch, words, kind, message):
    monkeypatch.chdir(factory)
    result = nearsight("anomaly", *words, "--json", code=2)
    error = json.loads(result.stdout)["error"]
    assert error["type"] == kind
    assert message in error["message"]


def test_rank_lists_the_collection(indexed):
    document = indexed.json("anomaly", "rank", "-k", 3)["items"]
    assert len(document) == 3
    assert set(document[0]) == {"id", "path", "distance"}
    assert document[0]["distance"] >= document[1]["distance"] >= document[2]["distance"]
    assert indexed("anomaly", "rank").stdout.splitlines()[0].split() == ["distance", "id", "path"]
