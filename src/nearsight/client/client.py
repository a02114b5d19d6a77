"""A blocking and an asynchronous client: two ways to wait for the calls of `nearsight.client.calls`."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from nearsight.client.calls import Awaiting, Blocking, ClientCalls, CollectionCalls, DetectorCalls, FaceCalls
from nearsight.client.requests import Answer, Operation, Request, with_retries
from nearsight.client.transport import library
from nearsight.collection.results import Item
from nearsight.errors import InvalidParameterError, ServiceError
from nearsight.settings import environment

T = TypeVar("T")

_KEY = "NEARSIGHT_API_KEY"
_PAGE = 1000


class Client(ClientCalls, Blocking):
    """A client of the service, which waits for each answer.

    A service that is busy is asked again when it says so.

    Parameters
    ----------
    url : str
        Where the service is, such as ``http://127.0.0.1:8000``.
    key : str, optional
        By default the variable ``NEARSIGHT_API_KEY``.
    timeout_s : float, default 120
        For each answer.

    Raises
    ------
    ServiceError
        By all methods: the service cannot be reached, or refuses. What the library would refuse raises the
        library's errors.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 120.0) -> None:
        self._client = self
        self._http = library().Client(**_options(url, key, timeout_s))

    def collection(self, name: str) -> "RemoteCollection":
        """Return a collection of the service."""
        return RemoteCollection(self, name)

    def create_collection(
        self, name: str, *, model: str | None = None, storage: str = "float32", like: str | None = None
    ) -> "RemoteCollection":
        """Create a collection with a model of the service, or `like` one of its collections."""
        self._create(name, model=model, storage=storage, like=like)
        return RemoteCollection(self, name)

    def run(self, operation: Operation[T]) -> T:
        """Run an operation to its end."""
        steps: Any = with_retries(operation)
        answer: Answer | None = None
        try:
            while True:
                request = steps.send(answer)
                time.sleep(request.delay_s)
                answer = self._answer(request)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer(self, request: Request) -> Answer:
        try:
            return _answer(self._http.request(**_arguments(request)))
        except library().HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error


class AsyncClient(ClientCalls, Awaiting):
    """As `Client`, for ``async`` code: every method is awaited.

    Parameters
    ----------
    url, key, timeout_s
        See `Client`.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 120.0) -> None:
        self._client = self
        self._http = library().AsyncClient(**_options(url, key, timeout_s))

    def collection(self, name: str) -> "AsyncRemoteCollection":
        """Return a collection of the service."""
        return AsyncRemoteCollection(self, name)

    async def create_collection(
        self, name: str, *, model: str | None = None, storage: str = "float32", like: str | None = None
    ) -> "AsyncRemoteCollection":
        """Create a collection with a model of the service, or `like` one of its collections."""
        await self._create(name, model=model, storage=storage, like=like)
        return AsyncRemoteCollection(self, name)

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation to its end."""
        steps: Any = with_retries(operation)
        answer: Answer | None = None
        try:
            while True:
                # Reading files blocks, so it happens in a thread.
                request = await asyncio.to_thread(_advance, steps, answer)
                if not isinstance(request, Request):
                    result: T = request[0]
                    return result
                await asyncio.sleep(request.delay_s)
                answer = await self._answer(request)
        finally:
            # Where the call is cancelled while a thread reads files, that thread still has it; it is closed
            # when nobody has it any more.
            with suppress(ValueError):
                steps.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _answer(self, request: Request) -> Answer:
        try:
            return _answer(await self._http.request(**_arguments(request)))
        except library().HTTPError as error:
            raise _unreachable(self._http.base_url, error) from error


class RemoteCollection(CollectionCalls, Blocking):
    """A collection of a service, with the methods of `Collection`.

    Parameters
    ----------
    client : Client
    name : str
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    @property
    def faces(self) -> "RemoteFaces":
        """The faces in the images; needs a key with the scope ``faces``."""
        return RemoteFaces(self._client, self.name)

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"RemoteCollection({self.name!r})"

    def detector(self, name: str) -> "RemoteDetector":
        """Return a detector of the collection."""
        return RemoteDetector(self._client, self.name, name)

    def items(self, where: str | None = None) -> Iterator[Item]:
        """Stream the images, or those that match, in the order they came in."""
        offset = 0
        while page := self.page(where, offset=offset, limit=_PAGE):
            yield from page
            offset += _PAGE


class AsyncRemoteCollection(CollectionCalls, Awaiting):
    """As `RemoteCollection`, for ``async`` code.

    Parameters
    ----------
    client : AsyncClient
    name : str
    """

    def __init__(self, client: AsyncClient, name: str) -> None:
        self._client = client
        self.name = name

    @property
    def faces(self) -> "AsyncRemoteFaces":
        """The faces in the images; needs a key with the scope ``faces``."""
        return AsyncRemoteFaces(self._client, self.name)

    def detector(self, name: str) -> "AsyncRemoteDetector":
        """Return a detector of the collection."""
        return AsyncRemoteDetector(self._client, self.name, name)

    async def items(self, where: str | None = None) -> AsyncIterator[Item]:
        """Stream the images, or those that match, in the order they came in."""
        offset = 0
        while page := await self.page(where, offset=offset, limit=_PAGE):
            for item in page:
                yield item
            offset += _PAGE


class RemoteFaces(FaceCalls, Blocking):
    """The faces of a collection of a service: find, name, correct and forget people; identify.

    Parameters
    ----------
    client : Client
    name : str
        Of the collection.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name


class AsyncRemoteFaces(FaceCalls, Awaiting):
    """As `RemoteFaces`, for ``async`` code.

    Parameters
    ----------
    client : AsyncClient
    name : str
        Of the collection.
    """

    def __init__(self, client: AsyncClient, name: str) -> None:
        self._client = client
        self.name = name


class RemoteDetector(DetectorCalls, Blocking):
    """A detector of a service; `score` gives what `AnomalyDetector.score` gives.

    Parameters
    ----------
    client : Client
    collection, name : str
    """

    def __init__(self, client: Client, collection: str, name: str) -> None:
        self._client = client
        self.collection = collection
        self.name = name


class AsyncRemoteDetector(DetectorCalls, Awaiting):
    """As `RemoteDetector`, for ``async`` code.

    Parameters
    ----------
    client : AsyncClient
    collection, name : str
    """

    def __init__(self, client: AsyncClient, collection: str, name: str) -> None:
        self._client = client
        self.collection = collection
        self.name = name


def open_collection(url: str, *, key: str | None = None) -> RemoteCollection:
    """Return the collection at a URL: ``http://HOST:PORT/NAME``, or with ``/v1/collections/`` in between.

    Raises
    ------
    CollectionNotFoundError
        The service has none of that name.
    ServiceError
        The service cannot be reached, or refuses.
    """
    parts = urlsplit(url)
    place, _, name = parts.path.rstrip("/").rpartition("/")
    if not name:
        raise InvalidParameterError(f"{url} names no collection; write http://HOST:PORT/NAME")
    prefix = place.removesuffix("/v1/collections")
    client = Client(f"{parts.scheme}://{parts.netloc}{prefix}", key=key)
    collection = client.collection(unquote(name))
    try:
        collection.info()
    except BaseException:
        client.close()
        raise
    return collection


def _advance(steps: Any, answer: Answer | None) -> Request | tuple[Any]:
    """Return the next request, or the result in a tuple: a thread cannot pass StopIteration on."""
    try:
        request: Request = steps.send(answer)
        return request
    except StopIteration as end:
        return (end.value,)


def _options(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise InvalidParameterError(f"{url!r} is no address of a service; write http://HOST:PORT")
    secret = key or environment().get(_KEY)
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return {"base_url": url, "headers": headers, "timeout": timeout_s}


def _arguments(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.path,
        "json": request.json,
        "files": request.files,
        "data": request.data,
        "params": request.params,
        "headers": request.headers,
    }


def _answer(response: Any) -> Answer:
    headers: Mapping[str, str] = response.headers
    return Answer(response.status_code, response.content, headers)


def _unreachable(url: object, error: Exception) -> ServiceError:
    return ServiceError(
        f"the service at {url} cannot be reached ({type(error).__name__}: {error}); is nearsight serve "
        f"running there?"
    )
