"""The trash of a collection: duplicates, and what nobody wants; nothing is deleted."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.analyses import latest_result
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service
from nearsight.services.trash import Trash, TrashEntry, certainly_redundant

router = APIRouter(prefix="/v1/collections/{name}/trash", tags=["images"])


class TrashRequest(RequestBody):
    """What goes into the trash: either images by ids, or what is certainly redundant beside kept images."""

    ids: list[str] | None = Field(None, min_length=1, max_length=10_000)
    redundant_of: list[str] | None = Field(
        None, min_length=1, max_length=10_000, description="The `keep` of groups of the latest duplicates."
    )


@router.post("", dependencies=[requires("write")])
async def put_into_trash(request: Request, name: str, body: TrashRequest) -> dict[str, Any]:
    """Move files into the trash, and take their images out of the collection.

    Files of an image that may not be moved are listed as refused, and the image stays. With `redundant_of`, a
    group must be certain, and its kept file unchanged.
    """
    service: Service = request.app.state.service
    if (body.ids is None) == (body.redundant_of is None):
        raise Problem(400, "name the images either by ids or by redundant_of")

    def run() -> dict[str, Any]:
        collection = service.catalog.open(name)
        paths: dict[str, Any] = {collection.get(id).id: None for id in body.ids or ()}
        if body.redundant_of is not None:
            groups = {group["keep"]: group for group in latest_result(service, name, "duplicates")["groups"]}
            for id in body.redundant_of:
                if id not in groups:
                    raise Problem(404, f"no group of the latest duplicates keeps {id}", code="no_group")
                paths |= certainly_redundant(collection, groups[id])
        report = _trash(service, name).put(paths)
        service.catalog.forget_order(name)
        return {
            "entry": None if report.entry is None else _facts(service, report.entry),
            "refused": [
                {"id": each.id, "path": service.catalog.shown_path(each.path), "reason": each.reason}
                for each in report.refused
            ],
        }

    return await service.in_thread(run)


@router.get("", dependencies=[requires("read")])
async def list_trash(request: Request, name: str) -> dict[str, Any]:
    """Return what is in the trash, the latest first."""
    service: Service = request.app.state.service
    entries = await service.in_thread(lambda: _trash(service, name).entries())
    return {"entries": [_facts(service, entry) for entry in entries]}


@router.post("/{id}/restore", dependencies=[requires("write")])
async def restore_from_trash(request: Request, name: str, id: str) -> dict[str, Any]:
    """Put files back where they were, and their images into the collection."""
    service: Service = request.app.state.service

    def run() -> TrashEntry:
        entry = _trash(service, name).restore(id)
        service.catalog.forget_order(name)
        return entry

    return _facts(service, await service.in_thread(run))


def _trash(service: Service, name: str) -> Trash:
    return service.catalog.trash(name, service.catalog.open(name))


def _facts(service: Service, entry: TrashEntry) -> dict[str, Any]:
    paths = [service.catalog.shown_path(file.path) for file in entry.files]
    return {"id": entry.id, "when": entry.when, "ids": entry.ids, "paths": paths}
