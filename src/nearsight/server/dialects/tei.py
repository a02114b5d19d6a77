"""What clients of Text Embeddings Inference send to `POST /embed`."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.inputs import read_json, text_of
from nearsight.server.schemas import JSON_PROBLEMS, TEI
from nearsight.server.service import Service
from nearsight.server.vectors import embed_inputs

PATHS = ("/embed", "/info")

router = APIRouter(tags=["TEI"], dependencies=[requires("embed")], responses=JSON_PROBLEMS)


def render(problem: Problem) -> dict[str, str]:
    """Return a problem as these clients read it."""
    kind = "overloaded" if problem.status == 429 else "validation" if problem.status < 500 else "backend"
    return {"error": problem.detail, "error_type": kind}


@router.post("/embed", openapi_extra=TEI, response_class=Response)
async def embed(request: Request) -> Response:
    """Embed texts, and return a bare array."""
    body = await read_json(request)
    texts = body.get("inputs")
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list):
        raise Problem(400, "inputs must be a text or a list of texts")
    dimensions = body.get("dimensions")
    if dimensions is not None and (isinstance(dimensions, bool) or not isinstance(dimensions, int)):
        raise Problem(400, "dimensions must be a whole number")
    inputs = [text_of(text, i) for i, text in enumerate(texts)]
    embedded = await embed_inputs(request, inputs, dimensions=dimensions)
    return Response(
        orjson.dumps(list(embedded.vectors), option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
    )


@router.get("/info")
async def info(request: Request) -> dict[str, Any]:
    """Return what is known of the default model."""
    service: Service = request.app.state.service
    alias = service.models.default
    return {
        "model_id": alias,
        "model_sha": service.models.bound_fingerprint(alias),
        "model_dtype": "float32",
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_client_batch_size": service.settings.max_texts,
    }
