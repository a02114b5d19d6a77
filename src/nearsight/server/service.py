"""What all requests share: settings, keys, models, queue, metrics; and how it starts and ends."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from nearsight.errors import InvalidParameterError, NearsightError, StorageError
from nearsight.images import Limits
from nearsight.models import DEFAULT_MODEL, find_model, load_model, load_text_encoder
from nearsight.processor import n_cores
from nearsight.server.auth import Gate
from nearsight.server.catalog import CollectionCatalog
from nearsight.server.detectors import LoadedDetectors
from nearsight.server.dispatcher import Dispatcher
from nearsight.server.face_banks import FaceBanks
from nearsight.server.fetch import UrlFetcher
from nearsight.server.jobs import JobRunner
from nearsight.server.limits import RateLimit
from nearsight.server.metrics import Metrics
from nearsight.server.model_pool import ModelPool, ModelSource, n_workers
from nearsight.server.request_threads import RequestThreads, requested_collection
from nearsight.services.jobs import JobTable
from nearsight.services.keys import KeyStore, key_of
from nearsight.services.made_models import MadeModels
from nearsight.services.recommenders import RecommenderCache
from nearsight.services.server_settings import ServerSettings
from nearsight.services.shown_path import without_places
from nearsight.store import is_directory, shown_uri

_log = logging.getLogger("nearsight.server")
_T = TypeVar("_T")
_MB = 2**20
# What runs at once, by kind; each may use several cores by itself. Searches, and whatever else is short, wait
# neither for an upload that is embedded nor for a detector.
_N_THREADS = {"request": 4, "write": 4, "analysis": 2}
# The images of each request that waits are in memory.
_MOST_ANALYSES_WAITING = 16
# A stop does not wait for a database that may never answer.
_GRACE_ELSEWHERE_S = 1.0
_SWEEP_S = 15.0
# The time of a file is this coarse on some file systems.
_CLOCK_STEP_S = 2.0


class Service:
    """The state of one service.

    Parameters
    ----------
    settings : ServerSettings
    sources : mapping of str to ModelSource, optional
        The models by alias; by default those of the settings.
    device : str
        Where models run; see `load_model`.
    cache_dir : Path, optional
        For converted models.

    Raises
    ------
    InvalidParameterError
        The service would be reachable from outside without a key.
    """

    def __init__(
        self,
        settings: ServerSettings,
        sources: Mapping[str, ModelSource] | None = None,
        *,
        device: str = "auto",
        cache_dir: Path | None = None,
    ) -> None:
        self.settings = settings
        self.data = Path(settings.data)
        keys = KeyStore(self.data)
        extra = [key_of(settings.api_key, "settings")] if settings.api_key else []
        if not settings.is_on_loopback and not extra and not len(keys):
            raise InvalidParameterError(
                f"host is {settings.host}, so others can reach the service, and there is no key; make "
                f"one with "
                f"nearsight keys add NAME --data {settings.data}"
            )
        self._places = _places(settings)
        self.metrics = Metrics()
        #: Models that jobs made; they are served like those of the settings.
        self.made_models = MadeModels(self.data / "models")
        #: Held by whoever measures this machine.
        self.measuring = asyncio.Lock()
        self._source = partial(_source, device=device, cache_dir=cache_dir)
        #: What an image of a request may cost.
        self.limits = Limits(
            max_pixels=settings.max_pixels, max_bytes=settings.max_image_mb * _MB, max_seconds=10.0
        )
        self.gate = Gate(keys, extra, RateLimit(settings.rate), may_be_open=settings.is_on_loopback)
        self.models = ModelPool(
            sources if sources is not None else _sources(settings, device, cache_dir),
            self.data,
            limits=self.limits,
            budget_bytes=settings.model_memory_mb * _MB,
            ttl_s=settings.model_ttl_s,
            pinned=settings.pin,
            rebind=settings.rebind,
            metrics=self.metrics,
        )
        self._add_made_models()
        self.catalog = CollectionCatalog(settings, self.models, device=device, cache_dir=cache_dir)
        self.face_banks = FaceBanks(
            self.catalog, limits=self.limits, n_threads=settings.n_threads or n_cores(), cache_dir=cache_dir
        )
        self.detectors = LoadedDetectors(self.limits, settings.n_threads or n_cores(), cache_dir)
        self.dispatcher = Dispatcher(
            n_threads=settings.n_threads or n_cores(),
            max_items=settings.queue,
            max_bytes=settings.queue_mb * _MB,
            max_wait_s=settings.max_wait_s,
            metrics=self.metrics,
        )
        self.fetcher = UrlFetcher(
            allowed=settings.allow_urls,
            max_bytes=settings.max_image_mb * _MB,
            max_total_bytes=settings.max_request_mb * _MB,
            metrics=self.metrics,
        )
        self.recommenders = RecommenderCache()
        self.jobs = JobRunner(
            JobTable(self.data),
            self.in_thread,
            self.metrics,
            memory_mb=settings.job_memory_mb,
            place=self.catalog.real_place,
            public=self.public,
            on_done=self._add_made_models,
        )
        #: What every job is told of this machine.
        self.worker_args = {"device": device, "cache_dir": None if cache_dir is None else str(cache_dir)}
        self.stopping = asyncio.Event()
        # By kind, and by the collection where that lies elsewhere.
        self._threads: dict[tuple[str, str], RequestThreads] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._in_background: dict[str, asyncio.Task[None]] = {}
        self._why_not_ready = "the model is being loaded"
        self._since = time.time()
        self._closing: asyncio.Future[None] | None = None

    def public(self, text: str) -> str:
        """Return a text for clients: with names instead of where collections and folders lie."""
        return without_places(text, self._places)

    async def in_thread(self, function: Callable[..., _T], *args: Any, **options: Any) -> _T:
        """Run something that blocks, outside of the event loop.

        A request for a collection in a database has threads that others do not need.

        Raises
        ------
        Problem
            503: that database does not answer.
        """
        return await self._threads_of(requested_collection.get()).run(partial(function, *args, **options))

    async def in_thread_of(self, collection: str, function: Callable[..., _T], *args: Any) -> _T:
        """Do as `in_thread` for a request that names a collection."""
        return await self._threads_of(collection).run(partial(function, *args))

    async def in_write_thread(self, function: Callable[[], _T]) -> _T:
        """Do as `in_thread` for what adds images, which no search waits for."""
        return await self._threads_of(requested_collection.get(), "write").run(function)

    async def in_analysis_thread(self, function: Callable[[], _T]) -> _T:
        """Do as `in_thread` for what takes seconds of all cores, which no search waits for.

        Raises
        ------
        Problem
            429: many wait already.
        """
        return await self._threads_of(requested_collection.get(), "analysis").run(function)

    def in_background(self, name: str, function: Callable[[], object]) -> None:
        """Run something that blocks and that nobody waits for; not while the same is running."""

        async def run() -> None:
            try:
                await self.in_thread(function)
            except Exception as error:  # the next request asks for it again
                _log.warning("%s failed", name, exc_info=error)
            finally:
                self._in_background.pop(name, None)

        if name not in self._in_background and not self.stopping.is_set():
            self._in_background[name] = asyncio.ensure_future(run())

    def start(self) -> None:
        """Begin to load the default model, and what runs in the background. Needs a running loop."""
        self._tasks = [
            asyncio.ensure_future(each)
            for each in (self._warm_up(), self._sweep(), self.jobs.run(), self._remove_unlisted_uploads())
        ]

    def begin_stop(self) -> None:
        """Refuse new work and end the streams; what was accepted is finished, or told to go elsewhere."""
        self.stopping.set()
        if self._closing is None:
            # Now, and not after uvicorn has waited for all connections: it would hang up on what still waits.
            self._closing = asyncio.ensure_future(self.dispatcher.close(self.settings.grace_s))

    async def stop(self) -> None:
        """Finish what was accepted, within the time of grace."""
        self.begin_stop()
        await self.jobs.stop()
        tasks = [*self._tasks, *self._in_background.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._closing is not None:
            await self._closing
        self.models.close()
        await asyncio.gather(
            *(
                threads.close(_GRACE_ELSEWHERE_S if elsewhere else self.settings.grace_s)
                for (_, elsewhere), threads in self._threads.items()
            )
        )

    def why_not_ready(self) -> str:
        """Return why requests should go elsewhere; empty if the service is ready."""
        if self.stopping.is_set():
            return "the service stops"
        if self._why_not_ready:
            return self._why_not_ready
        if self.dispatcher.fill >= 0.9:
            return "the queue is full"
        return ""

    async def _warm_up(self) -> None:
        try:
            await self.in_thread(self._check_disk)
            model = await self.models.get(None)
            self.dispatcher.ensure_threads(self.settings.n_threads or n_workers(model.backend))
            self._why_not_ready = ""
            _log.info("ready")
        except Exception as error:
            self._why_not_ready = f"the service cannot work: {error}"
            _log.error("not ready", exc_info=error)

    async def _remove_unlisted_uploads(self) -> None:
        try:
            names = await self.in_thread(self.catalog.names_of_uploads)
        except OSError as error:
            _log.warning("uploads that were never acknowledged are left", exc_info=error)
            return
        clean, before_s = self.catalog.remove_unlisted_uploads, self._since - _CLOCK_STEP_S
        cleaned = [self.in_thread_of(name, clean, name, before_s) for name in names]
        for name, outcome in zip(names, await asyncio.gather(*cleaned, return_exceptions=True), strict=True):
            if isinstance(outcome, Exception):  # it is tried again at the next start
                _log.warning("uploads to %s that were never acknowledged are left", name, exc_info=outcome)

    def _threads_of(self, collection: str, kind: str = "request") -> RequestThreads:
        elsewhere = collection if self.catalog.is_elsewhere(collection) else ""
        if (kind, elsewhere) not in self._threads:
            self._threads[kind, elsewhere] = RequestThreads(
                _N_THREADS[kind],
                f"nearsight-{kind}-{elsewhere}".rstrip("-"),
                answer_s=self.settings.deadline_s if elsewhere else None,
                most_waiting=_MOST_ANALYSES_WAITING if kind == "analysis" else None,
            )
        return self._threads[kind, elsewhere]

    def _add_made_models(self) -> None:
        for alias, name in self.made_models.all().items():
            if alias in self.models.sources:
                continue
            try:
                find_model(name)
            except NearsightError as error:
                # Who looks for the model of a collection asks each of them.
                _log.warning("the model %r, which a job made, is left out: %s", alias, error)
            else:
                self.models.sources[alias] = self._source(name)

    def _check_disk(self) -> None:
        try:
            self.data.mkdir(parents=True, exist_ok=True)
            probe = self.data / f".probe-{threading.get_ident()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise StorageError(f"the data directory cannot be written ({error.strerror})") from error

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self.in_thread(self.models.unload_idle)


def _places(settings: ServerSettings) -> dict[str, str]:
    """Return what clients call the places that errors of the library tell."""
    data = Path(settings.data).absolute()
    mounts = {
        str(Path(place).absolute()) if is_directory(place) else shown_uri(place): alias
        for alias, place in settings.pairs("mount").items()
    }
    roots = {str(Path(place).resolve()): alias for alias, place in settings.pairs("root").items()}
    named = {place: alias for place, alias in {**roots, **mounts}.items() if place != "/"}
    return {f"{data}/collections/": "", f"{data}/": "", **named}


def _sources(settings: ServerSettings, device: str, cache_dir: Path | None) -> dict[str, ModelSource]:
    names = settings.pairs("model") or {"default": DEFAULT_MODEL}
    for name in names.values():
        find_model(name)  # a name that is wrong is told now
    return {alias: _source(name, device, cache_dir) for alias, name in names.items()}


def _source(name: str, device: str, cache_dir: Path | None) -> ModelSource:
    return ModelSource(
        name,
        lambda: find_model(name).spec,
        partial(load_model, name, device=device, cache_dir=cache_dir),
        partial(load_text_encoder, name, cache_dir=cache_dir),
    )
