"""Search in a collection: by images, ids, texts, vectors, and several of these."""

from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.responses import Response

from nearsight.collection import Match
from nearsight.server.auth import requires
from nearsight.server.dispatcher import Timing
from nearsight.server.errors import Problem
from nearsight.server.inputs import (
    ImageInput,
    Input,
    TextInput,
    files_of,
    image_of,
    media_type,
    read_form,
    read_json,
)
from nearsight.server.schemas import SEARCH
from nearsight.server.service import Service
from nearsight.server.vectors import embed_inputs, while_connected

router = APIRouter(prefix="/v1/collections/{name}", tags=["search"], dependencies=[requires("read")])

MAX_MATCHES = 1000
_MAX_OFFSET = 10_000


@router.post("/search", openapi_extra=SEARCH, response_class=Response)
async def search(request: Request, name: str) -> Response:
    """Return the images that are most similar to what is sent, the most similar first.

    Several images, ids and vectors stand for their mean. `offset` skips the first matches; `next` is the
    offset of the page after this one.
    """
    service: Service = request.app.state.service
    body, images = await _read(request, service.settings.max_images)
    k, offset = _whole(body, "k", 10, 1, MAX_MATCHES), _whole(body, "offset", 0, 0, _MAX_OFFSET)
    ids, text, not_text = _texts(body, "id"), _text(body, "text"), _texts(body, "not_text")
    embedded, timing = await _embedded(request, service, name, images)
    if text and not (not_text or ids or images) and body.get("vector") is None:
        embedded = await _text_vector(request, service, name, text)
        text = text if embedded is None else None

    def run() -> list[Match]:
        collection = service.catalog.open(name)
        parts = [] if embedded is None else [embedded]
        if body.get("vector") is not None:
            parts.append(_sent_vectors(body["vector"], collection.spec.dim))
        return collection.search(
            id=ids or None,
            text=text,
            not_text=not_text or None,
            vector=np.concatenate(parts) if parts else None,
            k=k + offset,
            where=_text(body, "where"),
            exact=bool(body.get("exact", False)),
        )

    matches = await while_connected(request, service.in_thread(run))
    document = {
        "hits": [
            {
                "id": match.id,
                "path": service.catalog.shown_path(match.path),
                "similarity": match.similarity,
                "metadata": match.metadata,
            }
            for match in matches[offset:]
        ],
        "next": offset + k if len(matches) == offset + k and offset + k <= _MAX_OFFSET else None,
    }
    return Response(
        orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY),
        media_type="application/json",
        headers={"Server-Timing": timing.header()},
    )


async def _read(request: Request, max_images: int) -> tuple[dict[str, Any], list[Input]]:
    """Return the options, and the images to search for."""
    if media_type(request) == "multipart/form-data":
        form = await read_form(request, max_files=max_images + 1)
        try:
            files: list[Input] = [ImageInput(data) for data in await files_of(form, "image")]
            options: dict[str, Any] = {key: value for key, value in form.items() if isinstance(value, str)}
            for key in ("id", "not_text"):
                options[key] = [value for value in form.getlist(key) if isinstance(value, str)]
        finally:
            await form.close()
        return {key: value for key, value in options.items() if value not in ("", [])}, files
    if media_type(request).startswith("image/"):
        options = {key: value for key, value in request.query_params.items() if value}
        return options, [ImageInput(await request.body())]
    body = await read_json(request)
    images = body.get("image")
    values = images if isinstance(images, list) else [] if images is None else [images]
    return body, [image_of(value, i) for i, value in enumerate(values)]


async def _embedded(
    request: Request, service: Service, name: str, images: list[Input]
) -> tuple[NDArray[np.float32] | None, Timing]:
    """Return the vectors of the images, of shape (m, dim)."""
    if not images:
        return None, Timing()
    model = await service.catalog.model(name, service.in_thread)
    embedded = await embed_inputs(request, images, model=model.alias)
    return embedded.vectors, embedded.timing


def _sent_vectors(value: Any, dim: int) -> NDArray[np.float32]:
    try:
        vectors = np.atleast_2d(np.asarray(value, np.float32))
    except (TypeError, ValueError):
        vectors = np.empty((0, 0), np.float32)
    if (
        vectors.ndim != 2
        or vectors.shape[1] != dim
        or not np.isfinite(vectors).all()
        or not vectors.any(1).all()
    ):
        raise Problem(400, f"a vector must have {dim} finite numbers, not all of them 0", param="vector")
    return vectors


async def _text_vector(
    request: Request, service: Service, name: str, text: str
) -> NDArray[np.float32] | None:
    """Return the vector of a text where texts and images share a space; elsewhere the collection compares."""
    if not text.strip():
        raise Problem(400, "the text is empty", param="text")
    model = await service.catalog.model(name, service.in_thread)
    if not await service.models.has_texts(model):
        return None
    return (await embed_inputs(request, [TextInput(text)], model=model.alias)).vectors


def _whole(body: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Problem(400, f"{name} is {value!r}; it must be a whole number in {least}..{most}", param=name)
    return value


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(400, f"{name} must be a text", param=name)
    return value


def _texts(body: dict[str, Any], name: str) -> list[str]:
    value = body.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, str) for each in values):
        raise Problem(400, f"{name} must be a text or a list of texts", param=name)
    return values
