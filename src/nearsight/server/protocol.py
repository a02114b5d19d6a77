"""Connections whose requests must arrive in time, from the first byte of the head on."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class TimelyConnection(H11Protocol):
    """A connection that is closed if a request's head does not come within `timeout_s`.

    Without that, a client that sends a byte now and then holds a connection for ever, and thousands of them
    hold all that there are. A body has a deadline of its own (`BodyLimit`); what comes after the answer to a
    request whose body nobody read counts as the head of the next one. Between requests, the time for which a
    connection is kept alive applies.

    It is h11's protocol, not that of httptools, which holds heads of any length.
    """

    timeout_s = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        # Whether there was no request yet, and bytes of one: then an answer cannot be taken for another's.
        self._is_first, self._has_begun = True, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as there
        """Start the clock."""
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """Read on, and stop the clock if a request has come."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._is_first = False
            self._stop()
        elif not self.transport.is_closing():
            self._has_begun = True
            self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.timeout_s, self._close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self) -> None:
        if self._is_first and self._has_begun:
            self.transport.write(_TOO_SLOW)
        self.transport.close()


def timely(timeout_s: float) -> type[TimelyConnection]:
    """Return the protocol with a deadline for the heads of requests."""
    return type("TimelyConnection", (TimelyConnection,), {"timeout_s": timeout_s})
