"""Collections: list, create, open, delete."""

import asyncio
from typing import Any, Literal

import pyarrow.compute as pc
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from nearsight.collection import Collection
from nearsight.errors import NearsightError
from nearsight.server.auth import requires
from nearsight.server.errors import Problem, problem_of
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service
from nearsight.services.shown_path import shown_folders

# How long the list waits for a collection in a database.
_LISTED_S = 3.0
_MOST_FOLDERS = 200

router = APIRouter(prefix="/v1/collections", tags=["collections"])


class NewCollection(RequestBody):
    """What a collection is created with."""

    name: str
    model: str | None = Field(None, description="An alias; by default the default model.")
    storage: Literal["float32", "float16"] = "float32"
    like: str | None = Field(
        None, description="A collection whose model and storage the new one gets, instead of these."
    )


@router.get("", dependencies=[requires("read")])
async def list_collections(request: Request) -> dict[str, Any]:
    """Return all collections. One that cannot be opened now has a `problem` beside its name."""
    service: Service = request.app.state.service
    names = await service.in_thread(service.catalog.names)
    return {"collections": await asyncio.gather(*(_summary_or_problem(service, name) for name in names))}


@router.post("", status_code=201, dependencies=[requires("write")])
async def create_collection(request: Request, body: NewCollection, response: Response) -> dict[str, Any]:
    """Create a collection."""
    service: Service = request.app.state.service
    if body.like is None:
        model = await service.models.get(body.model)
        await service.in_thread(service.catalog.create, body.name, model.backend, storage=body.storage)
    else:
        await service.in_thread(service.catalog.create_like, body.name, body.like)
    response.headers["Location"] = f"/v1/collections/{body.name}"
    return _summary(body.name, await service.in_thread(service.catalog.open, body.name))


@router.get("/{name}", dependencies=[requires("read")])
async def get_collection(request: Request, name: str) -> dict[str, Any]:
    """Return what a collection holds."""
    service: Service = request.app.state.service

    def facts() -> dict[str, Any]:
        collection = service.catalog.open(name)
        info = collection.info()
        kept = (
            "images",
            "size_bytes",
            "bytes_per_image",
            "bytes_per_vector",
            "metadata",
            "created",
            "written_by",
        )
        return {
            **_summary(name, collection),
            **{key: info[key] for key in kept},
            "metadata_types": collection.metadata_types(),
            "roots": list(service.catalog.roots),
        }

    return await service.in_thread(facts)


@router.get("/{name}/folders", dependencies=[requires("read")])
async def get_folders(request: Request, name: str) -> dict[str, list[str]]:
    """Return the folders of the server that hold a collection's images, and the roots that any may be below.

    In each root the first folder is the one that holds all the others; there are at most 200.
    """
    service: Service = request.app.state.service

    def folders() -> dict[str, list[str]]:
        roots, own = service.catalog.roots, set[str]()
        for batch in service.catalog.open(name).iter_batches(["path"]):
            # Arrow takes the names of files away: there are far fewer folders than images.
            paths = batch.column("path").drop_null()
            own |= set(pc.unique(pc.replace_substring_regex(paths, r"[^/]*$", "")).to_pylist())
        return {"folders": shown_folders(own, roots)[:_MOST_FOLDERS], "roots": list(roots)}

    return await service.in_thread(folders)


@router.delete("/{name}", status_code=204, dependencies=[requires("admin")])
async def delete_collection(request: Request, name: str) -> Response:
    """Delete a collection that the service created, and its uploads; its jobs are cancelled."""
    service: Service = request.app.state.service
    catalog = service.catalog
    place = catalog.shown_place(name)
    if not catalog.is_mounted(name) and not await service.jobs.end_all(
        lambda job: job.args.get("collection") == name or job.args.get("target") == place
    ):
        raise Problem(
            409, "a job of this collection has not ended yet; try again", code="busy", retry_after_s=1
        )
    await service.in_thread(catalog.delete, name)
    await service.in_thread(service.jobs.table.detach, name)
    return Response(status_code=204)


async def _summary_or_problem(service: Service, name: str) -> dict[str, Any]:
    def facts() -> dict[str, Any]:
        return _summary(name, service.catalog.open(name))

    try:
        limit_s = _LISTED_S if service.catalog.is_elsewhere(name) else None
        return await asyncio.wait_for(service.in_thread_of(name, facts), limit_s)
    except asyncio.TimeoutError:
        return {"name": name, "problem": "the database of this collection does not answer"}
    except (Problem, NearsightError) as error:
        return {"name": name, "problem": problem_of(error).detail}


def _summary(name: str, collection: Collection) -> dict[str, Any]:
    spec = collection.spec
    return {
        "name": name,
        "images": len(collection),
        # The model's own name may be a path.
        "model": spec.identity or spec.id,
        "dim": spec.dim,
        "storage": collection.storage,
        "fingerprint": collection.fingerprint.digest,
        "license": spec.license,
    }
