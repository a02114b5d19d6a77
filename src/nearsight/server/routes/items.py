"""The images of a collection: add, list, look at, tag, remove."""

import base64
import binascii
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

from nearsight.collection import Collection, Item
from nearsight.errors import UnknownIdError
from nearsight.images import content_id
from nearsight.images.privacy import without_metadata
from nearsight.server.auth import requires
from nearsight.server.copied_images import copy_images
from nearsight.server.errors import Problem
from nearsight.server.inputs import (
    ImageInput,
    UrlInput,
    check_images,
    image_of,
    media_type,
    read_form,
    read_json,
)
from nearsight.server.schemas import ITEMS, RequestBody
from nearsight.server.service import Service
from nearsight.server.uploads import UploadedImage, add_uploads
from nearsight.services.cluster_edits import cluster_condition
from nearsight.services.csv_tables import items_table
from nearsight.services.label_sets import matching_ids, whole_ids
from nearsight.services.metadata_changes import MetadataChanges
from nearsight.text_format import plain

router = APIRouter(prefix="/v1/collections/{name}", tags=["images"])

MAX_PAGE = 1000
_MB = 2**20
# An image is named by its content: what was answered once never changes.
_IMMUTABLE = "private, max-age=31536000, immutable"
_SANDBOX = "default-src 'none'; sandbox"


class NewMetadata(RequestBody):
    """Metadata of one or many images; null removes a key."""

    metadata: dict[str, str | float | bool | None]
    ids: list[str] | None = None
    where: str | None = None


class MetadataUndo(RequestBody):
    """The change of metadata to take back; without a number, the last one."""

    change: int | None = None


class CopiedImages(RequestBody):
    """Images of another collection, by their ids."""

    source: str
    ids: list[str] = Field(max_length=MAX_PAGE)


class VectorsRequest(RequestBody):
    """Images by their ids, and how the numbers come: as a list, or in base64 (float32, little-endian)."""

    ids: list[str] = Field(max_length=MAX_PAGE)
    encoding_format: Literal["float", "base64"] = "float"


class ThumbnailsRequest(RequestBody):
    """Images by their ids."""

    ids: list[str] = Field(max_length=MAX_PAGE)


class NamedImages(RequestBody):
    """Images by their ids, or by a filter."""

    ids: list[str] | None = None
    where: str | None = None


def item_facts(service: Service, item: Item) -> dict[str, Any]:
    """Return an image as clients see it: without the directories of this machine."""
    facts: dict[str, Any] = plain(
        {
            "id": item.id,
            "path": service.catalog.shown_path(item.path),
            "paths": [service.catalog.shown_path(path) for path in item.paths],
            "metadata": item.metadata,
            "width": item.width,
            "height": item.height,
            "size_bytes": item.size_bytes,
            "modified": item.modified,
            "added": item.added,
            "taken": item.taken,
            "camera": item.camera,
            "lens": item.lens,
            "lat": item.lat,
            "lon": item.lon,
            "orientation": item.orientation,
        }
    )
    return facts


@router.post("/items", openapi_extra=ITEMS, dependencies=[requires("write")])
async def add_items(request: Request, name: str) -> dict[str, Any]:
    """Add images: a form with files, or JSON. What is answered as added is on disk."""
    service: Service = request.app.state.service
    settings = service.settings
    uploads = await (
        _of_form(request, settings.max_images)
        if media_type(request) == "multipart/form-data"
        else _of_json(request, service)
    )
    if not uploads:
        raise Problem(400, "there is no image; send files named 'image', or JSON with images", param="image")
    if len(uploads) > settings.max_images:
        raise Problem(
            400, f"there are {len(uploads)} images; at most {settings.max_images} fit into a request"
        )
    check_images([each.data for each in uploads], max_bytes=settings.max_image_mb * _MB)
    model = await service.catalog.model(name, service.in_thread)

    def add() -> list[dict[str, Any]]:
        collection = service.catalog.open_with(name, model.backend)
        results = add_uploads(
            collection, service.catalog.uploads(name).absolute(), uploads, limits=service.limits
        )
        service.catalog.forget_order(name)
        return results

    with service.models.using(model):
        results = await service.in_write_thread(add)
    counts = {
        status: sum(each["status"] == status for each in results) for status in ("added", "exists", "failed")
    }
    return {**counts, "items": results}


@router.get("/items", dependencies=[requires("read")])
async def list_items(
    request: Request,
    name: str,
    where: str | None = None,
    cluster: Annotated[list[str], Query(max_length=100)] = [],  # noqa: B006
    cursor: str | None = None,
    offset: int = Query(0, ge=0, le=10**9),
    limit: int = Query(100, ge=1, le=MAX_PAGE),
) -> Response:
    """Return a page of images in the order they came in. `next` is the cursor of the page after it.

    `cluster` is the name or number of one of the latest clusters; several are given several times.
    """
    service: Service = request.app.state.service
    items, total, after = await service.in_thread(
        page_of_items, service, name, where, cursor, limit, offset=offset, clusters=cluster
    )
    document = {"items": [item_facts(service, item) for item in items], "total": total, "next": after}
    return Response(orjson.dumps(document), media_type="application/json")


def page_of_items(
    service: Service,
    name: str,
    where: str | None,
    cursor: str | None,
    limit: int,
    *,
    offset: int = 0,
    clusters: Sequence[str] = (),
) -> tuple[list[Item], int, str | None]:
    """Return a page of images, how many there are in all, and the cursor of the page after it."""
    start = _read_cursor(cursor) if cursor else offset
    condition = cluster_condition(service.catalog.open(name), clusters, where)
    items, total = service.catalog.page(name, condition, start, limit)
    end = start + limit
    return items, total, _write_cursor(end) if end < total else None


@router.patch("/items", dependencies=[requires("write")])
async def change_metadata(request: Request, name: str, body: NewMetadata) -> dict[str, int | None]:
    """Set or remove metadata of many images, by ids or by a filter.

    The answer ``{"changed": 3, "change": 7}`` counts the images whose metadata changed, and has the number
    that `POST items/undo` takes; null if nothing changed.
    """
    service: Service = request.app.state.service

    def change() -> dict[str, int | None]:
        collection = service.catalog.open(name)
        ids = _named(collection, body.ids, body.where)
        change = MetadataChanges(collection).change(ids, body.metadata)
        service.catalog.forget_order(name)
        return {"changed": change.n_changed, "change": change.number}

    return await service.in_thread(change)


@router.post("/items/undo", dependencies=[requires("write")])
async def undo_metadata(request: Request, name: str, body: MetadataUndo) -> dict[str, int | None]:
    """Take back a change of metadata; without a number, the last one.

    The body is ``{"change": 7}``, the answer ``{"change": 7, "changed": 2, "kept": 1}``: images that got
    their values of before again, and images left alone because they got others since or are gone. If there
    is no such change, the answer is 409 with the code ``nothing_to_undo``.
    """
    service: Service = request.app.state.service

    def take_back() -> dict[str, int | None]:
        undone = MetadataChanges(service.catalog.open(name)).undo(body.change)
        service.catalog.forget_order(name)
        if undone is None:
            raise Problem(409, "there is nothing to undo", code="nothing_to_undo")
        return {"change": undone.number, "changed": undone.n_changed, "kept": undone.n_kept}

    return await service.in_thread(take_back)


@router.post("/items/copy", dependencies=[requires("write")])
async def copy_items(request: Request, name: str, body: CopiedImages) -> dict[str, int]:
    """Add images of another collection of the same model, with all that is known of them.

    The answer ``{"added": 3}`` counts those that were not there. A request may be repeated.
    """
    service: Service = request.app.state.service
    catalog = service.catalog

    def copy() -> dict[str, int]:
        source, target = catalog.open(body.source), catalog.open(name)
        new_uploads = catalog.uploads(name).absolute()
        ids = whole_ids(source, body.ids)
        added = copy_images(
            source, target, ids, uploads=catalog.all_uploads.absolute(), new_uploads=new_uploads
        )
        catalog.forget_order(name)
        return {"added": added}

    return await service.in_write_thread(copy)


@router.post("/items/export", dependencies=[requires("read")], response_class=StreamingResponse)
async def export_items(request: Request, name: str, body: NamedImages) -> StreamingResponse:
    """Return a table (CSV) of many images, by ids or by a filter: id, path, and all their metadata."""
    service: Service = request.app.state.service
    collection = await service.in_thread(service.catalog.open, name)
    ids = await service.in_thread(_named, collection, body.ids, body.where)
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
    rows = items_table(collection, ids, service.catalog.shown_path)
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/items/delete", dependencies=[requires("write")])
async def remove_items(request: Request, name: str, body: NamedImages) -> dict[str, int]:
    """Remove many images, by ids or by a filter. Files of folders stay where they are."""
    service: Service = request.app.state.service
    return {"removed": await service.in_thread(_remove, service, name, body.ids, body.where)}


@router.post("/items/vectors", dependencies=[requires("read")])
async def get_vectors(request: Request, name: str, body: VectorsRequest) -> Response:
    """Return the vectors of many images, in the order of their ids."""
    service: Service = request.app.state.service

    def read() -> bytes:
        collection = service.catalog.open(name)
        ids = whole_ids(collection, body.ids)
        vectors: Any = collection.vectors(ids)
        if body.encoding_format == "base64":
            vectors = [base64.b64encode(np.asarray(each, "<f4").tobytes()).decode() for each in vectors]
        items = [{"id": id, "vector": each} for id, each in zip(ids, vectors, strict=True)]
        return orjson.dumps({"items": items}, option=orjson.OPT_SERIALIZE_NUMPY)

    return Response(await service.in_thread(read), media_type="application/json")


@router.post("/items/thumbnails", dependencies=[requires("read")])
async def get_thumbnails(request: Request, name: str, body: ThumbnailsRequest) -> Response:
    """Return the thumbnails of many images, JPEGs in base64, in the order of their ids; null for none."""
    service: Service = request.app.state.service

    def read() -> bytes:
        collection = service.catalog.open(name)
        ids = whole_ids(collection, body.ids)
        found = {
            id: base64.b64encode(data).decode() for id, data in collection.thumbnails(list(set(ids))).items()
        }
        return orjson.dumps({"items": [{"id": id, "thumbnail": found.get(id)} for id in ids]})

    return Response(await service.in_thread(read), media_type="application/json")


@router.get("/items/{id}", dependencies=[requires("read")])
async def get_item(request: Request, name: str, id: str) -> dict[str, Any]:
    """Return one image, by its id or the beginning of it."""
    service: Service = request.app.state.service
    return item_facts(service, await service.in_thread(lambda: service.catalog.open(name).get(id)))


@router.patch("/items/{id}", dependencies=[requires("write")])
async def change_item(request: Request, name: str, id: str, body: NewMetadata) -> dict[str, Any]:
    """Set or remove metadata of one image."""
    service: Service = request.app.state.service

    def change() -> Item:
        collection = service.catalog.open(name)
        collection.update_metadata(id, body.metadata)
        service.catalog.forget_order(name)
        return collection.get(id)

    return item_facts(service, await service.in_thread(change))


@router.delete("/items/{id}", dependencies=[requires("write")])
async def remove_item(request: Request, name: str, id: str) -> dict[str, int]:
    """Remove one image."""
    service: Service = request.app.state.service
    return {"removed": await service.in_thread(_remove, service, name, [id], None)}


@router.get("/items/{id}/thumbnail", dependencies=[requires("read")], response_class=Response)
async def get_thumbnail(request: Request, name: str, id: str) -> Response:
    """Return the thumbnail of an image, a JPEG."""
    service: Service = request.app.state.service
    if request.headers.get("if-none-match") == f'"{id}"':
        return Response(status_code=304, headers={"ETag": f'"{id}"', "Cache-Control": _IMMUTABLE})

    def read() -> bytes | None:
        collection = service.catalog.open(name)
        whole = id if len(id) == 32 else collection.get(id).id
        try:
            return collection.thumbnails([whole]).get(whole)
        except UnknownIdError:
            # The trash shows what it holds; what was put there just now is still on somebody's screen.
            trashed = service.catalog.trash(name, collection).thumbnail(whole)
            if trashed is None:
                raise
            return trashed

    data = await service.in_thread(read)
    if data is None:
        raise Problem(404, "this image has no thumbnail", code="no_thumbnail")
    return _image(data, "image/jpeg", id)


@router.get("/items/{id}/original", dependencies=[requires("read")], response_class=Response)
async def get_original(request: Request, name: str, id: str) -> Response:
    """Return the file of an image, without its EXIF and other metadata."""
    service: Service = request.app.state.service

    def read() -> tuple[bytes, str, str]:
        item = service.catalog.open(name).get(id)
        return (*without_metadata(_content(item), limits=service.limits), item.id)

    data, media, whole = await service.in_thread(read)
    return _image(data, media, f"{whole}-clean")


@router.get("/items/{id}/file", dependencies=[requires("admin")], response_class=Response)
async def get_file(request: Request, name: str, id: str) -> Response:
    """Return the file of an image byte for byte, with its EXIF, as a download."""
    service: Service = request.app.state.service
    item = await service.in_thread(lambda: service.catalog.open(name).get(id))
    data = await service.in_thread(_content, item)
    response = _image(data, "application/octet-stream", item.id)
    response.headers["Content-Disposition"] = "attachment"
    return response


@router.get("/items/{id}/vector", dependencies=[requires("read")])
async def get_vector(request: Request, name: str, id: str) -> Response:
    """Return the vector of an image."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        collection = service.catalog.open(name)
        whole = collection.get(id).id
        return {"id": whole, "vector": collection.vectors([whole])[0]}

    document = await service.in_thread(read)
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def _remove(service: Service, name: str, ids: Sequence[str] | None, where: str | None) -> int:
    collection = service.catalog.open(name)
    names = _named(collection, ids, where)
    uploads = service.catalog.uploads(name).absolute()
    is_shared = service.catalog.shared_uploads.is_shared(uploads)
    paths = [path for item in collection.items(ids=names) for path in item.paths]
    n_removed = collection.remove(names)
    service.catalog.forget_order(name)
    # Rows first: a crash in between leaves a file without a row, never a row without its file.
    for path in paths:
        if Path(path).is_relative_to(uploads) and not is_shared:
            Path(path).unlink(missing_ok=True)
    return n_removed


def _named(collection: Collection, ids: Sequence[str] | None, where: str | None) -> list[str]:
    if (ids is None) == (where is None):
        raise Problem(400, "name the images either by ids or by where")
    return whole_ids(collection, ids) if ids is not None else matching_ids(collection, where or "")


def _content(item: Item) -> bytes:
    """Return the file of an image, if it still holds what was indexed."""
    for path in item.paths:
        try:
            data = Path(path).read_bytes() if "://" not in path else b""
        except (OSError, ValueError):
            continue
        if data and content_id(data) == item.id:
            return data
    raise Problem(404, "the file of this image is gone or has changed since it was indexed", code="file_gone")


def _image(data: bytes, media: str, tag: str) -> Response:
    headers = {"ETag": f'"{tag}"', "Cache-Control": _IMMUTABLE, "Content-Security-Policy": _SANDBOX}
    return Response(data, media_type=media, headers=headers)


async def _of_form(request: Request, max_images: int) -> list[UploadedImage]:
    form = await read_form(request, max_files=max_images + 1)
    try:
        files = [each for key in ("image", "image[]", "file") for each in form.getlist(key)]
        metadata = form.get("metadata")
        shared = (
            _metadata(metadata, len(files)) if isinstance(metadata, str) and metadata else [{}] * len(files)
        )
        return [
            UploadedImage(file.filename or "image", await file.read(), facts)
            for file, facts in zip(files, shared, strict=True)
            if isinstance(file, UploadFile)
        ]
    finally:
        await form.close()


async def _of_json(request: Request, service: Service) -> list[UploadedImage]:
    body = await read_json(request)
    values = body.get("images") or []
    if not isinstance(values, list):
        raise Problem(400, "images must be a list of data URIs, base64 texts, or URLs", param="images")
    inputs = [image_of(value, i) for i, value in enumerate(values)]
    urls = [each.url for each in inputs if isinstance(each, UrlInput)]
    fetched = iter(await service.fetcher.fetch_all(urls) if urls else ())
    metadata = body.get("metadata")
    shared = _checked_metadata(metadata, len(inputs)) if metadata else [{}] * len(inputs)
    return [
        UploadedImage("image", each.data, facts)
        if isinstance(each, ImageInput)
        else UploadedImage(each.url.partition("?")[0], next(fetched), facts)
        for each, facts in zip(inputs, shared, strict=True)
    ]


def _metadata(text: str, n: int) -> list[dict[str, Any]]:
    try:
        return _checked_metadata(json.loads(text), n)
    except ValueError:
        raise Problem(400, "metadata is not valid JSON", param="metadata") from None


def _checked_metadata(value: Any, n: int) -> list[dict[str, Any]]:
    values = [value] * n if isinstance(value, dict) else value
    if not isinstance(values, list) or len(values) != n or not all(isinstance(each, dict) for each in values):
        raise Problem(
            400, "metadata must be an object, or a list of one object for each image", param="metadata"
        )
    return values


def _write_cursor(offset: int) -> str:
    return base64.urlsafe_b64encode(f"o{offset}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        if text[:1] != "o" or len(text) > 12:
            raise ValueError
        return max(0, int(text[1:]))
    except (ValueError, binascii.Error):
        raise Problem(400, "the cursor is not valid; use `next` of the page before", param="cursor") from None
