"""The recipes of docs/how-to/index-on-many-machines.md, as they stand, with other places and fewer shares.

To them, a scheduler is a variable with the number of the task.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fake_jobs import install_fake_model
from unit_job_checks import DEADLINE_S, N_COPIES, N_IMAGES, UNIT, require_each_once

from nearsight import Collection
from nearsight.distributed import JobFolder, failures, status

from fake import FakeBackend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("bash"), reason="the recipes are for bash"),
]

PAGE = (Path(__file__).parents[2] / "docs/how-to/index-on-many-machines.md").read_text(encoding="utf-8")
N_SHARES = 3


def block(title: str, language: str) -> str:
    """Return the first block of code below a title."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)[1]


class Places:
    """A table of images in 7 units, a collection, and a command `nearsight` with a fake model."""

    def __init__(self, folder: Path, photos: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.photos = folder, photos
        self.job = JobFolder(folder / "jobs" / "1")
        self._uri = str(folder / "shop")
        paths = sorted(map(str, photos.iterdir()))
        pq.write_table(pa.table({"path": paths}), folder / "photos.parquet", row_group_size=UNIT)
        Collection.create(self._uri, model=FakeBackend())
        install_fake_model(folder)
        (folder / "facts.json").write_text('{"seconds": 0}')
        (folder / "bin").mkdir()
        command = folder / "bin" / "nearsight"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m nearsight "$@"\n')
        command.chmod(0o755)
        patch.setenv("FAKE_JOBS", str(folder))
        patch.setenv("PATH", os.pathsep.join([str(command.parent), os.environ["PATH"]]))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))

    def put_into(self, text: str) -> str:
        """Return a recipe with these places in place of its own."""
        table = str(self.folder / "photos.parquet")
        for theirs, ours in {
            "s3://bucket/photos": table,
            "/data/photos": table,
            "photos/ ": f"{table} ",
            "/data/jobs/1": self.job.uri,
            "/jobs/1": self.job.uri,
            "--job jobs/1": f"--job {self.job.uri}",
            "job jobs/1": f"job {self.job.uri}",
            "/data/shop": self._uri,
            "/jobs/shop": self._uri,
            "-c shop": f"-c {self._uri}",
        }.items():
            text = re.sub(rf"(?<![\w/]){re.escape(theirs)}", ours, text)
        return text

    def require_done(self) -> None:
        """Every image is in the collection once."""
        assert status(self.job).is_complete
        assert len(failures(self.job)) == 3
        assert len(Collection.open(self._uri)) == N_IMAGES - N_COPIES
        require_each_once(self.job, self.photos)


@pytest.fixture
def places(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    return Places(tmp_path, photos, monkeypatch)


def run(script: str, **variables: str) -> None:
    subprocess.run(["bash", "-ec", script], env={**os.environ, **variables}, check=True, timeout=DEADLINE_S)


def test_one_machine_with_several_processes(places: Places) -> None:
    script = PAGE.split("one process each:\n")[1]
    script = re.search(r"```sh\n(.*?)```", script, re.DOTALL)[1]
    run(places.put_into(script.replace("0 1 2 3", "0 1 2").replace("/4", f"/{N_SHARES}")))
    places.require_done()


def test_an_array_of_slurm(places: Places) -> None:
    script = places.put_into(block("SLURM", "sh")).replace("/64", f"/{N_SHARES}")
    assert "--array=0-63" in script
    for share in range(N_SHARES):
        run(script, SLURM_ARRAY_TASK_ID=str(share))
    [commit] = re.findall(r"--wrap '(.*?)'", PAGE)
    run(places.put_into(commit))
    places.require_done()


def test_an_indexed_job_of_kubernetes(places: Places) -> None:
    document = yaml.safe_load(block("Kubernetes", "yaml"))
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(document, "1.29", strict=True)
    spec = document["spec"]
    [container] = spec["template"]["spec"]["containers"]
    [*shell, script] = container["command"]
    assert f"$JOB_COMPLETION_INDEX/{spec['completions']}" in script
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in spec["template"]["spec"]["volumes"]
    }
    script = places.put_into(script).replace(f"/{spec['completions']}", f"/{N_SHARES}")
    for index in range(N_SHARES):
        environment = {**os.environ, "JOB_COMPLETION_INDEX": str(index)}
        subprocess.run([*shell, script], env=environment, check=True, timeout=DEADLINE_S)
    run(f"nearsight job {places.job.uri} --commit")
    places.require_done()
