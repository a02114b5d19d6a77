"""Chooses a pipeline while a job runs: measures each on its images, and goes on with the fastest."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from nearsight.embedder.batch import Source
from nearsight.embedder.pipelines import Pipeline, Rows
from nearsight.embedder.rates import Rates
from nearsight.errors import ImageFailure

_log = logging.getLogger(__name__)

# A pipeline is measured for so long, once each of its workers has returned a batch.
_SECONDS = 1.5
_BATCHES_PER_WORKER = 2
# Images of two measurements are alike if their mean numbers of pixels differ by no more than this factor.
_MAX_RATIO_OF_PIXELS = 2.0
# A measurement is not exact to this factor.
_MARGIN = 1.05


@dataclass(frozen=True, slots=True)
class PipelineCandidate:
    """A pipeline that may be used.

    Attributes
    ----------
    name : str
        Names it in the measured rates.
    open : callable
        Returns it.
    n_workers : int
        Batches that it computes at the same time.
    """

    name: str
    open: Callable[[], Pipeline]
    n_workers: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a pipeline has done.

    Attributes
    ----------
    images_per_second : float
    cpu_seconds : float
        Of this process, per image.
    busy : float
        Seconds of this process on all cores, per second.
    pixels : float
        Mean number of an image's pixels.
    """

    images_per_second: float
    cpu_seconds: float
    busy: float
    pixels: float


#: Given what the first candidate has done, returns the others, which are measured one after another.
Following = Callable[[Measurement], Sequence[PipelineCandidate]]


class Schedule:
    """A pipeline that begins with one candidate, and changes to the fastest.

    No time is lost: the first candidate works on while the next one starts, and every image is embedded once.
    A job of a second or two never changes.

    Parameters
    ----------
    first : PipelineCandidate
        Must be ready at once.
    following : callable
        Returns the other candidates; called once, after the first was measured.
    named : callable
        Returns the candidate of a name in `rates`; None if it cannot be used now.
    rates : Rates
        What was measured in earlier runs; all candidates that were compared are written to it.
    model : str
        Name of the model, for the file of rates.
    clock, cpu_clock : callable
        Seconds, and seconds of this process on all cores.
    """

    def __init__(
        self,
        first: PipelineCandidate,
        following: Following,
        named: Callable[[str], PipelineCandidate | None],
        rates: Rates,
        *,
        model: str,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._following, self._named = following, named
        self._rates = rates
        self._model = model
        self._clock, self._cpu_clock = clock, cpu_clock
        self._lock = threading.Lock()
        self._pipelines: dict[str, Pipeline] = {first.name: first.open()}
        self._in_flight: dict[str, int] = {first.name: 0}
        self._opening: tuple[PipelineCandidate, Future[Pipeline]] | None = None
        self._candidates = {first.name: first}
        self._waiting: deque[PipelineCandidate] | None = None
        self._measured: dict[str, Measurement] = {}
        self._trusts_rates = self._has_remembered = False
        self._is_decided = False
        self.current = first
        self._begin()

    def submit(self, batch: Sequence[Source]) -> Future[Rows]:
        """Begin a batch in the current pipeline."""
        if not self._is_decided:
            self._advance()
        name = self.current.name
        with self._lock:
            self._in_flight[name] += 1
        future = self._pipelines[name].submit(batch)
        future.add_done_callback(partial(self._count, name))
        return future

    def wait_until_ready(self) -> None:
        """Return at once: the first candidate is ready."""

    def close(self) -> None:
        """End all pipelines."""
        if self._opening is not None:
            _close_when_open(self._opening[1])
        for pipeline in self._pipelines.values():
            pipeline.close()

    def _begin(self) -> None:
        """Forget what was counted: a pipeline has become the current one."""
        self._n_batches = 0
        self._n_images = self._n_sized = 0
        self._n_pixels = 0
        self._started: tuple[float, float] | None = None

    def _count(self, name: str, future: Future[Rows]) -> None:
        with self._lock:
            self._in_flight[name] -= 1
            is_current = name == self.current.name
            is_retired = self._is_decided and not is_current and not self._in_flight[name]
        if is_retired:
            self._retire(name)
        if self._is_decided or not is_current or future.cancelled() or future.exception():
            return
        with self._lock:
            self._n_batches += 1
            if self._n_batches <= self.current.n_workers:
                # The first of each worker find the others idle, or still at work for the pipeline before.
                self._started = self._clock(), self._cpu_clock()
                return
            rows = future.result()
            self._n_images += len(rows)
            sizes = [row.width * row.height for row in rows if not isinstance(row, ImageFailure)]
            self._n_pixels += sum(sizes)
            self._n_sized += sum(map(bool, sizes))

    def _advance(self) -> None:
        """Measure the current pipeline; change to the next one if it is ready, or to the fastest."""
        if self._opening is not None:
            self._take_opened()
        elif not self._has_remembered and self._n_sized:
            self._has_remembered = True
            self._remember(self._n_pixels / self._n_sized)
        elif (measurement := self._measure()) is not None:
            self._measured[self.current.name] = measurement
            self._open_next()

    def _remember(self, pixels: float) -> None:
        """Change to what was the fastest in an earlier run, on images of this size."""
        known = self._rates.read(pixels)
        fastest = max(known, key=lambda name: known[name], default="")
        if fastest == self.current.name:
            self._decide(self.current)
        elif fastest and (candidate := self._named(fastest)) is not None:
            self._trusts_rates = True
            self._open(candidate)

    def _measure(self) -> Measurement | None:
        with self._lock:
            if self._started is None or not self._n_sized:
                return None
            seconds = self._clock() - self._started[0]
            n_measured = self._n_batches - self.current.n_workers
            if seconds < _SECONDS or n_measured < _BATCHES_PER_WORKER * self.current.n_workers:
                return None
            cpu_seconds = self._cpu_clock() - self._started[1]
            return Measurement(
                self._n_images / seconds,
                cpu_seconds / self._n_images,
                cpu_seconds / seconds,
                self._n_pixels / self._n_sized,
            )

    def _open_next(self) -> None:
        if self._waiting is None:
            self._waiting = deque(self._following(self._measured[self.current.name]))
        if self._waiting:
            self._open(self._waiting.popleft())
        else:
            self._choose()

    def _open(self, candidate: PipelineCandidate) -> None:
        future: Future[Pipeline] = Future()
        self._opening = candidate, future
        threading.Thread(
            target=_open_in_thread, args=(candidate, future), name="nearsight-open", daemon=True
        ).start()

    def _take_opened(self) -> None:
        if self._opening is None or not self._opening[1].done():
            return
        candidate, future = self._opening
        error = future.exception()
        self._opening = None
        if error is not None:
            _log.info("%s cannot be used: %s", candidate.name, error)
            if self._trusts_rates:
                self._trusts_rates = False  # all are measured
            else:
                self._open_next()
            return
        with self._lock:
            self._candidates[candidate.name] = candidate
            self._pipelines[candidate.name] = future.result()
            self._in_flight[candidate.name] = 0
            self.current = candidate
            self._begin()
        if self._trusts_rates:
            self._decide(candidate)

    def _choose(self) -> None:
        """Go on with the fastest, and keep the rates if they were measured on images alike."""
        pixels = [m.pixels for m in self._measured.values()]
        rates = {name: m.images_per_second for name, m in self._measured.items()}
        if max(pixels) > _MAX_RATIO_OF_PIXELS * min(pixels):
            # The images have changed, and not the pipeline; so the rule that offered the last is trusted.
            self._decide(self.current)
            return
        # Of two that are equally fast, the one in use.
        fastest = max(rates, key=lambda name: rates[name] * (_MARGIN if name == self.current.name else 1))
        if len(rates) > 1:
            self._rates.write(sum(pixels) / len(pixels), rates, self._model)
        self._decide(self._candidates[fastest])

    def _decide(self, candidate: PipelineCandidate) -> None:
        _log.info("the images are embedded by %s", candidate.name)
        with self._lock:
            self.current = candidate
            self._is_decided = True
            idle = [name for name, n in self._in_flight.items() if not n and name != candidate.name]
        for name in idle:
            self._retire(name)

    def _retire(self, name: str) -> None:
        """Close a pipeline that is not needed any more, without waiting for that."""
        threading.Thread(target=self._pipelines[name].close, name="nearsight-close", daemon=True).start()


def _open_in_thread(candidate: PipelineCandidate, future: Future[Pipeline]) -> None:
    pipeline = None
    try:
        pipeline = candidate.open()
        pipeline.wait_until_ready()
    except BaseException as error:  # `_take_opened` decides without it
        if pipeline is not None:
            pipeline.close()
        future.set_exception(error)
    else:
        future.set_result(pipeline)


def _close_when_open(future: Future[Pipeline]) -> None:
    future.add_done_callback(lambda done: None if done.exception() else done.result().close())
