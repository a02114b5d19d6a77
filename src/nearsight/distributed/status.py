"""How far a job is, and which images have failed."""

from dataclasses import dataclass

from nearsight.distributed.claims import Claim
from nearsight.distributed.job_folder import JobFolder
from nearsight.distributed.units import names_of
from nearsight.errors import ImageFailure

# The rate is that of the units that ended so long ago, at most.
_RATE_S = 600.0


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is.

    Attributes
    ----------
    units, done, committed, running : int
        Units in all; that are embedded; of those, that are in the collection; that a process works on.
    interrupted : int
        Units that a process began and left, and nobody has taken up since.
    images : int or None
        Images of all units; None while a shard has not been opened.
    embedded, failed : int
        Images of the units that are done.
    images_per_second : float
        Of all processes together, over the last ten minutes.
    seconds_left : float or None
        At that rate; None if it is not known.
    """

    units: int
    done: int
    committed: int
    running: int
    interrupted: int
    images: int | None
    embedded: int
    failed: int
    images_per_second: float
    seconds_left: float | None

    @property
    def is_complete(self) -> bool:
        """Whether all images are in the collection, or have failed."""
        return self.committed == self.units


def status(folder: JobFolder) -> JobStatus:
    """Return how far a job is."""
    units, done, committed = folder.units(), folder.records(), folder.committed()
    claims = [claim for unit, claim in folder.claims().items() if unit not in done]
    running = sum(map(Claim.is_alive, claims))
    records = folder.read_records(done - committed.units).values()
    n_done = committed.n_images + sum(record.n_images for record in records if not record.is_again)
    n_failed = committed.n_failed + sum(len(record.failed) for record in records)
    # Only then an image may have failed more than once, and every record is read.
    if n_failed and any(unit.is_again for unit in units):
        n_failed = len(failures(folder))
    rate = _rate(folder)
    waiting = [unit.n_images for unit in units if unit.number not in done and not unit.is_again]
    n_waiting = None if None in waiting else sum(n or 0 for n in waiting)
    return JobStatus(
        units=len(units),
        done=len(done),
        committed=len(committed.units),
        running=running,
        interrupted=len(claims) - running,
        images=None if n_waiting is None else n_done + n_waiting,
        embedded=n_done - n_failed,
        failed=n_failed,
        images_per_second=round(rate, 1),
        seconds_left=round(n_waiting / rate, 1) if n_waiting and rate else (0.0 if n_waiting == 0 else None),
    )


def failures(folder: JobFolder, *, waiting: bool = True) -> list[ImageFailure]:
    """Return the images that have failed and were not embedded by a later attempt.

    Parameters
    ----------
    folder : JobFolder
    waiting : bool, default True
        Whether those count that will be tried again, in a unit that is not done.
    """
    reasons: dict[str, str] = {}
    units = folder.units()
    records = folder.read_records(unit.number for unit in units)
    for unit in units:
        record = records.get(unit.number)
        if unit.is_again and (record is not None or not waiting):
            for name in names_of(unit, folder.files):
                reasons.pop(name, None)
        if record is not None:
            reasons.update((failure.path, failure.reason) for failure in record.failed)
    return [ImageFailure(path, reason) for path, reason in reasons.items()]


def _rate(folder: JobFolder) -> float:
    """Return the images per second of all processes together."""
    # Ages by the storage's clock, since each record's times are those of the machine that wrote it.
    ages = folder.recent_records(_RATE_S)
    records = folder.read_records(ages)
    if not records:
        return 0.0
    began = max(ages[unit] + record.seconds for unit, record in records.items())
    return sum(record.n_images for record in records.values()) / max(1e-3, min(began, _RATE_S))
