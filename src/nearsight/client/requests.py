"""Requests and answers, and operations that are made of them.

An operation is a generator: it yields a request, is sent the answer, and at last returns the result. A
blocking client and an asynchronous one run the same operations.
"""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, TypeVar

from nearsight import errors
from nearsight.errors import ImageError, NearsightError, ServiceError

T = TypeVar("T")

_N_TRIES = 6
# A service that asks for more patience than this is down for this client.
_MAX_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the service.

    Attributes
    ----------
    method, path : str
    json : object, optional
        A body.
    files : list of tuple, optional
        Parts of a form: name, file name, content.
    data : mapping, optional
        Fields of a form.
    params : mapping, optional
        Of the query.
    headers : mapping, optional
        Beside the key.
    delay_s : float
        How long to wait before asking.
    """

    method: str
    path: str
    json: Any = None
    files: list[tuple[str, tuple[str, bytes]]] | None = None
    data: Mapping[str, Any] | None = None
    params: Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the body, which is JSON."""
        return json.loads(self.content)


#: A piece of work that yields requests, is sent their answers, and returns its result.
Operation: TypeAlias = Generator[Request, Answer, T]


class Named(Protocol):
    """What belongs to one collection."""

    name: str


def raise_if_refused(answer: Answer) -> None:
    """Raise the error that an answer tells.

    Raises
    ------
    NearsightError
        Of the same class that the library would raise, or `ServiceError`.
    """
    if answer.status < 400:
        return
    try:
        problem = answer.json()
        message, code = str(problem["detail"]), problem["error"].get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ServiceError(f"the service answers {answer.status}", answer.status) from None
    if answer.status == 401:
        message = f"{message.partition(';')[0]}; give one as Client(URL, key=KEY), or set NEARSIGHT_API_KEY"
    if code == "collection_not_found":
        raise errors.CollectionNotFoundError(message)
    if code == "rules_changed":
        raise errors.InvalidParameterError(message)
    kind = getattr(errors, str(code), None)
    if isinstance(kind, type) and issubclass(kind, NearsightError) and kind not in (ImageError, ServiceError):
        raise kind(message)
    if code in ("invalid_image", "ImageError"):
        raise ImageError("image", message)
    raise ServiceError(message, answer.status)


def with_retries(operation: Operation[T]) -> Operation[T]:
    """Return the operation, which asks again as long as the service is busy, and raises what it refuses.

    Raises
    ------
    NearsightError
        See `raise_if_refused`.
    """
    try:
        request = next(operation)
        while True:
            request = operation.send((yield from _answered(request)))
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        operation.close()


def _answered(request: Request) -> Operation[Answer]:
    for attempt in range(_N_TRIES):
        answer = yield request
        wait_s = _wait_s(answer, attempt)
        if wait_s is None:
            break
        request = replace(request, delay_s=wait_s)
    raise_if_refused(answer)
    return answer


def _wait_s(answer: Answer, attempt: int) -> float | None:
    """Return how long to wait before the next try; None if there is none."""
    if answer.status not in (429, 503) or attempt == _N_TRIES - 1:
        return None
    wanted = answer.headers.get("retry-after", "")
    wait_s = float(wanted) if wanted.isdigit() else 2.0**attempt
    return None if wait_s > _MAX_WAIT_S else wait_s
