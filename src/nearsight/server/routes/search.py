"""Search in a collection: by images, ids, texts, vectors, and several of these."""

from typing import Any, cast

import numpy as np
import orjson
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.responses import Response

from nearsight.collection import Match
from nearsight.collection.bridged_search import BridgedResult
from nearsight.server.auth import requires
from nearsight.server.dispatcher import Timing
from nearsight.server.errors import Problem
from nearsight.server.inputs import (
    ImageInput,
    Input,
    TextInput,
    files_of,
    image_of,
    is_digits,
    media_type,
    read_form,
    read_json,
)
from nearsight.server.schemas import SEARCH, SEARCH_KEYS, refuse_unknown
from nearsight.server.service import Service
from nearsight.server.vectors import embed_inputs, while_connected
from nearsight.services.cluster_edits import cluster_condition
from nearsight.services.collections import search_verified
from nearsight.services.upgrade import bridge_document, search_by_model

router = APIRouter(prefix="/v1/collections/{name}", tags=["search"], dependencies=[requires("read")])

MAX_MATCHES = 1000
_MAX_OFFSET = 10_000


@router.post("/search", openapi_extra=SEARCH, response_class=Response)
async def search(request: Request, name: str) -> Response:
    """Return the images that are most similar to what is sent, the most similar first.

    Several images, ids and vectors stand for their mean; `not_image`, `not_id`, `not_vector` and `not_text`
    say what is not wanted. `cluster` is the name or number of one of the latest clusters, or several of
    them. `verify` puts images of the very same object first; then one image or id is searched for. `model` is
    the one that an upgrade under way moves the collection to. `offset` skips the first matches; `next` is the
    offset of the page after this one.
    """
    service: Service = request.app.state.service
    body, images, unwanted = await _read(request, service.settings.max_images)
    refuse_unknown(body, SEARCH_KEYS)
    k, offset = _whole(body, "k", 10, 1, MAX_MATCHES), _whole(body, "offset", 0, 0, _MAX_OFFSET)
    text, where = _text(body, "text"), _text(body, "where")
    ids, not_ids, not_texts = (_texts(body, field) for field in ("id", "not_id", "not_text"))
    clusters = _clusters(body)
    if (alias := _text(body, "model")) is not None:
        return await _by_model(
            request, name, alias, body | ({"not_image": 0} if unwanted else {}), images, ids, k
        )
    embedded, timing = await _embedded(request, service, name, images + unwanted)
    vectors, not_vectors = embedded[: len(images)], embedded[len(images) :]
    verified = _to_verify(body, images, ids) if _flag(body, "verify") else None
    is_alone = not (ids or not_ids or not_texts or embedded) and not {"vector", "not_vector"} & body.keys()
    if text and is_alone and (vector := await _text_vector(request, service, name, text)) is not None:
        text, vectors = None, [vector]

    def run() -> list[Match]:
        collection = service.catalog.open(name)
        dim = collection.spec.dim
        condition = cluster_condition(collection, clusters, where)
        if verified is not None:
            known: dict[str, Any] = {"id": ids[0]} if ids else {"vector": vectors[0]}
            return search_verified(collection, verified or None, **known, k=k + offset, where=condition)
        return collection.search(
            id=ids,
            text=text,
            not_id=not_ids,
            not_text=not_texts,
            vector=_together([*vectors, *_sent_vectors(body, "vector", dim)]),
            not_vector=_together([*not_vectors, *_sent_vectors(body, "not_vector", dim)]),
            k=k + offset,
            where=condition,
            exact=_flag(body, "exact"),
        )

    matches = await while_connected(request, service.in_thread(run))
    document = {
        "hits": [_hit(service, match) for match in matches[offset:]],
        "next": offset + k if len(matches) == offset + k and offset + k <= _MAX_OFFSET else None,
    }
    return Response(
        orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY),
        media_type="application/json",
        headers={"Server-Timing": timing.header()},
    )


async def _by_model(
    request: Request, name: str, alias: str, body: dict[str, Any], images: list[Input], ids: list[str], k: int
) -> Response:
    """Search by the model that the collection has, or that an upgrade under way moves it to."""
    service: Service = request.app.state.service
    known = {"model", "image", "id", "k", "where", "cluster", "exact"}
    sent = [image.data for image in images if isinstance(image, ImageInput)]
    if unknown := sorted(SEARCH_KEYS & body.keys() - known):
        raise Problem(400, f"a search by a model compares images; leave out {unknown[0]}", param=unknown[0])
    if len(sent) < len(images):
        raise Problem(400, "a search by a model needs images themselves; no addresses", param="image")
    model = await service.models.get(alias)

    def run() -> BridgedResult:
        collection = service.catalog.open(name)
        condition = cluster_condition(collection, _clusters(body), _text(body, "where"))
        with service.models.using(model):
            exact = _flag(body, "exact")
            return search_by_model(
                collection, model.backend, sent, ids=ids, k=k, where=condition, exact=exact
            )

    result = await while_connected(request, service.in_thread(run))
    hits = [
        {**_hit(service, match), "by": "bridge" if match.id in result.estimated else "model"}
        for match in result.matches
    ]
    document = {"hits": hits, "next": None, "bridge": {"model": alias, **bridge_document(result)}}
    return Response(orjson.dumps(document), media_type="application/json")


def _hit(service: Service, match: Match) -> dict[str, Any]:
    return {
        "id": match.id,
        "path": service.catalog.shown_path(match.path),
        "similarity": match.similarity,
        "metadata": match.metadata,
    }


async def _read(request: Request, max_images: int) -> tuple[dict[str, Any], list[Input], list[Input]]:
    """Return the options, the images to search for, and those that are not wanted."""
    if media_type(request) == "multipart/form-data":
        form = await read_form(request, max_files=max_images + 1)
        try:
            files, not_files = [
                [cast("Input", ImageInput(data)) for data in await files_of(form, field)]
                for field in ("image", "not_image")
            ]
            options: dict[str, Any] = {key: value for key, value in form.items() if isinstance(value, str)}
            for key in ("id", "not_id", "not_text", "cluster"):
                options[key] = [value for value in form.getlist(key) if isinstance(value, str)]
        finally:
            await form.close()
        return {key: value for key, value in options.items() if value not in ("", [])}, files, not_files
    if media_type(request).startswith("image/"):
        options = {key: value for key, value in request.query_params.items() if value}
        return options, [ImageInput(await request.body())], []
    body = {key: value for key, value in (await read_json(request)).items() if value is not None}
    images, unwanted = (
        [image_of(value, i) for i, value in enumerate(_list(body, field))] for field in ("image", "not_image")
    )
    return body, [*images], [*unwanted]


async def _embedded(
    request: Request, service: Service, name: str, images: list[Input]
) -> tuple[list[NDArray[np.float32]], Timing]:
    """Return the vector of each image, of shape (dim,)."""
    if not images:
        return [], Timing()
    model = await service.catalog.model(name, service.in_thread)
    embedded = await embed_inputs(request, images, model=model.alias)
    return list(embedded.vectors), embedded.timing


def _together(vectors: list[NDArray[np.float32]]) -> NDArray[np.float32] | None:
    return np.stack(vectors) if vectors else None


def _sent_vectors(body: dict[str, Any], name: str, dim: int) -> NDArray[np.float32]:
    value = body.get(name)
    if value is None:
        return np.empty((0, dim), np.float32)
    try:
        vectors = np.atleast_2d(np.asarray(value, np.float32))
    except (TypeError, ValueError):
        vectors = np.empty((0, 0), np.float32)
    fault = ""
    if vectors.ndim != 2 or not vectors.shape[1]:
        fault = "it is no list of numbers, or of such lists"
    elif vectors.shape[1] != dim:
        fault = f"it has {vectors.shape[1]:,}"
    elif not np.isfinite(vectors).all() or not vectors.any(1).all():
        fault = "a number is not finite, or all are 0"
    if fault:
        raise Problem(
            400,
            f"{name} must have {dim:,} finite numbers, not all of them 0: {fault}",
            param=name,
            code="VectorError",
        )
    return vectors


async def _text_vector(
    request: Request, service: Service, name: str, text: str
) -> NDArray[np.float32] | None:
    """Return the (dim,) vector of a text where texts and images share a space; elsewhere None."""
    if not text.strip():
        raise Problem(400, "the text is empty", param="text")
    model = await service.catalog.model(name, service.in_thread)
    if not await service.models.has_texts(model):
        return None
    vector: NDArray[np.float32] = (await embed_inputs(request, [TextInput(text)], model=model.alias)).vectors[
        0
    ]
    return vector


def _whole(body: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if is_digits(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Problem(
            400,
            f"{name} is {value!r}; it must be a whole number in {least}..{most}",
            param=name,
            code="InvalidParameterError",
        )
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    return body.get(name) in (True, "true", "1")


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Problem(400, f"{name} must be a text", param=name)
    return value


def _texts(body: dict[str, Any], name: str) -> list[str]:
    values = _list(body, name)
    if not all(isinstance(each, str) for each in values):
        raise Problem(400, f"{name} must be a text or a list of texts", param=name)
    return values


def _to_verify(body: dict[str, Any], images: list[Input], ids: list[str]) -> bytes:
    """Return the content of the one image that is compared by keypoints; empty where an id names it."""
    others = {"text", "vector", "not_id", "not_text", "not_image", "not_vector"} & body.keys()
    if others or len(images) + len(ids) != 1:
        raise Problem(
            400, "verify compares with one image: send one image or id and nothing else to look for"
        )
    if ids:
        return b""
    [image] = images
    if not isinstance(image, ImageInput):
        raise Problem(400, "verify needs the image itself, or the id of one; no address", param="image")
    return image.data


def _clusters(body: dict[str, Any]) -> list[str | int]:
    values = _list(body, "cluster")
    if not all(isinstance(each, str | int) and not isinstance(each, bool) for each in values):
        raise Problem(400, "cluster must be a name, a number, or a list of these", param="cluster")
    return values


def _list(body: dict[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    return value if isinstance(value, list) else [] if value is None else [value]
