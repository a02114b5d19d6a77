"""Works on a job with Ray: actors that embed units, on all machines of a cluster.

Ray decides where a process runs, and no more. What makes each image count once is in the job's folder, as it
is for processes of any other origin: so actors, nodes and the driver may die, and the job goes on.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from nearsight.distributed.claims import Claim
from nearsight.distributed.committer import CommitReport, Committer
from nearsight.distributed.job_folder import JobFolder
from nearsight.distributed.ray_cluster import connected, in_a_thread, set_token
from nearsight.distributed.units import Unit
from nearsight.distributed.worker import Told, Worker
from nearsight.errors import (
    ChangedInputError,
    DeviceError,
    InvalidParameterError,
    MissingExtraError,
    StorageError,
    UnitInputError,
)

_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_COMMITS = 30.0
# How often the driver looks at the cluster for actors that are gone and for room that is new.
_SECONDS_PER_LOOK = 2.0
# How long actors may take to withdraw their claims when the driver ends.
_SECONDS_TO_WITHDRAW = 5.0
# How long the cluster may fail to answer, or be without a node that has room, once there were actors: a busy
# head answers late, and a node that was lost may be replaced. And how long the collection may be away.
_SECONDS_OF_PATIENCE = 300.0
# A unit whose actor has died so often is left: the worker itself gives up before that.
_MAX_ERRORS = 8


@dataclass(slots=True)
class RayReport:
    """What a run has done.

    Attributes
    ----------
    units, images, rows, failed : int
        Of the units that this run has embedded.
    rows_added : int
        Rows of the collection that are new.
    actors, lost_actors : int
        Actors at the most at one time, and those that died.
    seconds : float
    refused : list of str
        See `WorkReport`.
    """

    units: int = 0
    images: int = 0
    rows: int = 0
    failed: int = 0
    rows_added: int = 0
    actors: int = 0
    lost_actors: int = 0
    seconds: float = 0.0
    refused: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Actor:
    handle: Any
    unit: Unit | None = None
    # How far it is with the unit, and the answer to come.
    shown: tuple[int, int] = (0, 0)
    asked: Any = None


class _UnitActor:
    """What runs in an actor: a worker that is given one unit at a time."""

    def __init__(self, directory: str, options: Mapping[str, Any]) -> None:
        self._folder = JobFolder(directory)
        self._worker = Worker(self._folder, progress=False, **options)
        self._unit, self._n_images, self._n_failed = -1, 0, 0
        self._claim: Claim | None = None
        self._is_ending = False

    def withdraw(self) -> None:
        """Undo the claim of the unit in work, since the driver ends; from a thread."""
        self._is_ending = True
        if self._claim is not None:
            self._claim.withdraw()

    def counts(self) -> tuple[int, int, int]:
        """Return the number of the unit that it works on, and images and failures so far; from a thread."""
        return self._unit, self._n_images, self._n_failed

    def _count(self, n_images: int, n_failed: int = 0) -> None:
        self._n_images += n_images
        self._n_failed += n_failed

    def embed(self, unit: Unit) -> tuple[int, int, int] | str | None:
        """Embed a unit; return its images, rows and failures, or None if another process has it.

        Of a unit whose images are not those that were planned, return that.
        """
        last = self._folder.claims().get(unit.number)
        if last is not None and last.is_alive():
            # Of another driver, or of one that died a moment ago on another machine.
            time.sleep(_SECONDS_PER_LOOK)
            return None
        claim = self._claim = self._folder.claim(unit.number, last)
        self._unit, self._n_images, self._n_failed = unit.number, 0, 0
        if claim is not None and self._is_ending:
            claim.withdraw()
            return None
        try:
            record = self._worker.embed(unit, claim, told=self._count) if claim is not None else None
        except ChangedInputError as error:
            return str(error)
        return None if record is None else (record.n_images, record.n_rows, len(record.failed))


def run(
    folder: JobFolder,
    committer: Committer,
    address: str,
    *,
    cpus: float = 2.0,
    gpus: float = 0.0,
    max_actors: int | None = None,
    told: Told | None = None,
    **options: Any,
) -> RayReport:
    """Embed all units of a job on a Ray cluster, and add them to the collection.

    Parameters
    ----------
    folder : JobFolder
        All nodes see it under the same path.
    committer : Committer
    address : str
        Of the cluster, ``auto`` for the one of this machine, or ``local`` for one that ends with this call.
    cpus, gpus : float
        What an actor takes of a node; a part of a GPU is shared.
    max_actors : int, optional
        By default as many as there is room for; new nodes get actors when they join.
    told : callable, optional
        Given the numbers of images that are done since, and of those that have failed; both fall when an
        actor dies, whose unit begins anew.
    **options
        See `Worker`; an actor runs as many threads as it takes cores.

    Raises
    ------
    MissingExtraError
        Ray is not installed; the message holds the command.
    DeviceError
        No node has room for an actor.
    """
    if address == "local":
        set_token()
    ray = _import_ray()
    if cpus <= 0 and gpus <= 0:
        raise InvalidParameterError("an actor takes neither processors nor GPUs; give it some of one")
    if cpus and options.get("n_threads") is None:
        options["n_threads"] = max(1, int(cpus))
    started = time.monotonic()

    def drive(stop: threading.Event) -> RayReport:
        with connected(ray, address):
            return _Driver(ray, folder, committer, (cpus, gpus), max_actors, told, options, stop).run()

    report = in_a_thread(drive)
    report.seconds = round(time.monotonic() - started, 3)
    return report


class _StoppedError(Exception):
    """The thread that waits was interrupted."""


class _Driver:
    """Gives each actor one unit at a time, replaces actors that die, and commits in a thread."""

    def __init__(
        self,
        ray: Any,
        folder: JobFolder,
        committer: Committer,
        room: tuple[float, float],
        max_actors: int | None,
        told: Told | None,
        options: Mapping[str, Any],
        stop: threading.Event,
    ) -> None:
        self._ray, self._folder, self._committer = ray, folder, committer
        self._stop = stop
        self._room, self._max_actors = room, max_actors
        self._told: Told = told or (lambda n_images, n_failed=0: None)
        self._arguments = (folder.uri, dict(options))
        # Two threads: one embeds, the other tells how far it is.
        facts = {"num_cpus": room[0], "num_gpus": room[1], "max_concurrency": 2}
        self._actor_class = ray.remote(_UnitActor).options(**facts)
        done = folder.records()
        self._waiting = deque(unit for unit in folder.units() if unit.number not in done)
        self._errors: dict[int, int] = {}
        self._busy: dict[Any, _Actor] = {}
        self._silent_since: float | None = None
        self._away_since: float | None = None
        self._report = RayReport()

    def run(self) -> RayReport:
        """Work until every unit has a record and is in the collection."""
        try:
            self._embed_all()
        except BaseException:
            self._withdraw()
            raise
        self._report.rows_added += self._commit().rows
        self._committer.maintain()
        return self._report

    def _commit(self) -> CommitReport:
        return self._committer.commit(told=lambda n_images: self._require_go())

    def _require_go(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _embed_all(self) -> None:
        with ThreadPoolExecutor(1, thread_name_prefix="nearsight-commit") as pool:
            committing: Future[CommitReport] | None = None
            last = looked = time.monotonic()
            self._fill()
            while self._busy or self._waiting:
                self._require_go()
                self._take_finished()
                now = time.monotonic()
                if now - looked >= _SECONDS_PER_LOOK:
                    looked = now
                    self._fill()
                    self._show()
                if committing is not None and committing.done():
                    self._take_commit(committing)
                    committing, last = None, now
                if committing is None and now - last >= _SECONDS_BETWEEN_COMMITS:
                    committing = pool.submit(self._commit)
            if committing is not None:
                self._take_commit(committing)

    def _take_commit(self, committing: "Future[CommitReport]") -> None:
        """Count what a commit has added; while the collection is away, rows wait in the job's folder."""
        try:
            self._report.rows_added += committing.result().rows
        except StorageError as error:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
                _log.warning("waiting for the collection: %s", error)
            if now - self._away_since > _SECONDS_OF_PATIENCE:
                raise
        else:
            self._away_since = None

    def _withdraw(self) -> None:
        """Let the attempts at units in work not count."""
        answers = [actor.handle.withdraw.remote() for actor in self._busy.values()]
        if answers:
            self._ray.wait(answers, num_returns=len(answers), timeout=_SECONDS_TO_WITHDRAW)

    def _fill(self) -> None:
        """Start as many actors as there is room for and work, unless the cluster does not answer just now."""
        try:
            self._start_actors()
        except (self._ray.exceptions.RayError, DeviceError) as error:
            now = time.monotonic()
            if self._silent_since is None:
                self._silent_since = now
                _log.warning("waiting for the cluster: %s", error)
            if isinstance(error, DeviceError):
                if not self._report.actors or now - self._silent_since > _SECONDS_OF_PATIENCE:
                    raise
            elif now - self._silent_since > _SECONDS_OF_PATIENCE:
                raise DeviceError(
                    f"the Ray cluster has not answered for {_SECONDS_OF_PATIENCE / 60:.0f} minutes ({error});"
                    " what is done is saved, and the same command goes on"
                ) from error
        else:
            self._silent_since = None

    def _start_actors(self) -> None:
        n_most = min(self._n_possible(), len(self._busy) + len(self._waiting))
        while len(self._busy) < n_most and self._waiting:
            self._give(_Actor(self._actor_class.remote(*self._arguments)))
        self._report.actors = max(self._report.actors, len(self._busy))
        if not self._busy and self._waiting and not self._n_possible():
            needs = " and ".join(
                f"{amount:g} {name}"
                for amount, name in zip(self._room, ("CPU", "GPU"), strict=True)
                if amount
            )
            raise DeviceError(
                f"no node of the cluster has {needs} for an actor; give an actor less, with --actor-cpus or"
                " --actor-gpus"
            )

    def _n_possible(self) -> int:
        """Return how many actors the nodes that are alive can hold."""
        n_actors = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                sizes = [node["Resources"].get(name, 0.0) for name in ("CPU", "GPU")]
                fits = [int(size / need + 1e-6) for size, need in zip(sizes, self._room, strict=True) if need]
                n_actors += min(fits)
        return n_actors if self._max_actors is None else min(n_actors, self._max_actors)

    def _give(self, actor: _Actor) -> None:
        actor.unit = self._waiting.popleft()
        self._busy[actor.handle.embed.remote(actor.unit)] = actor

    def _show(self) -> None:
        """Tell how far the actors are, those that have answered since the last time."""
        for actor in self._busy.values():
            actor.asked = actor.asked or actor.handle.counts.remote()
        asked = {actor.asked: actor for actor in self._busy.values()}
        ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=0) if asked else ([], [])
        for answer in ready:
            actor, asked[answer].asked = asked[answer], None
            try:
                number, n_images, n_failed = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                continue  # it has died, and so says its unit
            if actor.unit is not None and actor.unit.number == number:
                self._show_one(actor, n_images, n_failed)

    def _show_one(self, actor: _Actor, n_images: int, n_failed: int) -> None:
        self._told(n_images - actor.shown[0], n_failed - actor.shown[1])
        actor.shown = (n_images, n_failed)

    def _take_finished(self) -> None:
        if not self._busy:
            time.sleep(_SECONDS_PER_LOOK)
            return
        done, _ = self._ray.wait(list(self._busy), timeout=_SECONDS_PER_LOOK)
        for answer in done:
            actor = self._busy.pop(answer)
            unit = actor.unit
            try:
                result = self._ray.get(answer)
            except self._ray.exceptions.RayTaskError as error:
                # Its own error, such as a disk that is not mounted on that node: another may do better.
                self._show_one(actor, 0, 0)
                self._again(unit, error.cause if isinstance(error.cause, Exception) else error)
                self._ray.kill(actor.handle)
                continue
            except self._ray.exceptions.RayError as error:
                _log.warning("an actor has died with unit %s: %s", unit and unit.number, error)
                self._report.lost_actors += 1
                self._show_one(actor, 0, 0)
                self._again(unit, error)
                continue
            self._count(actor, result)
            if self._waiting:
                self._give(actor)
            else:
                self._ray.kill(actor.handle)

    def _count(self, actor: _Actor, result: tuple[int, int, int] | str | None) -> None:
        unit, actor.unit = actor.unit, None
        if isinstance(result, str):
            self._show_one(actor, 0, 0)
            self._report.refused.append(result)
        elif result is None:
            self._show_one(actor, 0, 0)
            if unit is not None and self._folder.record(unit.number) is None:
                self._waiting.append(unit)
        else:
            n_images, n_rows, n_failed = result
            self._report.units += 1
            self._report.images += n_images
            self._report.rows += n_rows
            self._report.failed += n_failed
            self._show_one(actor, n_images, n_failed)
        actor.shown = (0, 0)

    def _again(self, unit: Unit | None, error: Exception) -> None:
        """Put a unit back at the end of the queue, unless it is done or has cost too many actors."""
        if unit is None or self._folder.record(unit.number) is not None:
            return
        self._errors[unit.number] = self._errors.get(unit.number, 0) + 1
        if self._errors[unit.number] > _MAX_ERRORS:
            if isinstance(error, UnitInputError):
                self._report.refused.append(str(error))
                return
            raise StorageError(
                f"unit {unit.number} has ended {_MAX_ERRORS} actors; the last said: {error}. The others are"
                " saved; the same command goes on"
            ) from error
        self._waiting.append(unit)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray is not installed: pip install 'nearsight[ray]'") from error
    return ray
