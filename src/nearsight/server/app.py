"""The application: routes, and the layers around them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from nearsight import __version__
from nearsight.server import errors, schemas
from nearsight.server.access_log import AccessLog
from nearsight.server.auth import NeededScopes
from nearsight.server.dialects import cohere, immich, tei, voyage, weaviate
from nearsight.server.direct import DirectRoutes
from nearsight.server.errors import Problem, Renderers
from nearsight.server.head import HeadRequests
from nearsight.server.limits import BodyLimit
from nearsight.server.origin import OriginCheck
from nearsight.server.routes import (
    analyses,
    anomaly,
    classify,
    clusters,
    collections,
    customers,
    embeddings,
    faces,
    health,
    items,
    jobs,
    labels,
    machine,
    maintenance,
    model_jobs,
    models,
    page,
    recommendations,
    search,
    session,
    trash,
    upgrade,
)
from nearsight.server.service import Service
from nearsight.server.traces import Traces

_MB = 2**20
# What is asked most comes first: each route before it costs some microseconds.
_ROUTES = (
    embeddings,
    search,
    items,
    health,
    session,
    models,
    collections,
    jobs,
    analyses,
    clusters,
    anomaly,
    trash,
    labels,
    classify,
    recommendations,
    faces,
    customers,
    upgrade,
    maintenance,
    model_jobs,
    machine,
    page,
)
_DIALECTS: tuple[Any, ...] = (cohere, voyage, weaviate, tei)


def create_app(service: Service) -> ASGIApp:
    """Return the application of a service; it starts and stops the service with itself."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    by_path = {path: each.render for each in _DIALECTS for path in each.PATHS}
    renderers = Renderers(by_path, service.public)
    # The page of the documentation would load scripts from elsewhere; /openapi.json needs no script.
    app = FastAPI(
        title="nearsight",
        version=__version__,
        summary="Image embeddings, and what they are good for.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={
            "4XX": {"description": "A problem", "content": _PROBLEM},
            "5XX": {"description": "A problem"},
        },
    )
    app.state.service = service
    errors.install(app, renderers)
    app.add_exception_handler(jobs.RepeatedRequest, jobs.answer_repeated)
    routers = [module.router for module in (*_ROUTES, *_DIALECTS)]
    for router in routers:
        app.include_router(router)
    scopes = NeededScopes(route for router in routers for route in router.routes)
    describe = app.openapi
    app.openapi = lambda: schemas.describe_names(describe())  # type: ignore[method-assign]  # FastAPI's way
    direct = DirectRoutes(app, (embeddings.router, search.router), renderers)
    return layered(direct, service, renderers, scopes)


def create_immich_app(service: Service) -> ASGIApp:
    """Return the application for Immich, which needs a listener of its own.

    Raises
    ------
    InvalidParameterError
        A model does not fit what Immich expects, or an address is not valid.
    """
    names = service.settings.pairs("immich")
    immich.check_models(names, {alias: source.spec().dim for alias, source in service.models.sources.items()})
    renderers = Renderers(public=service.public)
    app = immich.AddressCheck(immich.create_app(service), renderers, service.settings.immich_allow)
    # Immich calls by whatever name its settings hold; there is nothing to read here.
    return layered(app, service, renderers)


def layered(
    app: ASGIApp, service: Service, renderers: Renderers, scopes: NeededScopes | None = None
) -> ASGIApp:
    """Wrap an application: limits innermost, then hosts and origins, then the log.

    Without `scopes`, any host may call it, and no key is needed.
    """
    settings = service.settings

    def refusal(request: HTTPConnection) -> Problem | None:
        return None if scopes is None else service.gate.refusal(request, scopes(request))

    limited = BodyLimit(
        HeadRequests(app),
        renderers,
        max_bytes=settings.max_request_mb * _MB,
        timeout_s=settings.read_timeout_s,
        refuse_unadmitted=refusal,
    )
    names = None if scopes is None else [settings.host, *settings.allowed_host]
    checked = OriginCheck(limited, renderers, names)
    logged = AccessLog(checked, renderers, service.metrics.observe_request)
    return Traces(logged, settings.otlp_endpoint) if settings.otlp_endpoint else logged


_PROBLEM = {"application/problem+json": {"schema": schemas.PROBLEM}}
