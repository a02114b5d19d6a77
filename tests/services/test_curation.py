"""Decisions about issues, carried out and taken back."""

import csv

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.analyses.audit import Audit, Issue
from nearsight.errors import MetadataError
from nearsight.services.curation import CurationDecision, apply_decisions, read_decisions, write_issues
from nearsight.services.trash import Trash

from fake import FakeBackend


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def collection(tmp_path, folder):
    collection = Collection.create(tmp_path / "c", model=FakeBackend(), cache_dir=tmp_path / "cache")
    collection.add(folder, progress=False)
    return collection


def decided(file, folder, *decisions):
    with open(file, "w", newline="") as handle:
        rows = [("path", "decision"), *((folder / name, decision) for name, decision in decisions)]
        csv.writer(handle).writerows(rows)
    return file


def test_issues_become_rows_without_a_decision(tmp_path):
    issues = [
        Issue("blurred", ["a"], ["/x/a.png"], 0.5, "blurred, as 1 % are"),
        Issue("duplicate", ["b", "c"], ["/x/b.png", "/x/c, d.png"], 1.0, "one image"),
        Issue("rare_class", [], [], 0.1, "few"),
    ]
    file = tmp_path / "issues.csv"
    assert write_issues(file, Audit(issues, 3, None)) == 3
    with open(file, newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["path"] for row in rows] == ["/x/a.png", "/x/b.png", "/x/c, d.png"]
    assert {row["decision"] for row in rows} == {""}
    assert read_decisions(file) == []


def test_a_fault_of_all_images_is_one_row_without_a_decision(collection, tmp_path):
    tiny = [Issue("tiny", [str(n)], [f"/x/{n}.png"], 0.5, "it has 28 × 28 pixels") for n in range(3)]
    dark = [Issue("dark", ["0"], ["/x/0.png"], 0.5, "dark")]
    file = tmp_path / "issues.csv"
    assert write_issues(file, Audit([*dark, *tiny], 3, None)) == 1
    with open(file, newline="") as handle:
        rows = [(row["path"], row["issue"]) for row in csv.DictReader(handle)]
    assert rows == [("", "tiny"), ("/x/0.png", "dark")]
    # One of four images is not how the set is.
    assert write_issues(file, Audit([*dark, *tiny], 4, None)) == 4
    # Whoever decides it nevertheless learns that it names no image.
    report = apply_decisions(collection, [CurationDecision(2, "", "remove")])
    assert (report.removed, len(report.unknown)) == (None, 1)


def test_only_what_was_decided_is_done_and_can_be_taken_back(collection, folder, tmp_path):
    file = decided(
        tmp_path / "d.csv",
        folder,
        ("0.png", "remove"),
        ("1.png", "keep"),
        ("2.png", ""),
        ("3.png", "label=dog"),
        ("gone.png", "remove"),
        ("0.png", "remove"),
    )
    before = {item.path for item in collection.items()}
    report = apply_decisions(collection, read_decisions(file))
    assert report.labeled == 1
    assert [decision.path for decision in report.unknown] == [str(folder / "gone.png")]
    assert not (folder / "0.png").exists()
    assert len(collection) == 5
    labels = {item.path: item.metadata.get("label") for item in collection.items()}
    assert {path for path, label in labels.items() if label} == {str(folder / "3.png")}
    Trash(collection, [folder]).restore(report.removed.entry.id)
    assert (folder / "0.png").exists()
    assert {item.path for item in collection.items()} == before


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ([("0.png", "delete")], "line 2: the decision is 'delete'; it must be keep, remove or label=NAME"),
        ([("0.png", "label= ")], "the decision is 'label='"),
        (
            [("0.png", "remove"), ("0.png", "label=x")],
            "lines 2 and 3: .*0.png has the decisions 'rem",
        ),
    ],
)
def test_a_table_with_a_fault_changes_nothing(folder, tmp_path, decisions, message):
    with pytest.raises(MetadataError, match=message):
        read_decisions(decided(tmp_path / "d.csv", folder, *decisions))
    assert len(list(folder.iterdir())) == 6
