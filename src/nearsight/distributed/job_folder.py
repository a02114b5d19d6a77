"""The folder of a job, by which its processes know of each other's work.

Files appear whole, and the first of a name stays: ``plan.parquet``; for each unit that is done a record and,
until they are in the collection, its rows; for each attempt at a unit a claim.
"""

import io
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from nearsight.distributed.claims import Claim, last_claims, put_claim
from nearsight.distributed.job_files import JobFiles, open_files
from nearsight.distributed.units import JobFacts, Unit, read_job, read_units
from nearsight.errors import ImageFailure, InvalidParameterError

PLAN, AGAIN = "plan.parquet", "again-{:03d}.parquet"
COMMITTED = "committed.json"
UNITS = "units/"

_N_READERS = 16

_AGAIN = re.compile(r"again-\d+\.parquet\Z")
_CLAIM = re.compile(r"(\d+)\.claim(\d+)\Z")
_RECORD = re.compile(r"(\d+)\.json\Z")
# Rows, claims, and files that were not finished; everything but the record.
_LEFTOVER = re.compile(r"\.?(\d+)\.(?!json\Z).+")


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a unit.

    Attributes
    ----------
    unit : int
    digest : str
        Of the unit, see `Unit`.
    rows : str or None
        Name of the file of its rows; None if it has none.
    n_images : int
        Images that were found, failed ones too.
    n_rows : int
    is_again : bool
        See `Unit`.
    attempt : int
        From 1.
    seconds : float
    ended : float
        Seconds since 1970.
    host : str
    failed : list of ImageFailure
    notes : dict of str to int
    """

    unit: int
    digest: str
    rows: str | None
    n_images: int
    n_rows: int
    is_again: bool
    attempt: int
    seconds: float
    ended: float
    host: str
    failed: list[ImageFailure] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


class JobFolder:
    """The folder of a job.

    Parameters
    ----------
    place : path or URL
        All processes of the job see it: a local disk for one machine, a shared file system for several, or
        ``s3://bucket/jobs/1`` or ``gs://bucket/jobs/1`` for any number.

    Raises
    ------
    MissingExtraError
        The driver of such URLs is not installed.
    """

    def __init__(self, place: str | Path | JobFiles) -> None:
        self.files = open_files(place)

    @property
    def uri(self) -> str:
        """The directory, absolute, or the URL."""
        return self.files.uri

    # --- the plan -----------------------------------------------------------------------------

    def is_planned(self) -> bool:
        """Whether the units are known."""
        return self.files.exists(PLAN)

    @cached_property
    def job(self) -> JobFacts:
        """The facts of the job.

        Raises
        ------
        InvalidParameterError
            The folder holds no job.
        """
        if not self.is_planned():
            raise InvalidParameterError(
                f"{self.uri} holds no job; make one with nearsight index PATH --units 0/1 --job {self.uri}"
            )
        return read_job(self._opened(PLAN), self.uri)

    def units(self) -> list[Unit]:
        """Return all units, in the order of their numbers."""
        units = read_units(self._opened(PLAN))
        for number in range(self.n_again()):
            units += read_units(self._opened(AGAIN.format(number + 1)), is_again=True)
        return units

    def n_waiting(self) -> int | None:
        """Return the images of the units that are not done; None while a shard has not been opened."""
        done = self.records()
        sizes = [unit.n_images for unit in self.units() if unit.number not in done]
        return None if None in sizes else sum(n_images or 0 for n_images in sizes)

    def n_again(self) -> int:
        """Return how often units of failed images were added."""
        return sum(_AGAIN.match(name) is not None for name, _ in self.files.names())

    def _opened(self, name: str) -> IO[bytes]:
        return io.BytesIO(self.files.read(name))

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Keep others from planning."""
        self.files.prepare()
        with self.files.lock("plan.lock"):
            yield

    def committing(self) -> AbstractContextManager[Any]:
        """Keep others from committing."""
        return self.files.lock("commit.lock")

    def put_plan(self, content: bytes) -> bool:
        """Write the plan, unless there is one; return whether it was written."""
        return self.files.put_if_absent(PLAN, content)

    def put_again(self, number: int, content: bytes) -> bool:
        """Write further units, from number 1 on, unless others have; return whether they were written."""
        return self.files.put_if_absent(AGAIN.format(number), content)

    # --- the work -----------------------------------------------------------------------------

    def records(self) -> set[int]:
        """Return the numbers of the units that are done."""
        return {int(match[1]) for match, _ in self._names(_RECORD)}

    def recent_records(self, seconds: float) -> dict[int, float]:
        """Return the units that were done in the last seconds, and how many seconds ago each was."""
        now_s = self.files.now_s()
        ages = {int(match[1]): now_s - modified_s() for match, modified_s in self._names(_RECORD)}
        return {unit: age for unit, age in ages.items() if age < seconds}

    def record(self, unit: int) -> Record | None:
        """Return what became of a unit; None while it is not done."""
        try:
            facts = json.loads(self.files.read(_record_name(unit)))
        except FileNotFoundError:
            return None
        return Record(**{**facts, "failed": [ImageFailure(**failure) for failure in facts["failed"]]})

    def read_records(self, units: Iterable[int]) -> dict[int, Record]:
        """Return what became of units, without those that are not done; in a bucket, each is a request."""
        units = list(units)
        with ThreadPoolExecutor(_N_READERS, thread_name_prefix="nearsight-records") as pool:
            records = zip(units, pool.map(self.record, units), strict=True)
            return {unit: record for unit, record in records if record is not None}

    def put_record(self, record: Record) -> bool:
        """Record what became of a unit, unless that is recorded; return whether this record counts."""
        return self.files.put_if_absent(_record_name(record.unit), json.dumps(asdict(record)).encode())

    def amend(self, record: Record) -> None:
        """Replace what is recorded of a unit; the caller is committing."""
        self.files.replace(_record_name(record.unit), json.dumps(asdict(record)).encode())

    def forget(self, record: Record) -> None:
        """Forget what became of a unit, so that it is embedded again."""
        self.files.delete(_record_name(record.unit))

    def rows_name(self, unit: int) -> str:
        """Return a new name for the rows of a unit."""
        return f"{unit:06d}.{secrets.token_hex(4)}.arrow"

    def rows_written(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open the file of the rows of a unit, which appears at the end, whole."""
        return self.files.created(UNITS + name)

    def rows_read(self, name: str) -> AbstractContextManager[Path]:
        """Give the file of the rows of a unit as one on this machine."""
        return self.files.local(UNITS + name)

    def delete_rows(self, record: Record) -> None:
        """Delete the rows of a unit, if it has any."""
        if record.rows is not None:
            self.files.delete(UNITS + record.rows)

    def claims(self) -> dict[int, Claim]:
        """Return the last claim of each unit that has one."""
        return {int(subject): claim for subject, claim in last_claims(self.files, UNITS).items()}

    def claim(self, unit: int, last: Claim | None) -> Claim | None:
        """Claim a unit after its last claim; None if another process was first."""
        return put_claim(self.files, UNITS, f"{unit:06d}", last)

    def release(self, unit: int) -> None:
        """Remove the claims of a unit that is done."""
        for match, _ in list(self._names(_CLAIM)):
            if int(match[1]) == unit:
                self.files.delete(UNITS + match[0])

    # --- what is in the collection ------------------------------------------------------------

    def committed(self) -> "Committed":
        """Return which units are in the collection."""
        try:
            facts = json.loads(self.files.read(COMMITTED))
        except FileNotFoundError:
            return Committed()
        units = {number for first, last in facts.pop("units") for number in range(first, last + 1)}
        return Committed(units, **facts)

    def put_committed(self, committed: "Committed") -> None:
        """Record which units are in the collection."""
        facts = {**asdict(committed), "units": _ranges(committed.units)}
        self.files.replace(COMMITTED, json.dumps(facts).encode())

    def sweep(self, committed: "Committed") -> None:
        """Remove what processes that were killed have left of units that are in the collection."""
        for match, _ in list(self._names(_LEFTOVER)):
            if int(match[1]) in committed.units:
                self.files.delete(UNITS + match.string)

    # --- files --------------------------------------------------------------------------------

    def _names(self, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], Callable[[], float]]]:
        for name, modified_s in self.files.names(UNITS):
            if match := pattern.match(name):
                yield match, modified_s


def _record_name(unit: int) -> str:
    return f"{UNITS}{unit:06d}.json"


@dataclass(slots=True)
class Committed:
    """The units that are in the collection, and what is known of them together.

    Attributes
    ----------
    units : set of int
    n_images : int
        Without those that were tried again.
    n_failed : int
        At any attempt.
    seconds : float
        That workers spent on them.
    """

    units: set[int] = field(default_factory=set)
    n_images: int = 0
    n_failed: int = 0
    seconds: float = 0.0

    def add(self, record: Record) -> None:
        """Add a unit."""
        self.units.add(record.unit)
        self.n_images += 0 if record.is_again else record.n_images
        self.n_failed += len(record.failed)
        self.seconds += record.seconds


def _ranges(numbers: set[int]) -> list[tuple[int, int]]:
    """Return numbers as first and last of each run.

    Examples
    --------
    >>> _ranges({0, 1, 2, 7})
    [(0, 2), (7, 7)]
    """
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges
