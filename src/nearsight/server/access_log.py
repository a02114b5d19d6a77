"""The outermost layer: the id of a request, its line in the log, security headers, and the last resort."""

import logging
import re
import secrets
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearsight.server.errors import Renderers, problem_of
from nearsight.server.log import request_id

_log = logging.getLogger("nearsight.access")
# A client may invent methods, and each would be a label of the metrics.
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SANE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src "
    "'self'; "
    "worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

_ENCODED = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]

#: Called after each request with route template, method, status and seconds.
Observer = Callable[[str, str, int, float], None]


class AccessLog:
    """Gives each request an id, logs it, and adds the security headers.

    Parameters
    ----------
    app : ASGI application
    renderers : Renderers
        How an unexpected error is told.
    observe : callable
        Counts the request. It gets the route's template, never the path: paths are without number.
    """

    def __init__(self, app: ASGIApp, renderers: Renderers, observe: Observer) -> None:
        self.app = app
        self._renderers = renderers
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = next((v for k, v in scope["headers"] if k == b"x-request-id"), b"").decode("latin-1")
        id = wanted if _SANE_ID.fullmatch(wanted) else secrets.token_hex(8)
        token = request_id.set(id)
        scope.setdefault("state", {})
        status, begun, is_complete = 0, time.perf_counter(), False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                added = [(b"x-request-id", id.encode()), *_ENCODED]
                message["headers"] = [
                    *message["headers"],
                    *(each for each in added if each[0] not in present),
                ]
            else:
                is_complete = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            # The framework answers, and then raises again what it has answered.
            if not status:
                response = self._renderers.response(problem_of(error), scope["path"])
                await response(scope, receive, send_with_headers)
            elif not is_complete:
                _log.error("failed while answering", exc_info=error)
                raise
        finally:
            seconds = time.perf_counter() - begun
            template = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._observe(template, method, status or 499, seconds)
            client = scope.get("client") or ("", 0)
            _log.info(
                "%s %s %s",
                scope["method"],
                scope["path"],
                status or 499,
                extra={
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": status or 499,
                    "ms": round(seconds * 1000, 1),
                    "client": client[0],
                    "key": scope["state"].get("key_prefix", ""),
                },
            )
            request_id.reset(token)
