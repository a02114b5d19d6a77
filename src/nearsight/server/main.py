"""Runs the service until it is told to stop."""

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import uvicorn
from filelock import FileLock, Timeout

from nearsight.errors import StorageError
from nearsight.server import log
from nearsight.server.app import create_app, create_immich_app
from nearsight.server.protocol import timely
from nearsight.server.service import Service
from nearsight.services.server_settings import ServerSettings

_LOCK = "service.lock"
_LAST_ANSWERS_S = 2


class Listener(uvicorn.Server):
    """A server that leaves the signals of the process alone: one process may have several."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


def run(
    settings: ServerSettings,
    *,
    device: str = "auto",
    cache_dir: Path | None = None,
    listening: Callable[[list[str]], Any] = print,
) -> None:
    """Run the service until SIGTERM or Ctrl-C, and finish what was accepted.

    Parameters
    ----------
    settings : ServerSettings
    device, cache_dir
        See `load_model`.
    listening : callable
        Called with the addresses once the service listens.

    Raises
    ------
    InvalidParameterError
        The service would be reachable from outside without a key, or a setting is wrong.
    StorageError
        The port is taken, or the address is not of this machine.
    """
    log.configure(settings.log_format)
    with _only_service(Path(settings.data)):
        asyncio.run(_run(settings, device, cache_dir, listening))


@contextlib.contextmanager
def _only_service(data: Path) -> Iterator[None]:
    """Keep a second service away from a data directory: it would take the first one's jobs for lost."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        with FileLock(data / _LOCK, timeout=0):
            yield
    except Timeout:
        raise StorageError(
            f"another service uses the data directory {data}; stop it, or choose another --data"
        ) from None


async def _run(
    settings: ServerSettings, device: str, cache_dir: Path | None, listening: Callable[[list[str]], Any]
) -> None:
    service = Service(settings, device=device, cache_dir=cache_dir)
    listeners = [_listener(create_app(service), settings.host, settings.port, settings)]
    if settings.immich:
        # The service starts and stops with the first listener only.
        immich = create_immich_app(service)
        listeners.append(
            _listener(immich, settings.immich_host, settings.immich_port, settings, lifespan="off")
        )
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # Streams end now, so that connections can close; uvicorn's own shutdown comes after them.
        service.begin_stop()
        for listener in listeners:
            listener.should_exit = True

    for name in ("SIGTERM", "SIGINT"):
        with contextlib.suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(getattr(signal, name), stop)
    sockets = [_bind(listener) for listener in listeners]
    listening([_url(*each.getsockname()[:2]) for each in sockets])
    await asyncio.gather(
        *(listener.serve(sockets=[each]) for listener, each in zip(listeners, sockets, strict=True))
    )


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _bind(listener: Listener) -> socket.socket:
    """Return a socket that listens: what comes from now on waits, and is not refused."""
    config = listener.config
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        bound = socket.create_server((config.host, config.port), family=family, backlog=config.backlog)
    except OSError as error:
        raise StorageError(
            f"{config.host}:{config.port} cannot be listened on: it is taken, or not of this machine; "
            "choose another --port or --host"
        ) from error
    # asyncio sets this only on sockets that name their protocol, which this one does not. Without it, the
    # body of an answer waits 40 ms, until the client has acknowledged the head.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _listener(
    app: Any, host: str, port: int, settings: ServerSettings, *, lifespan: Literal["on", "off"] = "on"
) -> Listener:
    return Listener(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=settings.keep_alive_s,
            # What waits after the time of grace is told so, which takes a moment more.
            timeout_graceful_shutdown=math.ceil(settings.grace_s) + _LAST_ANSWERS_S,
            lifespan=lifespan,
            http=timely(settings.read_timeout_s),
            ws="none",
        )
    )
