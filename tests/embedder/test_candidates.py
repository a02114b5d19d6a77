"""Which pipelines a job tries; and that a change of pipeline changes no result."""

import time

import pytest

from nearsight import Embedder, ImageFailure
from nearsight.embedder import candidates, schedule
from nearsight.embedder.batch import ReadOptions
from nearsight.embedder.candidates import Pipelines, runs_on_processor
from nearsight.embedder.pipelines import DevicePipeline, ProcessPipeline, ThreadPipeline
from nearsight.embedder.rates import Rates
from nearsight.embedder.schedule import Measurement, Schedule
from nearsight.images import Limits, find
from nearsight.models.preprocess import Preprocessing
from nearsight.models.runtimes import placement

from fake import FakeBackend

# Threads of the interpreter that wait for each other.
WAITING = Measurement(images_per_second=600, cpu_seconds=0.015, busy=9.0, pixels=3e5)
BUSY = Measurement(images_per_second=1000, cpu_seconds=0.015, busy=15.9, pixels=3e5)


class DeviceBackend(FakeBackend):
    """On a device, as far as anyone asks."""

    device = "cuda"

    @property
    def preparation(self):
        return Preprocessing(self.spec, self.decode_px)


def pipelines(backend, n_threads=16):
    return Pipelines(backend, ReadOptions(Limits()), None, n_threads, 8)


def following(backend, measured, on_processor=None):
    return [(c.name, c.open.func) for c in pipelines(backend)._following(measured, on_processor)]


@pytest.fixture
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(candidates, "n_cores", lambda: 16)
    monkeypatch.setattr(candidates, "free_bytes", lambda: 64 << 30)


@pytest.mark.usefixtures("sixteen_cores")
def test_on_a_processor_processes_are_tried_where_threads_wait():
    assert following(FakeBackend(), WAITING) == [("cpu, 8 processes x 2 threads", ProcessPipeline)]
    assert following(FakeBackend(), BUSY) == []


@pytest.mark.usefixtures("sixteen_cores")
def test_auto_tries_the_processor_beside_a_device():
    processes = ("cuda, 16 processes x 1 thread", DevicePipeline)
    assert following(DeviceBackend(), WAITING) == [processes]
    assert following(DeviceBackend(), WAITING, FakeBackend()) == [
        processes,
        ("cpu, 8 processes x 2 threads", ProcessPipeline),
    ]


def test_few_cores_have_threads_and_measure_nothing(tmp_path, monkeypatch):
    rates = Rates(tmp_path, "f" * 64, 4)
    opened = pipelines(FakeBackend(), 4).chosen(rates, None)
    assert isinstance(opened, ThreadPipeline)
    opened.close()
    monkeypatch.setattr(candidates, "n_cores", lambda: 2)
    opened = pipelines(DeviceBackend(), 6).chosen(rates, FakeBackend())
    assert isinstance(opened, Schedule)
    opened.close()
    assert following(DeviceBackend(), WAITING, FakeBackend()) == [("cpu, 2 threads", ThreadPipeline)]


def test_what_runs_on_the_processor():
    assert runs_on_processor(FakeBackend())
    assert not runs_on_processor(DeviceBackend())


@pytest.mark.slow
def test_a_change_of_pipeline_changes_no_result(tmp_path, save_image, monkeypatch):
    monkeypatch.setattr(schedule, "_SECONDS", 0.05)
    chosen = []
    monkeypatch.setattr(Schedule, "_decide", lambda self, c: (chosen.append(c), decide(self, c)))
    files = [save_image(tmp_path / f"{seed}.jpg", seed) for seed in range(40)]
    expected = Embedder(FakeBackend(), n_threads=2, n_processes=0).embed(files).vectors

    def until_decided():
        while not chosen:
            yield from files
        yield from files

    stream = Embedder(FakeBackend(), n_threads=6, cache_dir=tmp_path).stream(find(until_decided()))
    n_images = 0
    for n_images, row in enumerate(stream, 1):
        assert row.position == n_images - 1
        assert (row.vector == expected[row.position % 40]).all()
    assert n_images >= 80
    assert n_images % 40 == 0


class SlowDeviceBackend(DeviceBackend):
    def embed(self, prepared):
        time.sleep(0.01 * len(prepared))
        return super().embed(prepared)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "device"), [(SlowDeviceBackend(), "cpu"), (DeviceBackend(), "cuda")])
def test_auto_never_stays_with_the_slower_device(tmp_path, save_image, monkeypatch, backend, device):
    """The other way round, the processor is the slow one."""
    monkeypatch.setattr(schedule, "_SECONDS", 0.05)
    monkeypatch.setattr(candidates, "n_cores", lambda: 2)
    on_cores = FakeBackend() if device == "cpu" else SlowProcessorBackend()
    monkeypatch.setitem(placement._on_processor, backend, on_cores)
    chosen = []
    monkeypatch.setattr(Schedule, "_decide", lambda self, c: (chosen.append(c.name), decide(self, c)))
    files = [save_image(tmp_path / f"{seed}.png", seed, (20, 20)) for seed in range(16)]
    sources = find(file for _ in range(1000) if not chosen for file in files)
    rows = list(Embedder(backend, n_threads=2, cache_dir=tmp_path).stream(sources))
    assert not [row for row in rows if isinstance(row, ImageFailure)]
    assert chosen == [f"{device}, 2 threads"]
    # The next job knows it.
    chosen.clear()
    sources = find(file for _ in range(1000) if not chosen for file in files)
    n_images = sum(1 for _ in Embedder(backend, n_threads=2, cache_dir=tmp_path).stream(sources))
    assert chosen == [f"{device}, 2 threads"]
    assert n_images < len(rows)


class SlowProcessorBackend(FakeBackend):
    def embed(self, prepared):
        time.sleep(0.01 * len(prepared))
        return super().embed(prepared)


decide = Schedule._decide


class LocalBackend(FakeBackend):
    """Of a class that no other process can import."""


LocalBackend.__module__ = "__main__"
LocalBackend.__qualname__ = "LocalBackend"


def test_a_model_that_cannot_be_sent_keeps_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "_SECONDS", 0.0)
    job = pipelines(LocalBackend()).chosen(Rates(tmp_path, "f" * 64, 16), None)
    try:
        job._measured["cpu, 16 threads"] = WAITING
        job._open_next()
        assert job._opening[1].exception(60) is not None
        job._take_opened()
        assert job.current.name == "cpu, 16 threads"
        assert job._is_decided
    finally:
        job.close()


@pytest.mark.usefixtures("sixteen_cores")
def test_a_remembered_name_gives_the_same_pipeline(monkeypatch):
    cpu, cuda = FakeBackend(), DeviceBackend()
    for name, kind, backend in [
        ("cpu, 8 processes x 2 threads", ProcessPipeline, cpu),
        ("cuda, 16 processes x 1 thread", DevicePipeline, cuda),
        ("cpu, 16 threads", ThreadPipeline, cpu),
        ("cuda, 20 threads", ThreadPipeline, cuda),
    ]:
        candidate = pipelines(cuda)._named(name, cpu)
        assert (candidate.name, candidate.open.func, candidate.open.args[0]) == (name, kind, backend)
    assert pipelines(cuda)._named("cpu, 16 threads", None) is None
    assert pipelines(cuda)._named("cpu, some threads", cpu) is None
    monkeypatch.setattr(candidates, "free_bytes", lambda: 1 << 30)
    assert pipelines(cpu)._named("cpu, 8 processes x 2 threads", None) is None
