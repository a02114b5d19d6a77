"""A blocking and an asynchronous client; both run the operations of `nearsight.client.operations`."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from nearsight.client import operations
from nearsight.client.operations import Answer, Operation, Request, raise_if_refused
from nearsight.client.transport import library
from nearsight.collection.results import Item
from nearsight.errors import InvalidParameterError, ServiceError
from nearsight.settings import environment

P = ParamSpec("P")
T = TypeVar("T")

_KEY = "NEARSIGHT_API_KEY"
_N_TRIES = 6
# A service that asks for more patience than this is down for this client.
_MAX_WAIT_S = 60.0
_POLL_S = 0.5
_PAGE = 1000


def _blocking(operation: Callable[Concatenate[Any, P], Operation[T]]) -> Callable[Concatenate[Any, P], T]:
    @functools.wraps(operation)
    def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self._client.run(operation(self, *args, **kwargs))
        return result

    return method


def _awaitable(
    operation: Callable[Concatenate[Any, P], Operation[T]],
) -> Callable[Concatenate[Any, P], Awaitable[T]]:
    @functools.wraps(operation)
    async def method(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await self._client.run(operation(self, *args, **kwargs))
        return result

    return method


class Client:
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

    embed = _blocking(operations.embed)
    embed_texts = _blocking(operations.embed_texts)
    models = _blocking(operations.models)
    collections = _blocking(operations.collections)
    delete_collection = _blocking(operations.delete)
    jobs = _blocking(operations.jobs)
    job = _blocking(operations.job)
    cancel_job = _blocking(operations.cancel)
    _create = _blocking(operations.create)

    def collection(self, name: str) -> "RemoteCollection":
        """Return a collection of the service."""
        return RemoteCollection(self, name)

    def create_collection(
        self, name: str, *, model: str | None = None, storage: str = "float32"
    ) -> "RemoteCollection":
        """Create a collection with the vectors of a model of the service."""
        self._create(name, model=model, storage=storage)
        return RemoteCollection(self, name)

    def wait(self, id: str) -> dict[str, Any]:
        """Wait until a job has ended, and return it.

        Raises
        ------
        ServiceError
            It failed, or was cancelled or interrupted.
        """
        while not _has_ended(job := self.job(id)):
            time.sleep(_POLL_S)
        return job

    def run(self, operation: Operation[T]) -> T:
        """Run an operation to its end."""
        answer: Answer | None = None
        try:
            while True:
                request = next(operation) if answer is None else operation.send(answer)
                answer = self._ask(request)
        except StopIteration as end:
            result: T = end.value
            return result

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, request: Request) -> Answer:
        for attempt in range(_N_TRIES):
            try:
                answer = _answer(self._http.request(**_arguments(request)))
            except library().HTTPError as error:
                raise _unreachable(self._http.base_url, error) from error
            wait_s = _wait_s(answer, attempt)
            if wait_s is None:
                break
            time.sleep(wait_s)
        raise_if_refused(answer)
        return answer


class AsyncClient:
    """As `Client`, for ``async`` code: every method is awaited.

    Parameters
    ----------
    url, key, timeout_s
        See `Client`.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout_s: float = 120.0) -> None:
        self._client = self
        self._http = library().AsyncClient(**_options(url, key, timeout_s))

    embed = _awaitable(operations.embed)
    embed_texts = _awaitable(operations.embed_texts)
    models = _awaitable(operations.models)
    collections = _awaitable(operations.collections)
    delete_collection = _awaitable(operations.delete)
    jobs = _awaitable(operations.jobs)
    job = _awaitable(operations.job)
    cancel_job = _awaitable(operations.cancel)
    _create = _awaitable(operations.create)

    def collection(self, name: str) -> "AsyncRemoteCollection":
        """Return a collection of the service."""
        return AsyncRemoteCollection(self, name)

    async def create_collection(
        self, name: str, *, model: str | None = None, storage: str = "float32"
    ) -> "AsyncRemoteCollection":
        """Create a collection with the vectors of a model of the service."""
        await self._create(name, model=model, storage=storage)
        return AsyncRemoteCollection(self, name)

    async def wait(self, id: str) -> dict[str, Any]:
        """Wait until a job has ended, and return it; see `Client.wait`."""
        while not _has_ended(job := await self.job(id)):
            await asyncio.sleep(_POLL_S)
        return job

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation to its end."""
        answer: Answer | None = None
        try:
            while True:
                # Reading files blocks, so it happens in a thread.
                send = functools.partial(_advance, operation, answer)
                request = await asyncio.to_thread(send)
                if not isinstance(request, Request):
                    result: T = request[0]
                    return result
                answer = await self._ask(request)
        finally:
            operation.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _ask(self, request: Request) -> Answer:
        for attempt in range(_N_TRIES):
            try:
                answer = _answer(await self._http.request(**_arguments(request)))
            except library().HTTPError as error:
                raise _unreachable(self._http.base_url, error) from error
            wait_s = _wait_s(answer, attempt)
            if wait_s is None:
                break
            await asyncio.sleep(wait_s)
        raise_if_refused(answer)
        return answer


class RemoteCollection:
    """A collection of a service, with the methods of `Collection`.

    Parameters
    ----------
    client : Client
    name : str
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    info = _blocking(operations.info)
    count = _blocking(operations.count)
    page = _blocking(operations.page)
    get = _blocking(operations.get)
    search = _blocking(operations.search)
    add = _blocking(operations.add)
    index = _blocking(operations.index)
    update_metadata = _blocking(operations.update_metadata)
    remove = _blocking(operations.remove)
    vectors = _blocking(operations.vectors)
    thumbnails = _blocking(operations.thumbnails)
    original = _blocking(operations.original)

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"RemoteCollection({self.name!r})"

    def items(self, where: str | None = None) -> Iterator[Item]:
        """Stream the images, or those that match, in the order they came in."""
        offset = 0
        while page := self.page(where, offset=offset, limit=_PAGE):
            yield from page
            offset += _PAGE

    def metadata_types(self) -> dict[str, str]:
        """Return the keys of the metadata, and the type of each: "string", "double" or "bool"."""
        types: dict[str, str] = self.info()["metadata"]
        return types


class AsyncRemoteCollection:
    """As `RemoteCollection`, for ``async`` code.

    Parameters
    ----------
    client : AsyncClient
    name : str
    """

    def __init__(self, client: AsyncClient, name: str) -> None:
        self._client = client
        self.name = name

    info = _awaitable(operations.info)
    count = _awaitable(operations.count)
    page = _awaitable(operations.page)
    get = _awaitable(operations.get)
    search = _awaitable(operations.search)
    add = _awaitable(operations.add)
    index = _awaitable(operations.index)
    update_metadata = _awaitable(operations.update_metadata)
    remove = _awaitable(operations.remove)
    vectors = _awaitable(operations.vectors)
    thumbnails = _awaitable(operations.thumbnails)
    original = _awaitable(operations.original)

    async def items(self, where: str | None = None) -> AsyncIterator[Item]:
        """Stream the images, or those that match, in the order they came in."""
        offset = 0
        while page := await self.page(where, offset=offset, limit=_PAGE):
            for item in page:
                yield item
            offset += _PAGE


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


def _advance(operation: Operation[T], answer: Answer | None) -> Request | tuple[T]:
    """Return the next request, or the result in a tuple: a thread cannot pass StopIteration on."""
    try:
        return next(operation) if answer is None else operation.send(answer)
    except StopIteration as end:
        return (end.value,)


def _options(url: str, key: str | None, timeout_s: float) -> dict[str, Any]:
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
    }


def _answer(response: Any) -> Answer:
    headers: Mapping[str, str] = response.headers
    return Answer(response.status_code, response.content, headers)


def _wait_s(answer: Answer, attempt: int) -> float | None:
    """Return how long to wait before the next try; None if there is none."""
    if answer.status not in (429, 503) or attempt == _N_TRIES - 1:
        return None
    wanted = answer.headers.get("retry-after", "")
    wait_s = float(wanted) if wanted.isdigit() else 2.0**attempt
    return None if wait_s > _MAX_WAIT_S else wait_s


def _unreachable(url: object, error: Exception) -> ServiceError:
    return ServiceError(
        f"the service at {url} cannot be reached ({type(error).__name__}: {error}); is nearsight serve "
        f"running there?"
    )


def _has_ended(job: Mapping[str, Any]) -> bool:
    if job["state"] in ("failed", "cancelled", "interrupted"):
        raise ServiceError(f"the job {job['id']} is {job['state']}: {job['error'] or 'it has no result'}")
    return bool(job["state"] == "done")
