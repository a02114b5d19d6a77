"""How large, how slow and how frequent requests may be."""

import asyncio
import time
from collections.abc import Callable

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearsight.server.errors import Problem, Renderers

_MB = 2**20
# What anybody may send: a key, or a request that is refused for want of one that allows it.
_UNADMITTED_BYTES = 2**16


class BodyLimit:
    """Refuses bodies that are too large (413) or come too slowly (408), before they are parsed.

    Bytes are counted as they arrive, so that a body without a length is limited, too. Nothing of a body
    that is refused is kept.

    Parameters
    ----------
    app : ASGI application
    renderers : Renderers
    max_bytes : int
    timeout_s : float
        From the first read to the last.
    refuse_unadmitted : callable
        Returns why somebody may not send much; None if he may. A route asks for a key and its scope only when
        the body has been read and parsed, and in memory, JSON can be thirty times as large.
    """

    def __init__(
        self,
        app: ASGIApp,
        renderers: Renderers,
        *,
        max_bytes: int,
        timeout_s: float,
        refuse_unadmitted: Callable[[HTTPConnection], Problem | None],
    ) -> None:
        self.app = app
        self._renderers = renderers
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._refuse_unadmitted = refuse_unadmitted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = next((v for k, v in scope["headers"] if k == b"content-length"), b"0")
        n_expected = int(length) if length.isdigit() else 0
        if (problem := self._refusal(scope, n_expected)) is not None:
            await self._refuse(problem, scope, receive, send)
            return
        n_bytes, deadline, is_done, has_begun = 0, 0.0, False, False
        is_known = n_expected > _UNADMITTED_BYTES
        refusal: Problem | None = None

        async def receive_limited() -> Message:
            nonlocal n_bytes, deadline, is_done, is_known, refusal
            if is_done:  # what follows is only whether the client has left
                return await receive()
            deadline = deadline or time.monotonic() + self._timeout_s
            try:
                message = await _received(receive, deadline - time.monotonic())
            except TimeoutError:
                refusal = self._too_slow()
                raise refusal from None
            n_bytes += len(message.get("body", b""))
            is_done = message["type"] != "http.request" or not message.get("more_body", False)
            if n_bytes > self._max_bytes or (n_bytes > _UNADMITTED_BYTES and not is_known):
                refusal = self._refusal(scope, n_bytes)
                is_known = True
                if refusal is not None:
                    raise refusal
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal has_begun
            # A parser may have turned the refusal into an error of its own.
            if refusal is None or has_begun:
                has_begun = True
                await send(message)

        try:
            await self.app(scope, receive_limited, send_unless_refused)
        except Exception:
            if refusal is None or has_begun:
                raise
        if refusal is not None and not has_begun:
            await self._refuse(refusal, scope, receive, send)

    def _refusal(self, scope: Scope, n_bytes: int) -> Problem | None:
        """Return why a body of so many bytes is refused."""
        if n_bytes > _UNADMITTED_BYTES:
            problem = self._refuse_unadmitted(HTTPConnection(scope))
            if problem is not None:
                problem.headers["Connection"] = "close"
                return problem
        return self._too_large() if n_bytes > self._max_bytes else None

    def _too_slow(self) -> Problem:
        return Problem(
            408,
            f"the body did not arrive within {self._timeout_s:g} s; send it faster or in parts",
            headers={"Connection": "close"},
        )

    def _too_large(self) -> Problem:
        return Problem(
            413,
            f"the body has more than {self._max_bytes / _MB:g} MB; send fewer or smaller images, or "
            f"start the "
            "service with --max-request-mb",
            headers={"Connection": "close"},
        )

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        await self._renderers.response(problem, scope["path"])(scope, receive, send)


async def _received(receive: Receive, timeout_s: float) -> Message:
    """Return the next part of a request, or raise TimeoutError.

    `asyncio.wait_for` would start a task for each part, and the scopes of anyio take ten times as long.
    """
    task, is_late = asyncio.current_task(), False

    def end() -> None:
        nonlocal is_late
        is_late = True
        if task is not None:
            task.cancel()

    timer = asyncio.get_running_loop().call_later(max(0.0, timeout_s), end)
    try:
        return await receive()
    except asyncio.CancelledError:
        if not is_late:
            raise
        if task is not None and hasattr(task, "uncancel"):  # from Python 3.11 on, cancellations are counted
            task.uncancel()
        raise TimeoutError from None
    finally:
        timer.cancel()


class RateLimit:
    """A bucket of tokens for each key.

    Parameters
    ----------
    per_second : float
        Requests per second on average; 0 allows any number. Ten seconds' worth may come at once.
    clock : callable
        Seconds.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_second
        self._capacity = max(1.0, 10 * per_second)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> None:
        """Take one token.

        Raises
        ------
        Problem
            429 with the time after which there is one.
        """
        if not self._rate:
            return
        now = self._clock()
        tokens, since = self._buckets.get(name, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - since) * self._rate)
        if tokens < 1:
            self._buckets[name] = (tokens, now)
            raise Problem(
                429, "this key makes too many requests; wait", retry_after_s=(1 - tokens) / self._rate
            )
        self._buckets[name] = (tokens - 1, now)
