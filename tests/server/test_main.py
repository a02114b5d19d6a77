"""The service as a process: it starts, answers, and stops as it should."""

import contextlib
import json
import os
import re
import select
import socket
import struct
import time
import zlib
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from models.layouts import write_layout
from server.processes import running, until

from nearsight.errors import StorageError
from nearsight.services.jobs import JobTable
from nearsight.services.server_settings import ServerSettings

httpx2 = pytest.importorskip("httpx2")
uvicorn = pytest.importorskip("uvicorn")
from nearsight.server import main  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A service with the default model, no network, and a package torch that notes when it is imported."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "packages" / "torch").mkdir(parents=True)
    (folder / "packages" / "torch" / "__init__.py").write_text("open('imported', 'w').close()")
    paths = [str(folder / "packages"), *filter(None, [os.environ.get("PYTHONPATH")])]
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:1")
    with running(folder, env={"PYTHONPATH": os.pathsep.join(paths), **nowhere}) as process:
        yield process


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Words that serve a tiny model."""
    folder = write_layout(tmp_path_factory.mktemp("model"), outputs={"image_embeds": [32]})
    return ["--model", f"default=dir:{folder}"]


@pytest.fixture(scope="module")
def small(tmp_path_factory, tiny):
    """A service with one thread, a short queue and little patience."""
    words = [*tiny, "--queue", 64, "--n-threads", 1, "--read-timeout-s", 1]
    with running(tmp_path_factory.mktemp("small"), *words) as process:
        yield process


def test_it_is_ready_without_torch_and_network_and_logs_json(server, jpeg):
    client = server.client()
    assert client.get("/health").json() == {"status": "ok"}
    lines = [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]
    assert any(line["message"] == "ready" for line in lines)
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    image = {"files": {"image": jpeg(1)}}
    assert client.post("/v1/embeddings", **image).status_code == 200
    assert not (server.folder / "imported").exists()


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


def test_a_taken_port_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = uvicorn.Config(None, host="127.0.0.1", port=taken.getsockname()[1], log_config=None)
        with pytest.raises(StorageError, match="choose another --port"):
            main._bind(main.Listener(config))


def test_two_services_never_share_a_directory(tmp_path):
    again = main._only_service(tmp_path)
    with main._only_service(tmp_path), pytest.raises(StorageError, match="choose another --data"), again:
        pass
    with main._only_service(tmp_path):
        pass


def test_sigterm_finishes_what_was_accepted(tmp_path, jpeg):
    with running(tmp_path, "--n-threads", 1, "--grace-s", 15, "--max-wait-s", 600) as process:
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
            answers = [pool.submit(ask, n) for n in range(20)]
            wait(answers, return_when=FIRST_COMPLETED)
            begun = time.monotonic()
            assert process.stop() == 0, process.text()
            assert time.monotonic() - begun < 75
            answers = [answer.result() for answer in answers]
        assert set(answers) <= {200, 503, "refused"}
        assert answers.count(200) >= 1


def test_a_slow_body_ends_at_its_deadline_and_others_go_on(small):
    client = small.client()
    parts = urlsplit(small.url())
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as slow:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 1000\r\n\r\n"
        slow.sendall(head.encode())
        slow.settimeout(0.1)
        # A byte now and then does not put it off.
        for _ in range(600):
            slow.send(b"x")
            assert client.get("/health").status_code == 200
            with contextlib.suppress(TimeoutError):
                assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]
                return
    raise AssertionError("the body was waited for")


def test_nobody_is_hung_up_on_without_an_answer(small):
    parts = urlsplit(small.url())
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 99999999999\r\n\r\n"
    address = (parts.hostname, parts.port)
    with (
        socket.create_connection(address, timeout=60) as late,
        socket.create_connection(address, 60) as large,
    ):
        # One who still sends when the answer is there is not reset, and can read it.
        large.sendall(head.encode())
        select.select([large], [], [], 60)
        for _ in range(20):
            large.sendall(bytes(2**16))
        assert large.recv(4096).startswith(b"HTTP/1.1 413 ")
        # One who is too late with the first byte is told so.
        select.select([late], [], [], 60)
        late.sendall(f"GET /health HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        assert late.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_a_slow_head_ends_at_its_deadline_also_after_a_request(small):
    parts = urlsplit(small.url())
    head = f"GET /health HTTP/1.1\r\nHost: {parts.netloc}\r\n".encode()

    def trickle(first):
        """Send a whole request or none, then one byte at a time; return what comes and how it ended."""
        with socket.create_connection((parts.hostname, parts.port), timeout=60) as slow:
            slow.sendall(first)
            answer = slow.recv(4096) if first else b""
            slow.settimeout(0.1)
            for byte in head * 10:
                try:
                    slow.send(bytes([byte]))
                    received = slow.recv(4096)
                except TimeoutError:
                    continue
                except OSError:  # closed while this sent a byte
                    return answer
                if not received:
                    return answer
                answer += received
        raise AssertionError("the connection was held")

    assert trickle(b"").startswith(b"HTTP/1.1 408 ")
    assert trickle(head + b"\r\n").startswith(b"HTTP/1.1 200 ")
    # The next byte after the deadline was nobody's: the service answers others, with time to spare.
    client = small.client()
    for _ in range(3):
        assert client.get("/health").status_code == 200
        time.sleep(0.6)


@pytest.fixture
def archive(tmp_path, save_image):
    folder = tmp_path / "archive"
    folder.mkdir()
    for seed in range(400):
        save_image(folder / f"{seed}.png", seed, (64, 48))
    return folder


def test_a_job_goes_on_after_the_service_was_killed(tmp_path, tiny, archive):
    words = [*tiny, "--root", f"archive={archive}"]
    with running(tmp_path, *words) as process:
        client = process.client()
        client.post("/v1/collections", json={"name": "photos"}).raise_for_status()
        id = client.post("/v1/collections/photos/index", json={"folder": "archive"}).json()["id"]
        until(lambda: client.get(f"/v1/jobs/{id}").json()["state"] == "running")
        process.popen.kill()
        process.popen.wait()
    with running(tmp_path, *words) as process:
        client = process.client()
        job = until(lambda: (j := client.get(f"/v1/jobs/{id}").json())["state"] == "done" and j)
        assert job["result"]["added"] + job["result"]["unchanged"] == 400
        page = client.get("/v1/collections/photos/items", params={"limit": 1000}).json()
        assert page["total"] == len({item["id"] for item in page["items"]}) == 400
        assert page["items"][0]["path"].startswith("archive/")


def test_sigterm_ends_open_streams(tmp_path, tiny, archive):
    with running(tmp_path, *tiny, "--root", f"archive={archive}") as process:
        client = process.client()
        table = JobTable(tmp_path / "data")
        job, _ = table.add("index", {"directory": str(tmp_path), "folder": str(archive)})
        table.claim()  # running, and nobody runs it: its stream stays open
        with client.stream("GET", f"/v1/jobs/{job.id}/events") as stream:
            assert next(stream.iter_lines()).startswith("event: progress")
            begun = time.monotonic()
            assert process.stop() == 0, process.text()
            assert time.monotonic() - begun < 15


def test_a_flood_is_refused_in_part(small, jpeg):
    client = small.client(limits=httpx2.Limits(max_connections=100))
    body = jpeg(3, (2000, 1500))
    headers = {"content-type": "image/jpeg"}

    def ask(_):
        return client.post("/v1/embeddings", content=body, headers=headers)

    with ThreadPoolExecutor(96) as pool:
        answers = list(pool.map(ask, range(160)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert client.get("/health").status_code == 200


def test_what_clients_leave_behind_is_not_computed(small, jpeg):
    client = small.client()
    parts = urlsplit(small.url())
    body = jpeg(3, (3000, 2000))
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )

    def count(name):
        match = re.search(rf"^nearsight_{name} (\S+)", client.get("/metrics").text, re.MULTILINE)
        return float(match[1]) if match else 0.0

    embedded, dropped = 'embedded_items_total{model="default"}', 'dropped_total{reason="client"}'
    n_embedded, n_dropped, n_busy, n_left = count(embedded), count(dropped), 12, 20
    with ThreadPoolExecutor(1) as pool:
        # The worker has enough to do until all of the others have come and gone.
        files = [("image", ("a.jpg", body, "image/jpeg"))] * n_busy
        busy = pool.submit(client.post, "/v1/embeddings", files=files)
        until(lambda: count("queue_bytes"))
        sockets = [socket.create_connection((parts.hostname, parts.port)) for _ in range(n_left)]
        for each in sockets:
            each.sendall(head.encode() + body)
        time.sleep(0.05)
        for each in sockets:
            each.close()
        assert busy.result().status_code == 200
    until(lambda: count(dropped) - n_dropped >= n_left / 2 and not count("queue_bytes"))
    # Beside those that somebody waited for, at most what a worker held already.
    assert count(embedded) - n_embedded <= n_busy + 8


def bombs():
    """Images that cost more than they look."""

    def png(side_px, *chunks):
        data = b"\x89PNG\r\n\x1a\n"
        header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
        for kind, content in ((b"IHDR", header), *chunks, (b"IEND", b"")):
            data += struct.pack(">I", len(content)) + kind + content
            data += struct.pack(">I", zlib.crc32(kind + content))
        return data

    pixels, text = (zlib.compress(bytes(n)) for n in (10_000_000, 300_000_000))
    frames = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff"
    frames += b"!\xf9\x04\0\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0" * 800_000 + b";"
    return {
        "gigapixel": png(32768, (b"IDAT", pixels)),
        "text of 300 MB": png(50, (b"zTXt", b"a\0\0" + text), (b"IDAT", pixels)),
        "frames": frames,
        "TIFF loop": b"II*\0\x08\0\0\0" + b"\x01\0" + b"\0\x01\x03\0\x01\0\0\0\x01\0\0\0" + b"\x08\0\0\0",
        "zeros": bytes(10**6),
    }


def test_bombs_are_refused_in_little_time_and_memory(small, jpeg):
    client, process = small.client(), psutil.Process(small.popen.pid)
    samples = {**bombs(), "cut off": jpeg(1, (640, 480))[:-9000], "text": b"Dear diary", "empty": b""}
    client.post("/v1/embeddings", files={"image": jpeg(1)}).raise_for_status()
    before, seconds = peak_bytes(process), {}
    for name, data in samples.items():
        begun = sum(process.cpu_times()[:2])
        answer = client.post("/v1/embeddings", files={"image": ("a", data)})
        seconds[name] = sum(process.cpu_times()[:2]) - begun
        # The first of many frames is an image like any other, and nothing of the text is read.
        expected = (200, 400) if name in ("frames", "text of 300 MB") else (400,)
        assert answer.status_code in expected, (name, answer.text)
    assert max(seconds.values()) < 2, seconds
    assert peak_bytes(process) - before < 200 * 2**20
    assert client.get("/health").status_code == 200


def peak_bytes(process):
    """Return the most memory that a process has had, where the system tells; else what it has."""
    status = Path(f"/proc/{process.pid}/status")
    peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(peak[1]) * 1024 if peak else process.memory_info().rss


def test_a_body_does_not_wait_for_the_acknowledgment_of_its_head():
    listener = main._listener(None, "127.0.0.1", 0, ServerSettings())
    with main._bind(listener) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
