"""The pipelines from batches of sources to rows: in threads of this process, or in worker processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeVar

from nearsight.embedder.batch import Known, Prepared, ReadOptions, Source, finish, prepare_batch
from nearsight.embedder.results import ImageRow
from nearsight.errors import FingerprintMismatchError, ImageFailure
from nearsight.models import Backend, Preparation
from nearsight.parallel import Ask, WorkerProcesses

Rows = list[ImageRow | ImageFailure]
R = TypeVar("R")

# Threads that give a device the batches that worker processes have prepared.
_N_EMBEDDING_THREADS = 8


class Pipeline(Protocol):
    """Turns batches of sources into rows, several at the same time."""

    def submit(self, batch: Sequence[Source]) -> Future[Rows]:
        """Begin a batch."""

    def wait_until_ready(self) -> None:
        """Wait until it can begin a batch at once; raise what keeps it from that."""

    def close(self) -> None:
        """End it; batches that have not begun are cancelled."""


class ThreadPipeline:
    """Threads of this process; each decodes and embeds a batch by itself."""

    def __init__(
        self, backend: Backend, options: ReadOptions, known: Known | None, *, n_threads: int
    ) -> None:
        self._embed = partial(embed_batch, backend=backend, options=options, known=known)
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nearsight-embed")

    def submit(self, batch: Sequence[Source]) -> Future[Rows]:
        """Begin a batch."""
        return self._pool.submit(self._embed, batch)

    def wait_until_ready(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """Wait for the batches that have begun; cancel the others."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class ProcessPipeline:
    """Worker processes, each with the model; nothing but rows comes back.

    Raises
    ------
    TypeError, AttributeError, pickle.PicklingError
        The model cannot be sent to another process.
    OSError
        No process can be started.
    """

    def __init__(
        self,
        backend: Backend,
        options: ReadOptions,
        known: Known | None,
        *,
        n_processes: int,
        n_threads: int = 1,
    ) -> None:
        fingerprint = backend.spec.fingerprint.digest
        start = partial(_start_embedding, backend, fingerprint, options, known is not None)
        self._workers: WorkerProcesses[Source, ImageRow | ImageFailure] = WorkerProcesses(
            start, n_processes=n_processes, n_threads=n_threads, lost=_lost, answer=known
        )

    def submit(self, batch: Sequence[Source]) -> Future[Rows]:
        """Begin a batch."""
        return self._workers.submit(batch)

    def wait_until_ready(self) -> None:
        """Wait until each process has opened the model; raise what it raised there if none has."""
        self._workers.wait_until_ready()

    def close(self) -> None:
        """End the processes."""
        self._workers.close()


class DevicePipeline:
    """Worker processes that decode, and a device of this process that runs the network.

    Parameters
    ----------
    backend : Backend
        On an accelerator; it gathers what several threads give it.
    preparation : Preparation
        What the model does before the network. It is pickled, so it holds no session.
    input_bytes : int
        Size of one prepared image, for the shared memory.
    """

    def __init__(
        self,
        backend: Backend,
        preparation: Preparation,
        options: ReadOptions,
        known: Known | None,
        *,
        n_processes: int,
        batch_size: int,
        input_bytes: int,
        n_threads: int = 1,
    ) -> None:
        self._backend = backend
        self._pool = ThreadPoolExecutor(_N_EMBEDDING_THREADS, thread_name_prefix="nearsight-embed")
        self._workers: WorkerProcesses[Source, Prepared | ImageRow | ImageFailure] = WorkerProcesses(
            partial(_start_preparing, preparation, options, known is not None),
            n_processes=n_processes,
            n_threads=n_threads,
            lost=_lost,
            answer=known,
            slot_bytes=batch_size * input_bytes,
        )

    def submit(self, batch: Sequence[Source]) -> Future[Rows]:
        """Begin a batch."""
        rows: Future[Rows] = Future()
        self._workers.submit(batch).add_done_callback(partial(self._embed_prepared, rows))
        return rows

    def wait_until_ready(self) -> None:
        """Wait until each process has started."""
        self._workers.wait_until_ready()

    def close(self) -> None:
        """End the processes; wait for the batches on the device."""
        self._workers.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _embed_prepared(
        self, rows: Future[Rows], prepared: "Future[list[Prepared | ImageRow | ImageFailure]]"
    ) -> None:
        def embed() -> None:
            try:
                rows.set_result(_embed_values(prepared.result(), self._backend))
            except BaseException as error:  # it is raised where the rows are asked for
                rows.set_exception(error)

        if prepared.cancelled():
            rows.cancel()
            return
        try:
            self._pool.submit(embed)
        except RuntimeError:  # closed meanwhile
            rows.cancel()


def embed_batch(
    batch: Sequence[Source], *, backend: Backend, options: ReadOptions, known: Known | None
) -> Rows:
    """Decode and embed a batch on the calling thread."""
    return _embed_values(prepare_batch(batch, backend, options, known), backend)


def _embed_values(items: list[Prepared | ImageRow | ImageFailure], backend: Backend) -> Rows:
    return finish(items, backend.embed([item.value for item in items if isinstance(item, Prepared)]))


def _start_embedding(
    backend: Backend, fingerprint: str, options: ReadOptions, asks: bool
) -> Callable[[list[Source], Ask], Rows]:
    """Return what a worker process computes; unpickling the backend has opened the model there."""
    own = backend.spec.fingerprint.digest
    if own != fingerprint:
        raise FingerprintMismatchError(
            f"{backend.spec.id} has the fingerprint {own} in a worker process, and {fingerprint} in its "
            "parent; start again, so that both open the same files"
        )

    def embed(batch: list[Source], ask: Ask) -> Rows:
        return embed_batch(batch, backend=backend, options=options, known=ask if asks else None)

    return embed


def _start_preparing(
    preparation: Preparation, options: ReadOptions, asks: bool
) -> Callable[[list[Source], Ask], list[Prepared | ImageRow | ImageFailure]]:
    def prepare(batch: list[Source], ask: Ask) -> list[Prepared | ImageRow | ImageFailure]:
        return prepare_batch(batch, preparation, options, ask if asks else None)

    return prepare


def _lost(source: Source, reason: str) -> ImageFailure:
    return ImageFailure(source.path, reason)
