"""The models that clients may name: loaded when needed, within a budget of memory."""

import asyncio
import contextlib
import gc
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nearsight import process_memory
from nearsight.artifacts import replacing
from nearsight.embedder import BATCH_SIZE, Embedder
from nearsight.errors import FingerprintMismatchError, ImageError, InvalidParameterError, NearsightError
from nearsight.images import Limits, decode
from nearsight.models import Backend, ModelSpec, TextEncoder
from nearsight.server.dispatcher import BatchResult, Lane
from nearsight.server.errors import Problem
from nearsight.server.metrics import Metrics

_log = logging.getLogger("nearsight.server")

FILENAME = "models.json"
# Texts that are one item of the queue.
TEXTS_PER_ITEM = 32


@dataclass(frozen=True, slots=True)
class ModelSource:
    """How a registered model is loaded.

    Attributes
    ----------
    name : str
        The model's own name. It may hold a path, so clients never see it.
    spec : callable
        Returns the facts of the model without loading it.
    load : callable
        Returns the backend.
    load_text_encoder : callable
        Returns the text encoder; raises `NearsightError` if there is none.
    """

    name: str
    spec: Callable[[], ModelSpec]
    load: Callable[[], Backend]
    load_text_encoder: Callable[[], TextEncoder]


@dataclass(frozen=True, slots=True)
class ImageVector:
    """The vector of an image, and its width and height in pixels."""

    vector: NDArray[np.float32]
    size_px: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Decoded:
    prepared: Any
    size_px: tuple[int, int]


@dataclass(eq=False)
class LoadedModel:
    """A model in memory, and the lanes of its images and texts."""

    alias: str
    backend: Backend
    images: Lane
    n_bytes: int
    #: The digest of its fingerprint, which takes a tenth of a millisecond to compute.
    fingerprint: str
    n_users: int = 0
    used: float = field(default_factory=time.monotonic)
    is_text_known: bool = False
    texts: Lane | None = None


class ModelPool:
    """Registered models by alias.

    Parameters
    ----------
    sources : mapping of str to ModelSource
        By alias; the first is the default model.
    directory : Path
        Where the fingerprint of each alias is remembered: an alias never changes its vectors unnoticed.
    limits : Limits
        For the images of requests.
    budget_bytes : int
        Memory that models may take; the least recently used ones are unloaded.
    ttl_s : float
        Models are unloaded after so long without use; 0 keeps them.
    pinned : sequence of str
        Aliases that are never unloaded.
    rebind : sequence of str
        Aliases that may have another fingerprint than before.
    metrics : Metrics
    """

    def __init__(
        self,
        sources: Mapping[str, ModelSource],
        directory: Path,
        *,
        limits: Limits,
        budget_bytes: int,
        ttl_s: float = 0.0,
        pinned: Sequence[str] = (),
        rebind: Sequence[str] = (),
        metrics: Metrics,
    ) -> None:
        for alias in (*pinned, *rebind):
            if alias not in sources:
                raise InvalidParameterError(f"there is no model {alias!r}; known: {', '.join(sources)}")
        self.sources = dict(sources)
        self._limits = limits
        self._file = directory / FILENAME
        self._budget, self._ttl_s, self._pinned, self._rebind = budget_bytes, ttl_s, set(pinned), set(rebind)
        self._metrics = metrics
        self._loaded: dict[str, LoadedModel] = {}
        self._lock = threading.Lock()
        # One thread: what a load takes is measured, and two loads at once would be measured together.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="nearsight-loader")

    @property
    def default(self) -> str:
        """The alias of the default model."""
        return next(iter(self.sources))

    def loaded(self, alias: str) -> LoadedModel | None:
        """Return a model if it is in memory now."""
        return self._loaded.get(alias)

    def bound_fingerprint(self, alias: str) -> str | None:
        """Return the fingerprint that an alias was bound to; None before it was first loaded."""
        return self._bound().get(alias, {}).get("fingerprint")

    async def get(self, alias: str | None) -> LoadedModel:
        """Return a model, loading it if needed.

        Raises
        ------
        Problem
            404: no model has that alias. 503: it cannot be loaded.
        """
        alias = alias or self.default
        if alias not in self.sources:
            raise Problem(
                404,
                f"there is no model of that name; there are: {', '.join(self.sources)}",
                code="model_not_found",
                param="model",
            )
        model = self._loaded.get(alias)
        if model is None:
            model = await asyncio.wrap_future(self._loader.submit(self._load, alias))
        model.used = time.monotonic()
        return model

    async def has_texts(self, model: LoadedModel) -> bool:
        """Whether texts and images of a model share a space; its text encoder is loaded if needed."""
        if not model.is_text_known:
            await asyncio.wrap_future(self._loader.submit(self._load_text_encoder, model))
        return model.texts is not None

    async def text_lane(self, model: LoadedModel) -> Lane:
        """Return the lane of a model's texts.

        Raises
        ------
        Problem
            400: texts and images of this model do not share a space, so their vectors cannot be compared.
        """
        if not await self.has_texts(model) or model.texts is None:
            raise Problem(
                400,
                f"the model {model.alias!r} embeds images only: texts and images share no space, so a "
                f"text's vector "
                'could not be compared. Send images ("modality": "image"), or name a CLIP or SigLIP model',
                code="modality_not_supported",
                param="input",
            )
        return model.texts

    @contextlib.contextmanager
    def using(self, model: LoadedModel) -> Iterator[None]:
        """Keep a model in memory during the block."""
        with self._lock:
            model.n_users += 1
        try:
            yield
        finally:
            with self._lock:
                model.n_users -= 1
                model.used = time.monotonic()

    def alias_of(self, fingerprint: str) -> str | None:
        """Return the alias of the model whose fingerprint has this digest; None if none is registered."""
        return next((a for a, s in self.sources.items() if s.spec().fingerprint.digest == fingerprint), None)

    def unload_idle(self) -> list[str]:
        """Unload models that were not used for longer than allowed; return their aliases."""
        if not self._ttl_s:
            return []
        limit = time.monotonic() - self._ttl_s
        return [m.alias for m in self._evictable() if m.used < limit and self._unload(m)]

    def forget(self, alias: str) -> None:
        """Take a model out, and its memory as soon as nobody uses it; another may get the alias."""
        self.sources.pop(alias, None)
        if (model := self._loaded.get(alias)) is not None and not self._unload(model):
            # Who uses it still has it; the alias is free.
            with self._lock:
                self._loaded.pop(alias, None)
        bound = self._bound()
        if bound.pop(alias, None) is not None:
            self._write_bound(bound)

    def close(self) -> None:
        """End the loading thread."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    def _load(self, alias: str) -> LoadedModel:
        if model := self._loaded.get(alias):
            return model
        before = process_memory.resident_bytes()
        try:
            backend = self.sources[alias].load()
            self._bind(alias, backend)
        except NearsightError as error:
            _log.error("the model %s cannot be loaded: %s", alias, error)
            is_rebound = isinstance(error, FingerprintMismatchError)
            reason = (
                f"it gives other vectors than before; start with --rebind {alias}"
                if is_rebound
                else "see the log"
            )
            raise Problem(
                503, f"the model {alias!r} cannot be loaded: {reason}", code="model_not_loaded"
            ) from error
        run = partial(_embed_images, backend, self._limits)
        # The first run allocates what later ones need.
        run([_blank()])
        lane = Lane(alias, run, _batch_size(backend))
        n_bytes = max(0, process_memory.resident_bytes() - before)
        model = LoadedModel(alias, backend, lane, n_bytes, backend.spec.fingerprint.digest)
        self._loaded[alias] = model
        self._metrics.model_loads.labels(alias).inc()
        self._metrics.model_bytes.labels(alias).set(model.n_bytes)
        _log.info("loaded the model %s", alias, extra={"bytes": model.n_bytes})
        self._keep_to_budget(model)
        return model

    def _load_text_encoder(self, model: LoadedModel) -> None:
        if model.is_text_known:
            return
        try:
            encoder = self.sources[model.alias].load_text_encoder()
            if encoder.shares_space:
                model.texts = Lane(f"{model.alias}/text", partial(_embed_texts, encoder), 1)
        except NearsightError as error:
            _log.info("the model %s has no texts: %s", model.alias, error)
        model.is_text_known = True

    def _keep_to_budget(self, newest: LoadedModel) -> None:
        for model in self._evictable():
            if sum(m.n_bytes for m in self._loaded.values()) <= self._budget:
                return
            if model is not newest:
                self._unload(model)

    def _evictable(self) -> list[LoadedModel]:
        models = [m for m in list(self._loaded.values()) if m.alias not in self._pinned]
        return sorted(models, key=lambda m: m.used)

    def _unload(self, model: LoadedModel) -> bool:
        with self._lock:
            if model.n_users:
                return False
            self._loaded.pop(model.alias, None)
        self._metrics.model_bytes.labels(model.alias).set(0)
        _log.info("unloaded the model %s", model.alias)
        gc.collect()
        process_memory.return_freed()
        return True

    def _bound(self) -> dict[str, dict[str, str]]:
        try:
            bound: dict[str, dict[str, str]] = json.loads(self._file.read_text(encoding="utf-8"))
            return bound
        except FileNotFoundError:
            return {}

    def _bind(self, alias: str, backend: Backend) -> None:
        bound, digest = self._bound(), backend.spec.fingerprint.digest
        before = bound.get(alias, {}).get("fingerprint")
        if before == digest:
            return
        if before is not None and alias not in self._rebind:
            raise FingerprintMismatchError(
                f"{alias} is bound to the fingerprint {before}, and {self.sources[alias].name} has {digest}: "
                f"clients would mix vectors that cannot be compared. Use another alias, or --rebind {alias}"
            )
        bound[alias] = {"fingerprint": digest, "model": self.sources[alias].name}
        self._write_bound(bound)

    def _write_bound(self, bound: Mapping[str, Mapping[str, str]]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._file) as file:
            file.write(json.dumps(bound, indent=2).encode())


def n_workers(backend: Backend) -> int:
    """Return how many threads keep a model busy."""
    return Embedder(backend).n_threads


def _batch_size(backend: Backend) -> int:
    """Return how many images are embedded at once.

    A processor gains nothing from a batch: see `OnnxBackend`. The first image of one would wait for the last.
    """
    return 1 if getattr(backend, "device", "") == "cpu" else BATCH_SIZE


def _embed_images(backend: Backend, limits: Limits, items: list[bytes]) -> BatchResult:
    begun = time.perf_counter()
    decoded = [_decoded(backend, limits, data) for data in items]
    middle = time.perf_counter()
    vectors = iter(backend.embed([each.prepared for each in decoded if isinstance(each, _Decoded)]))
    outcomes = [_vector_of(each, next(vectors)) if isinstance(each, _Decoded) else each for each in decoded]
    return BatchResult(outcomes, middle - begun, time.perf_counter() - middle)


def _decoded(backend: Backend, limits: Limits, data: bytes) -> _Decoded | ImageError:
    """Return an image ready for the model, as `Embedder` prepares it, or why it cannot be used."""
    try:
        image = decode(data, path="image", min_side_px=backend.decode_px, limits=limits)
        return _Decoded(backend.prepare(image.image), (image.width, image.height))
    except ImageError as error:
        return error
    except MemoryError:
        return ImageError("image", "there is not enough memory to decode it")


def _vector_of(image: _Decoded, vector: NDArray[np.float32]) -> ImageVector | ImageError:
    if not np.isfinite(vector).all() or not vector.any():
        return ImageError("image", "its vector has no direction: it is all zeros, or not finite")
    return ImageVector(vector, image.size_px)


def _embed_texts(encoder: TextEncoder, items: list[list[str]]) -> BatchResult:
    begun = time.perf_counter()
    outcomes = [encoder.embed(texts) for texts in items]
    return BatchResult(outcomes, 0.0, time.perf_counter() - begun)


def _blank() -> bytes:
    from nearsight.images.in_memory import from_array

    return from_array(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3), Limits())
