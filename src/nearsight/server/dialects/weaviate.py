"""The inference container of Weaviate's module multi2vec-clip.

Weaviate reads `error` as a text. At its start it asks for readiness with half a second for each try, so that
route never stands behind the queue.
"""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.inputs import image_of, read_json, text_of
from nearsight.server.routes.models import facts_of
from nearsight.server.schemas import JSON_PROBLEMS, WEAVIATE
from nearsight.server.service import Service
from nearsight.server.vectors import embed_inputs

PATHS = ("/vectorize", "/meta")

router = APIRouter(tags=["Weaviate"], responses=JSON_PROBLEMS)


def render(problem: Problem) -> dict[str, str]:
    """Return a problem as Weaviate reads it."""
    return {"error": problem.detail}


@router.get("/.well-known/live", status_code=204)
async def live() -> Response:
    """Whether the process works."""
    return Response(status_code=204)


@router.get("/.well-known/ready", status_code=204)
async def ready(request: Request) -> Response:
    """Whether requests should come here."""
    return Response(status_code=503 if request.app.state.service.why_not_ready() else 204)


@router.get("/meta", dependencies=[requires("embed")])
async def meta(request: Request) -> dict[str, Any]:
    """Return what is known of the default model."""
    service: Service = request.app.state.service
    return facts_of(service, service.models.default)


@router.post("/vectorize", openapi_extra=WEAVIATE, dependencies=[requires("embed")], response_class=Response)
async def vectorize(request: Request) -> Response:
    """Embed texts and images for Weaviate."""
    body = await read_json(request)
    texts, images = body.get("texts") or [], body.get("images") or []
    if not isinstance(texts, list) or not isinstance(images, list) or not (texts or images):
        raise Problem(400, "send texts or images, as lists")
    inputs = [
        *(text_of(value, i) for i, value in enumerate(texts)),
        *(image_of(value, i) for i, value in enumerate(images)),
    ]
    vectors = (await embed_inputs(request, inputs)).vectors
    document = {"textVectors": list(vectors[: len(texts)]), "imageVectors": list(vectors[len(texts) :])}
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
