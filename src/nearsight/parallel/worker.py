"""The child's side of `WorkerProcesses`: receives batches, and computes them in threads."""

import os
import pickle
import queue
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearsight.parallel.channel import Channel, SharedArrays, SharedMemory, dumps

#: Asks the parent a question, and waits for the answer.
Ask = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker process is told first.

    Attributes
    ----------
    start : bytes
        Pickle of a callable without arguments that returns the function to compute.
    n_threads : int
        Batches that the worker computes at the same time.
    n_slots, slot_bytes : int
        Shared memory for large arrays; none if `slot_bytes` is 0.
    address : str
        See `SharedMemory`.
    """

    start: bytes
    n_threads: int
    n_slots: int = 0
    slot_bytes: int = 0
    address: str = ""


class WorkerError(Exception):
    """The cause of an exception that a worker process raised: its traceback there, as text."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0]}"


def main() -> None:
    """Compute batches until the parent ends, or closes the pipe; then end at once."""
    # What libraries print must not get between the messages, and what they start must not read them.
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    _prefer_to_be_killed()
    worker = _Computer(Channel(source, sink))
    with suppress(EOFError, OSError):
        worker.run()
    # Threads may be in the middle of an image that nobody waits for any more.
    os._exit(0)


def _prefer_to_be_killed() -> None:
    # If memory runs out, Linux should end the worker that decodes the image, and not the parent.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


class _Computer:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._answers: dict[int, queue.SimpleQueue[tuple[bool, Any]]] = {}
        self._arrays: SharedArrays | None = None

    def run(self) -> None:
        work: Work = self._channel.receive()
        if work.slot_bytes:
            memory = SharedMemory(work.n_slots, work.slot_bytes, address=work.address)
            self._arrays = SharedArrays(memory)
        # A thread opens the model, while this one notices that the parent has ended.
        pool = ThreadPoolExecutor(work.n_threads, thread_name_prefix="nearsight")
        opened = pool.submit(self._open, work.start)
        while True:
            kind, ticket, value = self._channel.receive()
            if kind == "batch":
                pool.submit(self._compute, opened.result, ticket, value)
            elif kind == "answer":
                self._answers[ticket].put(value)
            elif self._arrays is not None:
                self._arrays.release(value)

    def _open(self, start: bytes) -> Callable[[Any, Ask], Any]:
        try:
            with warnings.catch_warnings():
                # The parent has opened the same, and has warned.
                warnings.simplefilter("ignore")
                function: Callable[[Any, Ask], Any] = pickle.loads(start)()
        except BaseException as error:
            with suppress(OSError):
                self._send_error("failed", 0, error)
            os._exit(1)
        self._channel.send(dumps(("ready", 0, None)))
        return function

    def _compute(self, opened: Callable[[], Callable[[Any, Ask], Any]], ticket: int, batch: Any) -> None:
        try:
            results = opened()(batch, lambda question: self._ask(ticket, question))
            if self._arrays is None:
                message = dumps(("results", ticket, (dumps(results), -1, [])))
            else:
                message = dumps(("results", ticket, self._arrays.dumps(results)))
        except BaseException as error:
            self._send_error("error", ticket, error)
        else:
            self._channel.send(message)

    def _ask(self, ticket: int, question: Any) -> Any:
        answers = self._answers.setdefault(ticket, queue.SimpleQueue())
        self._channel.send(dumps(("question", ticket, question)))
        succeeded, value = answers.get()
        if not succeeded:
            raise value
        return value

    def _send_error(self, kind: str, ticket: int, error: BaseException) -> None:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._channel.send(dumps((kind, ticket, (picklable(error), text))))


def picklable(error: BaseException) -> BaseException:
    """Return the error, or one that says the same and can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling and unpickling run the error's own code
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
