"""What `nearsight index --job` and `nearsight job DIR` say."""

import json
import shutil
from pathlib import Path

import pytest

from nearsight.distributed import JobFolder
from nearsight.services import unit_jobs


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    """Six images, one that cannot be read, and a note."""
    folder = tmp_path / "in"
    shutil.copytree(photos, folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_what_became_of_the_images_is_told(nearsight, folder, tmp_path):
    command = ["index", folder, "--job", tmp_path / "job"]
    first = nearsight(*command)
    assert first.stdout.splitlines()[0] == "skipped: 1 .txt"
    assert "6 images added to " in first.stdout
    # Nobody works: what the rate was is no news.
    assert first.stdout.endswith(
        "1 of 1 unit done, 1 committed, 0 running, 0 interrupted\n6 images embedded, 1 failed\n"
    )
    document = nearsight.json(*command)
    assert (document["skipped"], document["unchanged"], document["units"]) == ({".txt": 1}, 0, 0)


def test_nothing_new_is_no_lack_of_units(nearsight, folder, tmp_path):
    nearsight("index", folder)
    (folder / "broken.jpg").unlink()
    for share in ([], ["--units", "1/2"]):
        run = nearsight("index", folder, "--job", tmp_path / "job", *share)
        assert run.stdout.endswith(
            "6 images in the collection already, unchanged\nThere is nothing to embed\n"
        )
        assert "--units" not in run.stderr


def test_another_attempt_is_told(nearsight, folder, tmp_path):
    job = tmp_path / "job"
    nearsight("index", folder, "--job", job)
    assert "1 image will be tried again" in nearsight("job", job, "--retry-failed").stdout
    again = nearsight("job", job, "--retry-failed")
    assert "wait for another attempt already" in again.stdout
    assert "start the command again" in again.stderr
    (folder / "broken.jpg").unlink()
    shutil.copy(next(folder.glob("0*")), folder / "broken.jpg")
    nearsight("index", folder, "--job", job)
    assert "No image has failed" in nearsight("job", job, "--retry-failed").stdout


def test_units_that_wait_for_who_works_are_no_fault(nearsight, folder, tmp_path, monkeypatch):
    job = tmp_path / "job"
    with monkeypatch.context() as killed:
        killed.setattr(unit_jobs, "work", lambda *_, **__: unit_jobs.WorkReport())
        nearsight("index", folder, "--job", job, "--unit-images", 2)
    assert "Nobody works on the other units" in nearsight("job", job).stderr
    assert JobFolder(job).claim(0, None)
    run = nearsight("job", job)
    assert "0 of 4 units done, 0 committed, 1 running" in run.stdout
    assert "Nobody works" not in run.stderr
    assert json.loads(nearsight("job", job, "--json").stdout)["running"] == 1
