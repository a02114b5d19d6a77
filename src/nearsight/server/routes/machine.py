"""The machine: what a collection would take, and whether the installation works."""

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field

from nearsight.server.auth import requires
from nearsight.server.routes.model_jobs import name_of_model
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service
from nearsight.settings import Settings

router = APIRouter(prefix="/v1", tags=["machine"], dependencies=[requires("admin")])


class PlanRequest(RequestBody):
    """A collection that is planned; see `nearsight plan`."""

    images: Annotated[int, Field(ge=1, le=10**12)]
    folder: str | None = Field(None, description="Images like these, below a root; they are measured.")
    megapixels: Annotated[float | None, Field(gt=0, le=10_000)] = Field(
        None, description="Of an image; by default as in the folder, or 2."
    )
    model: str | None = Field(None, description="An alias; by default the default model.")
    dim: Annotated[int | None, Field(ge=1, le=100_000)] = None
    storage: Literal["float32", "float16"] = "float32"
    machines: Annotated[int, Field(ge=1, le=10**6)] = 1
    cores: Annotated[int, Field(ge=1, le=10**4)] = 16
    gpus: Annotated[int, Field(ge=0, le=10**3)] = 0
    queries_per_second: Annotated[float, Field(ge=0, le=10**9)] = 0.0
    price: Annotated[float | None, Field(ge=0, le=10**9)] = Field(
        None, description="Of a machine, for an hour."
    )


@router.post("/plan")
async def plan(request: Request, body: PlanRequest) -> dict[str, Any]:
    """Estimate what a collection takes; measures for some seconds, with a folder for half a minute."""
    service: Service = request.app.state.service
    alias = body.model or service.models.default
    name = name_of_model(service, alias)
    given = body.model_dump(exclude={"folder", "model"})
    paths = [] if body.folder is None else [await service.in_thread(service.catalog.folder, body.folder)]

    def estimate() -> dict[str, Any]:
        from nearsight.services.plans import plan_document

        document = plan_document(
            [str(path) for path in paths], model=name, cache_dir=_cache_dir(service), **given
        )
        return {**document, "model": alias}

    # Two measurements at once would measure each other.
    async with service.measuring:
        return await service.in_analysis_thread(estimate)


@router.get("/doctor")
async def doctor(request: Request, collection: str | None = None) -> dict[str, Any]:
    """Check this machine, the installation and, where it is named, a collection; it tells of folders, too."""
    service: Service = request.app.state.service

    def check() -> list[dict[str, Any]]:
        from nearsight.doctor import run_checks

        settings = Settings.from_environment()
        place = settings.collection
        if collection is not None:
            service.catalog.open(collection)
            place = service.catalog.place(collection)
        return [each.to_dict() for each in run_checks(settings, place)]

    return {"checks": await service.in_analysis_thread(check)}


def _cache_dir(service: Service) -> Path | None:
    place = service.worker_args["cache_dir"]
    return None if place is None else Path(place)
