"""Worker processes that outlive a crash: it costs the item that caused it, and no other."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import IO, Any, Generic, TypeVar, cast

from nearsight.parallel.channel import Channel, SharedMemory, dumps, loads
from nearsight.parallel.worker import Ask, Work, WorkerError

T = TypeVar("T")
R = TypeVar("R")

#: What each worker computes: from a batch to a result for each item.
Compute = Callable[[list[T], Ask], list[R]]

# A batch waits at the worker, so that it does not idle while its results are taken.
_N_WAITING = 1
# A worker that cannot start three times in a row, such as for want of memory, is given up.
_MAX_STARTS = 3
_SECONDS_TO_END = 2.0

_PROGRAM = "from nearsight.parallel.worker import main; main()"


class _Task(Generic[T, R]):
    """A batch, the future of its results, and the results of those items that were computed alone."""

    __slots__ = ("batch", "future", "results")

    def __init__(self, batch: list[T]) -> None:
        self.batch = batch
        self.future: Future[list[R]] = Future()
        self.results: dict[int, R] = {}


# The index of an item that is computed alone; None for the whole batch.
_Part = tuple["_Task[Any, Any]", int | None]


class WorkerProcesses(Generic[T, R]):
    """Processes that compute batches; each keeps what it has opened, such as a model.

    *Method.* A worker is a new interpreter that is connected by two pipes, so nothing is inherited that a
    fork would break (LanceDB, CUDA), and a script needs no ``if __name__ == "__main__"``. Large arrays come
    back through shared memory. If a worker ends, it is replaced, and the items that it had are computed once
    more, one at a time: an item with which a worker ends for the second time is lost, and no other is. If the
    parent ends, even by SIGKILL, the pipes close and the workers end.

    The standard library's `ProcessPoolExecutor` and loky's give up all items of all workers if one crashes
    (``BrokenProcessPool``), do not say which item was at fault, and run one call at a time in a process.
    `multiprocessing.Pool` waits for ever. Workers of all three survive a parent that is killed.

    Parameters
    ----------
    start : callable
        Called once in each worker; returns the function that computes a batch. It is pickled, so it must be
        importable: a function of a module, or a `functools.partial` of one. The function is given the batch
        and `Ask`, and returns a result for each item.
    n_processes : int
        At least 1.
    n_threads : int, default 1
        Batches that a worker computes at the same time.
    lost : callable
        Given an item with which a worker has ended twice, and the reason, returns its result.
    answer : callable, optional
        Given a question of a worker, returns the answer; called in threads of this process.
    slot_bytes : int, default 0
        Bytes of the large arrays of a batch's results, for which shared memory is set aside. What does not
        fit goes through the pipe.

    Raises
    ------
    TypeError, AttributeError, pickle.PicklingError
        `start` cannot be pickled.
    OSError
        No process can be started.
    """

    def __init__(
        self,
        start: Callable[[], Compute[T, R]],
        *,
        n_processes: int,
        n_threads: int = 1,
        lost: Callable[[T, str], R],
        answer: Callable[[Any], Any] | None = None,
        slot_bytes: int = 0,
    ) -> None:
        self._start = pickle.dumps(start, pickle.HIGHEST_PROTOCOL)
        self.n_threads = n_threads
        self._lost = lost
        self.answer = answer or _refuse
        self._slot_bytes = slot_bytes
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[_Part] = deque()
        self._is_closed = False
        self._error: BaseException | None = None
        self._workers: list[_Worker[T, R]] = []
        try:
            for _ in range(n_processes):
                self._workers.append(_Worker(self))
        except BaseException:
            self.close()
            raise

    @property
    def n_slots(self) -> int:
        """Batches that the workers hold: those that they compute, and those that wait there."""
        return len(self._workers) * (self.n_threads + _N_WAITING)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def wait_until_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until each worker has started, or has failed to; return whether that is so.

        Raises
        ------
        Exception
            What `start` raised in the workers, or `RuntimeError`, if none has started.
        """
        with self._changed:
            is_ready = self._changed.wait_for(lambda: self._is_settled(), timeout_s)
            if self._error is not None and not self._workers:
                raise self._error
        return is_ready

    def submit(self, batch: Sequence[T]) -> "Future[list[R]]":
        """Compute a batch; the future has a result for each item, or the error that a worker raised."""
        task: _Task[T, R] = _Task(list(batch))
        with self._lock:
            self._waiting.append((task, None))
        self._dispatch()
        return task.future

    def close(self) -> None:
        """End the workers at once; futures without results are cancelled."""
        with self._changed:
            self._is_closed = True
            workers, self._workers = self._workers, []
            tasks = [task for task, _ in self._waiting]
            self._waiting.clear()
            tasks += [task for worker in workers for task, _ in worker.parts()]
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.join()
        for task in tasks:
            task.future.cancel()

    def __enter__(self) -> "WorkerProcesses[T, R]":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _is_settled(self) -> bool:
        return all(worker.is_ready for worker in self._workers)

    def _dispatch(self) -> None:
        """Send waiting batches to the workers with the fewest, as far as these have room."""
        sends = []
        with self._lock:
            while self._waiting and (worker := self._with_room()) is not None:
                sends.append((worker, *worker.take(*self._waiting.popleft())))
            if self._waiting and not self._workers and not self._is_closed:
                failed = list(self._waiting)
                self._waiting.clear()
            else:
                failed = []
        # Not under the lock: a pipe may be full.
        for worker, ticket, task, items in sends:
            worker.send(ticket, task, items)
        for task, _ in failed:
            _set_error(task, self._error or RuntimeError("no worker process is left"))

    def _with_room(self) -> "_Worker[T, R] | None":
        worker = min(self._workers, key=lambda worker: worker.load, default=None)
        return worker if worker is not None and worker.load < self.n_threads + _N_WAITING else None

    def _finished(self, part: _Part, results: list[R]) -> None:
        task, index = part
        if index is None:
            _set_results(task, results)
            return
        with self._lock:
            task.results[index] = results[0]
            is_complete = len(task.results) == len(task.batch)
        if is_complete:
            _set_results(task, [task.results[i] for i in range(len(task.batch))])

    def _ended(self, worker: "_Worker[T, R]", reason: str, error: BaseException | None) -> None:
        """Replace a worker that has ended, and compute what it had once more."""
        with self._changed:
            if self._is_closed or worker not in self._workers:
                return
            self._workers.remove(worker)
        suspects: deque[_Part] = deque()
        for task, index in worker.in_flight.values():
            if not worker.is_ready:
                suspects.append((task, index))  # it ended before it began
            elif index is None:
                suspects.extend((task, i) for i in range(len(task.batch)))
            else:
                # It was alone in a worker, which is the second that has ended with it.
                self._finished((task, index), [self._lost(task.batch[index], reason)])
        suspects.extend(worker.suspects)
        n_starts = 1 if worker.is_ready else worker.n_starts + 1
        if error is None and n_starts <= _MAX_STARTS:
            with suppress(OSError):
                self._replace(n_starts, suspects)
                return
        with self._changed:
            # Others compute what is left; if there are none, `_dispatch` fails it.
            self._error = error or RuntimeError(f"worker processes end while they start: {reason}")
            for other in self._workers[:1]:
                other.suspects.extend(suspects)
            if not self._workers:
                self._waiting.extendleft(reversed(suspects))
            self._changed.notify_all()
        self._dispatch()
        self._dispatch_suspects()

    def _replace(self, n_starts: int, suspects: "deque[_Part]") -> None:
        worker = _Worker(self, n_starts=n_starts, suspects=suspects)
        with self._changed:
            is_closed = self._is_closed
            if not is_closed:
                self._workers.append(worker)
        if is_closed:
            worker.end()
            for task, _ in suspects:
                task.future.cancel()
            return
        self._dispatch_suspects()
        self._dispatch()

    def _dispatch_suspects(self) -> None:
        """Send one suspect to each worker that has some and computes nothing."""
        with self._lock:
            idle = [worker for worker in self._workers if worker.suspects and not worker.in_flight]
            sends = [(worker, *worker.take(*worker.suspects.popleft())) for worker in idle]
        for worker, ticket, task, items in sends:
            worker.send(ticket, task, items)


class _Worker(Generic[T, R]):
    """One process, the batches that it has, and the thread that receives its messages."""

    def __init__(
        self,
        pool: WorkerProcesses[T, R],
        *,
        n_starts: int = 1,
        suspects: "deque[_Part] | None" = None,
    ) -> None:
        self._pool = pool
        self.n_starts = n_starts
        self.is_ready = False
        self.suspects: deque[_Part] = deque() if suspects is None else suspects
        self.in_flight: dict[int, _Part] = {}
        self.was_alone = False
        self._n_tickets = 0
        self._memory: SharedMemory | None = None
        if pool._slot_bytes:
            self._memory = SharedMemory(pool.n_threads + 1, pool._slot_bytes)
        self.process = _spawn(self._memory, pool.n_threads)
        self._stdout = cast("IO[bytes]", self.process.stdout)
        self._channel = Channel(self._stdout, cast("IO[bytes]", self.process.stdin))
        memory = self._memory
        work = Work(pool._start, pool.n_threads)
        if memory is not None:
            work = Work(pool._start, pool.n_threads, memory.n_slots, memory.slot_bytes, memory.address)
        with suppress(OSError):  # the thread below notices that the process has ended
            self._channel.send(dumps(work))
        self._thread = threading.Thread(target=self._receive, name="nearsight-receive", daemon=True)
        self._thread.start()

    @property
    def load(self) -> float:
        """Batches that it has; a worker with suspects takes no others."""
        return float("inf") if self.suspects or self.was_alone else len(self.in_flight)

    def parts(self) -> "list[_Part]":
        """Return what it has not finished."""
        return [*self.in_flight.values(), *self.suspects]

    def take(self, task: "_Task[T, R]", index: int | None) -> "tuple[int, _Task[T, R], list[T]]":
        """Note that it has a batch, or one item of it; called under the pool's lock."""
        self._n_tickets += 1
        self.in_flight[self._n_tickets] = (task, index)
        self.was_alone = index is not None
        return self._n_tickets, task, task.batch if index is None else [task.batch[index]]

    def send(self, ticket: int, task: "_Task[T, R]", items: list[T]) -> None:
        try:
            message = dumps(("batch", ticket, items))
        except Exception as error:  # pickling runs the items' own code
            self._forget(ticket)
            _set_error(task, error)
            return
        with suppress(OSError):  # the receiving thread notices that the process has ended
            self._channel.send(message)

    def end(self) -> None:
        """End the process, whatever it does."""
        self._channel.close()
        try:
            self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def join(self) -> None:
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _forget(self, ticket: int) -> "_Part | None":
        with self._pool._lock:
            part = self.in_flight.pop(ticket, None)
            self.was_alone = False
        return part

    def _receive(self) -> None:
        error = None
        try:
            while True:
                kind, ticket, value = self._channel.receive()
                if kind == "failed":
                    error = _with_traceback(*value)
                else:
                    self._handle(kind, ticket, value)
        except (EOFError, OSError):
            pass
        self._channel.close()
        reason = _reason(self.process.wait())
        self._stdout.close()
        if self._memory is not None:
            self._memory.close()
        self._pool._ended(self, reason, error)

    def _handle(self, kind: str, ticket: int, value: Any) -> None:
        pool = self._pool
        if kind == "ready":
            with pool._changed:
                self.is_ready = True
                pool._changed.notify_all()
        elif kind == "question":
            self._send_answer(ticket, value)
        elif kind == "results":
            data, slot, places = value
            results = loads(data, self._memory.slot(slot) if self._memory and slot >= 0 else None, places)
            if slot >= 0:
                with suppress(OSError):
                    self._channel.send(dumps(("release", ticket, slot)))
            if (part := self._forget(ticket)) is not None:
                pool._finished(part, results)
        elif (part := self._forget(ticket)) is not None:
            _set_error(part[0], _with_traceback(*value))
        pool._dispatch_suspects()
        pool._dispatch()

    def _send_answer(self, ticket: int, question: Any) -> None:
        try:
            message = dumps(("answer", ticket, (True, self._pool.answer(question))))
        except Exception as error:  # it is raised in the worker, and comes back as the batch's error
            message = dumps(("answer", ticket, (False, RuntimeError(repr(error)))))
        with suppress(OSError):
            self._channel.send(message)


def can_start_processes() -> bool:
    """Whether there is an interpreter to start: not in a frozen program, nor where Python is embedded."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)


def _refuse(question: Any) -> Any:
    raise ValueError(f"nobody answers {question!r}; give WorkerProcesses an `answer`")


def _spawn(memory: SharedMemory | None, n_threads: int) -> "subprocess.Popen[bytes]":
    options: dict[str, Any] = {}
    if os.name == "nt":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP  # type: ignore[attr-defined,unused-ignore]
    else:
        options["pass_fds"] = [memory.handle] if memory is not None else []
    # What a worker opens takes as many threads as the worker has, not all cores: joblib reads the first.
    names = ("LOKY_MAX_CPU_COUNT", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(n_threads))}
    # The child finds this package where the parent has found it.
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    flags = ["-X", "utf8"] if sys.flags.utf8_mode else []
    with _without_interrupts():
        return subprocess.Popen(
            [sys.executable, *flags, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            **options,
        )


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes in which Ctrl-C does nothing from their first moment on: the parent ends them.

    They stay in the parent's session, so that they are stopped with it (Ctrl-Z), and so that Linux, which
    shares the cores between sessions, counts them to the parent's.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # A new process inherits the mask of the thread that starts it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_results(task: "_Task[T, R]", results: list[R]) -> None:
    # A cancelled future takes no result.
    if task.future.set_running_or_notify_cancel():
        task.future.set_result(results)


def _set_error(task: "_Task[T, R]", error: BaseException) -> None:
    if not task.future.done() and task.future.set_running_or_notify_cancel():
        task.future.set_exception(error)


def _with_traceback(error: BaseException, text: str) -> BaseException:
    error.__cause__ = WorkerError(text)
    return error


def _reason(code: int) -> str:
    """Say how a process has ended, for people."""
    if code >= 0:
        return f"its decoder ended the process, with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return "the process that decoded it was killed; often there is not enough memory"
    return f"its decoder crashed the process: {name}"
