"""`nearsight index` with worker processes is interrupted or killed: no process is left, no row is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nearsight import Collection

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children in /proc"),
]


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


@pytest.mark.parametrize("how", ["SIGINT to all", "SIGKILL"])
def test_index_with_processes(how, tmp_path, cache, save_image):
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(12):
        save_image(folder / f"{seed}.jpg", seed)
    # Names of one content: each is read, and few are embedded.
    for n in range(2000):
        os.link(folder / f"{n % 12}.jpg", folder / f"more{n:04}.jpg")
    collection = tmp_path / "collection"
    command = [sys.executable, "-m", "nearsight", "index", str(folder), "-c", str(collection)]
    environment = {**os.environ, "NEARSIGHT_CACHE": str(cache)}
    job = subprocess.Popen(
        [*command, "--processes", "2", "--threads", "2"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    with job:
        workers = wait_for(lambda: len(pids := children(job.pid)) == 2 and pids)
        wait_for(lambda: (collection / "store").exists())
        if how == "SIGINT to all":
            os.killpg(job.pid, signal.SIGINT)
        else:
            job.send_signal(getattr(signal, how))
        output = job.stdout.read().decode()
        code = job.wait()
    assert code == (-signal.SIGKILL if how == "SIGKILL" else 130), output
    assert "Traceback" not in output
    wait_for(lambda: not any(map(is_alive, workers)))
    files = [str(folder / f"{seed}.jpg") for seed in range(12)]
    done = subprocess.run(
        [*command[:4], *files, *command[5:], "--processes", "0"],
        env=environment,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(Collection.open(collection, cache_dir=cache)) == 12
