"""Care of a collection: compact it, copy it, and make one of shorter or centered vectors from it."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from nearsight.collection import manifest
from nearsight.models.pca import Projection
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.jobs import StartAnalysis
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service

router = APIRouter(prefix="/v1/collections/{name}", tags=["collections"])

_Target = Annotated[
    str,
    Field(max_length=64, description="The name of the new collection, or of a mount that holds none."),
]
_Storage = Annotated[
    Literal["float32", "float16"] | None, Field(description="By default as in this collection.")
]


class CopyRequest(RequestBody):
    """Where to copy; see `nearsight copy`."""

    to: _Target
    storage: _Storage = None
    verify: bool = Field(
        False, description="Compare every row afterwards; a copy that is there already is only compared."
    )
    start_over: bool = Field(False, description="Delete an unfinished copy of that name first.")


class ReductionRequest(RequestBody):
    """The new vectors: of `dim` numbers, or as long as before and centered."""

    to: _Target
    dim: Annotated[int | None, Field(ge=1, le=100_000)] = None
    center: bool = False
    storage: _Storage = None


@router.post("/compact", status_code=202, dependencies=[requires("write")])
async def compact(start: StartAnalysis) -> dict[str, Any]:
    """Rewrite the collection into fewer and larger files, as a job; its result says what that freed."""
    return await start("compact")


@router.post("/copy", status_code=202, dependencies=[requires("write")])
async def copy(request: Request, start: StartAnalysis, name: str, body: CopyRequest) -> dict[str, Any]:
    """Copy the collection, as a job; the same request goes on after an interruption.

    What `verify` finds is told in `differences`. Both show the same uploaded files, which stay as long as one
    of them is there.
    """
    service: Service = request.app.state.service
    if body.to == name:
        raise Problem(400, "a collection cannot be copied to itself; choose another name", param="to")
    target = await service.in_thread(service.catalog.target, body.to, is_copy=True, may_exist=body.verify)
    marks = await service.in_thread(_marks, service, name, body.to, target)
    return await start("copy", body, target=target, marks=marks)


@router.post("/reduce-dim", status_code=202, dependencies=[requires("write")])
async def reduce_dim(
    request: Request, start: StartAnalysis, name: str, body: ReductionRequest
) -> dict[str, Any]:
    """Make a collection of the same images with shorter or centered vectors, as a job."""
    service: Service = request.app.state.service
    if body.center is (body.dim is not None):
        raise Problem(400, "give one of dim and center; vectors of dim are centered, too", param="dim")
    target = await service.in_thread(service.catalog.target, body.to)
    marks = await service.in_thread(_marks, service, name, body.to, target)
    return await start("reduce_dim", body, target=target, marks=marks)


@router.get("/projection", dependencies=[requires("read")], response_class=Response)
async def get_projection(request: Request, name: str) -> Response:
    """Return how the model's vectors became those of a collection that `reduce-dim` made: an .npz file."""
    service: Service = request.app.state.service

    def read() -> bytes:
        content = service.catalog.open(name).location.read_document(manifest.PROJECTION)
        if content is None:
            raise Problem(
                404,
                f"the vectors of {name!r} are those of its model: reduce-dim did not make it",
                code="no_projection",
            )
        projection = Projection.from_bytes(content, name)
        # A model's own name may be a path.
        base = replace(projection.base, id=projection.base.identity or projection.base.id)
        return replace(projection, base=base).to_bytes()

    return Response(await service.in_thread(read), media_type="application/octet-stream")


def _marks(service: Service, name: str, target: str, place: str) -> dict[str, str]:
    """Return what the job writes before it copies rows, so that the uploads that these name stay."""
    return service.catalog.shared_uploads.marks(service.catalog.uploads(name), name, target, place)
