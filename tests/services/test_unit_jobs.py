"""Adding what a job has embedded, until all is added."""

import logging

from nearsight.distributed import JobFolder, Worker, plan
from nearsight.distributed import worker as worker_module
from nearsight.progress import told_to
from nearsight.services import unit_jobs

from fake import FakeBackend


def test_who_waits_for_nobody_is_told_once(tmp_path, photos, monkeypatch, caplog):
    monkeypatch.setattr(worker_module, "load_model", lambda *_, **__: FakeBackend())
    uri, folder = str(tmp_path / "shop"), JobFolder(tmp_path / "job")
    plan(
        folder,
        [str(photos)],
        uri,
        lambda: unit_jobs.Collection.create(uri, model=FakeBackend()),
        unit_images=2,
    )
    unit = folder.units()[0]
    Worker(folder, n_threads=1).embed(unit, folder.claim(unit.number, None))
    assert unit_jobs.commit(folder, progress=False)["rows_added"] == 2
    n_waits = 0

    def sleep(seconds):
        nonlocal n_waits
        n_waits += 1
        if n_waits == 3:
            Worker(folder, n_threads=1, progress=False).run()

    monkeypatch.setattr(unit_jobs.time, "sleep", sleep)
    told = []
    with told_to(lambda *facts: told.append(facts)), caplog.at_level(logging.WARNING):
        facts = unit_jobs.commit(folder, until_complete=True)
    assert (facts["rows_added"], n_waits) == (4, 3)
    assert [record.getMessage() for record in caplog.records if "nobody works" in record.getMessage()] == [
        "nobody works on 2 of 3 units; this waits until the command is started again that made the job"
    ]
    # Those that were in the collection before are not waited for.
    assert ("adding images to the collection", 4, 4) in told
