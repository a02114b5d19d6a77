"""A proxy before a server that speaks S3, which stores what it is sent and loses the answer."""

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class LostAnswers:
    """A running proxy; `stop` ends it.

    Attributes
    ----------
    url : str
    lost : list of str
        The paths of the requests whose answers were lost.
    """

    def __init__(self, server_url: str) -> None:
        self.lost: list[str] = []
        self._server = urlsplit(server_url).netloc
        self._is_to_lose: Callable[[str], bool] = lambda path: False
        self._is_cut = False
        self._mutex = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy._answer(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def lose(self, is_to_lose: Callable[[str], bool], *, is_cut: bool = False) -> None:
        """Lose the answer to the first PUT of each path that a predicate names.

        Parameters
        ----------
        is_to_lose : callable
        is_cut : bool, default False
            Whether the connection breaks; else the answer is HTTP 500.
        """
        self.lost.clear()
        self._is_to_lose, self._is_cut = is_to_lose, is_cut

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        server = http.client.HTTPConnection(self._server, timeout=60)
        server.request(request.command, request.path, body, dict(request.headers))
        answer = server.getresponse()
        content, status = answer.read(), answer.status
        server.close()
        if request.command == "PUT" and status == 200 and self._is_lost(urlsplit(request.path).path):
            if self._is_cut:
                request.close_connection = True
                return
            status, content = 500, b"<Error><Code>InternalError</Code></Error>"
        request.send_response(status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else len(content)
        request.send_header("Content-Length", str(length or 0))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    def _is_lost(self, path: str) -> bool:
        with self._mutex:
            if path in self.lost or not self._is_to_lose(path):
                return False
            self.lost.append(path)
            return True
