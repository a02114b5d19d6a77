"""The session of the page: a cookie, since images and event streams cannot send a header."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from nearsight.server.auth import COOKIE
from nearsight.server.schemas import RequestBody

router = APIRouter(prefix="/v1/session", tags=["session"])


class SessionRequest(RequestBody):
    """A key, once."""

    key: str


@router.post("", status_code=204)
async def begin(request: Request, body: SessionRequest) -> Response:
    """Begin a session with a key."""
    response = Response(status_code=204)
    response.set_cookie(
        COOKIE,
        request.app.state.service.gate.session(body.key),
        httponly=True,
        samesite="strict",
        path="/",
        secure=request.url.scheme == "https",
        max_age=7 * 24 * 3600,
    )
    return response


@router.delete("", status_code=204)
async def end() -> Response:
    """End the session."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response


@router.get("")
async def current(request: Request) -> dict[str, bool]:
    """Whether a key is needed at all."""
    return {"needs_key": not request.app.state.service.gate.is_open}
