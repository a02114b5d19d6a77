"""What Prometheus reads: requests, the queue, decoding and inference, models, jobs."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one service, in a registry of its own: several services may run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = self._counter("http_requests", "Requests.", "route", "method", "code")
        self.request_seconds = self._histogram("http_request_seconds", "Time to answer.", _SECONDS, "route")
        self.queue_items = self._gauge("queue_items", "Images and texts that wait.", "model", "priority")
        self.queue_bytes = self._gauge("queue_bytes", "Bytes that wait.")
        self.queue_wait_seconds = self._histogram(
            "queue_wait_seconds", "Time in the queue.", _SECONDS, "model"
        )
        self.batch_items = self._histogram(
            "batch_items", "Images or texts embedded at once.", (1, 2, 4, 8, 16, 32), "model"
        )
        self.decode_seconds = self._histogram("decode_seconds", "Time to decode a batch.", _SECONDS, "model")
        self.infer_seconds = self._histogram("infer_seconds", "Time to embed a batch.", _SECONDS, "model")
        self.embedded = self._counter("embedded_items", "Images and texts embedded.", "model")
        self.rejected = self._counter("rejected", "Requests refused before any work.", "reason")
        self.dropped = self._counter("dropped", "Items dropped in the queue.", "reason")
        self.model_bytes = self._gauge("model_bytes", "Memory that loading took.", "model")
        self.model_loads = self._counter("model_loads", "Models loaded.", "model")
        self.fetches = self._counter("fetches", "Images fetched by URL.", "outcome")
        self.jobs = self._gauge("jobs", "Jobs.", "kind", "state")
        # Looking a counter up by its labels takes longer than counting.
        self._requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        key = (route, method, status)
        if key not in self._requests:
            self._requests[key] = self.requests.labels(*key), self.request_seconds.labels(route)
        count, histogram = self._requests[key]
        count.inc()
        histogram.observe(seconds)

    def text(self) -> bytes:
        """Return the page that Prometheus reads."""
        return bytes(generate_latest(self.registry))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nearsight_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"nearsight_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"nearsight_{name}", text, labels, registry=self.registry, buckets=buckets)
