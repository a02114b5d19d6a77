"""What worker processes compute in tests; they import it, so it is a module of its own."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from fake import FakeBackend


def square(batch, ask):
    return [item * item for item in batch]


def start_squares():
    return square


def start_arrays():
    """Large and small arrays, which come back through shared memory and through the pipe."""
    return lambda batch, ask: [(np.full(n, n % 251, np.uint8), np.arange(3)) for n in batch]


def start_questions():
    return lambda batch, ask: [ask(item) for item in batch]


def start_failing():
    def fail(batch, ask):
        raise ValueError(f"no {batch}")

    return fail


def start_slow_first():
    def slow_first(batch, ask):
        time.sleep(0.002 * (5 - batch[0] % 5))
        return batch

    return slow_first


def start_crashes():
    """A codec that does what an item says; a path is that of a file that its first call creates."""

    def crash(batch, ask):
        for item in batch:
            if item == "segfault":
                ctypes.string_at(0)
            elif item == "kill":
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
            elif item == "exit":
                os._exit(3)
            elif isinstance(item, Path) and not item.exists():
                item.touch()
                os._exit(4)
        return batch

    return crash


def start_never():
    raise RuntimeError("the model is missing")


def start_dies():
    os._exit(5)


def start_hangs():
    """Holds the interpreter lock, as a broken extension module would."""
    return lambda batch, ask: ctypes.PyDLL(None).sleep(1000)


def start_pids():
    return lambda batch, ask: [os.getpid() for _ in batch]


def start_environment():
    return lambda batch, ask: [os.environ.get(name) for name in batch]


class KillingBackend(FakeBackend):
    """Its process is killed by an image of the width 77, as by a codec that crashes."""

    def prepare(self, image):
        if image.width == 77:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare(image)


class FaultyBackend(FakeBackend):
    """Its network fails."""

    def embed(self, prepared):
        if len(prepared):
            raise TypeError("a bug")
        return super().embed(prepared)


def start_noise():
    """Prints, and starts a program that reads its standard input, as libraries do."""

    def noise(batch, ask):
        print("printed", flush=True)
        os.system("echo started")
        return [subprocess.run([sys.executable, "-c", READ], capture_output=True).stdout for _ in batch]

    return noise


READ = "import sys; print(len(sys.stdin.read()))"


def crash_or_repeat(item):
    """One item, as `nearsight.parallel.WorkerPool` maps it."""
    return start_crashes()([item], None)[0]
