"""Runs `nearsight serve` as a process, and waits for what it does."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

httpx2 = pytest.importorskip("httpx2")


class Process:
    """A running `nearsight serve`."""

    def __init__(self, folder, *words, env=None):
        self.folder = folder
        self.log = open(folder / "serve.log", "ab+")  # noqa: SIM115 - it lives as long as the process
        self.position = self.log.seek(0, os.SEEK_END)
        command = [sys.executable, "-m", "nearsight", "serve", "--port", "0", "--data", str(folder / "data")]
        self.popen = subprocess.Popen(
            [*command, *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=self.log,
            env={**os.environ, **(env or {})},
            cwd=folder,
        )
        self.clients = []

    def text(self):
        self.log.seek(self.position)
        return self.log.read().decode()

    def url(self):
        for _ in range(6000):
            if match := re.search(r"Listening on (http://\S+)", self.text()):
                return match[1]
            if self.popen.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(self.text())

    def client(self, **options):
        client = httpx2.Client(base_url=self.url(), timeout=300, trust_env=False, **options)
        self.clients.append(client)
        for _ in range(6000):
            if client.get("/ready").status_code == 200:
                return client
            time.sleep(0.05)
        raise AssertionError(self.text())

    def stop(self, sign=signal.SIGTERM):
        self.popen.send_signal(sign)
        return self.popen.wait(300)


@contextmanager
def running(folder, *words, env=None):
    process = Process(folder, *words, env=env)
    try:
        yield process
    finally:
        for client in process.clients:
            client.close()
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait()
        process.log.close()


def until(condition, seconds=300):
    for _ in range(int(seconds / 0.02)):
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("it did not come true")
