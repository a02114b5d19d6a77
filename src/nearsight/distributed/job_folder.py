"""The folder of a job, by which its processes know of each other's work.

Files appear whole, and the first of a name stays: ``plan.parquet``; for each unit that is done a record and,
until they are in the collection, its rows; for each attempt at a unit a claim.
"""

import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO

from filelock import FileLock

from nearsight.artifacts import remedy, replacing
from nearsight.distributed.units import JobFacts, Unit, read_job, read_units
from nearsight.errors import ImageFailure, InvalidParameterError, StorageError

PLAN, AGAIN = "plan.parquet", "again-{:03d}.parquet"
COMMITTED = "committed.json"
# A process that lives marks its claim at this interval, and one that does not for so long is dead.
HEARTBEAT_S, STALE_S = 10.0, 120.0

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


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt at a unit.

    Attributes
    ----------
    unit, attempt : int
    path : Path
    """

    unit: int
    attempt: int
    path: Path

    def is_alive(self) -> bool:
        """Whether the process that made it still works on the unit, as far as one can tell."""
        try:
            age_s = time.time() - self.path.stat().st_mtime
            facts = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return False
        if facts.get("host") == socket.gethostname():
            started = _started(facts["pid"])
            return started is not None and bool(started == facts["started"])
        return age_s < STALE_S

    def beat(self) -> None:
        """Show that the process lives."""
        with suppress(OSError):
            os.utime(self.path)

    def withdraw(self) -> None:
        """Undo the claim: the attempt does not count."""
        self.path.unlink(missing_ok=True)

    def end(self) -> None:
        """End the attempt without a record, although the process lives."""
        with suppress(OSError):
            self.path.write_bytes(b"{}")
            os.utime(self.path, (0, 0))


class JobFolder:
    """The folder of a job.

    Parameters
    ----------
    path : path
        All processes of the job see it: a local disk for one machine, a shared file system for several.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.work = self.path / "units"

    # --- the plan -----------------------------------------------------------------------------

    def is_planned(self) -> bool:
        """Whether the units are known."""
        return (self.path / PLAN).exists()

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
                f"{self.path} holds no job; make one with nearsight index PATH --units 0/1 --job {self.path}"
            )
        return read_job(self.path / PLAN)

    def units(self) -> list[Unit]:
        """Return all units, in the order of their numbers."""
        units = read_units(self.path / PLAN)
        for path in self._again():
            units += read_units(path, is_again=True)
        return units

    def _again(self) -> list[Path]:
        return sorted(self.path.glob("again-*.parquet"))

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Keep others from planning, where the file system has locks."""
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "plan.lock")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Keep others from committing, where the file system has locks."""
        with FileLock(self.path / "commit.lock"):
            yield

    def put_plan(self, write: Callable[[IO[bytes]], None]) -> bool:
        """Write the plan, unless there is one; return whether it was written."""
        with self.writing():
            self.work.mkdir(parents=True, exist_ok=True)
            return put_if_absent(self.path / PLAN, write)

    def put_again(self, write: Callable[[IO[bytes]], None]) -> bool:
        """Write further units."""
        with self.writing():
            return put_if_absent(self.path / AGAIN.format(len(self._again()) + 1), write)

    # --- the work -----------------------------------------------------------------------------

    def records(self, *, newer_than: float = 0.0) -> set[int]:
        """Return the numbers of the units that are done, since a time in seconds since 1970."""
        return {int(match[1]) for match in self._names(_RECORD, newer_than)}

    def record(self, unit: int) -> Record | None:
        """Return what became of a unit; None while it is not done."""
        try:
            facts = json.loads((self.work / f"{unit:06d}.json").read_bytes())
        except FileNotFoundError:
            return None
        return Record(**{**facts, "failed": [ImageFailure(**failure) for failure in facts["failed"]]})

    def put_record(self, record: Record) -> bool:
        """Record what became of a unit, unless that is recorded; return whether this record counts."""
        text = json.dumps(asdict(record))
        with self.writing():
            return put_if_absent(
                self.work / f"{record.unit:06d}.json", lambda file: _write_durably(file, text.encode())
            )

    def forget(self, record: Record) -> None:
        """Forget what became of a unit, so that it is embedded again."""
        (self.work / f"{record.unit:06d}.json").unlink(missing_ok=True)

    def rows_path(self, unit: int) -> Path:
        """Return a new name for the rows of a unit."""
        return self.work / f"{unit:06d}.{secrets.token_hex(4)}.arrow"

    def claims(self) -> dict[int, Claim]:
        """Return the last claim of each unit that has one."""
        last: dict[int, Claim] = {}
        for match in self._names(_CLAIM):
            unit, attempt = int(match[1]), int(match[2])
            if unit not in last or last[unit].attempt < attempt:
                last[unit] = Claim(unit, attempt, self.work / match[0])
        return last

    def claim(self, unit: int, last: Claim | None) -> Claim | None:
        """Claim a unit after its last claim; None if another process was first."""
        attempt = last.attempt + 1 if last else 1
        path = self.work / f"{unit:06d}.claim{attempt}"
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        text = json.dumps(facts).encode()
        with self.writing():
            is_mine = put_if_absent(path, lambda file: _write_durably(file, text))
        return Claim(unit, attempt, path) if is_mine else None

    def release(self, unit: int) -> None:
        """Remove the claims of a unit that is done."""
        for match in list(self._names(_CLAIM)):
            if int(match[1]) == unit:
                (self.work / match[0]).unlink(missing_ok=True)

    # --- what is in the collection ------------------------------------------------------------

    def committed(self) -> "Committed":
        """Return which units are in the collection."""
        try:
            facts = json.loads((self.path / COMMITTED).read_bytes())
        except FileNotFoundError:
            return Committed()
        units = {number for first, last in facts.pop("units") for number in range(first, last + 1)}
        return Committed(units, **facts)

    def put_committed(self, committed: "Committed") -> None:
        """Record which units are in the collection."""
        facts = {**asdict(committed), "units": _ranges(committed.units)}
        with self.writing(), replacing(self.path / COMMITTED) as file:
            _write_durably(file, json.dumps(facts).encode())

    def sweep(self, committed: "Committed") -> None:
        """Remove what processes that were killed have left of units that are in the collection."""
        for match in list(self._names(_LEFTOVER)):
            if int(match[1]) in committed.units:
                (self.work / match.string).unlink(missing_ok=True)

    # --- files --------------------------------------------------------------------------------

    def _names(self, pattern: re.Pattern[str], newer_than: float = 0.0) -> Iterator[re.Match[str]]:
        if not self.work.is_dir():
            return
        with os.scandir(self.work) as entries:
            for entry in entries:
                match = pattern.match(entry.name)
                if match and (not newer_than or entry.stat().st_mtime > newer_than):
                    yield match

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn errors of the disk into `StorageError` with a remedy."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written to: {error.strerror or error}; {remedy(error)}"
            ) from error


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


def put_if_absent(path: Path, write: Callable[[IO[bytes]], None]) -> bool:
    """Write a file, whole, unless there is one of that name; return whether it was written."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            # A file system without hard links: two processes within a moment may both be heard.
            if path.exists():
                return False
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _write_durably(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


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


def _started(pid: int) -> str | None:
    """Return when a process of this machine started; None if there is none."""
    try:
        # The name, in parentheses, may hold spaces.
        facts = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if facts[0] in "ZX" else facts[19]
    except (OSError, IndexError):
        pass
    if Path("/proc/self").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "unknown"
