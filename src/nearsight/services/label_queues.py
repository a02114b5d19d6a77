"""The images that people label next: planned ahead, and leased so that two people do not get the same one."""

import json
import time
from collections.abc import Callable, Iterable
from collections.abc import Collection as SizedContainer
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from nearsight.analyses import label_queue
from nearsight.analyses.classification import FILENAME, classifier_if_any, predicted
from nearsight.analyses.label_queue import QueuedImage
from nearsight.artifacts import exported
from nearsight.collection import Collection
from nearsight.errors import InvalidParameterError, StorageError
from nearsight.services.label_sets import DEFAULT_KEY, DIRECTORY, LabelSet

#: How long an image is one person's, in seconds, if nothing else is said.
LEASE_S = 600.0
MAX_LEASE_S = 86_400.0
# Images of a plan: enough for five people who load 24 ahead.
_N_PLANNED = 144
# Up to this many images, it takes a moment to choose anew each time.
_MAX_CHOSEN_ANEW = 2000


@dataclass(frozen=True, slots=True)
class LabelTurn:
    """What one person labels next.

    Attributes
    ----------
    images : list of QueuedImage
        The first one first.
    n_leased : int
        Images that others have now.
    is_stale : bool
        Whether the classifier was fitted anew since the images were chosen, or few are left: call
        `LabelQueue.plan`, which takes seconds.
    """

    images: list[QueuedImage]
    n_leased: int
    is_stale: bool


class LabelQueue:
    """The images to label next under one metadata key, for one or several people.

    In a large collection, images are chosen ahead, because that takes seconds: the plan is a file, and each
    request takes from it. Who has which image until when is a file, too. Both are replaced whole, so that a
    killed process leaves the old or the new one.

    Parameters
    ----------
    collection : Collection
    key : str
        The metadata key of the labels.
    clock : callable
        Returns the time in seconds.

    Raises
    ------
    MetadataError
        The key is not valid, or holds numbers.
    """

    def __init__(
        self, collection: Collection, key: str = DEFAULT_KEY, *, clock: Callable[[], float] = time.time
    ) -> None:
        LabelSet(collection, key)
        self._collection = collection
        self._key = key
        self._clock = clock
        directory = collection.directory / DIRECTORY / key
        self._plan_file = directory / "queue.json"
        self._leases_file = directory / "leases.json"
        self._lock_file = directory / "queue.lock"

    def next(
        self,
        n: int,
        *,
        labeler: str | None = None,
        lease_s: float = LEASE_S,
        skipped: SizedContainer[str] = (),
        held: Iterable[str] = (),
    ) -> LabelTurn:
        """Return the images that somebody labels next, and lease them to this person.

        Parameters
        ----------
        n : int
        labeler : str, optional
            Who asks. What was leased to this person before and is neither returned nor in `held` is free
            again. Without it, nothing is leased, but images of others are left out all the same.
        lease_s : float
            How long others do not get these images, in seconds.
        skipped : collection of str
            Ids of images that this person cannot label.
        held : iterable of str
            Ids of images that this person still has.

        Raises
        ------
        InvalidParameterError
            `n` is below 1, or `lease_s` not in 0..86,400.
        StorageError
            There is a labeler, and the leases cannot be written.
        """
        if n < 1 or not 0 < lease_s <= MAX_LEASE_S:
            raise InvalidParameterError(
                f"n is {n} and lease_s {lease_s:g}; n must be at least 1, and lease_s above 0 and at most"
                f" {MAX_LEASE_S:,.0f}"
            )
        if labeler is None:
            others = self._leased_to_others(self._leases(), None)
            images, is_stale = self._chosen(n, others, skipped)
            return LabelTurn(images, len(others), is_stale)
        with self._lock():
            leases = self._leases()
            others = self._leased_to_others(leases, labeler)
            images, is_stale = self._chosen(n, others, skipped)
            until = self._clock() + lease_s
            own = {image.prediction.id for image in images} | (set(held) - others)
            leases = {id: lease for id, lease in leases.items() if id in others}
            leases |= {id: {"labeler": labeler, "until": until} for id in sorted(own)}
            with exported(self._leases_file) as handle:
                handle.write(json.dumps({"format": 1, "leases": leases}).encode())
        return LabelTurn(images, len(others), is_stale)

    def plan(self) -> None:
        """Choose images anew, by the classifier as it is now."""
        stamp = self._classifier_stamp()
        queue = label_queue.next_images(self._collection, self._key, _N_PLANNED)
        images = [[image.prediction.id, image.is_check] for image in queue]
        # Where the collection cannot be written to, each request chooses anew.
        with suppress(StorageError, OSError):
            self._plan_file.parent.mkdir(parents=True, exist_ok=True)
            with exported(self._plan_file) as handle:
                handle.write(json.dumps({"format": 1, "classifier": stamp, "images": images}).encode())

    def _chosen(
        self, n: int, others: set[str], skipped: SizedContainer[str]
    ) -> tuple[list[QueuedImage], bool]:
        left_out = others | set(skipped)
        if len(self._collection) > _MAX_CHOSEN_ANEW:
            if self._plan() is None:
                self.plan()
            stamp, planned = self._plan() or ("", [])
            free = self._unlabeled([each for each in planned if each[0] not in left_out])
            if len(free) >= n:
                is_stale = stamp != self._classifier_stamp() or len(free) < _N_PLANNED // 2
                return self._predicted(free[:n]), is_stale
        return label_queue.next_images(self._collection, self._key, n, skipped=left_out), False

    def _predicted(self, planned: list[tuple[str, bool]]) -> list[QueuedImage]:
        ids = [id for id, _ in planned]
        classifier = classifier_if_any(self._collection)
        predictions = predicted(self._collection, classifier, ids, self._collection.vectors(ids))
        return [QueuedImage(p, is_check) for p, (_, is_check) in zip(predictions, planned, strict=True)]

    def _unlabeled(self, planned: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """Return those that are in the collection still, and have no label."""
        where = label_queue.unlabeled(self._collection, self._key)
        ids = [id for id, _ in planned]
        batches = self._collection.iter_batches(["id"], where, ids=ids) if ids else ()
        there = {id for batch in batches for id in batch.column("id").to_pylist()}
        return [each for each in planned if each[0] in there]

    def _plan(self) -> tuple[str, list[tuple[str, bool]]] | None:
        facts = _read(self._plan_file)
        try:
            return str(facts["classifier"]), [(str(id), bool(is_check)) for id, is_check in facts["images"]]
        except (KeyError, TypeError, ValueError):
            return None

    def _classifier_stamp(self) -> str:
        try:
            info = (self._collection.directory / FILENAME).stat()
        except FileNotFoundError:
            return ""
        return f"{info.st_mtime_ns:x}-{info.st_ino:x}"

    def _leases(self) -> dict[str, dict[str, Any]]:
        """Return the leases that have not ended."""
        try:
            leases = dict(_read(self._leases_file)["leases"])
            return {id: lease for id, lease in leases.items() if lease["until"] > self._clock()}
        except (KeyError, TypeError, ValueError):
            return {}

    @staticmethod
    def _leased_to_others(leases: dict[str, dict[str, Any]], labeler: str | None) -> set[str]:
        return {id for id, lease in leases.items() if lease.get("labeler") != labeler}

    def _lock(self) -> FileLock:
        try:
            self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self._lock_file.parent} cannot be made ({error.strerror})") from error
        return FileLock(self._lock_file)


def _read(file: Path) -> dict[str, Any]:
    """Return what a file says; nothing if it is not there or damaged, because it can be made again."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
