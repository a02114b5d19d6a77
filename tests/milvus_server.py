"""A Milvus server, from the package milvus, which `make milvus` has. It listens on all interfaces."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

_ETCD_PORT = 2380


def is_installed() -> bool:
    return find_spec("milvus") is not None


class MilvusServer:
    """A server with a data directory of its own, stopped by its process group."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="nearsight-milvus-"))
        self.port = _free_port()
        self._process = None
        self.start()

    @property
    def uri(self) -> str:
        return f"milvus://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with socket.socket() as probe:
            # Its etcd takes this port, whatever the settings say, and the server hangs without it.
            assert probe.connect_ex(("127.0.0.1", _ETCD_PORT)), (
                f"port {_ETCD_PORT} is taken: another Milvus runs here; stop it, or use a network of your"
                " own, as make milvus does"
            )
        # Reads wait for its clock, and a new table for its scheduler: both go faster than by default.
        settings = (
            "proxy.timeTickInterval=10",
            "queryCoord.checkInterval=20",
            "queryCoord.distPullInterval=20",
            # Parts of 64 MB, so that few rows have a rough index before their own.
            "dataCoord.segment.maxSize=64",
        )
        command = [sys.executable, "-c", "from milvus import main; main()", "--data", self._folder / "data"]
        command += [
            "--proxy-port",
            self.port,
            *(word for each in settings for word in ("--extra-config", each)),
        ]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.2)

    def _answers(self) -> bool:
        from pymilvus import MilvusClient

        try:
            MilvusClient(uri=f"http://127.0.0.1:{self.port}", timeout=2).list_collections()
        except Exception:
            return False
        return True

    def kill(self) -> None:
        """Kill it as a crash would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Stop it, and delete its data: it does not always end at SIGTERM."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
