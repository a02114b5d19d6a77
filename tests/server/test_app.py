"""The layers around all routes: hosts, origins, keys, limits, headers, errors."""

import io
import json
import logging
import posixpath
import re
import socket
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from models.convolutions import network
from prometheus_client import parser
from server.processes import until
from starlette.testclient import TestClient

from nearsight.errors import InvalidParameterError, StorageError
from nearsight.server import catalog, request_threads
from nearsight.server.app import create_app
from nearsight.server.errors import public_message
from nearsight.server.log import JsonFormatter, TextFormatter
from nearsight.server.routes import collections
from nearsight.server.service import Service
from nearsight.services.keys import KeyStore
from nearsight.services.made_models import MadeModels
from nearsight.services.server_settings import ServerSettings


def ready(client):
    for _ in range(3000):
        if client.get("/ready").status_code == 200:
            return
        time.sleep(0.02)
    raise AssertionError(client.get("/ready").text)


def test_what_a_job_says_of_an_error_names_no_place_of_the_machine():
    told = public_message("StorageError", "/srv/data/x cannot be written")
    assert told == "the storage cannot be written or read; the log of the service says why"
    # What a client can mend is told as it is, and so is what no class stands for.
    assert public_message("InvalidParameterError", "k is 0") == "k is 0"
    assert public_message("MemoryError", "there is not enough memory") == "there is not enough memory"
    assert public_message("", "its process ended with 9") == "its process ended with 9"


def test_health_and_ready(client):
    assert client.get("/health").json() == {"status": "ok"}
    ready(client)
    assert client.get("/ready").json() == {"status": "ready"}


def test_what_cannot_be_finished_in_the_time_of_grace_is_told_so(serve, jpeg):
    client = serve(n_threads=1, grace_s=0.1)
    ready(client)
    backend = client.service.models.loaded("default").backend
    embed, is_busy, may_go = backend.embed, threading.Event(), threading.Event()

    def held(prepared):
        is_busy.set()
        may_go.wait(60)
        return embed(prepared)

    backend.embed = held
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(client.post, "/v1/embeddings", files={"image": jpeg()}) for _ in "ab")
        is_busy.wait(60)
        until(lambda: client.service.dispatcher.fill)
        # As at a signal; the connections are closed only after it.
        client.portal.call(client.service.begin_stop)
        until(lambda: first.done() or second.done())
        may_go.set()
        answers = sorted((first.result(), second.result()), key=lambda answer: answer.status_code)
    assert [answer.status_code for answer in answers] == [200, 503]
    assert int(answers[1].headers["retry-after"]) >= 1
    assert client.get("/health").status_code == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_has_died_is_told(serve):
    client = serve()
    ready(client)
    dispatcher = client.service.dispatcher
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher, "_take", lambda: 1 / 0)
        with dispatcher._condition:
            dispatcher._condition.notify(1)
        until(lambda: client.get("/health").status_code == 500)


def test_every_answer_has_an_id_and_strict_headers(client):
    for path in ("/", "/health", "/nowhere", "/v1/models"):
        headers = client.get(path).headers
        assert "unsafe" not in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert len(headers["x-request-id"]) == 16


@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/nowhere"])
def test_head_answers_as_get_without_the_body(client, path):
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    varying = {"x-request-id", "content-length" if path == "/nowhere" else ""}
    assert {k: v for k, v in head.headers.items() if k not in varying} == {
        k: v for k, v in got.headers.items() if k not in varying
    }


def test_head_does_not_wait_for_a_stream(client):
    assert client.head("/v1/jobs/none/events").status_code == 405


def test_a_sane_request_id_is_kept_and_another_replaced(client):
    assert client.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert client.get("/health", headers={"x-request-id": "a b\tc" * 30}).headers["x-request-id"] != "a b\tc"


def test_problems_are_rfc_9457_with_openais_error(client):
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == 404
    assert problem["title"] == "Not found"
    assert problem["instance"] == "/nowhere"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["error"]["message"] == problem["detail"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1"])
def test_a_foreign_host_is_refused_also_on_loopback(client, host):
    assert client.get("/v1/models", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "192.168.1.5"])
def test_names_of_this_machine_and_addresses_are_fine(client, host):
    assert client.get("/v1/models", headers={"host": host}).status_code == 200


def test_a_name_can_be_allowed(serve):
    client = serve(allowed_host=("images.example",))
    assert client.get("/health", headers={"host": "images.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
    ],
)
def test_pages_of_others_change_nothing(client, jpeg, headers):
    answer = client.post("/v1/embeddings", files={"image": jpeg()}, headers=headers)
    assert answer.status_code == 403


def test_the_own_page_may(client, jpeg):
    headers = {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8000"}
    assert client.post("/v1/embeddings", files={"image": jpeg()}, headers=headers).status_code == 200


def test_a_service_that_others_reach_needs_a_key(tmp_path):
    with pytest.raises(InvalidParameterError, match="nearsight keys add"):
        Service(ServerSettings(host="0.0.0.0", data=str(tmp_path)))
    KeyStore(tmp_path).add("page", ["read"])
    Service(ServerSettings(host="0.0.0.0", data=str(tmp_path)))
    Service(ServerSettings(host="0.0.0.0", data=str(tmp_path / "other"), api_key="secret"))


def test_keys_and_scopes(serve, tmp_path):
    keys = KeyStore(tmp_path / "data")
    _, embed = keys.add("embed", ["embed"])
    _, admin = keys.add("admin", ["admin"])
    client = serve()
    assert client.get("/health").status_code == 200
    answer = client.get("/v1/models")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/v1/models", headers={"authorization": f"Bearer {embed}x"}).status_code == 401
    for headers in ({"authorization": f"Bearer {embed}"}, {"x-api-key": embed}):
        assert client.get("/v1/models", headers=headers).status_code == 200
    assert client.get("/v1/models", auth=("any", embed)).status_code == 200
    answer = client.get("/metrics", headers={"authorization": f"Bearer {embed}"})
    assert answer.status_code == 403
    assert "needs read" in answer.json()["detail"]
    assert client.get("/metrics", headers={"authorization": f"Bearer {admin}"}).status_code == 200
    keys.revoke("embed")
    assert client.get("/v1/models", headers={"x-api-key": embed}).status_code == 401


def test_routes_that_are_asked_most_need_the_same_keys_and_tell_the_same_errors(serve, tmp_path, jpeg):
    """They go a shorter way than the others, and the framework, which describes them, would say the same."""
    keys = KeyStore(tmp_path / "data")
    secrets = {scope: keys.add(scope, [scope])[1] for scope in ("embed", "read", "write", "admin")}
    client = serve()
    headers = {scope: {"x-api-key": secret} for scope, secret in secrets.items()}
    for name in ("c", "d"):
        client.post("/v1/collections", json={"name": name}, headers=headers["admin"])
    client.post("/v1/collections/c/items", files=[("image", ("a.jpg", jpeg()))], headers=headers["admin"])
    search, embed = "/v1/collections/c/search", "/v1/embeddings"
    for path, needed in ((search, "read"), (embed, "embed")):
        assert client.post(path, json={}).status_code == 401
        for scope, header in headers.items():
            answer = client.post(path, content=jpeg(), headers={**header, "content-type": "image/jpeg"})
            assert answer.status_code == (200 if scope in (needed, "admin") else 403), (path, scope)
    requests = [
        (search, {"id": "0000"}, 404),
        (search, {"k": 0, "vector": [1]}, 400),
        (search, {"where": "nope = 1", "vector": [1.0] * 64}, 400),
        ("/v1/collections/none/search", {"vector": [1.0] * 64}, 404),
        ("/v1/collections/a%2Fb/search", {"vector": [1.0] * 64}, 404),
        (embed, {"input": []}, 400),
        (embed, {"input": ["data:image/png;base64,AAAA"]}, 400),
        (embed, [], 400),
    ]
    inner = client.app
    while not isinstance(inner, FastAPI):
        inner = inner.app
    framework = TestClient(inner, base_url="http://127.0.0.1:8000")
    for path, body, status in requests:
        direct, through = (
            each.post(path, json=body, headers=headers["admin"]) for each in (client, framework)
        )
        assert direct.status_code == status, direct.text
        assert {**direct.json(), "request_id": ""} == through.json()
    assert client.get(search, headers=headers["admin"]).status_code == 405
    text = client.get("/metrics", headers=headers["admin"]).text
    assert 'code="400",method="POST",route="/v1/collections/{name}/search"' in text
    # Who leases images to label keeps them from others.
    queue = "/v1/collections/c/labels/queue"
    for scope, body, status in (
        ("read", {}, 200),
        ("read", {"labeler": "ann"}, 403),
        ("write", {"labeler": "ann"}, 403),
    ):
        assert client.post(queue, json=body, headers=headers[scope]).status_code == status, (scope, body)
    _, both = keys.add("both", ["read", "write"])
    assert client.post(queue, json={"labeler": "ann"}, headers={"x-api-key": both}).status_code == 200


def test_the_session_of_the_page(serve, tmp_path):
    keys = KeyStore(tmp_path / "data")
    _, secret = keys.add("page", ["embed"])
    client = serve()
    assert client.get("/v1/session").json() == {"needs_key": True}
    assert client.post("/v1/session", json={"key": "wrong"}).status_code == 401
    answer = client.post("/v1/session", json={"key": secret})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert secret not in cookie
    assert client.get("/v1/models").status_code == 200
    name, value = cookie.split(";")[0].split("=", 1)
    client.cookies.clear()
    value = value.strip('"')
    forged = value[:-1] + ("0" if value[-1] != "0" else "1")
    assert client.get("/v1/models", headers={"cookie": f"{name}={value}"}).status_code == 200
    assert client.get("/v1/models", headers={"cookie": f"{name}={forged}"}).status_code == 401
    keys.revoke("page")
    keys.add("other", ["read"])
    assert client.get("/v1/models", headers={"cookie": f"{name}={value}"}).status_code == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_who_revokes_the_last_key_does_not_let_everybody_in(serve, tmp_path, host):
    keys = KeyStore(tmp_path / "data")
    _, secret = keys.add("only", ["admin"])
    client = serve(host=host)
    assert client.get("/v1/models", headers={"x-api-key": secret}).status_code == 200
    keys.revoke("only")
    assert client.get("/v1/models", headers={"x-api-key": secret}).status_code == 401
    assert client.get("/v1/collections").status_code == 401
    assert client.get("/v1/session").json() == {"needs_key": True}
    keys.path.unlink()
    assert client.get("/v1/collections").status_code == 401
    _, secret = keys.add("next", ["admin"])
    assert client.get("/v1/models", headers={"x-api-key": secret}).status_code == 200


def test_the_first_key_locks_a_service_that_was_open(serve, tmp_path):
    client = serve()
    assert client.get("/v1/models").status_code == 200
    keys = KeyStore(tmp_path / "data")
    keys.add("first", ["read"])
    assert client.get("/v1/models").status_code == 401
    keys.revoke("first")
    assert client.get("/v1/models").status_code == 401


@pytest.mark.parametrize(
    ("path", "has_key"),
    [
        ("/v1/collections", False),
        ("/v1/session", False),
        ("/v1/collections", True),
        ("/v1/collections/photos/items/delete", True),
        ("/v1/embeddings", True),
        ("/v2/embed", True),
        ("/v1/train", True),
    ],
)
@pytest.mark.parametrize(
    "body",
    [b"content-length: 5000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n40000\r\n" + b" " * 2**17],
)
def test_a_large_body_is_not_read_of_somebody_who_may_not_send_it(
    tmp_path, on_loopback, source, path, has_key, body
):
    """It would be parsed, on the loop that all requests share, before a route asks who sent it."""
    _, secret = KeyStore(tmp_path).add("a", ["read"])
    settings = ServerSettings(data=str(tmp_path), n_threads=1, read_timeout_s=5)
    service = Service(settings, {"default": source()})
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n".encode()
    head += f"authorization: Bearer {secret}\r\n".encode() if has_key else b""
    with on_loopback(create_app(service)) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
            # The rest of the body never comes.
            connection.sendall(head + body)
            answer = connection.makefile("rb").readline()
    assert answer.startswith(b"HTTP/1.1 403" if has_key else b"HTTP/1.1 401"), answer


def test_a_cookie_that_is_no_session_is_refused(serve, tmp_path):
    KeyStore(tmp_path / "data").add("a", ["read"])
    client = serve()
    for expiry in ("\N{SUPERSCRIPT TWO}", "9" * 5000):
        cookie = f"nearsight_session=ns_aaaaaaa/{expiry}/x".encode("latin-1")
        assert client.get("/v1/models", headers=[(b"cookie", cookie)]).status_code == 401


def test_bodies_are_limited_with_and_without_a_length(serve):
    client = serve(max_request_mb=1)
    large = b"x" * (2**20 + 1)
    assert client.post("/v1/embeddings", content=large).status_code == 413

    def chunks():
        for _ in range(17):
            yield b"x" * 2**16

    answer = client.post("/v1/embeddings", content=chunks(), headers={"content-type": "image/jpeg"})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert "--max-request-mb" in answer.json()["detail"]


def test_a_database_that_is_away_keeps_nobody_else_waiting(serve, monkeypatch):
    is_asked, may_answer = threading.Event(), threading.Event()
    opened = catalog.Collection.open

    def open_slowly(place, **options):
        if "://" not in str(place):
            return opened(place, **options)
        is_asked.set()
        may_answer.wait()
        raise StorageError(f"{place} is away")

    monkeypatch.setattr(catalog.Collection, "open", open_slowly)
    monkeypatch.setattr(catalog, "_OPENING_S", 0.05)
    client = serve(mount=("shop=postgres://ann:secret@db/x?collection=y",))
    client.post("/v1/collections", json={"name": "photos"})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.get, "/v1/collections/shop/items")
        is_asked.wait()
        assert client.get("/v1/collections/photos/items").status_code == 200
        second = client.get("/v1/collections/shop/items")
        assert (second.status_code, int(second.headers["retry-after"]) >= 1) == (503, True)
        may_answer.set()
        assert first.result().status_code == 507
    # Who comes later asks anew.
    assert client.get("/v1/collections/shop/items").status_code == 507
    assert not client.service.catalog._opening["shop"].locked()
    for n in range(20):
        assert client.get(f"/v1/collections/none-{n}/items").status_code == 404
    assert set(client.service.catalog._opening) == {"shop", "photos"}


def test_a_database_that_never_answers_holds_its_own_threads_only(serve, monkeypatch):
    may_answer = threading.Event()
    opened = catalog.Collection.open

    def open_never(place, **options):
        if "://" not in str(place):
            return opened(place, **options)
        may_answer.wait()
        raise StorageError(f"{place} is away")

    monkeypatch.setattr(catalog.Collection, "open", open_never)
    monkeypatch.setattr(catalog, "_OPENING_S", 1000)
    monkeypatch.setattr(request_threads, "_HELD_S", 0.1)
    monkeypatch.setattr(collections, "_LISTED_S", 0.2)
    client = serve(mount=("shop=postgres://db/x?collection=y",), deadline_s=0.2)
    client.post("/v1/collections", json={"name": "photos"})
    calls = [
        ("GET", "/v1/collections/shop"),
        ("GET", "/v1/collections/shop/items"),
        ("POST", "/v1/collections/shop/search"),
    ]
    # More than there are threads, by the routes of the framework and by those beside it.
    with ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(lambda call: client.request(*call, json={"id": "0" * 32}), 3 * calls))
        assert {each.status_code for each in answers} == {503}
        assert {each.json()["error"]["code"] for each in answers} == {"collection_away"}
        assert all(int(each.headers["retry-after"]) >= 1 for each in answers)
        assert client.get("/v1/collections/photos/items").status_code == 200
        listed = {each["name"]: each for each in client.get("/v1/collections").json()["collections"]}
        assert listed["photos"]["images"] == 0
        assert "does not answer" in listed["shop"]["problem"]
        # All of its threads are held: nobody waits for one any more.
        monkeypatch.setattr(client.service._threads["request", "shop"], "_answer_s", 1000)
        assert client.get("/v1/collections/shop/items").status_code == 503
        may_answer.set()
    until(lambda: client.get("/v1/collections/shop/items").status_code == 507)
    assert [each.name for each in threading.enumerate()].count("nearsight-request-shop-0") == 1


def test_the_rate_of_a_key_is_limited(serve):
    client = serve(rate=0.1)
    answers = [client.get("/v1/models") for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 429, 429]
    assert int(answers[1].headers["retry-after"]) >= 1


def test_an_error_of_ours_tells_nothing_of_the_inside(serve, source, caplog):
    def explode():
        raise RuntimeError("/secret/path")

    broken = source()
    object.__setattr__(broken, "load", explode)
    client = serve({"default": broken})
    answer = client.post("/v1/embeddings", json={"input": "x"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"]


def test_metrics_count_by_route_template(client):
    client.get("/v1/models/default")
    client.request("INVENTED", "/v1/models")
    text = client.get("/metrics").text
    assert 'nearsight_http_requests_total{code="200",method="GET",route="/v1/models/{alias:path}"}' in text
    assert "INVENTED" not in text
    families = list(parser.text_string_to_metric_families(text))  # raises if a line is not valid
    assert all(family.documentation for family in families)
    assert "process_resident_memory_bytes" in text


def test_a_log_line_is_json_with_facts():
    record = logging.makeLogRecord(
        {"msg": "a %s", "args": ("b",), "levelno": 20, "levelname": "INFO", "status": 200}
    )
    facts = json.loads(JsonFormatter().format(record))
    assert (facts["message"], facts["status"], facts["level"]) == ("a b", 200, "info")


def test_nobody_forges_a_line_of_a_text_log(serve, caplog):
    client = serve()
    caplog.set_level(logging.INFO, "nearsight.access")
    client.get("/v1/models/x%0A2026-11-29 INFO forged%1B[2J%E2%80%A8")
    [record] = [each for each in caplog.records if each.name == "nearsight.access"]
    assert TextFormatter().format(record).isprintable()
    try:
        raise RuntimeError("x\n2026-11-29 INFO forged\r")
    except RuntimeError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    first, *others = TextFormatter().format(record).split("\n")
    assert first.isprintable()
    assert all(each.isprintable() and each.startswith("    ") for each in others)


def test_nothing_of_an_archive_stays_when_it_was_not_sent(serve, tmp_path, monkeypatch):
    folder, temporary = tmp_path / "data/models/mine", tmp_path / "tmp"
    for each in (folder, temporary):
        each.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"network" * 1000)
    MadeModels(folder.parent).add("mine", f"dir:{folder}")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    client = serve()
    for headers in ({}, {"Range": "bytes=a-b"}, {"Range": "bytes=99999-"}):
        answer = client.get("/v1/models/mine/archive", headers=headers)
        assert list(temporary.iterdir()) == []
        assert answer.headers["content-disposition"] == 'attachment; filename="mine.zip"'
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.read("model.onnx") == b"network" * 1000


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.000, *", None),
        ("identity", None),
        ("*;q=0", None),
        ("", None),
    ],
)
def test_files_of_the_page_are_compressed_for_those_who_take_it(client, accepted, encoding):
    [path] = re.findall(r'href="(/static/[^"]+\.css)"', client.get("/").text)[:1]
    answer = client.get(path, headers={"accept-encoding": accepted})
    assert answer.headers.get("content-encoding") == encoding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert "{" in answer.text


def test_the_page_names_all_its_modules(client):
    named = set(re.findall(r'<link rel="modulepreload" href="(/static/[^"]+)">', client.get("/").text))
    for path in named:
        for module in re.findall(r'^(?:import|export) .*?"([^"]+)";$', client.get(path).text, re.M):
            assert posixpath.normpath(posixpath.join(path, "..", module)) in named
    assert len(named) > 30


def test_made_models_are_there_after_a_restart_but_for_those_that_are_gone(serve, tmp_path, caplog):
    made = MadeModels(tmp_path / "data/models")
    made.add("mine", network(tmp_path / "net.onnx"))
    made.add("gone", f"dir:{tmp_path / 'gone'}")
    client = serve()
    listed = client.get("/v1/models").json()["data"]
    assert "mine" in [each["id"] for each in listed]
    assert client.post("/v1/collections", json={"name": "c", "model": "mine"}).status_code == 201
    assert client.get("/v1/models/gone").status_code == 404
    assert "'gone', which a job made, is left out" in caplog.text
