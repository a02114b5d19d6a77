"""The service as a process: it starts, answers, and stops as it should."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

httpx2 = pytest.importorskip("httpx2")
pytestmark = [pytest.mark.slow, pytest.mark.cluster]


class Process:
    """A running `nearsight serve`."""

    def __init__(self, folder, *words, env=None):
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
        for _ in range(1000):
            if match := re.search(r"Listening on (http://\S+)", self.text()):
                return match[1]
            if self.popen.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(self.text())

    def client(self, **options):
        client = httpx2.Client(base_url=self.url(), timeout=60, trust_env=False, **options)
        self.clients.append(client)
        for _ in range(1000):
            if client.get("/ready").status_code == 200:
                return client
            time.sleep(0.05)
        raise AssertionError(self.text())

    def stop(self, sign=signal.SIGTERM):
        self.popen.send_signal(sign)
        return self.popen.wait(60)


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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    with running(folder) as process:
        yield process


def test_it_is_ready_without_torch_and_logs_json(server):
    client = server.client()
    assert client.get("/health").json() == {"status": "ok"}
    lines = [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]
    assert any(line["message"] == "ready" for line in lines)
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    maps = Path(f"/proc/{server.popen.pid}/maps")
    assert not maps.exists() or "libtorch" not in maps.read_text()


def test_it_gives_the_vectors_of_the_library(server, jpeg):
    import numpy as np

    from nearsight import Embedder

    client = server.client()
    images = [jpeg(seed, (640, 480)) for seed in range(32)]
    expected = Embedder(progress=False).embed(images).vectors
    files = [("image", (f"{i}.jpg", data, "image/jpeg")) for i, data in enumerate(images)]
    together = client.post("/v1/embeddings", files=files)
    assert together.status_code == 200, together.text
    vectors = np.array([item["embedding"] for item in together.json()["data"]])
    assert (vectors * expected).sum(1).min() >= 0.99999
    alone = client.post("/v1/embeddings", content=images[7], headers={"content-type": "image/jpeg"})
    assert np.dot(alone.json()["data"][0]["embedding"], expected[7]) >= 0.99999
    assert "infer;dur=" in alone.headers["server-timing"]


def test_it_refuses_to_be_reached_without_a_key(tmp_path):
    with running(tmp_path, "--host", "0.0.0.0") as process:
        assert process.popen.wait(60) == 2
        assert "nearsight keys add" in process.text()


def test_a_taken_port_is_told(server, tmp_path):
    port = server.url().rsplit(":", 1)[1]
    with running(tmp_path, "--port", port) as process:
        assert process.popen.wait(60) == 1
        assert "choose another --port" in process.text()


def test_sigterm_finishes_what_was_accepted(tmp_path, jpeg):
    from concurrent.futures import ThreadPoolExecutor

    with running(tmp_path, "--n-threads", 1, "--grace-s", 15) as process:
        client = process.client()
        body = jpeg(1, (3000, 2000))

        def ask(_):
            try:
                return client.post(
                    "/v1/embeddings", content=body, headers={"content-type": "image/jpeg"}
                ).status_code
            except httpx2.TransportError:
                return "refused"

        with ThreadPoolExecutor(20) as pool:
            answers = pool.map(ask, range(20))
            time.sleep(0.3)
            begun = time.monotonic()
            assert process.stop() == 0, process.text()
            assert time.monotonic() - begun < 25
            answers = list(answers)
        assert set(answers) <= {200, 503, "refused"}
        assert answers.count(200) >= 1


def test_a_slow_body_ends_at_its_deadline_and_others_go_on(tmp_path):
    import socket
    from urllib.parse import urlsplit

    with running(tmp_path, "--read-timeout-s", 1) as process:
        client = process.client()
        parts = urlsplit(process.url())
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as slow:
            head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 1000\r\n\r\n"
            slow.sendall(head.encode() + b"x")
            assert client.get("/health").status_code == 200
            assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]
