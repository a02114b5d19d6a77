"""Care of a collection: compact it."""

from typing import Any

from fastapi import APIRouter

from nearsight.server.auth import requires
from nearsight.server.routes.jobs import StartAnalysis

router = APIRouter(prefix="/v1/collections/{name}", tags=["collections"])


@router.post("/compact", status_code=202, dependencies=[requires("write")])
async def compact(start: StartAnalysis) -> dict[str, Any]:
    """Rewrite the collection into fewer and larger files, as a job; its result says what that freed."""
    return await start("compact")
