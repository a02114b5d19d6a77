"""The models that clients may name."""

import time
from typing import Any

from fastapi import APIRouter, Request

from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.service import Service

router = APIRouter(tags=["models"], dependencies=[requires("embed")])
_STARTED = int(time.time())


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def list_models(request: Request) -> dict[str, Any]:
    """Return the models by alias, as OpenAI's clients read them."""
    service: Service = request.app.state.service
    return {"object": "list", "data": [facts_of(service, alias) for alias in service.models.sources]}


@router.get("/v1/models/{alias:path}")
async def get_model(request: Request, alias: str) -> dict[str, Any]:
    """Return one model."""
    service: Service = request.app.state.service
    if alias not in service.models.sources:
        raise Problem(404, "there is no model of that name", code="model_not_found", param="model")
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
