"""How far a job is, and at what cost that is told."""

import sys

from unit_job_checks import N_BROKEN

from nearsight import Collection
from nearsight.distributed import Committer, JobFolder, failures, plan_again, status

# The package has a function of its name.
status_module = sys.modules["nearsight.distributed.status"]


def test_what_is_committed_is_not_read_again(job: JobFolder, fake_worker, monkeypatch) -> None:
    """In a bucket, each of 50,000 records would be a request, by each of 64 processes."""
    monkeypatch.setattr(status_module, "_RATE_S", -60.0)
    reads: list[int] = []
    read = JobFolder.record

    def record(folder: JobFolder, unit: int):
        reads.append(unit)
        return read(folder, unit)

    fake_worker(job)
    before = status(job)
    Committer(job, Collection.open(job.job.collection)).commit()
    monkeypatch.setattr(JobFolder, "record", record)
    after = status(job)
    assert (before.embedded, before.failed) == (after.embedded, after.failed) == (60, N_BROKEN)
    assert reads == []
    # What has failed more than once counts once.
    assert plan_again(job) == N_BROKEN
    fake_worker(job)
    assert (status(job).failed, len(failures(job))) == (N_BROKEN, N_BROKEN)
