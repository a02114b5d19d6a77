"""Sources of images, mapped in threads; what cannot be used becomes a failure."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from threadpoolctl import threadpool_limits

from nearsight.errors import ImageError, ImageFailure
from nearsight.images import ImageSource
from nearsight.parallel import ordered_map

T = TypeVar("T")


def split_failures(
    entries: Iterable[ImageSource | ImageFailure],
) -> tuple[list[ImageSource], list[ImageFailure]]:
    """Return the sources, and what is none."""
    sources: list[ImageSource] = []
    failures: list[ImageFailure] = []
    for entry in entries:
        if isinstance(entry, ImageFailure):
            failures.append(entry)
        else:
            sources.append(entry)
    return sources, failures


def map_sources(
    function: Callable[[ImageSource], T], sources: Iterable[ImageSource | ImageFailure], n_threads: int
) -> Iterator[T | ImageFailure]:
    """Apply a function to sources in threads, and yield in order; an unusable image becomes a failure."""

    def attempt(source: ImageSource | ImageFailure) -> T | ImageFailure:
        if isinstance(source, ImageFailure):
            return source
        try:
            return function(source)
        except ImageError as error:
            return ImageFailure(error.path, error.reason)
        except MemoryError:
            return ImageFailure(source.path, "there is not enough memory to score it")

    # BLAS threads inside of threads wait for each other, which takes half of the time.
    with threadpool_limits(1, "blas"):
        yield from ordered_map(attempt, sources, n_threads=n_threads)
