"""A job of units: each image once, whatever happens to its processes."""

import importlib
import io
import os
import shutil
import signal
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_jobs import DEADLY_SIDE_PX, start
from unit_job_checks import (
    DEADLINE_S,
    N_BROKEN,
    N_COPIES,
    N_IMAGES,
    UNIT,
    planned,
    require_each_once,
    save,
    wait_for,
)

import nearsight.distributed.units as units_module
from nearsight import Collection
from nearsight.distributed import Committer, JobFolder, Worker, failures, plan, plan_again, status
from nearsight.distributed.units import read_units
from nearsight.errors import InvalidParameterError, StorageError
from nearsight.progress import told_to
from nearsight.services import unit_jobs
from nearsight.store import require_accepted
from nearsight.store.lance.store import LanceStore

from fake import FakeBackend

# The package has a function of its name.
plan_module = importlib.import_module("nearsight.distributed.plan")


def commit(job: JobFolder):
    return Committer(job, Collection.open(job.job.collection)).commit()


def test_every_image_is_embedded_once(job: JobFolder, photos: Path, fake_worker) -> None:
    report = fake_worker(job)
    assert (report.units, report.images, report.failed) == (7, 63, 3)
    assert commit(job).rows == N_IMAGES - N_COPIES
    assert commit(job).units == 0
    require_each_once(job, photos)
    assert sorted(Path(failure.path).name for failure in failures(job)) == [
        "000-broken.png",
        "020-broken.png",
        "040-broken.png",
    ]
    now = status(job)
    assert now.is_complete
    assert (now.images, now.embedded, now.failed) == (63, 60, 3)
    # Nothing but the plan, the paths and the records stays.
    assert not list(Path(job.uri, "units").glob("*.arrow"))
    assert not list(Path(job.uri, "units").glob("*.claim*"))


def test_the_index_is_built_after_the_last_row(job: JobFolder, fake_worker, monkeypatch) -> None:
    """A database would take many times as long for rows that come after it."""
    n_rows: list[int] = []
    monkeypatch.setattr(LanceStore, "maintain", lambda store: n_rows.append(store.count()))
    fake_worker(job)
    facts = unit_jobs.commit(job, until_complete=True, progress=False)
    assert (facts["rows_added"], n_rows) == (N_IMAGES - N_COPIES, [N_IMAGES - N_COPIES])


def test_progress_of_a_share_is_not_that_of_the_others(job: JobFolder, fake_worker) -> None:
    told: list[tuple[str, float, float | None]] = []
    with told_to(lambda *facts: told.append(facts)):
        fake_worker(job, share=0, n_shares=2)
    ends = {description: (n, total) for description, n, total in told}
    own = ends["embedding images"]
    assert own[0] == own[1]
    assert own[0] + ends["embedding images of other processes' shares"][0] == N_IMAGES + N_BROKEN


@pytest.mark.slow
def test_killed_workers_cost_no_more_than_their_units(job: JobFolder, photos: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    for n_killed in range(2):
        # Killed in the middle of a unit: images of it are embedded, and the unit is not.
        worker = start("work", job.uri, f"{n_killed}/2", log, 0.2)
        wait_for(lambda pid=worker.pid: log.read_text().count(f"{pid}\n") >= UNIT // 2, worker)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    assert status(job).interrupted >= 1
    both = [start("work", job.uri, f"{share}/2", log) for share in range(2)]
    assert [process.wait(DEADLINE_S) for process in both] == [0, 0]
    assert len(log.read_text().split()) - N_IMAGES <= 2 * UNIT
    assert commit(job).rows == N_IMAGES - N_COPIES
    require_each_once(job, photos)
    assert status(job).is_complete


@pytest.mark.slow
def test_a_commit_is_killed_at_every_step(job: JobFolder, photos: Path, fake_worker) -> None:
    fake_worker(job)
    # Two units are added and recorded, and their rows removed. Killed before the store has answered, after
    # its first and second answer, before and after the record, and with a file of rows left.
    for step in (0, 1, 3, 4, 5, 7):
        assert start("commit", job.uri, step).wait(DEADLINE_S) == -signal.SIGKILL
        collection = Collection.open(job.job.collection)
        assert len(collection) == len({item.id for item in collection.items()})
    assert start("commit", job.uri).wait(DEADLINE_S) == 0
    require_each_once(job, photos)
    assert status(job).is_complete
    assert not list(Path(job.uri, "units").glob("*.arrow"))


@pytest.mark.slow
def test_two_commit_while_one_works(job: JobFolder, photos: Path, tmp_path: Path) -> None:
    worker = start("work", job.uri, "0/1", tmp_path / "log", 0.05)
    wait_for(lambda: job.records(), worker)
    both = [start("commit", job.uri) for _ in range(2)]
    assert [process.wait(DEADLINE_S) for process in [*both, worker]] == [0, 0, 0]
    commit(job)
    require_each_once(job, photos)


def test_a_unit_that_two_embed_counts_once(job: JobFolder, photos: Path, fake_worker, monkeypatch) -> None:
    worker = Worker(job, n_threads=1, progress=False)
    [unit, *_] = job.units()
    first = job.claim(unit.number, None)
    second = job.claim(unit.number, first)
    put = JobFolder.put_record

    def put_after_the_other(self, record):
        monkeypatch.setattr(JobFolder, "put_record", put)
        assert worker.embed(unit, second) is not None
        return put(self, record)

    monkeypatch.setattr(JobFolder, "put_record", put_after_the_other)
    assert worker.embed(unit, first) is None
    assert len(list(Path(job.uri, "units").glob("*.arrow"))) == 1
    fake_worker(job)
    assert commit(job).rows == N_IMAGES - N_COPIES
    require_each_once(job, photos)


@pytest.mark.slow
def test_an_image_that_kills_its_process_fails_alone(tmp_path: Path, photos: Path) -> None:
    save(photos / "033-deadly.png", 1000, DEADLY_SIDE_PX)
    job, log = planned(tmp_path, [str(photos)]), tmp_path / "log"
    first = start("work", job.uri, "0/1", log)
    assert first.wait(DEADLINE_S) == -signal.SIGKILL
    assert start("work", job.uri, "0/1", log).wait(DEADLINE_S) == 0
    commit(job)
    [deadly] = [failure for failure in failures(job) if "deadly" in failure.path]
    assert "process" in deadly.reason
    require_each_once(job, photos)


def test_images_that_the_engine_cannot_hold_are_failures(
    job: JobFolder, photos: Path, fake_worker, monkeypatch
) -> None:
    append = LanceStore.append

    def refusing(self, rows):
        taken = {row["id"]: "too long" for row in rows.to_pylist() if row["path"].endswith("007.png")}
        require_accepted("Picky", taken)
        append(self, rows)

    monkeypatch.setattr(LanceStore, "append", refusing)
    fake_worker(job)
    assert commit(job).rows == N_IMAGES - N_COPIES - 1
    now = status(job)
    assert (now.is_complete, now.images, now.embedded, now.failed) == (True, 63, 59, 4)
    reasons = {Path(failure.path).name: failure.reason for failure in failures(job)}
    assert reasons["007.png"] == "too long"
    monkeypatch.setattr(LanceStore, "append", append)
    assert plan_again(job) == 4
    fake_worker(job)
    commit(job)
    assert status(job).failed == 3
    require_each_once(job, photos)


def test_failed_images_are_tried_again(job: JobFolder, photos: Path, fake_worker) -> None:
    fake_worker(job)
    save(photos / "020-broken.png", 500)
    assert plan_again(job) == 3
    assert plan_again(job) == 0, "they wait already"
    assert len(failures(job)) == job.n_waiting() == 3
    assert fake_worker(job).units == 1
    commit(job)
    now = status(job)
    assert now.is_complete
    assert (now.images, now.embedded, now.failed) == (63, 61, 2)
    require_each_once(job, photos)


def test_units_of_shards_tables_and_globs(tmp_path: Path, photos: Path, fake_worker) -> None:
    for name in ("a", "b"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for seed in range(4):
                save(path := tmp_path / "one.png", ord(name) + seed)
                tar.add(path, f"{seed}.png")
    table = pa.table({"url": [f"photos/{seed:03}.png" for seed in range(25)] + ["gone.png"], "n": range(26)})
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=13)
    job = planned(
        tmp_path, [str(tmp_path / "*.tar"), str(tmp_path / "list.parquet"), str(photos / "05*.png")]
    )
    assert [(unit.kind, unit.n_images) for unit in job.units()] == [
        ("tar", None),
        ("tar", None),
        ("rows", 10),
        ("rows", 3),
        ("rows", 10),
        ("rows", 3),
        ("rows", 10),
    ]
    assert fake_worker(job).images == 4 + 4 + 26 + 10
    commit(job)
    paths = {path for item in Collection.open(job.job.collection).items() for path in item.paths}
    assert len(paths) == 4 + 4 + 25 + 10
    assert f"tar://3.png::{tmp_path / 'b.tar'}" in paths
    assert str(photos / "024.png") in paths
    [gone] = failures(job)
    assert gone.path == str(tmp_path / "gone.png")


def test_rows_of_a_table_that_name_no_file_fail_alone(tmp_path: Path, photos: Path, fake_worker) -> None:
    # Beside the table, where nobody asked for it.
    save(tmp_path / "other.png", 900)
    names = ["photos/001.png", None, "", "x" * 300 + ".png", "photos/002.png"]
    pq.write_table(pa.table({"path": pa.array(names)}), tmp_path / "list.parquet", row_group_size=2)
    job = planned(tmp_path, [str(tmp_path / "list.parquet")])
    report = fake_worker(job)
    assert (report.images, report.rows, report.failed) == (5, 2, 3)
    commit(job)
    assert sorted(Path(item.path).name for item in Collection.open(job.job.collection).items()) == [
        "001.png",
        "002.png",
    ]
    empty = [f"{tmp_path / 'list.parquet'}, row {row} (empty)" for row in (2, 3)]
    before = failures(job)
    assert [failure.path for failure in before] == [*empty, str(tmp_path / names[3])]
    assert before[0].reason == "names no image"
    assert plan_again(job) == 3
    assert fake_worker(job).failed == 3
    assert failures(job) == before


def tables_and_photos(tmp_path: Path, n_rows: int = 25) -> tuple[Path, list[str]]:
    """Return a table whose rows name the first photos, and the inputs of a job: it, and the others."""
    table = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": [f"photos/{seed:03}.png" for seed in range(n_rows)]}), table)
    return table, [str(table), str(tmp_path / "photos" / "05*.png")]


def test_a_table_that_was_replaced_is_refused_and_the_others_go_on(
    tmp_path: Path, photos: Path, fake_worker
) -> None:
    table, inputs = tables_and_photos(tmp_path)
    job, before, times = planned(tmp_path, inputs), table.read_bytes(), table.stat()
    # One row more at the front: by their numbers, some images would come twice and others never.
    names = ["photos/040.png", *(f"photos/{seed:03}.png" for seed in range(24))]
    pq.write_table(pa.table({"path": names}), table)
    os.utime(table, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = fake_worker(job)
    assert (report.units, report.images) == (1, 10)
    assert len(report.refused) == 3
    assert f"{table} has changed since the job was planned" in report.refused[0]
    assert "another --job" in report.refused[0]
    assert not job.claims()
    assert commit(job).units == 1
    # A copy of what it was has another time.
    table.write_bytes(before)
    report = fake_worker(job)
    assert (report.images, report.refused) == (25, [])
    commit(job)
    assert status(job).is_complete
    names = [Path(path).name for item in Collection.open(job.job.collection).items() for path in item.paths]
    assert sorted(names) == sorted({f"{seed:03}.png" for seed in [*range(25), *range(50, 60)]})


@pytest.mark.parametrize("change", ["fewer rows", "no names", "gone", "no table"])
def test_a_table_that_is_none_any_more_is_refused(
    tmp_path: Path, photos: Path, fake_worker, change: str
) -> None:
    table, inputs = tables_and_photos(tmp_path)
    job = planned(tmp_path, inputs)
    if change == "gone":
        table.unlink()
    elif change == "no table":
        table.write_bytes(b"PAR1")
    else:
        column = {"path": ["photos/000.png"]} if change == "fewer rows" else {"n": [1], "m": [2]}
        pq.write_table(pa.table(column), table)
    report = fake_worker(job)
    assert (report.units, len(report.refused)) == (1, 3)
    assert all(str(table) in text and "start again" in text for text in report.refused)


def test_a_shard_that_was_replaced_is_refused_and_a_copy_is_not(
    tmp_path: Path, photos: Path, fake_worker
) -> None:
    shards = [tmp_path / name for name in ("copied.tar", "replaced.tar", "gone.tar", "later.tar")]
    for shard in shards:
        with tarfile.open(shard, "w") as tar:
            tar.add(photos / "001.png", f"{shard.stem}.png")
    later = shards[3].rename(tmp_path / "elsewhere")
    job = planned(tmp_path, list(map(str, shards)))
    assert [bool(unit.digest) for unit in job.units()] == [True, True, True, False]
    # As on a machine with files of its own.
    os.utime(shards[0], (1, 1))
    with tarfile.open(shards[1], "w") as tar:
        tar.add(photos / "002.png", "replaced.png")
    shards[2].unlink()
    later.rename(shards[3])
    report = fake_worker(job)
    # On a machine where their disk is not mounted, shards would count as failed else.
    assert (report.rows, report.failed) == (2, 0)
    replaced, gone = report.refused
    assert f"{shards[1]} has changed since the job was planned" in replaced
    assert f"{shards[2]}: the images of unit 2 cannot be listed" in gone


def test_an_earlier_plan_is_not_compared(tmp_path: Path, photos: Path, fake_worker, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(units_module, "FORMAT", 1)
        patch.setattr(plan_module, "digest_of", lambda names: "of size and time")
        job = planned(tmp_path, tables_and_photos(tmp_path)[1])
    report = fake_worker(job)
    assert (report.images, report.refused) == (35, [])


def test_names_that_are_not_utf8(tmp_path: Path, photos: Path, fake_worker) -> None:
    os.rename(photos / "001.png", os.fsencode(photos) + b"/\xe9.png")
    names = pa.array([b"photos/\xe9.png", b"photos/002.png", None]).view(pa.string())
    pq.write_table(pa.table({"path": names}), tmp_path / "list.parquet")
    job = planned(tmp_path, [str(tmp_path / "list.parquet")])
    assert (fake_worker(job).rows, len(failures(job))) == (2, 1)


def test_the_password_of_the_collection_is_not_in_the_job(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, shown = (f"postgres://{user}@db/shop?collection=photos" for user in ("ann:secret", "ann"))
    job = JobFolder(tmp_path / "job")

    def plan_for(uri: str) -> None:
        plan(job, [str(photos)], uri, lambda: Collection.create(tmp_path / "c", model=FakeBackend()))

    plan_for(uri)
    assert unit_jobs.job_facts(job)["collection"] == shown
    assert b"secret" not in Path(job.uri, "plan.parquet").read_bytes()
    # Who has another password, or none, goes on with the same job.
    plan_for(uri.replace("secret", "other"))
    plan_for(shown)
    with pytest.raises(InvalidParameterError, match="ann@db/shop.*ann@db/toys") as refused:
        plan_for(uri.replace("shop", "toys"))
    assert "secret" not in str(refused.value)
    opened: list[str] = []
    monkeypatch.setattr(Collection, "open", lambda place, **_: opened.append(place))
    for given in (uri, str(tmp_path), None):
        unit_jobs.open_target(job, given)
    assert opened == [uri, shown, shown]


def test_a_plan_is_read_by_no_thread_that_outlives_the_process(job: JobFolder) -> None:
    threads: set[int] = set()

    class Watched(io.BytesIO):
        def read(self, *size: int | None) -> bytes:
            threads.add(threading.get_ident())
            return super().read(*size)

    assert read_units(Watched(job.files.read("plan.parquet"))) == job.units()
    assert threads == {threading.get_ident()}


def test_a_job_is_planned_once(job: JobFolder, tmp_path: Path, photos: Path) -> None:
    digests = [unit.digest for unit in job.units()]
    save(photos / "new.png", 77)
    assert [unit.digest for unit in planned(tmp_path, [str(photos)]).units()] == digests
    with pytest.raises(InvalidParameterError, match="is a job with inputs"):
        planned(tmp_path, [str(tmp_path)])
    # The size of units is the job's: nobody need repeat it, and no other one is taken.
    assert planned(tmp_path, [str(photos)], None).job.unit_images == UNIT
    with pytest.raises(InvalidParameterError, match=f"unit images {UNIT}, not 500"):
        planned(tmp_path, [str(photos)], 500)
    with pytest.raises(InvalidParameterError, match="holds no job"):
        JobFolder(tmp_path).job  # noqa: B018 - the access is the test


def test_images_that_the_collection_has_are_in_no_unit(tmp_path: Path, photos: Path, fake_worker) -> None:
    uri = str(tmp_path / "collection")
    collection = Collection.create(uri, model=FakeBackend())
    collection.add(photos, progress=False)
    save(photos / "020.png", 1000)
    save(photos / "new.png", 1001)
    job = JobFolder(tmp_path / "job")
    plan(job, [str(photos)], uri, lambda: collection)
    # Those two, and the three that are broken.
    assert (job.job.unchanged, [unit.n_images for unit in job.units()]) == (N_IMAGES - 1, [5])
    assert fake_worker(job).rows == 2
    commit(job)
    names = [Path(path).name for item in Collection.open(uri).items() for path in item.paths]
    assert {"020.png", "new.png", "021.png"} <= set(names)
    # Nothing is new but what failed: a job of nothing else is done at once.
    for broken in photos.glob("*-broken.png"):
        broken.unlink()
    job = JobFolder(tmp_path / "another")
    plan(job, [str(photos)], uri, lambda: Collection.open(uri))
    assert job.units() == []
    assert fake_worker(job).units == commit(job).units == 0
    assert status(job).is_complete


def test_a_machine_without_the_disk_ends_before_it_fails_all(
    tmp_path: Path, photos: Path, fake_worker
) -> None:
    job = planned(tmp_path, [str(photos)], unit_images=100)
    photos.rename(tmp_path / "unmounted")
    with pytest.raises(StorageError, match="not one of 63 images of unit 0 can be read"):
        fake_worker(job)
    (tmp_path / "unmounted").rename(photos)
    assert fake_worker(job).rows == N_IMAGES - N_COPIES
    commit(job)
    require_each_once(job, photos)


def test_units_of_nothing_but_bad_images_stop_nobody_who_can_read(tmp_path: Path, fake_worker) -> None:
    """As of a table of URLs, many of which are of servers that are gone."""
    (tmp_path / "in").mkdir()
    for number in range(80):
        path = tmp_path / "in" / f"{number:02}.png"
        save(path, number) if number < 20 else path.write_bytes(b"no image")
    job = planned(tmp_path, [str(tmp_path / "in")], 20)
    told: list[tuple[str, float, float | None]] = []
    with told_to(lambda *facts: told.append(facts)):
        report = fake_worker(job)
    assert (report.units, report.images, report.failed) == (4, 80, 60)
    assert told[-1] == ("embedding images", 80, 80)
    assert not job.claims()


def test_lost_rows_are_embedded_again(job: JobFolder, photos: Path, fake_worker) -> None:
    fake_worker(job)
    next(Path(job.uri, "units").glob("*.arrow")).unlink()
    assert len(commit(job).again) == 1
    assert not status(job).is_complete
    assert fake_worker(job).units == 1
    commit(job)
    require_each_once(job, photos)


def raising(error: Exception) -> Callable[..., Any]:
    def call(*arguments: object, **options: object) -> None:
        raise error

    return call


def test_a_collection_that_is_away_costs_no_unit(
    job: JobFolder, photos: Path, tmp_path: Path, fake_worker, monkeypatch
) -> None:
    fake_worker(job)
    committer = Committer(job, Collection.open(job.job.collection))
    (tmp_path / "collection").rename(tmp_path / "unmounted")
    with pytest.raises(StorageError, match="cannot be added: it is gone; restore it, and run the same"):
        committer.commit()
    with monkeypatch.context() as patch:
        patch.setattr(Collection, "restore_rows", raising(pa.ArrowInvalid("no such column")))
        with pytest.raises(StorageError, match="cannot be added: no such column; mend that"):
            committer.commit()
    assert len(job.records()) == 7
    shutil.rmtree(tmp_path / "collection", ignore_errors=True)
    (tmp_path / "unmounted").rename(tmp_path / "collection")
    assert commit(job).rows == N_IMAGES - N_COPIES
    require_each_once(job, photos)


def test_a_record_that_cannot_be_written_leaves_nothing(
    job: JobFolder, photos: Path, fake_worker, monkeypatch
) -> None:
    full = raising(StorageError("no space left"))
    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "put_record", full)
        with pytest.raises(StorageError, match="no space left"):
            fake_worker(job)
    assert not job.claims(), "the attempt does not count"
    assert not list(Path(job.uri, "units").glob("*.arrow")), "its room is needed"
    assert fake_worker(job).units == 7
    commit(job)
    require_each_once(job, photos)
