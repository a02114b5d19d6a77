"""What Cohere's clients send to `POST /v2/embed`, and how they read the answer."""

import secrets
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.inputs import ImageInput, Input, image_of, read_json, text_of
from nearsight.server.routes.embeddings import base64_of, single_input
from nearsight.server.schemas import COHERE, JSON_PROBLEMS
from nearsight.server.vectors import EmbeddedInputs, embed_inputs

PATHS = ("/v2/embed", "/v1/embed")
_TYPES = ("float", "base64")
_FORMATS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp"}

router = APIRouter(tags=["Cohere"], dependencies=[requires("embed")], responses=JSON_PROBLEMS)


def render(problem: Problem) -> dict[str, str]:
    """Return a problem as Cohere's clients read it."""
    return {"message": problem.detail}


@router.post("/v2/embed", openapi_extra=COHERE, response_class=Response)
@router.post("/v1/embed", include_in_schema=False)
async def embed(request: Request) -> Response:
    """Embed images or texts for clients of Cohere."""
    body = await read_json(request)
    types = body.get("embedding_types") or ["float"]
    if not isinstance(types, list) or not all(each in _TYPES for each in types):
        raise Problem(400, f"embedding_types is {types!r}; it may hold {' and '.join(_TYPES)}")
    inputs = _inputs(body)
    embedded = await embed_inputs(
        request, inputs, model=_text(body, "model"), dimensions=_whole_number(body, "output_dimension")
    )
    images = [_facts(each, size) for each, size in zip(inputs, embedded.sizes, strict=True) if size]
    document = {
        "id": secrets.token_hex(16),
        "embeddings": {kind: _encoded(embedded, kind) for kind in types},
        "texts": body.get("texts") or [],
        "images": images,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"images": len(images)}},
        "response_type": "embeddings_by_type",
    }
    return Response(
        orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY),
        media_type="application/json",
        headers={"Server-Timing": embedded.timing.header()},
    )


def _inputs(body: dict[str, Any]) -> list[Input]:
    fields = [name for name in ("images", "texts", "inputs") if body.get(name)]
    if len(fields) != 1 or not isinstance(body[fields[0]], list):
        raise Problem(400, "send exactly one of images, texts and inputs, as a list")
    [name] = fields
    if name == "images":
        return [image_of(value, i) for i, value in enumerate(body["images"])]
    if name == "texts":
        return [text_of(value, i) for i, value in enumerate(body["texts"])]
    return [
        single_input(each.get("content") if isinstance(each, dict) else None, i)[0]
        for i, each in enumerate(body["inputs"])
    ]


def _encoded(embedded: EmbeddedInputs, kind: str) -> list[Any]:
    return [base64_of(vector) if kind == "base64" else vector for vector in embedded.vectors]


def _facts(each: Input, size: tuple[int, int]) -> dict[str, Any]:
    data = each.data if isinstance(each, ImageInput) else b""
    name = next((name for start, name in _FORMATS.items() if data.startswith(start)), "unknown")
    return {"width": size[0], "height": size[1], "format": name, "bit_depth": 24}


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(400, f"{name} must be a text")
    return value or None


def _whole_number(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise Problem(400, f"{name} must be a whole number")
    return value
