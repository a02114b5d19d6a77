"""A store with memory: the conformance suite answered from memory, and how memory follows the store."""

import pytest

from nearsight.store.lance.store import LanceStore
from nearsight.store.memory import accelerators, build, plan
from nearsight.store.memory.store import MemoryStore
from nearsight.testing import StoreTests
from nearsight.testing.stores import SCHEMA


class Loaded(MemoryStore):
    """Loads before each search, which must then not reach the other store."""

    def search(self, *args, **options):
        assert self.load()
        hits = super().search(*args, **options)
        assert self._store.n_searches == 0
        return hits


class Counting(LanceStore):
    n_searches = 0

    def search(self, *args, **options):
        self.n_searches += 1
        return super().search(*args, **options)


@pytest.mark.slow
class TestMemory(StoreTests):
    def make(self, directory):
        return Loaded(Counting.create(directory, SCHEMA), directory.parent / "cache")

    def reopen(self, directory):
        return Loaded(Counting.open(directory), directory.parent / "cache")


@pytest.fixture
def _small_graphs(monkeypatch):
    """Everything but an empty store has a graph, and every search uses it."""
    monkeypatch.setattr(build, "MIN_GRAPH_NUMBERS", 1)
    monkeypatch.setattr(plan, "MAX_EXACT_NUMBERS", 0)


@pytest.mark.slow
@pytest.mark.usefixtures("_small_graphs")
class TestGraphs(TestMemory):
    pass


@pytest.mark.slow
class TestWithoutAccelerators(TestMemory):
    @pytest.fixture(autouse=True)
    def _without_accelerators(self, monkeypatch):
        monkeypatch.setattr(accelerators, "_usearch", lambda: None)
        monkeypatch.setattr(accelerators, "_numkong", lambda: None)
