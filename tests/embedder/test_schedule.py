"""The choice of a pipeline while a job runs; the clock is a fake."""

import time
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from nearsight.embedder.rates import Rates
from nearsight.embedder.results import ImageRow
from nearsight.embedder.schedule import PipelineCandidate, Schedule
from nearsight.images import Stat


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakePipeline:
    """Takes so many seconds of the fake clock for a batch."""

    clock: Clock
    seconds: float
    pixels: int = 640 * 480
    error: Exception | None = None
    n_batches: int = 0
    is_closed: bool = False

    def submit(self, batch):
        self.n_batches += 1
        self.clock.now += self.seconds
        future = Future()
        future.set_result([ImageRow(Stat(1, 0, 0.0), "id", None, self.pixels, 1)] * len(batch))
        return future

    def wait_until_ready(self):
        if self.error is not None:
            raise self.error

    def close(self):
        self.is_closed = True


@pytest.fixture
def clock():
    return Clock()


def schedule(clock, rates, first, *others, asked=None):
    candidates = [PipelineCandidate(str(i), lambda p=p: p, 2) for i, p in enumerate((first, *others))]

    def following(measurement):
        if asked is not None:
            asked.append(measurement)
        return candidates[1:]

    named = {candidate.name: candidate for candidate in candidates}.get
    return Schedule(candidates[0], following, named, rates, model="model", clock=clock, cpu_clock=clock)


def run(job, n=200):
    for _ in range(n):
        job.submit([None] * 8).result()
        while job._opening is not None and not job._opening[1].done():
            time.sleep(0.001)
    return job.current.name


@pytest.fixture
def rates(tmp_path):
    return Rates(tmp_path, "f" * 64, 16)


@pytest.mark.parametrize(
    ("seconds", "fastest"), [((0.2, 0.1), "1"), ((0.1, 0.2), "0"), ((0.2, 0.3, 0.1), "2")]
)
def test_the_fastest_goes_on(clock, rates, seconds, fastest):
    pipelines = [FakePipeline(clock, each) for each in seconds]
    job = schedule(clock, rates, *pipelines)
    assert run(job) == fastest
    assert rates.read(640 * 480) == {str(i): pytest.approx(8 / s, 0.1) for i, s in enumerate(seconds)}
    assert max(pipelines, key=lambda p: p.n_batches) is pipelines[int(fastest)]
    job.close()
    assert all(p.is_closed for p in pipelines)


def test_the_rule_is_told_what_the_first_has_done(clock, rates):
    asked = []
    run(schedule(clock, rates, FakePipeline(clock, 0.2), FakePipeline(clock, 0.1), asked=asked))
    [measured] = asked
    assert measured.images_per_second == pytest.approx(40, 0.1)
    assert measured.cpu_seconds == pytest.approx(0.025, 0.1)
    assert measured.busy == pytest.approx(1)
    assert measured.pixels == 640 * 480


def test_a_short_job_changes_nothing(clock, rates):
    other = FakePipeline(clock, 0.01)
    assert run(schedule(clock, rates, FakePipeline(clock, 0.1), other), n=14) == "0"
    assert other.n_batches == 0


def test_an_equally_fast_one_is_no_reason_to_change_back(clock, rates):
    assert run(schedule(clock, rates, FakePipeline(clock, 0.1), FakePipeline(clock, 0.102))) == "1"


def test_what_is_remembered_is_not_measured_again(clock, rates):
    rates.write(640 * 480, {"0": 10.0, "1": 20.0, "2": 30.0}, "model")
    pipelines = [FakePipeline(clock, 0.1) for _ in range(3)]
    assert run(schedule(clock, rates, *pipelines)) == "2"
    assert pipelines[1].n_batches == 0
    rates.write(640 * 480, {"0": 40.0, "1": 20.0, "2": 30.0}, "model")
    assert run(schedule(clock, rates, *pipelines)) == "0"


def test_what_is_remembered_is_used_after_the_first_batches(clock, rates):
    rates.write(640 * 480, {"0": 10.0, "1": 30.0}, "model")
    first = FakePipeline(clock, 0.1)
    assert run(schedule(clock, rates, first, FakePipeline(clock, 0.1)), n=10) == "1"
    assert first.n_batches < 6


def test_if_what_is_remembered_cannot_start_all_are_measured(clock, rates):
    rates.write(640 * 480, {"0": 10.0, "1": 30.0, "2": 20.0}, "model")
    broken = FakePipeline(clock, 0.01, error=OSError("no processes"))
    assert run(schedule(clock, rates, FakePipeline(clock, 0.2), broken, FakePipeline(clock, 0.1))) == "2"


def test_a_candidate_that_was_not_compared_is_measured(clock, rates):
    rates.write(640 * 480, {"0": 10.0, "other": 20.0}, "model")
    assert run(schedule(clock, rates, FakePipeline(clock, 0.2), FakePipeline(clock, 0.1))) == "1"
    assert set(rates.read(640 * 480)) == {"0", "1"}


def test_a_candidate_that_cannot_start_is_left_out(clock, rates):
    broken = FakePipeline(clock, 0.01, error=RuntimeError("no memory"))
    pipelines = [FakePipeline(clock, 0.2), broken, FakePipeline(clock, 0.1)]
    assert run(schedule(clock, rates, *pipelines)) == "2"
    assert broken.is_closed
    assert run(schedule(clock, rates, FakePipeline(clock, 0.2), broken)) == "0"


def test_images_of_other_sizes_are_not_compared(clock, rates):
    """Slower because the images have become larger; the rule had offered it for a reason."""
    job = schedule(clock, rates, FakePipeline(clock, 0.1), FakePipeline(clock, 1.0, pixels=12_000_000))
    assert run(job) == "1"
    assert rates.read_all() == {}
