"""A Milvus server, from the package milvus, which `make milvus` has. It listens on all interfaces."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

_ETCD_PORT = 2380


def is_installed() -> bool:
    return find_spec("milvus") is not None


class MilvusServer:
    """A server with a data directory of its own, stopped by its process group.

    Parts of 64 MB, so that few rows have a rough index before their own; by default, Milvus has 512.

    Parameters
    ----------
    segment_mb : int
    is_encrypted : bool
        Whether it speaks TLS, with a certificate of its own for "localhost".
    **variables : str
        Of its process.
    """

    def __init__(self, segment_mb: int = 64, *, is_encrypted: bool = False, **variables: str) -> None:
        self._segment_mb = segment_mb
        self._folder = Path(tempfile.mkdtemp(prefix="nearsight-milvus-"))
        self.certificate = self._make_certificate(variables) if is_encrypted else None
        # The package looks for free ports, and takes others after a kill: connections that the client has not
        # closed hold those of before for a minute.
        self.port = _free_port()
        fixed = {"ETCD_ENDPOINTS": "127.0.0.1:2379", "PROXY_PORT": str(self.port)}
        self._variables = {**os.environ, **fixed, **variables}
        self._process = None
        self.start()

    def _make_certificate(self, variables: dict[str, str]) -> Path:
        certificate, key = self._folder / "server.pem", self._folder / "server.key"
        command = "openssl req -x509 -nodes -newkey rsa:2048 -days 2 -subj /CN=localhost -addext"
        arguments = ["subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
        subprocess.run([*command.split(), *map(str, arguments)], check=True, capture_output=True)
        variables |= {"COMMON_SECURITY_TLSMODE": "1", "TLS_SERVERPEMPATH": str(certificate)}
        variables |= {"TLS_SERVERKEYPATH": str(key)}
        return certificate

    @property
    def uri(self) -> str:
        return f"milvus://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self._folder / "data"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # Its etcd takes this port, whatever the settings say, and the server hangs without it.
        assert not _is_taken(_ETCD_PORT), (
            f"port {_ETCD_PORT} is taken: another Milvus runs here; stop it, or use a network of your own, as"
            " make milvus does"
        )
        # Reads wait for its clock, and a new table for its scheduler: both go faster than by default.
        settings = (
            "proxy.timeTickInterval=10",
            # Each of them carries a tick: 16 by default, for two tables at a time here.
            "rootCoord.dmlChannelNum=2",
            "queryCoord.checkInterval=20",
            "queryCoord.distPullInterval=20",
            f"dataCoord.segment.maxSize={self._segment_mb}",
        )
        command = [sys.executable, "-c", "from milvus import main; main()", "--data", self.data]
        command += [
            "--proxy-port",
            self.port,
            *(word for each in settings for word in ("--extra-config", each)),
        ]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                list(map(str, command)),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._variables,
            )
        deadline = time.monotonic() + 180
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.2)

    def _answers(self) -> bool:
        from pymilvus import MilvusClient

        if self.certificate:
            # This process does not trust it.
            return _is_taken(self.port)
        try:
            MilvusClient(uri=f"http://127.0.0.1:{self.port}", timeout=2).list_collections()
        except Exception:
            return False
        return True

    def is_running(self) -> bool:
        return self._process.poll() is None

    def drop(self, collection: str) -> None:
        """Delete the tables of a collection, and of those whose names begin so with a ``_`` behind.

        What is loaded costs the server time as long as it is: with eighty tables of two rows each it kept a
        core busy, and with those of all tests of a file it answered nobody any more.
        """
        from pymilvus import MilvusClient

        client = MilvusClient(uri=f"http://127.0.0.1:{self.port}", timeout=60)
        for table in client.list_collections():
            if table.startswith(f"nearsight_{collection}_"):
                client.drop_collection(table)

    def kill(self) -> None:
        """Kill it as a crash would."""
        with suppress(ProcessLookupError):  # it may have crashed
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # The server is a child of that process, and takes a while to die on a loaded machine.
        deadline = time.monotonic() + 60
        while _is_taken(_ETCD_PORT) and time.monotonic() < deadline:
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it, and delete its data: it does not always end at SIGTERM."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class MilvusCluster:
    """A server, which has one query node, a broker of messages, and another query node once it is started."""

    def __init__(self) -> None:
        broker = [sys.executable, str(Path(__file__).with_name("milvus_broker.py"))]
        self._broker = subprocess.Popen(
            broker, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        with self._broker.stdout as answer:
            address = answer.readline().strip()
        self._variables = {
            "MQ_TYPE": "kafka",
            "KAFKA_BROKERLIST": address,
            # So many seconds after its death, a node is missed.
            "COMMON_SESSION_TTL": "15",
        }
        self._server = MilvusServer(**self._variables)
        self.uri, self._data, self._node = self._server.uri, self._server.data, None

    def start_node(self) -> None:
        """Start the other query node; it finds the server by the server's etcd."""
        folder = self._data / "node"
        folder.mkdir(exist_ok=True)
        variables = {
            **self._variables,
            "ETCD_USE_EMBED": "false",
            "LD_LIBRARY_PATH": str(self._data / "bin"),
            "MILVUSCONF": str(self._data / "configs"),
            "METRICS_PORT": str(_free_port()),
        }
        with open(folder / "log", "ab") as log:
            self._node = subprocess.Popen(
                [str(self._data / "bin/milvus"), "run", "querynode"],
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **variables},
            )

    def kill_node(self) -> None:
        """Kill the other query node as a crash would."""
        if self._node is not None:
            os.killpg(self._node.pid, signal.SIGKILL)
            self._node.wait()
            self._node = None

    def stop(self) -> None:
        """Stop all of it."""
        self.kill_node()
        self._server.stop()
        os.killpg(self._broker.pid, signal.SIGKILL)
        self._broker.wait()


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
