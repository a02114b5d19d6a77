"""What a user would try first and an attacker next, with curl and real clients against a real process."""

import base64
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from models.layouts import write_layout
from server.processes import httpx2, running, until

from nearsight import Collection, Embedder
from nearsight.models import load_model
from nearsight.services.jobs import JobTable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl"),
]
KEY = "ns_test-key-of-the-checks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checks")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The name of a model of 512 numbers, as Immich expects of CLIP."""
    return f"dir:{write_layout(tmp_path_factory.mktemp('model'), outputs={'image_embeds': [512]})}"


@pytest.fixture(scope="module")
def service(folder, model):
    """A process with a key, one thread and a short queue, URLs allowed, and a listener for Immich."""
    words = ["--model", f"default={model}", "--n-threads", 1, "--queue", 64, "--allow-urls"]
    words += ["--immich", "ViT-B-32__openai=default", "--immich-port", 0, "--read-timeout-s", 2]
    with running(folder, *words, env={"NEARSIGHT_API_KEY": KEY}) as process:
        process.client(headers={"authorization": f"Bearer {KEY}"})
        yield process


@pytest.fixture(scope="module")
def client(service):
    return service.clients[0]


@pytest.fixture(scope="module")
def image(folder, jpeg):
    path = folder / "a.jpg"
    path.write_bytes(jpeg(1, (640, 480)))
    return path


@pytest.fixture(scope="module")
def uri(image):
    return f"data:image/jpeg;base64,{base64.b64encode(image.read_bytes()).decode()}"


@pytest.fixture(scope="module")
def expected(model, image):
    return Embedder(load_model(model, device="cpu"), n_threads=1, progress=False).embed([image]).vectors[0]


def curl(*words, key=KEY, **options):
    """Return the status and the body of one call of curl."""
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "300", "-w", "\n%{http_code}", *map(str, words)]
    command += ["-H", f"Authorization: Bearer {key}"] if key else []
    done = subprocess.run(command, capture_output=True, check=False, timeout=400, **options)
    body, _, status = done.stdout.rpartition(b"\n")
    return int(status), body


def resident_mb(pid):
    statm = Path(f"/proc/{pid}/statm")
    return int(statm.read_text().split()[1]) / 256 if statm.exists() else 0.0


def test_curl_sends_a_form_and_a_plain_image(service, image, expected):
    url = f"{service.url()}/v1/embeddings"
    calls = [
        ("-F", f"image=@{image}", url),
        ("-H", "Content-Type: image/jpeg", "--data-binary", f"@{image}", f"{url}?model=default"),
    ]
    for words in calls:
        status, body = curl(*words)
        assert status == 200, body
        assert np.dot(json.loads(body)["data"][0]["embedding"], expected) >= 0.99999
    assert curl("-F", f"image=@{image}", url, key="")[0] == 401


def test_immich_and_weaviate_as_they_call(service, folder, image, uri, expected):
    main, immich = re.findall(r"Listening on (http://\S+)", service.text())
    entries = 'entries={"clip":{"visual":{"modelName":"ViT-B-32__openai"}}}'
    status, body = curl("-F", entries, "-F", f"image=@{image}", f"{immich}/predict", key="")
    assert status == 200, body
    assert np.dot(json.loads(json.loads(body)["clip"]), expected) >= 0.99999
    assert curl("-F", entries, "-F", f"image=@{image}", f"{main}/predict")[0] == 404
    for name, content in (("good", uri.split(",")[1]), ("bad", "@@")):
        (folder / name).write_text(json.dumps({"images": [content], "texts": None}))
    words = ("-H", "Content-Type: application/json", f"{main}/vectorize")
    status, body = curl("-d", f"@{folder / 'good'}", *words)
    assert (status, len(json.loads(body)["imageVectors"][0])) == (200, 512)
    status, body = curl("-d", f"@{folder / 'bad'}", *words)
    assert (status, type(json.loads(body)["error"])) == (400, str)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_model_that_is_named_by_a_path_opens_no_file(service, tmp_path):
    log = tmp_path / "strace"
    words = ["strace", "-f", "-e", "trace=%file", "-o", log, "-p", str(service.popen.pid)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as tracer:
        line = tracer.stderr.readline()
        if "ttached" not in line:
            tracer.wait()
            pytest.skip(f"strace may not attach: {line.strip()}")
        status, body = curl(
            "-d", '{"model":"onnx:/etc/passwd","input":"x"}', f"{service.url()}/v1/embeddings"
        )
        curl("-X", "POST", "-H", "Content-Type: application/json", "-d", '{"name":"seen"}',
             f"{service.url()}/v1/collections")  # fmt: skip
        tracer.send_signal(signal.SIGINT)
        tracer.stderr.read()
    assert status == 404
    assert b"passwd" not in body
    trace = log.read_text()
    assert "collections/seen" in trace  # it would have been seen
    assert "passwd" not in trace


def test_a_model_is_not_named_by_its_place(service, model):
    words = ("-d", json.dumps({"model": str(model), "input": "x"}), f"{service.url()}/v1/embeddings")
    status, body = curl(*words)
    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")


def test_outside_of_loopback_it_starts_only_with_a_key(tmp_path):
    words = ["serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path)]
    command = [sys.executable, "-m", "nearsight", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "nearsight keys add" in done.stderr


def test_other_pages_and_names_are_refused_on_loopback(service, image):
    assert curl("-H", "Host: evil.example", f"{service.url()}/v1/models")[0] == 421
    items = f"{service.url()}/v1/collections/c/items"
    assert curl("-H", "Sec-Fetch-Site: cross-site", "-F", f"image=@{image}", items)[0] == 403


def test_no_url_reaches_what_only_this_machine_can_reach(client):
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.2)
        hosts = ["127.0.0.1", "[::1]", "169.254.169.254", "100.100.100.200", "[64:ff9b::a9fe:a9fe]"]
        hosts += ["2130706433", "0x7f.1", "localhost", "127.0.0.1.", "[::ffff:127.0.0.1]"]
        port = inside.getsockname()[1]
        for url in ("file:///etc/passwd", *(f"http://{h}{p}/a.jpg" for h in hosts for p in ("", f":{port}"))):
            answer = client.post("/v1/embeddings", json={"input": url, "modality": "image"})
            # By its address, before anybody is asked: a port that nobody listens at says nothing.
            calls.append((url, answer.status_code, "of a public address" in answer.text))
        with pytest.raises(TimeoutError):
            inside.accept()
    assert {call[1:] for call in calls} == {(400, True)}, calls


def test_a_body_without_end_is_refused_in_no_memory(service, client):
    client.get("/v1/models").raise_for_status()
    before = resident_mb(service.popen.pid)

    def zeros():
        for _ in range(300):
            yield bytes(2**20)

    # The service answers before the body ends, and hangs up on what is still sent.
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "300", "-H", "Transfer-Encoding: chunked"]
    command += ["-H", "Content-Type: image/jpeg", "-H", f"Authorization: Bearer {KEY}", "-i"]
    with subprocess.Popen(
        [*command, "--data-binary", "@-", f"{service.url()}/v1/embeddings"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as sender:
        body, _ = sender.communicate(b"".join(zeros()), timeout=400)
    assert b"HTTP/1.1 413 " in body
    assert b"application/problem+json" in body
    assert resident_mb(service.popen.pid) - before < 130  # a body of 64 MB is allowed, and may be held twice
    assert client.get("/health").status_code == 200


def test_clients_of_openai_get_every_answer_of_a_flood(service, client, uri, jpeg, expected):
    openai = pytest.importorskip("openai")
    large = f"data:image/jpeg;base64,{base64.b64encode(jpeg(2, (2000, 1500))).decode()}"
    url = f"{service.url()}/v1"
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=2, timeout=300) as patient:
        all_are_here = threading.Barrier(96)

        def ask(i):
            body = {"model": "default", "input": [{"image": uri if i % 2 else large}]}
            all_are_here.wait(300)
            return patient.embeddings.create(**body).data[0].embedding

        # More than the queue holds, at once; what was refused fits when it comes again.
        with ThreadPoolExecutor(96) as pool:
            vectors = list(pool.map(ask, range(96)))
    assert np.min(np.array(vectors[1::2]) @ expected) >= 0.99999
    text = client.get("/metrics").text
    assert float(re.search(r'nearsight_rejected_total\{reason="\w+"\} (\S+)', text)[1]) >= 1


def test_a_running_analysis_of_many_rows_is_stopped(tmp_path, model):
    backend = load_model(model, device="cpu")
    collection = Collection.create(tmp_path / "many", model=backend)
    X = np.random.default_rng(0).standard_normal((20_000, 512)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    collection.add_vectors(X, ids=[f"{i:032x}" for i in range(20_000)], fingerprint=backend.spec.fingerprint)
    with running(tmp_path, "--model", f"default={model}", "--mount", f"many={tmp_path / 'many'}") as process:
        client = process.client()
        before = resident_mb(process.popen.pid)
        answer = client.post("/v1/collections/many/clusters", json={})
        assert answer.status_code == 202, answer.text
        id = answer.json()["id"]
        until(lambda: client.get(f"/v1/jobs/{id}").json()["state"] == "running", 300)
        table = JobTable(tmp_path / "data")
        pid = until(lambda: table.get(id).pid, 300)
        # It holds the rows, and more, when it is stopped.
        until(lambda: resident_mb(pid) > 100, 300)
        begun = time.monotonic()
        assert client.delete(f"/v1/jobs/{id}").status_code == 202
        until(lambda: not resident_mb(pid), 300)
        # Ten seconds until it is killed, and some for a busy machine.
        assert time.monotonic() - begun < 60
        until(lambda: client.get(f"/v1/jobs/{id}").json()["state"] == "cancelled", 60)
        # The memory went with the process, and nothing half was left.
        assert resident_mb(process.popen.pid) - before < 100
        assert client.get("/v1/collections/many/analyses").json() == {"analyses": []}
        assert client.get("/ready").status_code == 200


def test_sigterm_with_a_stream_and_a_full_queue(tmp_path, model, jpeg):
    # On a busy machine 80 large images wait longer than the default lets them, and get 429.
    words = ["--model", f"default={model}", "--n-threads", 1, "--grace-s", 20, "--max-wait-s", 600]
    with running(tmp_path, *words) as process:
        client = process.client(limits=httpx2.Limits(max_connections=50))
        table = JobTable(tmp_path / "data")
        job, _ = table.add("index", {"directory": str(tmp_path), "folder": str(tmp_path)})
        table.claim()  # running, and nobody runs it: its stream stays open
        files = [("image", ("a.jpg", jpeg(1, (3000, 2000)), "image/jpeg"))] * 4

        def ask(_):
            answer = client.post("/v1/embeddings", files=files)
            return answer.status_code, len(answer.json().get("data", ()))

        def n_waiting():
            text = client.get("/metrics").text
            return sum(map(float, re.findall(r"^nearsight_queue_items\{.*\} (\S+)", text, re.MULTILINE)))

        parts = urlsplit(process.url())
        with (
            client.stream("GET", f"/v1/jobs/{job.id}/events") as stream,
            ThreadPoolExecutor(20) as pool,
            socket.create_connection((parts.hostname, parts.port), timeout=60) as early,
        ):
            assert next(stream.iter_lines()).startswith("event: progress")
            answers = pool.map(ask, range(20))
            until(lambda: n_waiting() >= 20)
            process.popen.send_signal(signal.SIGTERM)
            # A connection that is open already is told to go elsewhere, or closed.
            until(lambda: is_refused(early, parts.netloc))
            assert process.popen.wait(120) == 0, process.text()
            # Nobody who has asked is hung up on.
            answers = list(answers)
        assert set(answers) <= {(200, 4), (503, 0)}
        assert answers.count((200, 4)) >= 1


def is_refused(connection, host):
    """Whether a connection gets no answer, or that the service is not ready."""
    try:
        connection.sendall(f"GET /ready HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = connection.recv(4096)
    except ConnectionError:
        return True
    return not answer or b" 503 " in answer.split(b"\r\n")[0]
