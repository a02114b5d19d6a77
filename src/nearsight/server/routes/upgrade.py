"""A collection moves to another model of the service: compared first, searched meanwhile, brought back."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from nearsight.collection.upgrade import abandon
from nearsight.collection.upgrade_state import UpgradeState
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.analyses import LabelSource, latest_result, require_labels
from nearsight.server.routes.jobs import StartAnalysis
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service
from nearsight.services.upgrade import commit_upgrade, roll_back

router = APIRouter(prefix="/v1/collections/{name}/upgrade", tags=["collections"])


class UpgradeRequest(RequestBody):
    """Where a collection moves, and what decides."""

    model: Annotated[str, Field(min_length=1, max_length=200, description="An alias of `GET /v1/models`.")]
    labels: LabelSource = None
    missing: Literal["refuse", "keep", "drop"] = Field(
        "refuse", description="With images whose files are gone: stop, estimate their vectors, or leave out."
    )
    dry_run: bool = Field(False, description="Stop after a sample.")
    force: bool = Field(False, description="Change the collection although labels say that it gets worse.")


@router.post("", status_code=202, dependencies=[requires("write")])
async def upgrade_collection(
    request: Request, name: str, start: StartAnalysis, body: UpgradeRequest
) -> dict[str, Any]:
    """Move the collection to another model, as a job; a job that was interrupted goes on with the same.

    From the sample on, a search with this `model` answers by it. Until `commit`, `rollback` brings the old
    model back.
    """
    service: Service = request.app.state.service
    source = service.models.sources.get(body.model)
    if source is None:
        raise Problem(
            404, f"there is no model {body.model!r}; GET /v1/models", code="model_not_found", param="model"
        )

    def old_alias() -> str:
        collection = service.catalog.open(name)
        require_labels(collection, body.labels)
        return service.catalog.model_alias(name, collection)

    # The name behind an alias may hold a path; what is told names aliases.
    aliases = {"old_model": await service.in_thread(old_alias), "new_model": body.model}
    return await start("upgrade", body, model_name=source.name, aliases=aliases)


@router.get("", dependencies=[requires("read")])
async def get_upgrade(request: Request, name: str) -> dict[str, Any]:
    """Return how far the upgrade is, and the latest comparison of the models (null before the first)."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        state = UpgradeState.read(service.catalog.open(name).location)
        try:
            report = latest_result(service, name, "upgrade")
        except Problem:
            report = None
        if state is None:
            return {"phase": None, "model": None, "report": report}
        model = service.models.alias_of(state.fingerprint)
        phase = "rolled_back" if state.was_rolled_back else state.phase
        return {"phase": phase, "model": model, "report": report}

    return await service.in_thread(read)


@router.post("/commit", dependencies=[requires("write")])
async def commit(request: Request, name: str) -> dict[str, bool]:
    """Delete the vectors of the old model."""
    service: Service = request.app.state.service
    await service.in_thread(lambda: commit_upgrade(service.catalog.open(name)))
    return {"committed": True}


@router.post("/abandon", dependencies=[requires("write")])
async def abandon_upgrade(request: Request, name: str) -> dict[str, bool]:
    """End an upgrade that has not changed the collection, and delete the new vectors."""
    service: Service = request.app.state.service
    await service.in_thread(lambda: abandon(service.catalog.open(name).location))
    return {"abandoned": True}


@router.post("/rollback", dependencies=[requires("write")])
async def rollback(request: Request, name: str) -> dict[str, Any]:
    """Bring back the model before the latest upgrade; `lacking` images came after it: index them again."""
    service: Service = request.app.state.service

    def run() -> dict[str, Any]:
        done = roll_back(service.catalog.open(name).location)
        model = service.catalog.model_alias(name, service.catalog.open(name))
        return {"model": model, "already_rolled_back": done.was_done, "lacking": done.n_lacking}

    return await service.in_thread(run)
