"""Processes that begin with the engines imported: what is killed at each of its writes starts many times.

A server imports them once and forks for each process, which then is one as any other: it has a number of its
own, and can be killed.
"""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

# LanceDB starts its threads again in a forked process. It is imported by its own name, for
# `nearsight.store.lance` refuses to go on in a fork of a process where it has done so.
_MODULES = [
    "lancedb",
    "s3fs",
    "nearsight.analyses.audit",
    "nearsight.analyses.classification",
    "nearsight.analyses.clusters",
    "nearsight.analyses.duplicates",
    "nearsight.analyses.label_check",
    "nearsight.analyses.map",
    "nearsight.analyses.recommendations",
    "nearsight.collection.upgrade",
    "nearsight.distributed",
    "nearsight.services.analysis_jobs",
    "nearsight.services.anomaly_jobs",
    "nearsight.services.job_worker",
    "nearsight.services.trash",
]


class Preloaded:
    """A process that calls a function of a module, in the environment of now; with the methods of `Popen`."""

    def __init__(self, target: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_MODULES)
        self._process = context.Process(target=_call, args=(dict(os.environ), target, arguments))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit status, or None as long as it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit status: of a signal, its number with a minus."""
        self._process.join(timeout)
        code = self.poll()
        assert code is not None, f"it runs after {timeout} s"
        return code


class Piped(Preloaded):
    """A process that runs a program as ``python -c`` would; its stdin and stdout are pipes of text."""

    def __init__(self, program: str, *arguments: object) -> None:
        theirs, stdin = multiprocessing.Pipe(duplex=False)
        stdout, their_stdout = multiprocessing.Pipe(duplex=False)
        super().__init__(_execute_piped, program, ["-c", *map(str, arguments)], theirs, their_stdout)
        for end in (theirs, their_stdout):
            end.close()
        self.stdin, self.stdout = _opened(stdin, "w"), _opened(stdout, "r")

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[str, None]:
        """Write the last of its input, and return the rest of its output when it has ended."""
        self.stdin.write(text)
        self.stdin.close()
        with self.stdout:
            rest = self.stdout.read()
        self.wait(timeout)
        return rest, None

    def __enter__(self) -> "Piped":
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdin, self.stdout):
            with suppress(BrokenPipeError):
                pipe.close()
        self.wait()


def run(program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a program as ``python -c`` would, and return what it wrote."""
    words = ["-c", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        names = [Path(folder) / name for name in ("stdout", "stderr")]
        code = Preloaded(_execute, program, words, *names).wait()
        return subprocess.CompletedProcess(words, code, *(name.read_text() for name in names))


def _call(environment: dict[str, str], target: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)


def _opened(end: Connection, mode: str) -> IO[str]:
    with end:
        return os.fdopen(os.dup(end.fileno()), mode, encoding="utf-8")


def _execute(program: str, words: list[str], stdout: Path, stderr: Path) -> None:
    for number, name in ((1, stdout), (2, stderr)):
        file = os.open(name, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    _execute_here(program, words)


def _execute_piped(program: str, words: list[str], stdin: Connection, stdout: Connection) -> None:
    for number, end in enumerate((stdin, stdout)):
        with end:
            os.dup2(end.fileno(), number)
    sys.stdin = io.TextIOWrapper(os.fdopen(0, "rb", closefd=False), encoding="utf-8")
    _execute_here(program, words)


def _execute_here(program: str, words: list[str]) -> None:
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), write_through=True)
    sys.argv = words
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    finally:
        sys.stdout.flush()
