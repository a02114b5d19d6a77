import io
import json

import pytest

from nearsight import Collection
from nearsight.services import job_worker

from fake import FakeBackend


def run(kind, args, monkeypatch, **document):
    # A stdin that stays open: at its end, the process ends.
    monkeypatch.setattr(job_worker, "_end_with_parent", lambda stdin: None)
    monkeypatch.setattr(job_worker.os, "nice", lambda n: None)
    out = io.StringIO()
    code = job_worker.main(io.StringIO(json.dumps({"kind": kind, "args": args, **document}) + "\n"), out)
    return code, [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setattr("nearsight.collection.collection.load_model", lambda *a, **o: FakeBackend())
    Collection.create(tmp_path / "collection", model=FakeBackend())
    return tmp_path / "collection"


def test_a_folder_is_indexed_with_progress(collection, photos, monkeypatch):
    args = {"directory": str(collection), "folder": str(photos), "metadata": {"year": 2024}}
    code, lines = run("index", args, monkeypatch)
    assert code == 0
    assert lines[-1]["result"]["added"] == 6
    progress = [line for line in lines if "done" in line]
    assert (progress[-1]["done"], progress[-1]["total"]) == (6, 6)
    assert Collection.open(collection).count("metadata.year = 2024") == 6
    _, lines = run("index", args, monkeypatch)
    assert lines[-1]["result"]["unchanged"] == 6


def test_a_folder_without_images_is_refused_as_on_the_command_line(collection, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no image")
    args = {"directory": str(collection), "folder": str(tmp_path / "empty")}
    code, lines = run("index", args, monkeypatch)
    assert code == 1
    assert lines[-1]["error_type"] == "InvalidParameterError"
    assert lines[-1]["error"].startswith(f"there is no image in {tmp_path / 'empty'}")


def test_an_error_is_told(tmp_path, monkeypatch):
    code, [line] = run("index", {"directory": str(tmp_path / "none"), "folder": "x"}, monkeypatch)
    assert (code, line["error_type"]) == (1, "CollectionNotFoundError")


def test_lists_are_bounded(collection, tmp_path, monkeypatch):
    monkeypatch.setattr(job_worker, "_MAX_LISTED", 2)
    (tmp_path / "bad").mkdir()
    for i in range(5):
        (tmp_path / "bad" / f"{i}.png").write_text("Dear diary")
    _, lines = run("index", {"directory": str(collection), "folder": str(tmp_path / "bad")}, monkeypatch)
    result = lines[-1]["result"]
    assert (result["n_failed"], len(result["failed"])) == (5, 2)
