"""From inputs to vectors: the one way that all dialects and searches go."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from nearsight.errors import ImageError
from nearsight.models import ModelSpec
from nearsight.server.dispatcher import Priority, Timing
from nearsight.server.errors import Problem, problem_of
from nearsight.server.inputs import ImageInput, Input, TextInput, UrlInput, check_images
from nearsight.server.model_pool import TEXTS_PER_ITEM, LoadedModel
from nearsight.server.service import Service

_T = TypeVar("_T")

# A request of more items is bulk, unless it says otherwise.
_MOST_INTERACTIVE = 8
# Whether the client has left is asked only of what takes longer: to watch costs a tenth of a short search.
_WATCHED_AFTER_S = 0.02
_MB = 2**20


@dataclass(frozen=True, slots=True)
class EmbeddedInputs:
    """The vectors of a request, in order.

    Attributes
    ----------
    vectors : ndarray of shape (n, dim), float32
    sizes : list of tuple of int, or None
        Width and height of each image, upright; None for a text.
    model : LoadedModel
    timing : Timing
    """

    vectors: NDArray[np.float32]
    sizes: list[tuple[int, int] | None]
    model: LoadedModel
    timing: Timing


async def embed_inputs(
    request: Request,
    inputs: Sequence[Input],
    *,
    model: str | None = None,
    dimensions: int | None = None,
    wait_s: float = 0.0,
) -> EmbeddedInputs:
    """Embed images and texts, until the client leaves.

    Parameters
    ----------
    request : Request
        Its body must have been read: what follows is only whether the client has left.
    inputs : sequence of Input
    model : str, optional
        An alias.
    dimensions : int, optional
        Length of the vectors.
    wait_s : float
        How long to wait where the queue is full, before the request is refused.

    Raises
    ------
    Problem
        The request is refused whole: which input, and why.
    """
    service: Service = request.app.state.service
    settings = service.settings
    n_texts = sum(isinstance(each, TextInput) for each in inputs)
    if not inputs:
        raise Problem(400, "there is nothing to embed", param="input")
    if n_texts > settings.max_texts:
        raise Problem(
            400, f"there are {n_texts} texts; at most {settings.max_texts} fit into a request", param="input"
        )
    if len(inputs) - n_texts > settings.max_images:
        raise Problem(
            400,
            f"there are {len(inputs) - n_texts} images; at most {settings.max_images} fit into a request",
            param="input",
        )
    loaded = await service.models.get(model)
    cut = _checked_dimensions(loaded.backend.spec, dimensions)
    priority = _priority(request, len(inputs) - n_texts + n_texts // TEXTS_PER_ITEM)
    with service.models.using(loaded):
        embedded = await while_connected(request, _embed(service, loaded, inputs, priority, wait_s))
    request.state.timing = embedded.timing
    if cut is None:
        return embedded
    vectors = embedded.vectors[:, :cut]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return replace(embedded, vectors=np.ascontiguousarray(vectors, np.float32))


async def while_connected(request: Request, work: Awaitable[_T]) -> _T:
    """Wait for something, and cancel it if the client leaves.

    Raises
    ------
    Problem
        499: the client has left.
    """
    waiting = asyncio.current_task()
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        await _departure(request)
        has_left = True
        if waiting is not None:
            waiting.cancel()

    watcher: asyncio.Task[None] | None = None

    def begin() -> None:
        nonlocal watcher
        watcher = asyncio.ensure_future(watch())

    timer = asyncio.get_running_loop().call_later(_WATCHED_AFTER_S, begin)
    try:
        return await work
    except asyncio.CancelledError:
        if not has_left:
            raise
        raise Problem(499, "the client has left") from None
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _embed(
    service: Service, model: LoadedModel, inputs: Sequence[Input], priority: Priority, wait_s: float
) -> EmbeddedInputs:
    texts = [i for i, each in enumerate(inputs) if isinstance(each, TextInput)]
    text_lane = await service.models.text_lane(model) if texts else None
    images = [i for i, each in enumerate(inputs) if not isinstance(each, TextInput)]
    data = await _image_bytes(service, [inputs[i] for i in images])
    check_images(data, max_bytes=service.settings.max_image_mb * _MB)
    vectors = np.empty((len(inputs), model.backend.spec.dim), np.float32)
    sizes: list[tuple[int, int] | None] = [None] * len(inputs)
    submit = partial(
        service.dispatcher.submit, priority=priority, deadline_s=service.settings.deadline_s, wait_s=wait_s
    )
    timing = Timing()
    if images:
        outcomes, timing = await submit(model.images, data, sizes=[len(each) for each in data])
        _require_all(outcomes, images)
        for i, outcome in zip(images, outcomes, strict=True):
            vectors[i], sizes[i] = outcome.vector, outcome.size_px
    if text_lane is not None:
        words = [each.text for each in inputs if isinstance(each, TextInput)]
        chunks = [words[i : i + TEXTS_PER_ITEM] for i in range(0, len(words), TEXTS_PER_ITEM)]
        lengths = [sum(map(len, chunk)) for chunk in chunks]
        outcomes, text_timing = await submit(text_lane, chunks, sizes=lengths)
        _require_all(outcomes, [texts[i * TEXTS_PER_ITEM] for i in range(len(chunks))])
        vectors[texts] = np.concatenate(outcomes)
        timing = timing if images else text_timing
    return EmbeddedInputs(vectors, sizes, model, timing)


async def _image_bytes(service: Service, inputs: Sequence[Input]) -> list[bytes]:
    urls = [each.url for each in inputs if isinstance(each, UrlInput)]
    fetched = iter(await service.fetcher.fetch_all(urls) if urls else ())
    return [each.data if isinstance(each, ImageInput) else next(fetched) for each in inputs]


def _require_all(outcomes: Sequence[Any], positions: Sequence[int]) -> None:
    """Refuse the whole request if one item failed: OpenAI's answer knows no partial success."""
    failed = [(at, each) for at, each in zip(positions, outcomes, strict=True) if isinstance(each, Exception)]
    if not failed:
        return
    if others := [each for _, each in failed if not isinstance(each, ImageError)]:
        raise problem_of(others[0])
    problems = [{"index": at, "detail": each.reason} for at, each in failed if isinstance(each, ImageError)]
    raise Problem(
        400,
        f"input {problems[0]['index']}: {problems[0]['detail']}",
        code="invalid_image",
        param="input",
        errors=problems,
    )


def _checked_dimensions(spec: ModelSpec, dimensions: int | None) -> int | None:
    if dimensions is None or dimensions == spec.dim:
        return None
    if not spec.matryoshka_dims:
        raise Problem(
            400,
            f"dimensions is {dimensions}, but this model was not trained for shorter vectors; leave it out "
            f"(its vectors have {spec.dim})",
            param="dimensions",
        )
    if not min(spec.matryoshka_dims) <= dimensions < spec.dim:
        raise Problem(
            400,
            f"dimensions is {dimensions}; it must be in {min(spec.matryoshka_dims)}..{spec.dim}",
            param="dimensions",
        )
    return dimensions


def _priority(request: Request, n_items: int) -> Priority:
    wanted = request.headers.get("x-nearsight-priority", "").lower()
    if wanted in ("bulk", "interactive"):
        return "bulk" if wanted == "bulk" else "interactive"
    return "interactive" if n_items <= _MOST_INTERACTIVE else "bulk"
