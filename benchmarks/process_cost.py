"""What a piece of work costs: seconds, and processor time and memory of this process and of its children."""

import resource
import threading
import time
from contextlib import suppress

import psutil

# Between two looks at memory: a peak shorter than that may be missed.
_SECONDS_BETWEEN_LOOKS = 0.1


class ProcessCost:
    """A context manager; at its end, `figures` says what the work in it cost.

    Memory is looked at again and again while the work goes on. Own memory leaves out files that are mapped,
    which the system may drop whenever memory is short; that of workers is the sum over all children.
    Processor time of children counts once they have ended and were waited for.
    """

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self._process = psutil.Process()
        self._own_mb = self._mapped_mb = self._workers_mb = 0.0
        self._is_over = threading.Event()

    def __enter__(self) -> "ProcessCost":
        self._look()
        self._before_mb = self._own_mb
        self._started, self._busy = time.perf_counter(), _processor_seconds()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        seconds = time.perf_counter() - self._started
        own, workers = (now - before for now, before in zip(_processor_seconds(), self._busy, strict=True))
        self._is_over.set()
        self._thread.join()
        self.figures = {
            "seconds": seconds,
            "processor_seconds": own + workers,
            "processor_seconds_of_workers": workers,
            "before_mb": self._before_mb,
            "peak_mb": self._own_mb,
            "peak_mapped_mb": self._mapped_mb,
            "peak_mb_of_workers": self._workers_mb,
        }

    def _watch(self) -> None:
        while not self._is_over.wait(_SECONDS_BETWEEN_LOOKS):
            self._look()

    def _look(self) -> None:
        own, mapped = _memory_mb(self._process)
        workers = 0.0
        for child in self._process.children(recursive=True):
            with suppress(psutil.Error):  # it may have ended
                workers += _memory_mb(child)[0]
        self._own_mb, self._mapped_mb = max(self._own_mb, own), max(self._mapped_mb, mapped)
        self._workers_mb = max(self._workers_mb, workers)


def _processor_seconds() -> tuple[float, float]:
    """Return the processor time of this process, and of its children that have ended."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def _memory_mb(process: psutil.Process) -> tuple[float, float]:
    """Return the memory of a process: its own, and that of mapped files; all is its own where none tells."""
    info = process.memory_info()
    mapped = getattr(info, "shared", 0)
    return (info.rss - mapped) / 1e6, mapped / 1e6
