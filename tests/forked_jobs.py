"""The jobs of a service in tests, each in a process that is forked from one that has imported what jobs need.

They are processes of their own as in a service: they have a number, can be ended, and end with it. That a
service starts them by a command is tested where a service is a process itself, in `server/test_main.py`.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from preloaded import Piped

from nearsight.services.jobs import WORKER_MODULE

_PROGRAM = """
import sys
from nearsight.services import job_worker
sys.exit(job_worker.main(sys.stdin, sys.stdout))
"""

_start_command = asyncio.create_subprocess_exec


class ForkedJob:
    """A job's process, with the attributes of `asyncio.subprocess.Process` that a service uses."""

    def __init__(self, process: Piped, stdout: asyncio.StreamReader) -> None:
        self._process = process
        self.pid = process.pid
        self.stdin = self
        self.stdout = stdout

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def write(self, data: bytes) -> None:
        self._process.stdin.write(data.decode())

    async def drain(self) -> None:
        self._process.stdin.flush()

    async def wait(self) -> int:
        code = await asyncio.to_thread(self._process.wait)
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        return code

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@contextmanager
def forked_jobs() -> Iterator[None]:
    """Within it, services of this process fork their jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "create_subprocess_exec", _start)
        yield


async def _start(*command: Any, **options: Any) -> Any:
    if WORKER_MODULE not in command:
        return await _start_command(*command, **options)
    process = await asyncio.to_thread(Piped, _PROGRAM)
    reader = asyncio.StreamReader(limit=options["limit"])
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), process.stdout
    )
    return ForkedJob(process, reader)
