"""Runs jobs, each in a process of its own: it can be ended at once, and its memory comes back."""

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from nearsight.errors import InvalidParameterError, StorageError
from nearsight.processor import n_cores
from nearsight.server.errors import public_message
from nearsight.server.metrics import Metrics
from nearsight.services.jobs import ENDED, MOST_STANDING, WORKER_MODULE, Job, JobTable

_log = logging.getLogger("nearsight.server")

# After a polite signal, a job has this long to end.
_PATIENCE_S = 10.0
# How often the table is looked at for jobs and cancellations of other processes.
_POLL_S = 0.5
# How often a table that cannot be written is tried again, such as on a full disk.
_RETRY_S = 5.0
_MOST_JOBS = 100_000
_MAX_LINE_BYTES = 16 * 2**20


class JobRunner:
    """Runs the jobs of a table: one at a time, and beside it those that run until they are cancelled.

    Parameters
    ----------
    table : JobTable
    in_thread : callable
        Runs a blocking function outside of the event loop.
    metrics : Metrics
    memory_mb : int
        Address space of a job; 0 for no limit.
    place : callable
        From what the table says to where a collection lies: it holds no password of a database.
    public : callable
        Takes the places of this machine out of an error.
    on_done : callable
        Called in a thread when a job has a result, before the table says so.
    """

    def __init__(
        self,
        table: JobTable,
        in_thread: Callable[..., Any],
        metrics: Metrics,
        *,
        memory_mb: int = 0,
        place: Callable[[str], str] = str,
        public: Callable[[str], str] = str,
        on_done: Callable[[], object] = lambda: None,
    ) -> None:
        self.table = table
        self._in_thread = in_thread
        self._metrics = metrics
        self._memory_bytes = memory_mb * 2**20
        self._place = place
        self._public = public
        self.on_done = on_done
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._processes: set[asyncio.subprocess.Process] = set()
        # Jobs that were claimed, or are being claimed, and have not ended.
        self._n_claimed = 0
        self._is_stopping = False

    async def add(self, kind: str, args: Mapping[str, Any], **options: Any) -> tuple[Job, bool]:
        """Queue a job; see `JobTable.add`."""
        options_of_threads = {"n_threads": max(1, n_cores() - 1)} if "n_threads" not in args else {}
        job, is_new = await self._in_thread(self.table.add, kind, {**args, **options_of_threads}, **options)
        self._wake.set()
        return job, is_new

    async def cancel(self, id: str) -> Job:
        """Cancel a job; see `JobTable.cancel`."""
        job: Job = await self._in_thread(self.table.cancel, id)
        await self._tell()
        return job

    async def end_all(self, is_meant: Callable[[Job], bool]) -> bool:
        """Cancel jobs that wait, run, or would go on by themselves; return whether all have ended."""
        ids = []
        for state in ("queued", "running", "interrupted"):
            listed: list[Job] = await self._in_thread(self.table.list, state=state, limit=_MOST_JOBS)
            ids += [job.id for job in listed if is_meant(job)]
        for id in ids:
            with contextlib.suppress(InvalidParameterError):  # it has just ended
                await self.cancel(id)
        end = time.monotonic() + _PATIENCE_S
        for id in ids:
            while (await self._in_thread(self.table.get, id)).state not in ENDED:
                if time.monotonic() > end:
                    return False
                await asyncio.sleep(_POLL_S / 5)
        return True

    async def resume(self, id: str) -> Job:
        """Queue a job again; see `JobTable.resume`."""
        job: Job = await self._in_thread(self.table.resume, id)
        self._wake.set()
        await self._tell()
        return job

    async def watch(self, id: str, stopping: asyncio.Event) -> AsyncIterator[Job]:
        """Yield a job whenever something of it changes, until it has ended or the service stops."""
        last: Job | None = None
        while not stopping.is_set():
            job: Job = await self._in_thread(self.table.get, id)
            if job != last:
                last = job
                yield job
            if job.state in ENDED:
                return
            with contextlib.suppress(asyncio.TimeoutError):
                async with self._changed:
                    await asyncio.wait_for(self._changed.wait(), _POLL_S)

    async def run(self) -> None:
        """Run queued jobs until cancelled; whatever becomes of one of them, the next one is run."""
        await self._noted(self.table.recover)
        standing = asyncio.ensure_future(self._run_standing())
        seen = self.table.changes()
        try:
            while not self._is_stopping:
                self._n_claimed += 1
                try:
                    job: Job | None = None
                    if seen.may_differ():
                        job = await self._noted(self.table.claim)
                        await self._count()
                    if job is not None:
                        await self._run_one(job)
                        continue
                finally:
                    self._n_claimed -= 1
                self._wake.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _POLL_S)
            await standing
        finally:
            standing.cancel()

    async def _run_standing(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        seen = self.table.changes()
        try:
            while not self._is_stopping:
                job: Job | None = None
                self._n_claimed += 1
                try:
                    if len(tasks) < MOST_STANDING and seen.may_differ():
                        job = await self._noted(self.table.claim_standing)
                    if job is not None:
                        task = asyncio.ensure_future(self._run_standing_one(job))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                        # It counts itself, from its first step on.
                        await asyncio.sleep(0)
                        continue
                finally:
                    self._n_claimed -= 1
                await asyncio.sleep(_POLL_S)
            # `stop` ends their processes.
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()

    async def _run_standing_one(self, job: Job) -> None:
        self._n_claimed += 1
        try:
            await self._run_one(job)
        finally:
            self._n_claimed -= 1

    async def stop(self) -> None:
        """End the running jobs; they are interrupted."""
        self._is_stopping = True
        self._wake.set()
        running = [process for process in self._processes if process.returncode is None]
        await asyncio.gather(*(_end(process) for process in running))
        end = time.monotonic() + _PATIENCE_S
        while self._n_claimed and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def _run_one(self, job: Job) -> None:
        try:
            await self._run_process(job)
        except Exception as error:
            _log.error("the job %s was lost", job.id, exc_info=error)
            lost = "the service could not run it, and its log has the reason; resume the job"
            await self._noted(self.table.finish, job.id, "failed", error=lost)

    async def _run_process(self, job: Job) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", WORKER_MODULE),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
        )
        self._processes.add(process)
        watch = asyncio.ensure_future(self._end_if_cancelled(job.id, process))
        try:
            await self._noted(self.table.has_started, job.id, process.pid)
            if self._is_stopping:
                # `stop` looked for processes before this one was there.
                await _end(process)
            args = dict(job.args)
            for name in ("directory", "target"):
                if name in args:
                    args[name] = self._place(args[name])
            document = {"kind": job.kind, "args": args, "memory_bytes": self._memory_bytes}
            last = await self._talk(job.id, process, document)
            await process.wait()
            await self._finish(job.id, process, last)
        except Exception:
            await _end(process)
            raise
        finally:
            watch.cancel()
            self._processes.discard(process)
            await self._tell()

    async def _talk(
        self, id: str, process: asyncio.subprocess.Process, document: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Hand over the job, note its progress, and return the last thing that it said."""
        last: dict[str, Any] = {}
        if process.stdin is None or process.stdout is None:
            return last
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(json.dumps(document).encode() + b"\n")
            await process.stdin.drain()
        while line := await process.stdout.readline():
            try:
                last = dict(json.loads(line))
            except (TypeError, ValueError):
                # A library in C prints where it likes.
                _log.warning("the job %s printed %r", id, line[:200])
                continue
            if "done" in last:
                with contextlib.suppress(StorageError):  # the next progress is as good
                    await self._in_thread(self.table.report, id, **last)
                await self._tell()
        return last

    async def _noted(self, note: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Return what a function of the table returns; try again where the table cannot be written."""
        while True:
            try:
                return await self._in_thread(note, *args, **options)
            except StorageError as error:  # noqa: PERF203 - it waits for seconds anyway
                if self._is_stopping:
                    raise
                _log.error("jobs wait: %s", error)
                await asyncio.sleep(_RETRY_S)

    async def _finish(self, id: str, process: asyncio.subprocess.Process, last: dict[str, Any]) -> None:
        job: Job = await self._noted(self.table.get, id)
        if "result" in last:
            await self._in_thread(self.on_done)
            await self._noted(self.table.finish, id, "done", result=last["result"])
        elif job.is_cancel_requested:
            await self._noted(self.table.finish, id, "cancelled")
        elif self._is_stopping:
            await self._noted(self.table.finish, id, "interrupted")
        else:
            error = last.get("error") or f"its process ended with {process.returncode}"
            _log.warning("the job %s failed: %s", id, error)
            # The whole message is for the log only: it may name a place on this machine.
            told = self._public(public_message(last.get("error_type", ""), error))
            await self._noted(self.table.finish, id, "failed", error=told)

    async def _end_if_cancelled(self, id: str, process: asyncio.subprocess.Process) -> None:
        """End the process once somebody asks for it; who asked may be another process, or gone."""
        while True:
            await asyncio.sleep(_POLL_S)
            job: Job = await self._noted(self.table.get, id)
            if job.is_cancel_requested:
                await _end(process)
                return

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
        await self._count()

    async def _count(self) -> None:
        try:
            counts = await self._in_thread(self.table.counts)
        except StorageError:  # those of before are told
            return
        self._metrics.jobs.clear()
        for (kind, state), n in counts.items():
            self._metrics.jobs.labels(kind, state).set(n)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), _PATIENCE_S)
            return
        process.kill()
        await process.wait()
