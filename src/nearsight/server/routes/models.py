"""The models that clients may name."""

import tempfile
import time
import zipfile
from collections.abc import Iterator
from typing import IO, Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from starlette.responses import Response, StreamingResponse

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.service import Service
from nearsight.services.made_models import ALIAS

router = APIRouter(tags=["models"], dependencies=[requires("embed")])
Alias = Annotated[str, PathParameter(pattern=f"^{ALIAS}$")]
_STARTED = int(time.time())
_CHUNK_BYTES = 2**20


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def list_models(request: Request) -> dict[str, Any]:
    """Return the models by alias, as OpenAI's clients read them."""
    service: Service = request.app.state.service
    return {"object": "list", "data": [facts_of(service, alias) for alias in service.models.sources]}


@router.get("/v1/models/{alias}/archive", dependencies=[requires("admin")], response_class=StreamingResponse)
async def get_archive(request: Request, alias: Alias) -> StreamingResponse:
    """Return a model that a job trained, as a ZIP file; unpacked, ``dir:FOLDER`` names it for the library."""
    service: Service = request.app.state.service

    def pack() -> IO[bytes]:
        folder = service.made_models.folder(alias)
        if alias not in service.made_models.all() or not folder.is_dir():
            raise _not_made(alias)
        # It has no name on disk, so that nothing stays where a client hangs up, or the service is killed.
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the answer closes it
        with zipfile.ZipFile(file, "w") as archive:
            for each in sorted(folder.iterdir()):
                archive.write(each, each.name)
        return file

    file = await service.in_write_thread(pack)
    headers = {
        "Content-Disposition": f'attachment; filename="{alias}.zip"',
        "Content-Length": str(file.tell()),
    }
    return StreamingResponse(_content(file), media_type="application/zip", headers=headers)


@router.delete("/v1/models/{alias}", status_code=204, dependencies=[requires("admin")])
async def delete_model(request: Request, alias: Alias) -> Response:
    """Delete a model that a job made; no image can be added to its collections, or searched by, then."""
    service: Service = request.app.state.service

    def delete() -> None:
        if alias not in service.made_models.all():
            raise _not_made(alias)
        service.made_models.remove(alias)
        service.models.forget(alias)

    await service.in_thread(delete)
    return Response(status_code=204)


def _content(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _not_made(alias: str) -> Problem:
    return Problem(
        404, f"no job of this service made a model {alias!r}", code="model_not_found", param="model"
    )


@router.get("/v1/models/{alias:path}")
async def get_model(request: Request, alias: str) -> dict[str, Any]:
    """Return one model."""
    service: Service = request.app.state.service
    if alias not in service.models.sources:
        known = ", ".join(service.models.sources)
        raise Problem(
            404, f"there is no model {alias!r}; there are: {known}", code="model_not_found", param="model"
        )
    return facts_of(service, alias)


def facts_of(service: Service, alias: str) -> dict[str, Any]:
    """Return what is known of a model. Its own name is not told: it may be a path."""
    model = service.models.loaded(alias)
    facts: dict[str, Any] = {
        "id": alias,
        "object": "model",
        "created": _STARTED,
        "owned_by": "nearsight",
        "loaded": model is not None,
        "default": alias == service.models.default,
        "fingerprint": service.models.bound_fingerprint(alias),
    }
    if model is not None:
        spec = model.backend.spec
        facts |= {
            "dim": spec.dim,
            "license": spec.license,
            "normalized": spec.normalize,
            "fingerprint": spec.fingerprint.digest,
            "dimensions": list(spec.matryoshka_dims) or [spec.dim],
        }
    return facts
