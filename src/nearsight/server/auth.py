"""Who asks, and what they may do: keys in headers, and a cookie for the page."""

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import Depends
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import HTTPConnection
from starlette.routing import Match

from nearsight.server.errors import Problem
from nearsight.server.limits import RateLimit
from nearsight.server.request_threads import note_collection
from nearsight.services.keys import ApiKey, KeyStore

COOKIE = "nearsight_session"
# Python also takes other characters for digits, of which it makes no number.
_DIGITS = re.compile(r"[0-9]{1,12}")
_SESSION_S = 7 * 24 * 3600


class Gate:
    """Decides who may do what.

    Without any key, everybody may do everything: the service then listens on loopback only. Once there was a
    key, one is needed: to revoke the last one locks everybody out, and does not let everybody in.

    Parameters
    ----------
    keys : KeyStore
    extra : sequence of ApiKey
        Keys that the settings hold.
    rate : RateLimit
    may_be_open : bool
        Whether everybody may do everything as long as there was no key.
    """

    def __init__(
        self,
        keys: KeyStore,
        extra: Sequence[ApiKey] = (),
        rate: RateLimit | None = None,
        *,
        may_be_open: bool = True,
    ) -> None:
        self._keys = keys
        self._extra = tuple(extra)
        self._rate = rate or RateLimit(0)
        self._may_be_open = may_be_open and not self._extra and not len(keys)

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        if self._may_be_open and len(self._keys):
            self._may_be_open = False
        return self._may_be_open

    def admit(self, request: HTTPConnection, scope: str) -> ApiKey | None:
        """Return the key of a request, if it has the scope; None where no key is needed.

        Raises
        ------
        Problem
            401 without a valid key, 403 without the scope, 429 beyond the rate.
        """
        client = request.client.host if request.client else ""
        if self.is_open:
            self._rate.take(client)
            return None
        key = self._key_of(request)
        request.state.key_prefix = key.prefix
        self._rate.take(key.prefix)
        _require_scope(key, scope)
        return key

    def refusal(self, request: HTTPConnection, scopes: Iterable[str] = ()) -> Problem | None:
        """Return why somebody may not send a request: for want of a valid key, or of one that has the scopes.

        None where he may, or no key is needed.
        """
        try:
            if not self.is_open:
                key = self._key_of(request)
                for scope in scopes:
                    _require_scope(key, scope)
        except Problem as problem:
            return problem
        return None

    def session(self, secret: str) -> str:
        """Return the cookie of a new session for a key.

        Raises
        ------
        Problem
            401: the key is not valid.
        """
        key = self._keys.find(secret, self._extra)
        if key is None:
            raise Problem(401, "the key is not valid", code="invalid_api_key")
        return _signed(key, int(time.time()) + _SESSION_S)

    def _key_of(self, request: HTTPConnection) -> ApiKey:
        secret = secret_of(request)
        key = self._keys.find(secret, self._extra) if secret else self._of_session(request)
        if key is None:
            what = "the key is not valid" if secret else "a key is needed"
            raise Problem(
                401,
                f"{what}; send one as 'Authorization: Bearer KEY' (nearsight keys add makes one)",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return key

    def _of_session(self, request: HTTPConnection) -> ApiKey | None:
        cookie = request.cookies.get(COOKIE, "")
        prefix, _, rest = cookie.partition("/")
        expiry, _, _ = rest.partition("/")
        if not _DIGITS.fullmatch(expiry) or int(expiry) < time.time():
            return None
        for key in (*self._keys.all(), *self._extra):
            if key.prefix == prefix and hmac.compare_digest(_signed(key, int(expiry)), cookie):
                return key
        return None


class Admission(HTTPBearer):
    """Admits a request with a scope; documented as a bearer token, though other headers will do."""

    def __init__(self, scope: str) -> None:
        description = "A key from `nearsight keys add`."
        super().__init__(scheme_name="HTTPBearer", description=description, auto_error=False)
        self.scope = scope

    async def __call__(self, request: HTTPConnection) -> Any:
        """Return the key of a request; see `Gate.admit`."""
        gate: Gate = request.app.state.service.gate
        note_collection(request.path_params)
        return gate.admit(request, self.scope)


def requires(scope: str) -> Any:
    """Return the dependency of routes that need a scope."""
    return Depends(Admission(scope))


def scopes_of(route: APIRoute) -> list[str]:
    """Return the scopes that a route needs."""
    dependencies = [each.dependency for each in route.dependencies]
    return [each.scope for each in dependencies if isinstance(each, Admission)]


class NeededScopes:
    """The scopes that requests need, by their paths, before anything else of a request is looked at."""

    def __init__(self, routes: Iterable[object]) -> None:
        self._routes = [(each, scopes_of(each)) for each in routes if isinstance(each, APIRoute)]

    def __call__(self, request: HTTPConnection) -> list[str]:
        """Return the scopes; none where there is no such route."""
        for route, scopes in self._routes:
            if route.matches(request.scope)[0] == Match.FULL:
                return scopes
        return []


def secret_of(request: HTTPConnection) -> str:
    """Return the key that a request carries: as bearer token, ``X-API-Key``, or password."""
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return request.headers.get("x-api-key", "")


def _require_scope(key: ApiKey, scope: str) -> None:
    if not key.allows(scope):
        raise Problem(
            403,
            f"this key has the scopes {', '.join(key.scopes)}; this needs {scope} "
            f"(nearsight keys add NAME --scope {scope} makes a key that has it)",
            code="insufficient_scope",
        )


def _signed(key: ApiKey, expiry: int) -> str:
    # The hash of the key is a secret of this machine; a revoked key ends its sessions.
    text = f"{key.prefix}/{expiry}"
    return f"{text}/{hmac.new(key.sha256.encode(), text.encode(), hashlib.sha256).hexdigest()}"
