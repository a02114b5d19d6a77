"""Images in, vectors out: decoding and inference overlapped, in input order, in bounded memory."""

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.images import ImageSource, Limits, Stat, content_id, count, decode, find, thumbnail
from nearsight.models import DEFAULT_MODEL, Backend, load_model
from nearsight.processor import n_cores

OnError = Literal["record", "raise"]

# While an accelerator computes, those who wait for it must not leave cores idle.
_WAITING_THREADS = 4

# Devices that are the cores themselves.
_ON_CORES = ("cpu", "openvino")

# Images that travel through the network together, and the most a worker holds decoded.
BATCH_SIZE = 8


@dataclass(frozen=True, slots=True)
class Embedded:
    """One image's vector, and what was learned on the way to it.

    Attributes
    ----------
    position : int
        Index among everything the job saw, failures included.
    source : ImageSource
        Where the image came from.
    stat : Stat
        Size and time stamp taken before the bytes were read.
    id : str
        Hash of the content, 32 hex digits.
    vector : ndarray of shape (dim,), float32, or None
        None where the caller's `known` said that this id needs no embedding.
    width, height : int
        Size of the upright image in pixels; 0 where `vector` is None.
    thumbnail : bytes or None
        JPEG, where thumbnails were asked for.
    """

    position: int
    source: ImageSource
    stat: Stat
    id: str
    vector: NDArray[np.float32] | None
    width: int = 0
    height: int = 0
    thumbnail: bytes | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of a job, in input order, without those that failed.

    Attributes
    ----------
    vectors : ndarray of shape (n, dim), float32
        Unit length where the model normalizes.
    paths, ids : list of str, length n
        Each image as it was given, and the hash of its content.
    positions : ndarray of shape (n,), int64
        Index of each row's image in the input, failures counted.
    failed : list of ImageFailure
        Images that could not be used, and why.
    """

    vectors: NDArray[np.float32]
    paths: list[str]
    ids: list[str]
    positions: NDArray[np.int64]
    failed: list[ImageFailure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A decoded image on its way to the network."""

    embedded: Callable[[NDArray[np.float32]], Embedded]
    path: str
    value: Any


class Embedder:
    """Embeds images with one model.

    *Method.* Each worker thread takes a few images from bytes to vectors by itself, with a network
    session that runs on the calling thread. That keeps every core busy whatever the ratio of decoding
    to inference, and holds only `n_threads` small batches in memory at a time.

    Parameters
    ----------
    model : str or Backend, default "efficientnet-lite0"
        A registered name, or a loaded model.
    device : str, default "auto"
        Where a model that is named runs; see `load_model`.
    n_threads : int, optional
        Worker threads; by default as many as the cores this process may use (affinity and cgroup
        quotas respected).
    batch_size : int, default 8
        Images a worker embeds at once, at least 1.
    limits : Limits
        Pixels, bytes and seconds one image may cost.
    cache_dir : Path, optional
        Where converted models are kept.
    progress : bool, optional
        Show a progress bar on stderr; by default only when that is a terminal.

    Raises
    ------
    UnknownModelError
        No such model; the message suggests the nearest names.

    Examples
    --------
    >>> import numpy as np
    >>> from nearsight import Embedder
    >>> red, blue = np.zeros((2, 64, 64, 3), np.uint8)
    >>> red[..., 0] = blue[..., 2] = 255
    >>> result = Embedder().embed([red, blue])
    >>> result.vectors.shape
    (2, 1280)
    """

    def __init__(
        self,
        model: str | Backend = DEFAULT_MODEL,
        *,
        device: str = "auto",
        n_threads: int | None = None,
        batch_size: int = BATCH_SIZE,
        limits: Limits | None = None,
        cache_dir: Path | None = None,
        progress: bool | None = None,
    ) -> None:
        for name, value in (("n_threads", n_threads), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise InvalidParameterError(f"{name} is {value}; it must be at least 1")
        self.backend = (
            load_model(model, device=device, cache_dir=cache_dir) if isinstance(model, str) else model
        )
        # Of a model that came loaded, the device has been chosen.
        here = getattr(self.backend, "device", "cpu")
        if not isinstance(model, str) and device not in ("auto", here):
            raise InvalidParameterError(
                f"device is {device!r}, but the model is loaded and runs on {here}; give its name instead"
            )
        self.n_threads = n_threads or n_cores() + (_WAITING_THREADS if here not in _ON_CORES else 0)
        self.batch_size = batch_size
        self.limits = limits or Limits()
        self.progress = progress

    def embed(self, inputs: Any, *, on_error: OnError = "record", allow_remote: bool = False) -> Embeddings:
        """Embed images and return all vectors at once.

        Parameters
        ----------
        inputs : path, URL, PIL image, uint8 array, bytes, or iterable of those
            Folders, globs and tar shards are walked.
        on_error : {"record", "raise"}
            Whether an image that cannot be used is listed in `failed` or raises `ImageError`.
        allow_remote : bool, default False
            Whether http and https URLs may be fetched.

        Returns
        -------
        Embeddings
            Vectors of shape (n, dim) in input order, with their paths, ids and positions.
        """
        total = count(inputs, allow_remote=allow_remote) if self.can_count(inputs) else None
        done: list[Embedded] = []
        failed: list[ImageFailure] = []
        with self.bar(total) as bar:
            for result in self.stream(find(inputs, allow_remote=allow_remote), on_error=on_error):
                bar.update()
                if isinstance(result, ImageFailure):
                    failed.append(result)
                else:
                    done.append(result)
        vectors = np.empty((len(done), self.backend.spec.dim), np.float32)
        for row, result in zip(vectors, done, strict=True):
            row[:] = result.vector
        return Embeddings(
            vectors=vectors,
            paths=[r.source.path for r in done],
            ids=[r.id for r in done],
            positions=np.array([r.position for r in done], np.int64),
            failed=failed,
        )

    def stream(
        self,
        sources: Iterable[ImageSource | ImageFailure],
        *,
        known: Callable[[str], bool] | None = None,
        thumbnails: bool = False,
        on_error: OnError = "record",
    ) -> Generator[Embedded | ImageFailure, None, None]:
        """Embed sources one after another, yielding in input order, in memory that does not grow.

        Parameters
        ----------
        sources : iterable of ImageSource or ImageFailure
            As `images.find` yields them; failures pass through.
        known : callable, optional
            Given a content id, says whether the vector is not needed. Called from worker threads.
        thumbnails : bool, default False
            Whether to make a thumbnail of each image that is embedded.
        on_error : {"record", "raise"}
            Whether failures are yielded or raised as `ImageError`.
        """
        if on_error not in ("record", "raise"):
            raise InvalidParameterError(f"on_error is {on_error!r}; it must be 'record' or 'raise'")
        pending: deque[Future[list[Embedded | ImageFailure]]] = deque()
        batches = _batches(enumerate(sources), self.batch_size, self.n_threads)
        pool = ThreadPoolExecutor(self.n_threads, thread_name_prefix="nearsight-embed")
        try:
            # One batch beyond the workers waits ready, so that none idles while results are consumed.
            for batch in batches:
                pending.append(pool.submit(self._embed_batch, batch, known, thumbnails))
                if len(pending) > 2 * self.n_threads:
                    yield from _checked(pending.popleft().result(), on_error)
            while pending:
                yield from _checked(pending.popleft().result(), on_error)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def bar(self, total: int | None) -> Any:
        """Return a progress bar with rate and time left, silent where stderr is no terminal."""
        return tqdm(
            total=total,
            unit=" images",
            dynamic_ncols=True,
            smoothing=0.05,
            disable=not self._is_watched(),
        )

    def can_count(self, inputs: Any) -> bool:
        """Whether inputs should be counted first: somebody watches, and they can be read twice."""
        return self._is_watched() and not isinstance(inputs, Iterator)

    def _is_watched(self) -> bool:
        return sys.stderr.isatty() if self.progress is None else self.progress

    def _embed_batch(
        self,
        batch: list[tuple[int, ImageSource | ImageFailure]],
        known: Callable[[str], bool] | None,
        thumbnails: bool,
    ) -> list[Embedded | ImageFailure]:
        items = [self._prepare(position, source, known, thumbnails) for position, source in batch]
        prepared = [item for item in items if isinstance(item, _Prepared)]
        vectors = iter(self.backend.embed([item.value for item in prepared]))
        return [_finish(item, next(vectors)) if isinstance(item, _Prepared) else item for item in items]

    def _prepare(
        self,
        position: int,
        source: ImageSource | ImageFailure,
        known: Callable[[str], bool] | None,
        thumbnails: bool,
    ) -> _Prepared | Embedded | ImageFailure:
        if isinstance(source, ImageFailure):
            return source
        try:
            stat = source.stat()
            data = source.read(self.limits)
            id = content_id(data)
            if known is not None and known(id):
                return Embedded(position, source, stat, id, None)
            image = decode(data, path=source.path, min_side_px=self.backend.decode_px, limits=self.limits)
            small = thumbnail(image.image) if thumbnails else None
            return _Prepared(
                lambda vector: Embedded(position, source, stat, id, vector, image.width, image.height, small),
                source.path,
                self.backend.prepare(image.image),
            )
        except ImageError as error:
            return ImageFailure(error.path, error.reason)
        except MemoryError:
            return ImageFailure(source.path, "there is not enough memory to decode it")


def _finish(item: _Prepared, vector: NDArray[np.float32]) -> Embedded | ImageFailure:
    if not np.isfinite(vector).all() or not vector.any():
        return ImageFailure(
            item.path, "the model gave it a vector without direction: all zeros, or not finite"
        )
    return item.embedded(vector)


def _batches(items: Iterator[Any], size: int, n_threads: int) -> Iterator[list[Any]]:
    """Cut into batches that start small, so that a short job still reaches every worker."""
    for step in (1, 2, 4):
        for _ in range(n_threads):
            if step >= size:
                break
            if not (batch := list(islice(items, step))):
                return
            yield batch
    while batch := list(islice(items, size)):
        yield batch


def _checked(results: list[Embedded | ImageFailure], on_error: OnError) -> Iterator[Embedded | ImageFailure]:
    for result in results:
        if on_error == "raise" and isinstance(result, ImageFailure):
            raise ImageError(result.path, result.reason)
        yield result
