"""`POST /v1/embeddings`: the forms that OpenAI, infinity, Jina and vLLM's clients send, and plain images."""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.responses import Response

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.inputs import (
    ImageInput,
    Input,
    files_of,
    image_of,
    is_digits,
    media_type,
    read_form,
    read_json,
    text_of,
)
from nearsight.server.schemas import EMBEDDINGS
from nearsight.server.service import Service
from nearsight.server.vectors import EmbeddedInputs, embed_inputs

router = APIRouter(tags=["embeddings"], dependencies=[requires("embed")])


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """What is asked for, whatever the form it was sent in."""

    inputs: list[Input]
    model: str | None = None
    encoding: str = "float"
    dimensions: int | None = None
    warning: str = ""


@router.post("/v1/embeddings", openapi_extra=EMBEDDINGS, response_class=Response)
@router.post("/embeddings", include_in_schema=False)
@router.post("/embeddings_image", include_in_schema=False)
async def create_embeddings(request: Request) -> Response:
    """Embed images and texts. If one of them cannot be embedded, the request is refused whole."""
    service: Service = request.app.state.service
    kind = media_type(request)
    if kind == "multipart/form-data":
        wanted = await _of_form(request, service.settings.max_images)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        query = request.query_params
        wanted = _with_options([ImageInput(await request.body())], query)
    elif kind in ("application/json", "", "application/x-www-form-urlencoded"):
        # curl -d sends JSON under the name of a form.
        wanted = _of_json(await read_json(request))
    else:
        raise Problem(415, f"the media type {kind} is not understood; send JSON, a form, or an image")
    embedded = await embed_inputs(request, wanted.inputs, model=wanted.model, dimensions=wanted.dimensions)
    return Response(
        orjson.dumps(_document(embedded, wanted), option=orjson.OPT_SERIALIZE_NUMPY),
        media_type="application/json",
        headers={"Server-Timing": embedded.timing.header()},
    )


def base64_of(vector: NDArray[np.float32]) -> str:
    """Return a vector as base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()


def _document(embedded: EmbeddedInputs, wanted: EmbeddingRequest) -> dict[str, Any]:
    encode: Any = base64_of if wanted.encoding == "base64" else lambda vector: vector
    model = embedded.model
    facts: dict[str, Any] = {"fingerprint": model.fingerprint, "normalized": model.backend.spec.normalize}
    document: dict[str, Any] = {
        "object": "list",
        "model": model.alias,
        "data": [
            {"object": "embedding", "index": i, "embedding": encode(vector)}
            for i, vector in enumerate(embedded.vectors)
        ],
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
        "nearsight": facts,
    }
    if wanted.warning:
        facts["warning"] = wanted.warning
    return document


async def _of_form(request: Request, max_images: int) -> EmbeddingRequest:
    # One more than allowed, so that the answer can say how many may come.
    form = await read_form(request, max_files=max_images + 1)
    try:
        images = [data for name in ("image", "image[]", "file") for data in await files_of(form, name)]
        if not images:
            raise Problem(400, "the form has no file named 'image'", param="image")
        return _with_options([ImageInput(data) for data in images], form)
    finally:
        await form.close()


def _with_options(inputs: list[Input], options: Any) -> EmbeddingRequest:
    dimensions = options.get("dimensions")
    if dimensions is not None and not is_digits(dimensions):
        raise Problem(400, f"dimensions is {dimensions!r}; it must be a whole number", param="dimensions")
    return EmbeddingRequest(
        inputs,
        _text_option(options.get("model"), "model"),
        _encoding(options.get("encoding_format")),
        None if dimensions is None else int(dimensions),
    )


def _of_json(body: dict[str, Any]) -> EmbeddingRequest:
    dimensions = body.get("dimensions")
    if dimensions is not None and (
        isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1
    ):
        raise Problem(
            400, f"dimensions is {dimensions!r}; it must be a whole number above 0", param="dimensions"
        )
    inputs, warning = (
        _of_messages(body["messages"]) if body.get("messages") is not None else (_of_input(body), "")
    )
    encoding = body.get("encoding_format") or body.get("embedding_type")
    return EmbeddingRequest(
        inputs, _text_option(body.get("model"), "model"), _encoding(encoding), dimensions, warning
    )


def _of_input(body: dict[str, Any]) -> list[Input]:
    if "input" not in body or body["input"] is None:
        raise Problem(400, "the body has neither input nor messages", param="input")
    modality = body.get("modality") or "text"
    if modality not in ("text", "image"):
        raise Problem(400, f"modality is {modality!r}; it must be text or image", param="modality")
    value = body["input"]
    items = value if isinstance(value, list) else [value]
    return [_one(item, modality, i) for i, item in enumerate(items)]


def _one(item: Any, modality: str, position: int) -> Input:
    if isinstance(item, dict):
        for name in ("image", "url", "bytes"):
            if item.get(name) is not None:
                return image_of(item[name], position)
        return text_of(item.get("text"), position)
    if isinstance(item, (int, list)):
        raise Problem(
            400,
            "the input is made of tokens, which only the model that made them could read; send texts. "
            "In LangChain, "
            "set check_embedding_ctx_length=False",
            code="tokens_not_supported",
            param="input",
        )
    is_image = modality == "image" or (isinstance(item, str) and item[:11].lower() == "data:image/")
    return image_of(item, position) if is_image else text_of(item, position)


def _of_messages(messages: Any) -> tuple[list[Input], str]:
    parts: list[Any] = []
    for message in messages if isinstance(messages, list) else [messages]:
        content = message.get("content") if isinstance(message, dict) else None
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content or [None]
    single, warning = single_input(parts, 0)
    return [single], warning


def single_input(parts: Any, position: int) -> tuple[Input, str]:
    """Return the one image or text of a list of parts as OpenAI's chat has it, and a warning.

    An error names the position, among what is to be embedded.

    Raises
    ------
    Problem
        400: there is neither one image nor one text.
    """
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise _bad_content(position, "must be a text, or a list of parts")
    images = [
        part["image_url"] for part in parts if part.get("type") == "image_url" and part.get("image_url")
    ]
    texts = [part.get("text") for part in parts if part.get("type") == "text"]
    if len(images) > 1:
        raise _bad_content(position, "holds several images; it gives one vector")
    if images:
        url = images[0].get("url") if isinstance(images[0], dict) else images[0]
        ignored = "the text beside the image was ignored: this model takes no instructions" if texts else ""
        return image_of(url, position), ignored
    if len(texts) != 1:
        raise _bad_content(position, "holds neither one image nor one text")
    return text_of(texts[0], position), ""


def _bad_content(position: int, detail: str) -> Problem:
    errors = [{"index": position, "detail": f"the content {detail}"}]
    return Problem(400, f"input {position}: the content {detail}", param="messages", errors=errors)


def _text_option(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Problem(400, f"{name} must be a text", param=name)
    return value or None


def _encoding(value: Any) -> str:
    if value in (None, ""):
        return "float"
    if value not in ("float", "base64"):
        raise Problem(
            400, f"encoding_format is {value!r}; it must be float or base64", param="encoding_format"
        )
    return str(value)
