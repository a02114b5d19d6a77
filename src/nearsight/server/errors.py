"""What can go wrong in a request: RFC 9457 problems, and how each client wants to read them.

A problem carries a member ``error`` as OpenAI's clients read it. Clients of other services get the shape that
they know: a dialect registers how it tells a problem, by the path of the request.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from nearsight import errors
from nearsight.server.log import request_id
from nearsight.text_format import without_passwords

_log = logging.getLogger("nearsight.server")

TITLES = {
    400: "Bad request",
    401: "A key is needed",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "The request came too slowly",
    409: "Conflict",
    412: "Changed meanwhile",
    413: "Too large",
    415: "Unsupported media type",
    421: "Unknown host",
    422: "Not understood",
    429: "Too many requests",
    499: "The client has left",
    500: "Internal error",
    501: "Not installed",
    503: "Not available now",
    504: "Too late",
    507: "Storage",
}

# The status of each error of the library, and whether its message may be told: a message with a path of this
# machine may not.
_STATUSES: list[tuple[type[errors.NearsightError], int, str | None]] = [
    (errors.ImageError, 400, None),
    (errors.UnknownIdError, 404, None),
    (errors.UnknownModelError, 404, "there is no such model here, or it has no such part"),
    (errors.MissingExtraError, 501, None),
    (errors.CalibrationError, 400, None),
    (errors.DetectorFileError, 409, "the detector is damaged, or of an earlier version; fit it again"),
    (errors.FilterError, 400, None),
    (errors.MetadataError, 400, None),
    (errors.VectorError, 400, None),
    (errors.RowsRefusedError, 400, None),
    (errors.FingerprintMismatchError, 409, "the collection holds vectors of another model or preprocessing"),
    (errors.CollectionNotFoundError, 404, "there is no such collection"),
    (errors.NotACollectionError, 409, "the collection is damaged; the log of the service says how"),
    (errors.NewerFormatError, 409, "a newer version of nearsight wrote the collection"),
    (errors.StorageError, 507, "the storage cannot be written or read; the log of the service says why"),
    (errors.InvalidParameterError, 400, None),
]


class Problem(Exception):  # noqa: N818 - the name in RFC 9457
    """An answer that is an error.

    Parameters
    ----------
    status : int
        HTTP status.
    detail : str
        The value, the rule and the remedy. Nothing of the machine.
    code : str, optional
        A short name for programs.
    param : str, optional
        The member of the request that is wrong.
    retry_after_s : float, optional
        When to try again.
    **members
        Further members, such as ``errors``.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or TITLES.get(status, "error").lower().replace(" ", "_")
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
        self.members = members

    def document(self, path: str) -> dict[str, Any]:
        """Return the problem as RFC 9457 has it, with OpenAI's ``error``."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "instance": path,
            "request_id": request_id.get(),
            "error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code},
            **self.members,
        }


#: How a dialect tells a problem: its body.
Renderer = Callable[[Problem], Any]


class Renderers:
    """How problems are told, by the path of the request.

    Parameters
    ----------
    by_path : mapping of str to Renderer
        For all other paths, a problem is RFC 9457.
    public : callable
        Takes the places of this machine out of what is told.
    """

    def __init__(
        self, by_path: Mapping[str, Renderer] | None = None, public: Callable[[str], str] = str
    ) -> None:
        self._by_path = dict(by_path or {})
        self._public = public

    def response(self, problem: Problem, path: str) -> Response:
        """Return the answer to a request at a path."""
        renderer = self._by_path.get(path)
        problem.detail = self._public(problem.detail)
        body = problem.document(path) if renderer is None else renderer(problem)
        media = "application/problem+json" if renderer is None else "application/json"
        content = without_passwords(orjson.dumps(body).decode())
        return Response(content, status_code=problem.status, media_type=media, headers=problem.headers)

    def answer(self, error: Exception, path: str) -> Response:
        """Return the answer to a request at a path that an exception ended."""
        problem = problem_of(error)
        if problem.status == 204:  # not a problem: there is nothing to tell any more
            return Response(status_code=204)
        return self.response(problem, path)


def problem_of(error: Exception) -> Problem:
    """Return what to tell about an exception; what is not for clients is logged."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, ClientDisconnect):
        return Problem(499, "the client has left")
    if isinstance(error, HTTPException):
        if error.detail == "Not Found":
            return Problem(404, "there is nothing at this path; GET /openapi.json lists what there is")
        return Problem(error.status_code, str(error.detail), headers=error.headers)
    for kind, status, detail in _STATUSES:
        if isinstance(error, kind):
            if detail is None:
                return Problem(status, str(error), code=kind.__name__)
            _log.warning("%s: %s", type(error).__name__, error)
            return Problem(status, detail, code=kind.__name__)
    _log.error("unexpected error", exc_info=error)
    return Problem(500, "the service has failed; its log has the reason under this request_id")


def public_message(kind: str, message: str) -> str:
    """Return what clients may read of an error of the library that another process raised.

    Parameters
    ----------
    kind : str
        Name of its class.
    message : str
    """
    raised = getattr(errors, kind, None)
    if isinstance(raised, type):
        for known, _, detail in _STATUSES:
            if issubclass(raised, known):
                return detail or message
    return message


def install(app: FastAPI, renderers: Renderers) -> None:
    """Let the app answer every exception as a problem."""

    async def answer(request: Request, error: Exception) -> Response:
        return renderers.answer(error, request.url.path)

    for kind in (Problem, RequestValidationError, HTTPException, errors.NearsightError, Exception):
        app.add_exception_handler(kind, answer)


def _of_validation(error: RequestValidationError) -> Problem:
    first: dict[str, Any] = next(iter(error.errors()), {})
    place = ".".join(str(part) for part in first.get("loc", ()))
    if first.get("type") == "json_invalid":
        return Problem(400, "the body is not valid JSON", param="body")
    if first.get("type") == "extra_forbidden":
        detail = f"{place} is not known here; GET /openapi.json says what can be sent"
        return Problem(422, detail, param=place)
    return Problem(422, f"{place}: {first.get('msg', 'is not valid')}", param=place)
