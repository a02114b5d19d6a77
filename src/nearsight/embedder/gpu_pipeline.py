"""The pipeline of a GPU that decodes: bytes go to it, and what it cannot decode goes to the cores."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from time import perf_counter
from typing import Any

from PIL import Image

from nearsight.embedder.batch import (
    Known,
    Prepared,
    ReadOptions,
    Source,
    finish,
    prepare_again,
    prepare_batch,
)
from nearsight.embedder.results import ImageRow
from nearsight.errors import ImageFailure
from nearsight.models import Backend
from nearsight.models.runtimes.gpu_decode import EmbeddedJpeg, EncodedJpeg, GpuDecoder

Rows = list[ImageRow | ImageFailure]


class GpuPipeline:
    """Threads that read files, judge them and wait for the GPU, or decode while it is busy.

    *Method.* A thread reads a batch. JPEGs that any decoder shows alike go to the GPU, with those of other
    threads. Meanwhile the thread decodes the others: other formats, and JPEGs for which the GPU's queue is
    too long, so that both end together (see `WorkSplit`). What the GPU gives back undecoded is decoded on the
    thread, too, which finds the true reason if there is nothing to see.

    Parameters
    ----------
    backend : Backend
        The model, on the GPU; it embeds what threads have decoded.
    decoder : GpuDecoder
        Of the same model.
    options, known
        See `prepare_batch`.
    n_threads : int
    """

    def __init__(
        self,
        backend: Backend,
        decoder: GpuDecoder,
        options: ReadOptions,
        known: Known | None,
        *,
        n_threads: int,
    ) -> None:
        self._backend, self._decoder = backend, decoder
        self._options, self._known = options, known
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="nearsight-embed")

    def submit(self, batch: Sequence[Source]) -> Future[Rows]:
        """Begin a batch."""
        return self._pool.submit(self._embed, batch)

    def wait_until_ready(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """Wait for the batches that have begun; cancel the others."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _embed(self, batch: Sequence[Source]) -> Rows:
        options = self._options
        timed = _TimedPreparation(self._backend, self._decoder)
        items = prepare_batch(batch, timed, options, self._known, self._sent)
        for i, item in enumerate(items):
            if isinstance(item, Prepared) and isinstance(item.value, _Sent):
                result = item.value.result()
                if result is None:
                    items[i] = prepare_again(item, item.value.jpeg.data, self._backend, options)
                else:
                    items[i] = _row(item, result)
        decoded = [item.value for item in items if isinstance(item, Prepared)]
        return finish(items, self._backend.embed(decoded))

    def _sent(self, files: list[bytes]) -> "list[_Sent | None]":
        """Send files to the GPU; None for those that are left to this thread."""
        chosen = self._decoder.choose(files, self._options.limits)
        jpegs = [jpeg for jpeg in chosen if jpeg is not None]
        results = cache(self._decoder.submit(jpegs, thumbnails=self._options.thumbnails))
        places = count()
        return [None if jpeg is None else _Sent(jpeg, results, next(places)) for jpeg in chosen]


@dataclass(frozen=True, slots=True)
class _Sent:
    """A file that is on its way to the GPU, and the results of its batch."""

    jpeg: EncodedJpeg
    results: Callable[[], list[EmbeddedJpeg | None]]
    place: int

    def result(self) -> EmbeddedJpeg | None:
        """Wait for the result; None if the file must be decoded here."""
        return self.results()[self.place]


class _TimedPreparation:
    """The model's preparation, which tells the decoder how long a thread takes to decode an image."""

    def __init__(self, backend: Backend, decoder: GpuDecoder) -> None:
        self._backend, self._decoder = backend, decoder
        self._started = 0.0

    @property
    def decode_px(self) -> int | None:
        """Asked for before an image is decoded: minimum length of its shorter side; None for full size."""
        self._started = perf_counter()
        return self._backend.decode_px

    def prepare(self, image: Image.Image) -> Any:
        """Turn one upright RGB image into an item for the network."""
        prepared = self._backend.prepare(image)
        self._decoder.split.was_decoded(image.width * image.height, perf_counter() - self._started)
        return prepared


def _row(item: Prepared, result: EmbeddedJpeg) -> ImageRow | ImageFailure:
    stat, id = item.row.stat, item.row.id
    row = ImageRow(stat, id, result.vector, result.width, result.height, result.thumbnail, result.exif)
    # `finish` says what is wrong with a vector of zeros.
    return row if result.vector.any() else finish([replace(item, row=row)], result.vector[None])[0]
