"""Whether the service lives, whether it is ready, and what it counts."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.metrics import CONTENT_TYPE

router = APIRouter(tags=["operations"])


@router.get("/health")
async def health(request: Request) -> dict[str, str]:
    """Whether the process works: never its queue or its models."""
    if not request.app.state.service.dispatcher.is_alive:
        raise Problem(500, "a worker has died; restart the service")
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> dict[str, str]:
    """Whether requests should come here: the default model is loaded, and nothing stops them."""
    if reason := request.app.state.service.why_not_ready():
        raise Problem(503, reason, code="not_ready", retry_after_s=1)
    return {"status": "ready"}


@router.get("/metrics", dependencies=[requires("read")], response_class=Response)
async def metrics(request: Request) -> Response:
    """Return the metrics for Prometheus."""
    return Response(request.app.state.service.metrics.text(), media_type=CONTENT_TYPE)
