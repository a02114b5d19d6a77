"""The driver of a Ray cluster that does not answer at times; without Ray."""

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from unit_job_checks import N_COPIES, N_IMAGES, planned, require_each_once

import nearsight.distributed.worker as worker_module
from nearsight import Collection
from nearsight.distributed import Committer, JobFolder, ray, ray_cluster, status
from nearsight.errors import DeviceError, InvalidParameterError, StorageError

from fake import FakeBackend


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class FakeRay:
    """As much of Ray as the driver calls, in this thread.

    After `n_before` questions, the head does not answer `n_late` times, and then there is no node `n_gone`
    times; an actor that is asked meanwhile has died.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, n_late: int = 0, n_gone: int = 0, n_before: int = 0) -> None:
        self.n_late, self.n_gone, self.n_before = n_late, n_gone, n_before

    def nodes(self) -> list[dict[str, Any]]:
        if self.n_before:
            self.n_before -= 1
        elif self.n_late:
            self.n_late -= 1
            raise RayError("Failed to connect to GCS")
        elif self.n_gone:
            self.n_gone -= 1
            return []
        return [{"Alive": True, "Resources": {"CPU": 1.0}}]

    def remote(self, actor_class: Any) -> Any:
        def start(*arguments: Any) -> Any:
            actor = actor_class(*arguments)
            return SimpleNamespace(
                **{name: method_of(getattr(actor, name)) for name in ("embed", "counts", "withdraw")}
            )

        return SimpleNamespace(options=lambda **facts: SimpleNamespace(remote=start))

    def wait(self, answers: list[Any], num_returns: int = 1, timeout: float = 0) -> Any:
        return answers[:num_returns], answers[num_returns:]

    def get(self, answer: Any) -> Any:
        if self.n_gone and not self.n_before and not self.n_late:
            raise RayError("the actor has died")
        return answer[1]

    def kill(self, handle: Any) -> None:
        pass


def method_of(method: Any) -> Any:
    return SimpleNamespace(remote=lambda *arguments: (object(), method(*arguments)))


def drive(job: JobFolder, cluster: FakeRay, monkeypatch: pytest.MonkeyPatch, patience_s: float = 60) -> Any:
    monkeypatch.setattr(worker_module, "load_model", lambda *args, **kwargs: FakeBackend())
    monkeypatch.setattr(ray, "_SECONDS_PER_LOOK", 0.0)
    monkeypatch.setattr(ray, "_SECONDS_OF_PATIENCE", patience_s)
    committer = Committer(job, Collection.open(job.job.collection))
    return ray._Driver(
        cluster, job, committer, (1.0, 0.0), None, None, {"n_threads": 1}, threading.Event()
    ).run()


@pytest.mark.parametrize(
    ("cluster", "is_lost"),
    [
        (FakeRay(n_late=3), False),
        (FakeRay(n_late=3, n_before=2), False),
        (FakeRay(n_gone=6, n_before=4), True),
    ],
    ids=["late at first", "late in between", "its only node is replaced"],
)
def test_a_cluster_that_answers_late_costs_nothing(
    job: JobFolder, photos: Path, cluster: FakeRay, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rows: list[int] = []
    # Only then the index is built.
    monkeypatch.setattr(Committer, "maintain", lambda committer: n_rows.append(len(committer._collection)))
    report = drive(job, cluster, monkeypatch)
    assert n_rows == [N_IMAGES - N_COPIES]
    # Of an actor that died in the end, the unit was done.
    assert report.units == 7 - report.lost_actors
    assert (report.lost_actors > 0) is is_lost
    assert report.rows_added == N_IMAGES - N_COPIES
    assert (cluster.n_late, cluster.n_gone) == (0, 0)
    require_each_once(job, photos)


def test_a_cluster_that_does_not_answer_is_given_up(
    job: JobFolder, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceError, match="has not answered .*the same command goes on"):
        drive(job, FakeRay(n_late=10**9), monkeypatch, patience_s=0.05)
    assert not job.claims()
    assert drive(job, FakeRay(), monkeypatch).units == 7
    assert status(job).is_complete


def test_a_cluster_without_room_is_refused_at_once(
    job: JobFolder, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceError, match="no node of the cluster has 1 CPU"):
        drive(job, FakeRay(n_gone=10**9), monkeypatch)


@pytest.mark.parametrize(("n_late", "is_reached"), [(2, True), (3, False)])
def test_a_head_that_answers_late_is_asked_again(n_late, is_reached, monkeypatch) -> None:
    calls: list[str] = []

    def init(**facts: Any) -> None:
        calls.append(facts["address"])
        if len(calls) <= n_late:
            raise RuntimeError("deadline exceeded")

    late = SimpleNamespace(init=init, shutdown=lambda: None)
    monkeypatch.setattr(ray_cluster, "_SECONDS_BETWEEN_STARTS", 0.0)
    if is_reached:
        ray_cluster._init(late, {"address": "head:6379"})
    else:
        with pytest.raises(InvalidParameterError, match="no Ray cluster answers at 'head:6379'"):
            ray_cluster._init(late, {"address": "head:6379"})
    assert len(calls) == 3


def test_a_table_that_was_replaced_stops_no_actor(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": ["photos/001.png"] * 15}), table)
    job = planned(tmp_path, [str(table), str(photos)])
    pq.write_table(pa.table({"path": ["photos/002.png"] * 15}), table)
    report = drive(job, FakeRay(), monkeypatch)
    assert (report.units, len(report.refused), report.rows_added) == (7, 2, N_IMAGES - N_COPIES)
    assert str(table) in report.refused[0]
    assert not job.claims()


@pytest.mark.parametrize("n_away", [2, 10**9])
def test_a_collection_that_is_away_for_a_while_stops_no_actor(
    job: JobFolder, photos: Path, n_away: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "_SECONDS_BETWEEN_COMMITS", 0.0)
    calls, commit = iter(range(n_away)), Committer.commit

    def away(committer: Committer, **options: Any) -> Any:
        if next(calls, None) is not None:
            raise StorageError("the server is away")
        return commit(committer, **options)

    monkeypatch.setattr(Committer, "commit", away)
    if n_away == 2:
        report = drive(job, FakeRay(), monkeypatch)
        assert (report.units, report.rows_added) == (7, N_IMAGES - N_COPIES)
        require_each_once(job, photos)
    else:
        with pytest.raises(StorageError, match="the server is away"):
            drive(job, FakeRay(), monkeypatch, patience_s=0.0)
        assert len(job.records()) < 7
