"""Jobs in buckets: the same promises as in a directory, by files that nobody replaces."""

import os
import shutil
import signal
import tarfile
import time
from collections import Counter
from itertools import count
from pathlib import Path

import fsspec
import pytest
from fake_jobs import start
from s3_lost_answers import LostAnswers
from unit_job_checks import DEADLINE_S, N_COPIES, N_IMAGES, UNIT, planned, require_each_once, save, wait_for

from nearsight.collection import Collection
from nearsight.distributed import Committer, JobFolder, claims, failures, plan_again, status
from nearsight.distributed import units as units_module
from nearsight.distributed import worker as worker_module
from nearsight.distributed.claims import Claim, put_claim
from nearsight.distributed.job_files import BucketFiles, open_files
from nearsight.errors import InvalidParameterError, StorageError

_NUMBERS = count()
# Claims, records, rows, the plan, the lock; Lance's versions and transactions.
KINDS = (".claim", ".json", ".arrow", "/plan.parquet", "/commit.lock/", ".manifest", ".txn")


@pytest.fixture(params=["directory", "bucket"])
def files(request, tmp_path):
    files = open_files(tmp_path / "job" if request.param == "directory" else f"memory://job{next(_NUMBERS)}")
    files.prepare()
    return files


def test_the_first_file_of_a_name_stays(files) -> None:
    assert list(files.names()) == [] or [name for name, _ in files.names()] == ["units"]
    assert files.put_if_absent("units/a", b"1")
    assert not files.put_if_absent("units/a", b"2")
    assert (files.read("units/a"), files.exists("units/a"), files.exists("units/b")) == (b"1", True, False)
    [(name, modified_s)] = files.names("units/")
    assert (name, modified_s()) == ("a", files.modified_s("units/a"))
    files.replace("units/a", b"3")
    assert files.read("units/a") == b"3"
    for _ in range(2):
        files.delete("units/a")
    assert list(files.names("units/")) == []
    with pytest.raises(FileNotFoundError):
        files.read("units/a")


def test_a_large_file_appears_at_the_end_or_never(files) -> None:
    with pytest.raises(ZeroDivisionError), files.created("units/rows") as file:
        file.write(b"half" * (1 // 0))
    assert list(files.names("units/")) == []
    with files.created("units/rows") as file:
        file.write(b"whole")
        assert not files.exists("units/rows")
    with files.local("units/rows") as path:
        assert path.read_bytes() == b"whole"
    with pytest.raises(FileNotFoundError), files.local("units/none") as path:
        path.read_bytes()


@pytest.mark.parametrize("wrong_s", [-3600, 0, 3600])
def test_a_claim_of_another_machine_dies_when_it_gives_no_sign(files, monkeypatch, wrong_s) -> None:
    # Whatever the clocks of the two machines say: both ask the storage's.
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + wrong_s)
    claim = put_claim(files, "units/", "000001", None)
    assert isinstance(claim, Claim)
    assert claim.is_alive()
    assert put_claim(files, "units/", "000001", None) is None
    monkeypatch.setattr(claims.socket, "gethostname", lambda: "another")
    assert claim.is_alive()
    monkeypatch.setattr(claims, "STALE_S", -60.0)
    assert not claim.is_alive()
    monkeypatch.setattr(claims, "STALE_S", 60.0)
    # Marked when the clock of the storage was an hour ahead, which was mended then.
    monkeypatch.setattr(files, "now_s", lambda: files.modified_s(claim.name) - 3600)
    assert not claim.is_alive()
    monkeypatch.undo()
    claim.end()
    assert not claim.is_alive()


def claimed_by_namesake(files, monkeypatch, unit: str) -> Claim:
    """Return the claim of a container of this machine's name, none of whose processes is seen here."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "readlink", lambda path: "pid:[1]")
        patch.setattr(os, "getpid", lambda: 2**30)
        claim = put_claim(files, "units/", unit, None)
    assert claim is not None
    return claim


def test_a_container_of_the_same_name_is_not_taken_for_dead(files, monkeypatch) -> None:
    claim = claimed_by_namesake(files, monkeypatch, "000001")
    assert claim.is_alive()
    monkeypatch.setattr(claims, "STALE_S", -60.0)
    assert not claim.is_alive()


def test_a_container_that_was_started_again_waits_for_its_own_unit(job, fake_worker, monkeypatch) -> None:
    claimed_by_namesake(job.files, monkeypatch, "000003")
    monkeypatch.setattr(worker_module, "_SECONDS_TO_WAIT", 0.05)
    monkeypatch.setattr(claims, "STALE_S", 3.0)
    assert fake_worker(job).units == 7


def test_a_job_in_a_bucket_from_plan_to_retry(tmp_path: Path, photos: Path, fake_worker) -> None:
    job = planned(tmp_path, [str(photos)], place=f"memory://job{next(_NUMBERS)}")
    assert planned(tmp_path, [str(photos)], place=job.uri).units() == job.units()
    report = fake_worker(job)
    assert (report.units, report.images, report.failed) == (7, 63, 3)
    committer = Committer(job, Collection.open(job.job.collection))
    assert committer.commit().rows == N_IMAGES - N_COPIES
    save(photos / "020-broken.png", 500)
    assert (plan_again(job), plan_again(job), len(failures(job))) == (3, 0, 3)
    assert fake_worker(job).units == 1
    assert committer.commit().units == 1
    require_each_once(job, photos)
    now = status(job)
    assert now.is_complete
    assert (now.images, now.embedded, now.failed) == (63, 61, 2)
    assert {name.rpartition(".")[2] for name, _ in job.files.names("units/")} == {"json"}


def test_two_that_commit_without_a_lock_lose_no_unit(
    tmp_path: Path, photos: Path, fake_worker, monkeypatch
) -> None:
    job = planned(tmp_path, [str(photos)], place=f"memory://job{next(_NUMBERS)}")
    fake_worker(job)
    committer = Committer(job, Collection.open(job.job.collection))
    other = Committer(JobFolder(job.uri), Collection.open(job.job.collection))
    answers = iter([job.committed()])
    monkeypatch.setattr(job, "committed", lambda: next(answers, None) or other._folder.committed())
    other.commit()
    assert committer.commit().again == []
    require_each_once(job, photos)


def test_a_folder_that_was_removed_is_told(job, photos: Path, fake_worker, monkeypatch) -> None:
    put = JobFolder.put_record

    def put_after_removal(folder, record):
        shutil.rmtree(folder.uri)
        return put(folder, record)

    monkeypatch.setattr(JobFolder, "put_record", put_after_removal)
    with pytest.raises(StorageError, match="was removed while the job runs; start the command again"):
        fake_worker(job)


def test_a_server_that_is_away_fails_no_shard(tmp_path: Path, photos: Path, fake_worker, monkeypatch) -> None:
    url = f"memory://shards{next(_NUMBERS)}/a.tar"
    with fsspec.open(url, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(photos / "001.png", "1.png")
    job = planned(tmp_path, [url, str(photos / "002.png")])

    def away(url: str) -> None:
        # As botocore's errors, which are none of the system.
        raise RuntimeError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(units_module, "url_to_fs", away)
        report = fake_worker(job)
    assert (report.rows, report.failed) == (1, 0)
    assert f"{url}: the images of unit 0 cannot be listed: no route to host" in report.refused[0]
    assert fake_worker(job).rows == 1


def test_urls_with_options_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="AWS_ENDPOINT_URL"):
        open_files("s3://bucket/jobs/1?endpoint=http://127.0.0.1:9000")


def test_storage_that_replaces_files_is_refused(monkeypatch) -> None:
    files = BucketFiles(f"memory://job{next(_NUMBERS)}")
    fs = files._bucket._fs
    pipe = fs.pipe_file
    monkeypatch.setattr(fs, "pipe_file", lambda path, content, mode="": pipe(path, content))
    with pytest.raises(StorageError, match="If-None-Match"):
        files.prepare()


@pytest.mark.slow
def test_workers_and_committers_of_a_job_on_s3_are_killed(
    s3, tmp_path: Path, photos: Path, monkeypatch
) -> None:
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "files"))
    # A server that is away is asked again for some seconds else.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    job = planned(tmp_path, [str(photos)], place="s3://photos/jobs/1", uri="s3://photos/shop")
    worker = start("work", job.uri, "0/2", log, 0.2)
    wait_for(lambda: log.read_text().count(f"{worker.pid}\n") >= UNIT // 2, worker)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert status(job).interrupted >= 1
    both = [start("work", job.uri, f"{share}/2", log) for share in range(2)]
    assert [process.wait(DEADLINE_S) for process in both] == [0, 0]
    assert len(log.read_text().split()) - N_IMAGES <= UNIT
    # Two units are in the collection, and one of them is recorded nowhere.
    assert start("commit", job.uri, 4).wait(DEADLINE_S) == -signal.SIGKILL
    both = [start("commit", job.uri) for _ in range(2)]
    assert [process.wait(DEADLINE_S) for process in both] == [0, 0]
    require_each_once(job, photos)
    assert status(job).is_complete
    assert {name.rpartition(".")[2] for name, _ in job.files.names("units/")} == {"json"}
    # What another process writes after a look is seen at once, though drivers keep listings.
    assert not job.files.exists("units/new")
    fsspec.filesystem("s3").pipe_file("photos/jobs/1/units/new", b"1")
    assert job.files.read("units/new") == b"1"
    # What people are told where something is wrong.
    with pytest.raises(StorageError, match=r"s3://none/1 at http://127.*bucket does not exist.*create it"):
        planned(tmp_path, [str(photos)], place="s3://none/1")
    s3.stop()
    with pytest.raises(StorageError, match="the server is away") as error:
        status(job)
    assert "test-secret" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("is_cut", [False, True], ids=["HTTP 500", "broken connection"])
def test_what_s3_stores_without_an_answer_counts_once(
    s3, tmp_path: Path, photos: Path, fake_worker, monkeypatch, is_cut: bool
) -> None:
    """The driver asks again, and hears that somebody was first: that was itself."""
    proxy = LostAnswers(s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "files"))
    kinds = Counter[str]()

    def is_to_lose(path: str) -> bool:
        """Once of each kind: a driver takes seconds to ask again."""
        kind = next((kind for kind in KINDS if kind in path), "other")
        kinds[kind] += 1
        return kinds[kind] == 1

    try:
        proxy.lose(is_to_lose, is_cut=is_cut)
        job = planned(tmp_path, [str(photos)], place="s3://photos/jobs/1", uri="s3://photos/shop")
        report = fake_worker(job)
        assert (report.units, report.images, report.failed) == (7, 63, 3)
        collection = Collection.open(job.job.collection)
        assert Committer(job, collection).commit().rows == len(collection) == N_IMAGES - N_COPIES
        assert set(kinds) >= set(KINDS)
        assert Committer(job, collection).commit().units == 0
        require_each_once(job, photos)
        assert status(job).is_complete
        assert {name.rpartition(".")[2] for name, _ in job.files.names("units/")} == {"json"}
    finally:
        proxy.stop()
