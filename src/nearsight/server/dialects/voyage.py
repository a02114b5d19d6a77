"""What Voyage's clients send to `POST /v1/multimodalembeddings`, and how they read the answer."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.inputs import Input, read_json
from nearsight.server.routes.embeddings import base64_of, single_input
from nearsight.server.schemas import JSON_PROBLEMS, VOYAGE
from nearsight.server.vectors import embed_inputs

PATHS = ("/v1/multimodalembeddings",)

router = APIRouter(tags=["Voyage"], dependencies=[requires("embed")], responses=JSON_PROBLEMS)


def render(problem: Problem) -> dict[str, str]:
    """Return a problem as Voyage's clients read it."""
    return {"detail": problem.detail}


@router.post("/v1/multimodalembeddings", openapi_extra=VOYAGE, response_class=Response)
async def embed(request: Request) -> Response:
    """Embed images or texts for clients of Voyage; each input is one image or one text."""
    body = await read_json(request)
    encoding = body.get("encoding_format")
    if encoding not in (None, "base64"):
        raise Problem(400, f"encoding_format is {encoding!r}; it must be base64, or left out")
    if body.get("output_dtype") not in (None, "float"):
        raise Problem(400, f"output_dtype is {body['output_dtype']!r}; it must be float")
    model, dimensions = body.get("model"), body.get("output_dimension")
    if model is not None and not isinstance(model, str):
        raise Problem(400, "model must be a text")
    if dimensions is not None and (isinstance(dimensions, bool) or not isinstance(dimensions, int)):
        raise Problem(400, "output_dimension must be a whole number")
    embedded = await embed_inputs(request, _inputs(body), model=model or None, dimensions=dimensions)
    vectors = embedded.vectors if encoding is None else map(base64_of, embedded.vectors)
    document = {
        "object": "list",
        "data": [{"object": "embedding", "embedding": each, "index": i} for i, each in enumerate(vectors)],
        "model": embedded.model.alias,
        "usage": {
            "text_tokens": 0,
            "image_pixels": sum(size[0] * size[1] for size in embedded.sizes if size),
            "video_pixels": 0,
            "total_tokens": 0,
        },
    }
    return Response(
        orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY),
        media_type="application/json",
        headers={"Server-Timing": embedded.timing.header()},
    )


def _inputs(body: dict[str, Any]) -> list[Input]:
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not all(
        isinstance(each, dict) and isinstance(each.get("content"), list) for each in inputs
    ):
        raise Problem(400, "inputs must be a list of objects with a list of parts as content")
    return [single_input([_part(part) for part in each["content"]], i)[0] for i, each in enumerate(inputs)]


def _part(part: Any) -> Any:
    """Return a part as OpenAI's chat has it."""
    if isinstance(part, dict) and part.get("type") == "image_base64":
        return {"type": "image_url", "image_url": part.get("image_base64")}
    return part
