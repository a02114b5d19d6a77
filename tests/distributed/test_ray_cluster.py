"""The files of a Ray cluster on this machine, without Ray."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nearsight.distributed import ray_cluster

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

# One that ends late, and makes its folder again, as a process of Ray does that is just starting.
LATE = """
import os, sys, time
time.sleep(float(sys.argv[1]))
os.makedirs(os.environ["RAY_TMPDIR"] + "/session/logs", exist_ok=True)
"""


def test_files_are_removed_when_the_last_process_has_ended() -> None:
    with ray_cluster.files_of_ray() as directory:
        late = subprocess.Popen([sys.executable, "-c", LATE, "1"])
    assert late.wait() == 0
    assert not Path(directory).exists()
    assert "RAY_TMPDIR" not in os.environ


def test_a_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_SECONDS_TO_END", 0.0)
    monkeypatch.setenv("RAY_TMPDIR", "mine")
    with ray_cluster.files_of_ray() as directory:
        late = subprocess.Popen([sys.executable, "-c", LATE, "3600"])
    assert late.wait() < 0
    assert not Path(directory).exists()
    assert os.environ["RAY_TMPDIR"] == "mine"


INTERRUPTED = """
import os, signal, sys, time
from nearsight.distributed import ray_cluster

# Where the tests run in the background, SIGINT is ignored unless somebody asks for it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def work(stop):
    time.sleep(float(sys.argv[1]))
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.wait(60)
    time.sleep(0.5)
    print("ended")

try:
    ray_cluster.in_a_thread(work)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("seconds", ["0", "0.5"])
def test_the_thread_that_works_is_told_of_an_interruption_and_ends_in_order(seconds: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, seconds]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["ended", "interrupted"]
