"""Which hosts and origins a request may come with, also on loopback.

Any web page can send a form to 127.0.0.1, and a name that is made to resolve to 127.0.0.1 could read the
answer. So names must be known, and a browser must say that the request comes from our own page. An address as
the host is fine: only names can be made to resolve to something else.
"""

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from nearsight.server.errors import Problem, Renderers

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN_SITES = ("same-origin", "none")


class OriginCheck:
    """Refuses unknown hosts with 421, and changes from foreign pages with 403.

    Parameters
    ----------
    app : ASGI application
    renderers : Renderers
    names : iterable of str, or None
        Names of this service besides ``localhost``, the name of the machine, and addresses; None allows any.
    """

    def __init__(self, app: ASGIApp, renderers: Renderers, names: Iterable[str] | None = ()) -> None:
        self.app = app
        self._renderers = renderers
        self._allows_all = names is None
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names or ())}
        # Most requests come with one of a few names.
        self._knows = lru_cache(maxsize=64)(self._is_known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        problem = self._problem(scope) if scope["type"] == "http" else None
        if problem is None:
            await self.app(scope, receive, send)
        else:
            await self._renderers.response(problem, scope["path"])(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._allows_all and not self._knows(host):
            return Problem(421, "this host name is not known; start the service with --allowed-host NAME")
        if scope["method"] in _SAFE_METHODS:
            return None
        if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            return Problem(403, "a page of another site may not change anything here")
        origin = headers.get("origin")
        if origin is not None and (origin == "null" or urlsplit(origin).netloc.lower() != host.lower()):
            return Problem(403, "a page of another origin may not change anything here")
        return None

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
