"""The routes that are asked most, without the framework's way to them, which costs as much as a search."""

import inspect
from collections.abc import Iterable
from typing import Any, cast

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from nearsight.server.auth import scopes_of
from nearsight.server.errors import Renderers
from nearsight.server.request_threads import note_collection
from nearsight.server.service import Service


class DirectRoutes:
    """Answers POST requests to some routes of an application by itself, and leaves others to it.

    Their functions take nothing but the request and texts of the path, so that there is nothing to check and
    to convert for them; who may ask is what the routes say. The application still describes them.

    Parameters
    ----------
    app : FastAPI
    routers : iterable of APIRouter
        All of their POST routes are answered.
    renderers : Renderers
    """

    def __init__(self, app: FastAPI, routers: Iterable[APIRouter], renderers: Renderers) -> None:
        self.app = app
        self._renderers = renderers
        found = [each for router in routers for each in router.routes]
        routes = [each for each in found if isinstance(each, APIRoute) and "POST" in (each.methods or ())]
        self._routes = [(route, _scope_of(route)) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            for route, needed in self._routes:
                if match := route.path_regex.match(scope["path"]):
                    await self._answer(route, needed, match.groupdict(), scope, receive, send)
                    return
        await self.app(scope, receive, send)

    async def _answer(
        self,
        route: APIRoute,
        needed: str,
        parameters: dict[str, Any],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        scope["app"], scope["route"], scope["path_params"] = self.app, route, parameters
        scope.setdefault("state", {})
        try:
            request = Request(scope, receive, send)
            cast("Service", self.app.state.service).gate.admit(request, needed)
            note_collection(parameters)
            response = await route.endpoint(request, **parameters)
        except Exception as error:
            response = self._renderers.answer(error, scope["path"])
        await response(scope, receive, send)


def _scope_of(route: APIRoute) -> str:
    """Return the scope of the keys that a route admits."""
    parameters = inspect.signature(route.endpoint).parameters.values()
    plain = all(each.annotation in (str, Request) for each in parameters)
    scopes = scopes_of(route)
    if not plain or len(scopes) != len(route.dependencies) or len(scopes) != 1:
        raise TypeError(f"{route.path} needs the framework")
    return scopes[0]
