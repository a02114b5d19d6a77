"""Functions mapped in worker processes: as in threads, but for items that end a process."""

import math
from pathlib import Path

import fake_workers as functions
import pytest

from nearsight.parallel import WorkerPool, worker_pool


def test_maps_share_processes_that_start_when_they_are_wanted_and_crashes_cost_one_item(tmp_path: Path):
    with WorkerPool(2) as pool:
        assert list(pool.map(abs, [-1, 2], in_processes=False, lost=abs)) == [1, 2]
        assert pool.pids == []
        roots = pool.map(math.sqrt, range(50), in_processes=True, batch_size=7, lost=abs)
        assert list(roots) == [math.sqrt(number) for number in range(50)]
        pids = pool.pids
        assert len(pids) == 2
        assert list(pool.map(abs, [-3], in_processes=True, lost=abs)) == [3]
        assert pool.pids == pids
        items = ["a", "b", "exit", "c", "exit", "d"]
        results = pool.map(
            functions.crash_or_repeat, items, in_processes=True, batch_size=4, lost="lost {}".format
        )
        assert list(results) == ["a", "b", "lost exit", "c", "lost exit", "d"]
        with pytest.raises(ValueError, match="math domain"):
            list(pool.map(math.sqrt, [1, -1], in_processes=True, lost=abs))
    assert pool.pids == []


def test_one_worker_or_none_that_starts_works_in_threads(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no memory")

    with WorkerPool(1) as pool:
        assert list(pool.map(abs, [-1], in_processes=True, lost=abs)) == [1]
        assert pool.pids == []
    monkeypatch.setattr(worker_pool, "WorkerProcesses", refuse)
    with WorkerPool(2) as pool:
        assert list(pool.map(abs, [-1, -2], in_processes=True, lost=abs)) == [1, 2]
