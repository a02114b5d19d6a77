"""New images of a folder, each once it is written completely."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from nearsight.errors import ImageError, ImageFailure
from nearsight.images import Exclusions, ImageSource, find

# An image that cannot be read may still be written, slowly: it gets this long without a change.
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Stamp:
    """By what a change of a file is noticed: its size and its time; see `nearsight.images.Stat`."""

    size_bytes: int
    time: int


@dataclass(slots=True)
class _UnsettledFile:
    stamp: Stamp
    since: float
    wait_s: float


class WholeFiles:
    """Yields the images of a folder that are new or have changed, each once it is whole.

    A file is whole when neither its size nor its time has changed for a while, by the clock of this machine:
    the clock of a network drive may differ. An empty file never is. Programs that write under another name
    and rename at the end lose nothing by it: hidden names and names that are no image's are passed over.

    Parameters
    ----------
    folder : str
    settle_s : float
        How long a file must not change.
    known : dict of str to Stamp
        The files that were read before.
    exclusions : Exclusions, optional
    clock : callable
        Seconds that never run backwards.
    """

    def __init__(
        self,
        folder: str,
        *,
        settle_s: float,
        known: dict[str, Stamp] | None = None,
        exclusions: Exclusions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._settle_s = settle_s
        self._known = dict(known or {})
        self._exclusions = exclusions
        self._clock = clock
        self._candidates: dict[str, _UnsettledFile] = {}

    @property
    def n_waiting(self) -> int:
        """Files that are not whole yet."""
        return len(self._candidates)

    def poll(self) -> list[tuple[ImageSource, Stamp]]:
        """Return the images that have become whole; each is returned once, until it changes."""
        now = self._clock()
        seen: dict[str, _UnsettledFile] = {}
        whole = []
        for source in find(self._folder, exclusions=self._exclusions):
            if isinstance(source, ImageFailure):
                continue
            try:
                stamp = stamp_of(source)
            except ImageError:  # gone again
                continue
            if self._known.get(source.path) == stamp:
                continue
            candidate = self._candidates.get(source.path)
            if candidate is None or candidate.stamp != stamp:
                candidate = _UnsettledFile(stamp, now, self._settle_s)
            if stamp.size_bytes and now - candidate.since >= candidate.wait_s:
                whole.append((source, stamp))
            seen[source.path] = candidate
        self._candidates = seen
        return whole

    def accept(self, source: ImageSource, stamp: Stamp) -> None:
        """Note that an image was read as it is: it comes back only if it changes."""
        self._known[source.path] = stamp
        self._candidates.pop(source.path, None)

    def refuse(self, source: ImageSource) -> bool:
        """Note that an image could not be read; return whether it will be tried again unchanged."""
        candidate = self._candidates.get(source.path)
        if candidate is None:
            return False
        if candidate.wait_s < PATIENCE_S:
            candidate.wait_s = PATIENCE_S
            return True
        self.accept(source, candidate.stamp)
        return False


def stamp_of(source: ImageSource) -> Stamp:
    """Return the stamp of a file.

    Raises
    ------
    ImageError
        It is gone.
    """
    facts = source.stat()
    return Stamp(facts.size_bytes, facts.stamp)
