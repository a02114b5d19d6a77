"""Connections whose requests must arrive in time, and whose answers arrive whatever is still sent."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
# How long a client may go on sending what nobody reads, until it has read the answer.
_LINGER_S = 2.0


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
        self._lingering: _LingeringTransport
        # Whether there was no request yet: then an answer cannot be taken for another's.
        self._is_first = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as there
        """Start the clock."""
        self._lingering = _LingeringTransport(transport, self)
        super().connection_made(self._lingering)  # type: ignore[arg-type]  # it acts as one
        self._start()

    def data_received(self, data: bytes) -> None:
        """Read on, and stop the clock if a request has come."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._is_first = False
            self._stop()
        elif not self.transport.is_closing():
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
        if self._is_first:
            # Also where nothing has come: on a busy machine, a client may connect now and send later.
            self.transport.write(_TOO_SLOW)
            self._lingering.linger()
        else:
            self.transport.close()


class _LingeringTransport:
    """A transport that is closed when the client has read what was written.

    A system that gets bytes for a closed connection answers with a reset, by which a client that is still
    sending can lose the answer: why it was refused, and when to come again.
    """

    def __init__(self, transport: asyncio.Transport, connection: TimelyConnection) -> None:
        self._transport, self._connection, self._is_ended = transport, connection, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Return whether nothing is read and written any more."""
        return self._is_ended or self._transport.is_closing()

    def close(self) -> None:
        """Close the connection; where the client may still be sending a request, linger."""
        is_sending = self._connection.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if is_sending and not self.is_closing():
            self.linger()
        else:
            self._transport.close()

    def linger(self) -> None:
        """End the answer now, and the connection when the client does, or a moment later."""
        self._is_ended = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._connection.loop.call_later(_LINGER_S, self._transport.close)


def timely(timeout_s: float) -> type[TimelyConnection]:
    """Return the protocol with a deadline for the heads of requests."""
    return type("TimelyConnection", (TimelyConnection,), {"timeout_s": timeout_s})
