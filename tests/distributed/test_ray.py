"""Jobs on a Ray cluster of three nodes: each image once, whoever dies. `make ray` runs them."""

import importlib.util
import json
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from fake_jobs import DEADLY_SIDE_PX
from ray_nodes import N_NODES, Nodes, Scene
from unit_job_checks import (
    DEADLINE_S,
    N_COPIES,
    N_IMAGES,
    UNIT,
    require_each_once,
    save,
    wait_for,
    wait_until,
)

from nearsight.distributed import JobFolder, failures, status
from nearsight.errors import InvalidParameterError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: make ray"),
]


_drivers: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _anew(scene: Scene) -> Iterator[None]:
    scene.reset()
    yield
    # One that a failed test has left would keep the nodes from the next.
    while _drivers:
        with _drivers.pop() as driver:
            driver.kill()


def drive(job: JobFolder, nodes: Nodes, n_actors: int = N_NODES, *step: int) -> subprocess.Popen[bytes]:
    """Start a driver."""
    arguments = ["ray", job.uri, nodes.address, n_actors, *step]
    command = [sys.executable, "-c", "from fake_jobs import main; main()", *map(str, arguments)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE)
    _drivers.append(driver)
    return driver


def report_of(driver: subprocess.Popen[bytes]) -> dict[str, float]:
    output, _ = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 0
    return json.loads(output)


def test_a_node_is_killed_and_another_joins(job: JobFolder, photos: Path, nodes: Nodes, scene: Scene) -> None:
    # However slowly nodes and actors start: nobody gets past an image before all are there.
    scene.put(seconds=0.3, together=N_NODES + 1)
    driver = drive(job, nodes, 9)
    wait_for(lambda: len(scene.pids()) == N_NODES, driver)
    killed = nodes.kill_one_of(before := scene.pids())
    nodes.fill()
    # Its place is taken by an actor on the node that has joined, in the same run.
    wait_for(lambda: len(scene.pids()) > N_NODES, driver)
    report = report_of(driver)
    # Until the cluster knows that the node is dead, it may give it another actor, which never runs.
    assert report["lost_actors"] in (1, 2)
    assert report["actors"] in (N_NODES, N_NODES + 1)  # for a moment, also the dead one
    assert killed in before
    # It has told within units how far it is: told at their ends alone, there would be one telling of each.
    assert report["tellings"] > report["units"] == 7
    assert report["told"] == [report["images"], report["failed"]] == [63, 3]
    require_each_once(job, photos)
    assert status(job).is_complete
    assert len(failures(job)) == 3
    assert len(scene.log) - N_IMAGES <= UNIT
    # An actor of one core runs one thread, whatever the machine has.
    assert len(set(scene.log)) == len(scene.pids())


def test_a_driver_is_killed_and_started_again(
    job: JobFolder, photos: Path, nodes: Nodes, scene: Scene
) -> None:
    scene.put(seconds=0.2, together=N_NODES)
    first = drive(job, nodes)
    wait_for(lambda: len(scene.pids()) == N_NODES and job.records(), first)
    second = drive(job, nodes)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    scene.put()
    done = report_of(second)
    require_each_once(job, photos)
    assert status(job).is_complete
    assert done["units"] < 7
    assert len(scene.log) - N_IMAGES <= N_NODES * UNIT


def test_an_image_that_kills_its_actor_fails_alone(
    job: JobFolder, photos: Path, nodes: Nodes, scene: Scene
) -> None:
    save(photos / "033.png", 1000, DEADLY_SIDE_PX)
    assert report_of(drive(job, nodes))["lost_actors"] == 1
    assert [Path(one.path).name for one in failures(job) if "process" in one.reason] == ["033.png"]
    require_each_once(job, photos)


def test_units_that_two_drivers_embed_and_an_answer_that_is_lost(
    job: JobFolder, photos: Path, nodes: Nodes, scene: Scene
) -> None:
    # This one dies of its first commit, when the store has answered, and before it has noted that.
    scene.put(seconds=0.05)
    first = drive(job, nodes, 1, 1)
    first.communicate(timeout=DEADLINE_S)
    assert first.returncode == -signal.SIGKILL
    # Its actor has an image or two left.
    for pid in scene.pids():
        wait_until(lambda pid=pid: not psutil.pid_exists(pid))
    n_left = N_IMAGES - status(job).embedded
    # No actor sees what the others work on, as where a file system is slow to show new files.
    scene.reset()
    scene.put(seconds=0.05, is_blind=True, together=2)
    both = [drive(job, nodes, 1) for _ in range(2)]
    for driver in both:
        report_of(driver)
    assert len(scene.log) > n_left
    require_each_once(job, photos)
    assert status(job).is_complete
    assert not list(Path(job.uri, "units").glob("*.arrow"))


def is_starting(mark: str, job: JobFolder, scene: Scene) -> bool:
    """The first process of Ray runs, and others do not."""
    return any("gcs_server" in process.name() for process in marked(mark))


def is_embedding(mark: str, job: JobFolder, scene: Scene) -> bool:
    """Some images are embedded."""
    return bool(scene.log)


def is_ending(mark: str, job: JobFolder, scene: Scene) -> bool:
    """All units are embedded, and the cluster is stopped."""
    scene.put()
    return len(job.committed().units) == len(job.units())


@pytest.mark.parametrize(
    ("number", "stage"),
    [
        (signal.SIGINT, is_starting),
        (signal.SIGINT, is_embedding),
        (signal.SIGTERM, is_embedding),
        (signal.SIGTERM, is_ending),
        (signal.SIGKILL, is_embedding),
    ],
)
def test_nobody_outlives_a_cluster_of_ones_own(
    number: signal.Signals,
    stage: Callable[[str, JobFolder, Scene], bool],
    job: JobFolder,
    photos: Path,
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_JOBS_RUN", mark := secrets.token_hex(8))
    command = [sys.executable, "-m", "nearsight", "index", photos, "--job", job.uri]
    command += ["-c", job.job.collection, "--ray", "local", "--actor-cpus", "1", "--json"]
    scene.put(seconds=0.3)
    with listening_to(signal.SIGINT):
        run = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE)
    found: list[Path] = []
    wait_for(lambda: found or found.extend(folders_of(mark)), run)
    wait_for(lambda: stage(mark, job, scene), run)
    files = found[0]
    run.send_signal(number)
    run.communicate(timeout=DEADLINE_S)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}
    # When all is done, the command may end before it hears of it.
    assert run.returncode in (expected[number], 0 if stage is is_ending else expected[number])
    if number == signal.SIGKILL:
        psutil.wait_procs(marked(mark), timeout=DEADLINE_S)
    assert not marked(mark)
    assert files.exists() is (number == signal.SIGKILL)
    shutil.rmtree(files, ignore_errors=True)
    if number != signal.SIGKILL:
        # An attempt that was ended in order does not count.
        assert not job.claims()
    if number == signal.SIGINT and stage is is_embedding:
        scene.put()
        again = subprocess.run(list(map(str, command)), capture_output=True, check=True, timeout=DEADLINE_S)
        facts = json.loads(again.stdout)
        assert (facts["status"]["embedded"], facts["failed"]) == (N_IMAGES, 3)
        assert facts["rows_added"] <= N_IMAGES - N_COPIES
        require_each_once(job, photos)
        assert b"fork" not in again.stderr


@contextmanager
def listening_to(number: signal.Signals) -> Iterator[None]:
    """Let processes hear a signal that this one ignores where the tests run in the background."""
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_an_address_without_a_cluster_is_refused(job: JobFolder) -> None:
    from nearsight.distributed import ray

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(InvalidParameterError, match="no Ray cluster answers at '127"):
            ray.run(job, None, f"127.0.0.1:{unused.getsockname()[1]}")


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that have inherited a mark."""
    return [process for process in psutil.process_iter() if _has(process, mark)]


def folders_of(mark: str) -> set[Path]:
    """Return the folder of Ray's files, from processes that have inherited a mark."""
    names = set()
    for process in marked(mark):
        with suppress(psutil.Error):
            names.add(process.environ().get("RAY_TMPDIR"))
    return {Path(name) for name in names if name}


def _has(process: psutil.Process, mark: str) -> bool:
    try:
        is_alive = process.status() != psutil.STATUS_ZOMBIE
        return is_alive and process.environ().get("FAKE_JOBS_RUN") == mark
    except psutil.Error:
        return False
