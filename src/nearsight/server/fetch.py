"""Images at URLs, without letting a client reach what only this machine can reach.

A name is resolved once. Every address that it has must be public, and the connection goes to an address that
was checked, not to the name again. Redirects are followed by hand, each checked in the same way.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from nearsight.client.transport import library
from nearsight.server.errors import Problem
from nearsight.server.metrics import Metrics

_PORTS = {"http": 80, "https": 443}
_MAX_REDIRECTS = 3
_TIMEOUT_S = 10.0
_PARALLEL = 8

# Networks that `ipaddress` calls global in some version of Python although packets to them end elsewhere:
# translated IPv4 (NAT64, 6to4, Teredo), and the IETF's own protocols.
_NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/23",
        "fec0::/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "100.64.0.0/10",
        "0.0.0.0/8",
        "240.0.0.0/4",
    )
]

#: Returns the addresses of a host name.
Resolve = Callable[[str, int], Awaitable[list[str]]]


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, in every version of Python.

    Examples
    --------
    >>> [is_public(a) for a in ("93.184.215.14", "127.0.0.1", "64:ff9b::a9fe:a9fe", "::ffff:10.0.0.1")]
    [True, False, False, False]
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback:
        return False
    return not any(ip.version == network.version and ip in network for network in _NOT_PUBLIC)


async def resolve_name(host: str, port: int) -> list[str]:
    """Return the addresses of a host name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class UrlFetcher:
    """Fetches images at http and https URLs.

    Parameters
    ----------
    allowed : bool
        Whether URLs are fetched at all.
    max_bytes : int
        Of one image.
    max_total_bytes : int
        Of all images of a request.
    metrics : Metrics
    resolve, allows, ports
        Replaced in tests.
    """

    def __init__(
        self,
        *,
        allowed: bool,
        max_bytes: int,
        max_total_bytes: int,
        metrics: Metrics,
        resolve: Resolve = resolve_name,
        allows: Callable[[str], bool] = is_public,
        ports: Sequence[int] = tuple(_PORTS.values()),
    ) -> None:
        self._allowed, self._metrics = allowed, metrics
        self._max_bytes, self._max_total_bytes = max_bytes, max_total_bytes
        self._resolve, self._allows, self._ports = resolve, allows, ports
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def fetch_all(self, urls: Sequence[str]) -> list[bytes]:
        """Return the bytes at each URL, fetched at the same time.

        Raises
        ------
        Problem
            400: URLs are not allowed, or one cannot be fetched; it says which.
        """
        if not self._allowed:
            raise Problem(
                400,
                "URLs are not fetched here; send the image itself (the service can be started with "
                "--allow-urls)",
            )
        room = _Room(self._max_total_bytes)
        results = await asyncio.gather(*(self._fetch_one(url, room) for url in urls), return_exceptions=True)
        failed = [(i, each) for i, each in enumerate(results) if isinstance(each, BaseException)]
        if not failed:
            return [each for each in results if isinstance(each, bytes)]
        problems = [{"index": i, "detail": str(each)} for i, each in failed]
        raise Problem(
            400, f"URL {problems[0]['index']}: {problems[0]['detail']}", param="input", errors=problems
        )

    async def _fetch_one(self, url: str, room: "_Room") -> bytes:
        outcome = "refused"
        try:
            async with self._slots:
                data = await asyncio.wait_for(self._follow(url, room), _TIMEOUT_S)
            outcome = "ok"
            return data
        except asyncio.TimeoutError:
            outcome = "timeout"
            raise _FetchError(f"it took more than {_TIMEOUT_S:g} s") from None
        except _FetchError:
            raise
        except Exception as error:
            outcome = "failed"
            # The error's own text would tell who listens where.
            raise _FetchError("it cannot be fetched") from error
        finally:
            self._metrics.fetches.labels(outcome).inc()

    async def _follow(self, url: str, room: "_Room") -> bytes:
        for _ in range(_MAX_REDIRECTS + 1):
            parts, address, port = await self._checked(url)
            answer = await self._get(parts, address, port, room)
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
        raise _FetchError(f"it redirects more than {_MAX_REDIRECTS} times")

    async def _checked(self, url: str) -> tuple[SplitResult, str, int]:
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
            if parts.scheme in _PORTS and parts.hostname and port in self._ports and "@" not in parts.netloc:
                with contextlib.suppress(OSError, UnicodeError):
                    addresses = await self._resolve(parts.hostname, port)
                    if addresses and all(self._allows(address) for address in addresses):
                        return parts, addresses[0], port
        raise _FetchError("it must be an http or https URL at port 80 or 443 of a public address")

    async def _get(self, parts: SplitResult, address: str, port: int, room: "_Room") -> bytes | str:
        """Return the content, or where it redirects to."""
        http = library()
        literal = f"[{address}]" if ":" in address else address
        target = f"{parts.scheme}://{literal}:{port}{parts.path or '/'}" + (
            f"?{parts.query}" if parts.query else ""
        )
        options: dict[str, Any] = {"follow_redirects": False, "trust_env": False, "timeout": _TIMEOUT_S}
        async with (
            http.AsyncClient(**options) as client,
            client.stream(
                "GET",
                target,
                headers={"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity"},
                extensions={"sni_hostname": parts.hostname},
            ) as response,
        ):
            if response.status_code in (301, 302, 303, 307, 308):
                return str(response.headers.get("location", ""))
            if response.status_code != 200:
                raise _FetchError(f"its server answers {response.status_code}")
            data = bytearray()
            async for chunk in response.aiter_raw():
                data += chunk
                room.take(len(chunk))
                if len(data) > self._max_bytes:
                    raise _FetchError(f"it has more than {self._max_bytes / 2**20:g} MB")
            return bytes(data)


class _Room:
    """What the images of a request may take in memory; it is counted while they come."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0

    def take(self, n_bytes: int) -> None:
        self._n_bytes += n_bytes
        if self._n_bytes > self._max_bytes:
            raise _FetchError(
                f"the images of the request have more than {self._max_bytes / 2**20:g} MB together; send "
                "fewer in a request"
            )


class _FetchError(Exception):
    """Why a URL is not fetched, for the client."""
