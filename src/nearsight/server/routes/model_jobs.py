"""Models as the work of jobs: compare them, train one, quantize one."""

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.jobs import IdempotencyKey, accepted
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service
from nearsight.services.made_models import ALIAS

router = APIRouter(prefix="/v1", tags=["models"], dependencies=[requires("admin")])

_Alias = Annotated[str, Field(max_length=200, description="An alias of `GET /v1/models`.")]
_NewAlias = Annotated[str, Field(pattern=f"^{ALIAS}$", description="The alias of the new model.")]
_File = Annotated[str | None, Field(description="A table below a root of the service.")]


class FolderRequest(RequestBody):
    """A folder below a root of the service, and what is passed over in it."""

    folder: str
    exclude: list[str] = Field([], max_length=1000)
    include_hidden: bool = False


class EvaluationRequest(FolderRequest):
    """Images in one folder a class, and the models to compare; see `nearsight eval`."""

    models: list[_Alias] = Field([], max_length=100, description="By default all.")
    metric: Literal["recall@1", "recall@5", "recall@10", "map@10", "r_precision", "knn_accuracy"] = "map@10"


class TrainingRequest(FolderRequest):
    """Labeled images, and how a model learns from them; see `nearsight train`."""

    to: _NewAlias
    model: Annotated[str | None, Field(description="The pretrained model; by default the default one.")] = (
        None
    )
    labels: _File = None
    pairs: _File = None
    depth: Literal["auto", "head", "last", "all"] = "auto"
    loss: Literal["softmax", "supcon", "arcface", "proxy-anchor"] | None = None
    epochs: Annotated[int | None, Field(ge=1, le=10_000)] = None
    augment: Literal["photos", "products", "industrial", "documents"] = "photos"
    views: Annotated[int | None, Field(ge=1, le=16)] = None
    dim: Annotated[int | None, Field(ge=1, le=100_000)] = None
    known_only: bool = False


class QuantizationRequest(FolderRequest):
    """Images like those to be embedded, at least 32; see `nearsight models quantize`."""

    to: _NewAlias
    model: Annotated[str | None, Field(description="By default the default model.")] = None


@router.post("/eval", status_code=202)
async def evaluate_models(
    request: Request, response: Response, body: EvaluationRequest, idempotency_key: IdempotencyKey = None
) -> dict[str, Any]:
    """Compare models on the labeled images of a folder, as a job; its result has the figures."""
    service: Service = request.app.state.service
    # A collection whose model nobody registered has put it under a name of its own.
    aliases = body.models or [alias for alias in service.models.sources if ":" not in alias]
    args = {
        "model_names": {alias: name_of_model(service, alias) for alias in aliases},
        "skip_failing": not body.models,
        "roots": {alias: str(place) for alias, place in service.catalog.roots.items()},
    }
    return await _start(request, response, "evaluation", body, args, idempotency_key)


@router.post("/train", status_code=202)
async def train_model(
    request: Request, response: Response, body: TrainingRequest, idempotency_key: IdempotencyKey = None
) -> dict[str, Any]:
    """Train a model on the labeled images of a folder, as a job.

    When it has ended, `to` is a model of the service like any other; `GET /v1/models/{to}/archive` has its
    files. A job that was cancelled or interrupted goes on after its last epoch when it is resumed.
    """
    service: Service = request.app.state.service
    if body.labels is not None and body.pairs is not None:
        raise Problem(400, "labels and pairs were given; give one of them", param="labels")
    args = {**_new(service, body.to, body.model), "n_views": body.views}
    for name in ("labels", "pairs"):
        if (file := getattr(body, name)) is not None:
            args[f"{name}_file"] = str(await service.in_thread(service.catalog.file, file))
    return await _start(request, response, "training", body, args, idempotency_key)


@router.post("/quantize", status_code=202)
async def quantize_model(
    request: Request, response: Response, body: QuantizationRequest, idempotency_key: IdempotencyKey = None
) -> dict[str, Any]:
    """Make an int8 variant of a model, and measure it, as a job; then `to` is a model of the service."""
    service: Service = request.app.state.service
    args = _new(service, body.to, body.model)
    return await _start(request, response, "quantization", body, args, idempotency_key)


def name_of_model(service: Service, alias: str) -> str:
    """Return the own name of the model of an alias; it is not for clients.

    Raises
    ------
    Problem
        404: there is none.
    """
    source = service.models.sources.get(alias)
    if source is None:
        known = ", ".join(service.models.sources)
        raise Problem(
            404, f"there is no model {alias!r}; there are: {known}", code="model_not_found", param="model"
        )
    return source.name


def _new(service: Service, to: str, model: str | None) -> dict[str, Any]:
    """Return what a job is told that makes a model."""
    if to in service.models.sources:
        raise Problem(
            409, f"there is a model {to!r} already; choose another alias", code="exists", param="to"
        )
    alias = model or service.models.default
    return {
        "model": alias,
        "model_name": name_of_model(service, alias),
        "made_models": str(service.made_models.directory),
    }


async def _start(
    request: Request,
    response: Response,
    kind: str,
    body: FolderRequest,
    args: dict[str, Any],
    idempotency_key: str | None,
) -> dict[str, Any]:
    service: Service = request.app.state.service
    folder: Path = await service.in_thread(service.catalog.folder, body.folder)
    shown = body.model_dump(mode="json", exclude_none=True)
    facts = {**shown, **args, "folder": str(folder), "shown": shown, **service.worker_args}
    return await accepted(request, response, kind, facts, idempotency_key)
