"""Traces reach a collector on loopback; without its address, nothing of OpenTelemetry is even imported."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from nearsight.errors import MissingExtraError

pytestmark = pytest.mark.cluster


@pytest.fixture
def collector(monkeypatch):
    """The address of a collector, and the bodies that it got."""
    monkeypatch.setenv("NO_PROXY", "*")
    bodies = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", bodies
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_request_is_a_span_with_its_stages_inside(serve, collector, jpeg):
    pytest.importorskip("opentelemetry.sdk")
    proto = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    endpoint, bodies = collector
    client = serve(otlp_endpoint=endpoint)
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = {"content-type": "image/jpeg", "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    assert client.post("/v1/embeddings", content=jpeg(), headers=headers).status_code == 200
    assert client.get("/v1/models/private-name").status_code == 404
    client.__exit__(None, None, None)  # what was gathered is sent
    client.__exit__ = lambda *error: None
    assert bodies, "the collector got nothing"
    spans = {
        span.name: span
        for body in bodies
        for resource in proto.ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    parent = spans["POST /v1/embeddings"]
    assert parent.trace_id.hex() == trace_id
    assert parent.parent_span_id.hex() == "b7ad6b7169203331"
    for name in ("queue", "decode", "infer"):
        assert spans[name].parent_span_id == parent.span_id
        assert parent.start_time_unix_nano <= spans[name].start_time_unix_nano
        assert spans[name].start_time_unix_nano <= spans[name].end_time_unix_nano
    assert spans["infer"].end_time_unix_nano > spans["infer"].start_time_unix_nano
    attributes = {each.key: each.value for each in spans["GET /v1/models/{alias:path}"].attributes}
    assert attributes["http.response.status_code"].int_value == 404
    assert not any(b"private-name" in body for body in bodies)


def test_a_missing_library_is_told_with_its_command(serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter", None)
    with pytest.raises(MissingExtraError, match=r"nearsight\[otel\]"):
        serve(otlp_endpoint="http://127.0.0.1:4318/v1/traces")


@pytest.mark.slow
def test_nothing_is_loaded_that_could_tell_others():
    program = (
        "import sys, nearsight.server.app\n"
        "senders = ('opentelemetry.sdk', 'opentelemetry.exporter')\n"
        "print([name for name in sys.modules if name.startswith(senders)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
