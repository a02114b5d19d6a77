"""Traces for OpenTelemetry, where a collector is named; the only module that imports its library."""

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nearsight import __version__
from nearsight.errors import MissingExtraError
from nearsight.server.dispatcher import Timing


class Traces:
    """A span for each request, with spans inside for the time in the queue, decoding and embedding.

    A request that carries a ``traceparent`` continues that trace.

    Parameters
    ----------
    app : ASGI application
        It leaves the `Timing` of a request in its state.
    endpoint : str
        URL of a collector that reads OTLP over HTTP, such as ``http://127.0.0.1:4318/v1/traces``.

    Raises
    ------
    MissingExtraError
        The extra ``otel`` is not installed.
    """

    def __init__(self, app: ASGIApp, endpoint: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise MissingExtraError("traces need OpenTelemetry: pip install 'nearsight[otel]'") from error
        self.app = app
        facts = Resource.create({"service.name": "nearsight", "service.version": __version__})
        # Not the global one: what else runs in this process is not ours to tell.
        self._provider = TracerProvider(resource=facts)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("nearsight")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:
                self._provider.shutdown()
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from opentelemetry import propagate, trace

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        state = scope.setdefault("state", {})
        status = 0

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        span = self._tracer.start_span(
            scope["method"], context=propagate.extract(headers), kind=trace.SpanKind.SERVER
        )
        try:
            with trace.use_span(span, end_on_exit=False):
                await self.app(scope, receive, send_noting_status)
        finally:
            # The template, never the path: a path may hold the name of somebody's image.
            route = getattr(scope.get("route"), "path", "unmatched")
            span.update_name(f"{scope['method']} {route}")
            span.set_attributes(_attributes(scope, route, status))
            if status >= 500 or not status:
                span.set_status(trace.StatusCode.ERROR)
            if isinstance(timing := state.get("timing"), Timing):
                self._add_stages(trace.set_span_in_context(span), timing)
            span.end()

    def _add_stages(self, context: Any, timing: Timing) -> None:
        begun = timing.begun_ns
        for name, seconds in (
            ("queue", timing.queue_s),
            ("decode", timing.decode_s),
            ("infer", timing.infer_s),
        ):
            ended = begun + round(seconds * 1e9)
            self._tracer.start_span(name, context=context, start_time=begun).end(ended)
            begun = ended


def _attributes(scope: Scope, route: str, status: int) -> Mapping[str, str | int]:
    return {
        "http.request.method": scope["method"],
        "http.route": route,
        "http.response.status_code": status or 499,
    }
