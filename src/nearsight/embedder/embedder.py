"""Embeds images: decodes and computes vectors in threads, in input order and bounded memory."""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import cached_property
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nearsight import progress as progress_display
from nearsight.embedder.batch import Knowledge, Known, ReadOptions, Source
from nearsight.embedder.candidates import Pipelines
from nearsight.embedder.pipelines import Pipeline
from nearsight.embedder.plan import Plan
from nearsight.embedder.rates import Rates
from nearsight.embedder.results import Embedded, Embeddings, ImageRow, OnError
from nearsight.errors import ImageError, ImageFailure, InvalidParameterError
from nearsight.images import Exclusions, ImageSource, Limits, count, find
from nearsight.models import DEFAULT_MODEL, Backend, ModelSpec, decode_mode, load_model, named_with_decode
from nearsight.models.cache import user_cache_dir
from nearsight.models.runtimes.gpu_decode import GpuDecoder, decoder_for
from nearsight.models.runtimes.placement import on_processor
from nearsight.parallel import can_start_processes, in_order
from nearsight.parameters import require_whole
from nearsight.processor import n_cores

# Additional threads keep the cores busy while others wait for an accelerator.
_WAITING_THREADS = 4

# Devices that run on the cores of the processor.
_PROCESSOR_DEVICES = ("cpu", "openvino")

# Images that a worker decodes and embeds at once.
BATCH_SIZE = 8


class Embedder:
    """Embeds images with one model.

    *Method.* Each worker thread decodes and embeds small batches by itself; the network runs on the calling
    thread. So all cores are busy for any ratio of decoding to inference, and only a few small batches per
    thread are in memory.

    Parameters
    ----------
    model : str or Backend, default "efficientnet-lite0"
        Name of a model, or a loaded model.
    device : str, default "auto"
        Device of a model given by name; see `load_model`.
    decode : {"auto", "draft", "full"}, default "auto"
        How far JPEGs are decoded, for a model given by name; see `models.decode_mode`. Vectors of full and
        of reduced decoding have different fingerprints. ``auto`` decodes in full where a GPU decodes.
    n_threads : int, optional
        Worker threads; by default the number of cores that this process may use, within its affinity and
        cgroup quota.
    n_processes : int, optional
        Processes that the threads are spread over; 0 keeps them in this process. By default, this is chosen
        and measured while a job runs, see `plan.choose_plan`: up to 4 cores have threads only, and so have
        models that cannot be sent to another process.
    batch_size : int, default 8
        Images that a worker embeds at once, at least 1.
    limits : Limits
        Maximum pixels, bytes and seconds per image.
    cache_dir : Path, optional
        Directory for converted models.
    progress : bool, optional
        Whether to show a progress bar on stderr; see `nearsight.progress.bar`.

    Raises
    ------
    UnknownModelError
        There is no such model; the message suggests similar names.

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
        decode: str = "auto",
        n_threads: int | None = None,
        n_processes: int | None = None,
        batch_size: int = BATCH_SIZE,
        limits: Limits | None = None,
        cache_dir: Path | None = None,
        progress: bool | None = None,
    ) -> None:
        require_whole("n_processes", n_processes, least=0, optional=True)
        for name, value in (("n_threads", n_threads), ("batch_size", batch_size)):
            require_whole(name, value, optional=True)
        if isinstance(model, str):
            model = named_with_decode(model, decode, device=device)
            self.backend = load_model(model, device=device, cache_dir=cache_dir)
        else:
            self.backend = model
            if decode not in ("auto", decode_mode(model.spec)):
                raise InvalidParameterError(
                    f"decode is {decode!r}, but the model is loaded and decodes in"
                    f" {decode_mode(model.spec)!r}; give its name instead"
                )
        current_device = getattr(self.backend, "device", "cpu")
        if not isinstance(model, str) and device not in ("auto", current_device):
            raise InvalidParameterError(
                f"device is {device!r}, but the model is loaded and runs on {current_device}; "
                "give its name instead"
            )
        self.n_threads = n_threads or n_cores() + (
            _WAITING_THREADS if current_device not in _PROCESSOR_DEVICES else 0
        )
        self.n_processes = n_processes
        self._may_change_device = device == "auto"
        self.batch_size = batch_size
        self.limits = limits or Limits()
        self.progress = progress
        self._cache_dir = cache_dir or user_cache_dir()

    def __repr__(self) -> str:
        return f"Embedder(model={self.spec.id!r}, dim={self.spec.dim}, n_threads={self.n_threads})"

    def embed(
        self,
        inputs: Any,
        *,
        on_error: OnError = "record",
        exclude: Sequence[str] = (),
        include_hidden: bool = False,
        allow_remote: bool = False,
    ) -> Embeddings:
        """Embed images and return all vectors.

        Parameters
        ----------
        inputs : path, URL, PIL image, uint8 array, bytes, or iterable of those
            Folders, globs and tar shards are searched.
        on_error : {"record", "raise"}
            Whether a failed image is listed in `failed` or raises `ImageError`.
        exclude : sequence of str
            Patterns in the syntax of gitignore for what to pass over; see `images.Exclusions`.
        include_hidden : bool, default False
            Whether names that begin with a dot are walked.
        allow_remote : bool, default False
            Whether http and https URLs may be downloaded.

        Returns
        -------
        Embeddings
            Vectors of shape (n, dim) in input order, with their paths, ids and positions.
        """
        options: dict[str, Any] = {
            "allow_remote": allow_remote,
            "exclusions": Exclusions(tuple(exclude), include_hidden=include_hidden),
        }
        skipped: Counter[str] = Counter()
        total = count(inputs, **options) if self.can_count(inputs) else None
        embedded: list[Embedded] = []
        failed: list[ImageFailure] = []
        with self.bar(total) as bar:
            for result in self.stream(find(inputs, **options, skipped=skipped), on_error=on_error):
                bar.update()
                if isinstance(result, ImageFailure):
                    failed.append(result)
                else:
                    embedded.append(result)
        vectors = np.empty((len(embedded), self.backend.spec.dim), np.float32)
        for row, result in zip(vectors, embedded, strict=True):
            row[:] = result.vector
        return Embeddings(
            vectors=vectors,
            paths=[r.source.path for r in embedded],
            ids=[r.id for r in embedded],
            positions=np.array([r.position for r in embedded], np.int64),
            failed=failed,
            skipped=dict(skipped.most_common()),
        )

    def stream(
        self,
        sources: Iterable[ImageSource | ImageFailure],
        *,
        known: Callable[[str], bool] | None = None,
        is_outdated: Callable[[str], bool] | None = None,
        thumbnails: bool = False,
        on_error: OnError = "record",
    ) -> Generator[Embedded | ImageFailure, None, None]:
        """Embed sources and yield results in input order, in bounded memory.

        Parameters
        ----------
        sources : iterable of ImageSource or ImageFailure
            Sources as from `images.find`; failures are yielded unchanged.
        known : callable, optional
            Given a content id, returns whether the vector is not needed. Called from worker threads.
        is_outdated : callable, optional
            Given the content id of a known image, returns whether an earlier version embedded it. Then its
            EXIF is read, and it is embedded again if the decoder shows more of it now.
        thumbnails : bool, default False
            Whether to create a thumbnail of each embedded image.
        on_error : {"record", "raise"}
            Whether a failed image is yielded or raises `ImageError`.
        """
        if on_error not in ("record", "raise"):
            raise InvalidParameterError(f"on_error is {on_error!r}; it must be 'record' or 'raise'")
        options = ReadOptions(self.limits, thumbnails)
        # Sources stay here: of an image in memory, a worker process would send back a copy.
        submitted: deque[list[Source]] = deque()
        position = count_from(0)
        with closing(self._pipeline(options, _known(known, is_outdated))) as pipeline:

            def submit(batch: list[Source]) -> Future[list[ImageRow | ImageFailure]]:
                submitted.append(batch)
                return pipeline.submit(batch)

            batches = _batches(iter(sources), self.batch_size, self.n_threads)
            for rows in in_order(submit, batches, look_ahead=2 * self.n_threads):
                for source, row in zip(submitted.popleft(), rows, strict=True):
                    result = _embedded(next(position), source, row)
                    if on_error == "raise" and isinstance(result, ImageFailure):
                        raise ImageError(result.path, result.reason)
                    yield result

    @property
    def spec(self) -> ModelSpec:
        """The facts of the model."""
        return self.backend.spec

    def bar(self, total: int | None) -> progress_display.Bar:
        """Return the progress bar of a job with `total` images; see `nearsight.progress.bar`."""
        return progress_display.bar("embedding images", total, progress=self.progress)

    def can_count(self, inputs: Any) -> bool:
        """Whether to count inputs first: a bar is drawn, and the inputs can be read twice."""
        return progress_display.is_watched(self.progress) and not isinstance(inputs, Iterator)

    def _pipeline(self, options: ReadOptions, known: Known | None) -> Pipeline:
        pipelines = Pipelines(
            self.backend, options, known, self.n_threads, self.batch_size, self._gpu_decoder
        )
        if self.n_processes == 0 or not can_start_processes():
            return pipelines.threads().open()
        if self.n_processes is not None:
            n_processes = min(self.n_processes, self.n_threads)
            return pipelines.processes(Plan(n_processes, -(-self.n_threads // n_processes))).open()
        return pipelines.chosen(
            Rates(self._cache_dir, self.backend.spec.fingerprint.digest, self.n_threads),
            on_processor(self.backend) if self._may_change_device else None,
        )

    @cached_property
    def _gpu_decoder(self) -> GpuDecoder | None:
        return decoder_for(self.backend, self._cache_dir)


def _known(known: Callable[[str], bool] | None, is_outdated: Callable[[str], bool] | None) -> Known | None:
    if known is None:
        return None

    def knowledge(id: str) -> Knowledge:
        if not known(id):
            return "new"
        return "outdated" if is_outdated is not None and is_outdated(id) else "known"

    return lambda ids: [knowledge(id) for id in ids]


def _embedded(position: int, source: Source, result: ImageRow | ImageFailure) -> Embedded | ImageFailure:
    if isinstance(result, ImageFailure):
        return result
    if isinstance(source, ImageFailure):
        return source
    return Embedded(
        position,
        source,
        result.stat,
        result.id,
        result.vector,
        result.width,
        result.height,
        result.thumbnail,
        result.exif,
        result.notes,
    )


def _batches(items: Iterator[Any], size: int, n_threads: int) -> Iterator[list[Any]]:
    """Yield batches, the first ones small, so that a short job still uses all workers."""
    for step in (1, 2, 4):
        for _ in range(n_threads):
            if step >= size:
                break
            if not (batch := list(islice(items, step))):
                return
            yield batch
    while batch := list(islice(items, size)):
        yield batch
