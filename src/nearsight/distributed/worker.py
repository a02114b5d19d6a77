"""Embeds the units of a job."""

import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from nearsight.collection import schema as row_schema
from nearsight.collection.removal import marked_rows
from nearsight.collection.writer import IndexedFile, WriteBatch
from nearsight.distributed.claims import Claim, beating
from nearsight.distributed.job_folder import JobFolder, Record
from nearsight.distributed.units import Unit, names_of, sources_of
from nearsight.embedder import Embedded, Embedder
from nearsight.errors import ChangedInputError, ImageFailure, StorageError, UnitInputError
from nearsight.images import Limits
from nearsight.models import Fingerprint, load_model
from nearsight.progress import bar

# Rows of one batch of a unit's file; the committer adds a batch at a time.
_ROWS_PER_BATCH = 4096
# After so many attempts that ended without a word, the images of a unit count as failed.
_MAX_ATTEMPTS = 5
# Between two looks whether another machine of the same name still gives signs.
_SECONDS_TO_WAIT = 5.0
# A unit of so many images or more of which none can be read is tried again: the disk may be missing here.
_MIN_SUSPICIOUS = 16


class Told(Protocol):
    """What is told of progress: images that are done since, and of those the ones that have failed."""

    def __call__(self, n_images: int, n_failed: int = 0, /) -> object:
        """Count them."""
        ...


@dataclass(slots=True)
class WorkReport:
    """What a worker has done.

    Attributes
    ----------
    units, images, rows : int
        Units, images of them, and images that were embedded.
    failed : int
    seconds : float
    refused : list of str
        Why some units were not embedded: their images cannot be listed, or are not those of the plan.
    """

    units: int = 0
    images: int = 0
    rows: int = 0
    failed: int = 0
    seconds: float = 0.0
    refused: list[str] = field(default_factory=list)


class Worker:
    """Embeds units of a job, one after another.

    Parameters
    ----------
    folder : JobFolder
    share, n_shares : int
        It begins with every `n_shares`-th unit from `share` on. When those are done, it takes those of others
        that nobody works on, so that a slow or missing process holds nobody up.
    device : str
        See `load_model`.
    cache_dir : Path, optional
        For converted models.
    n_threads, n_processes : int, optional
        See `Embedder`.
    progress : bool, optional
        See `nearsight.progress.bar`.

    Raises
    ------
    FingerprintMismatchError
        The model gives other vectors here than where the job was planned.
    """

    def __init__(
        self,
        folder: JobFolder,
        *,
        share: int = 0,
        n_shares: int = 1,
        device: str = "auto",
        cache_dir: Path | None = None,
        n_threads: int | None = None,
        n_processes: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self._folder = folder
        self._job = folder.job
        self._share, self._n_shares = share, n_shares
        self._progress = progress
        self._has_read = False
        backend = load_model(self._job.model, device=device, cache_dir=cache_dir)
        Fingerprint.from_dict(self._job.fingerprint).require_same(
            backend.spec.fingerprint, "the job", "Use the same version of the model on all machines"
        )
        self._schema = row_schema.schema(backend.spec.dim)
        limits = Limits(**self._job.limits or {})

        def embedder(n_processes: int | None) -> Embedder:
            options: dict[str, Any] = {"n_threads": n_threads, "n_processes": n_processes}
            return Embedder(backend, limits=limits, cache_dir=cache_dir, progress=False, **options)

        self._embedder = embedder(n_processes)
        # A crash of a worker process costs one image, and that of this process a unit.
        self._isolated = embedder(max(1, n_processes or 0))

    def run(self) -> WorkReport:
        """Embed units until none is left that nobody works on."""
        report, started = WorkReport(), time.monotonic()
        units = self._ordered(self._folder.units())
        done = self._folder.records()
        left = [unit for unit in units if unit.number not in done]
        own = [unit.n_images for unit in left if self._is_own(unit)]
        total = None if None in own else sum(n or 0 for n in own)
        tasks = iter(lambda: self._next(units), None)
        for is_own, group in groupby(tasks, key=lambda task: self._is_own(task[0])):
            # Of the others' units, nobody knows how many they leave.
            description = "embedding images" if is_own else "embedding images of other processes' shares"
            with bar(description, total if is_own else None, progress=self._progress) as shown:
                for unit, claim in group:
                    try:
                        record = self.embed(unit, claim, told=shown.update)
                    except (ChangedInputError, UnitInputError) as error:
                        units.remove(unit)
                        report.refused.append(str(error))
                        continue
                    if record is None:
                        # Whoever it is that has it, this one looks at it last.
                        units.append(units.pop(units.index(unit)))
                    else:
                        report.units += 1
                        report.images += record.n_images
                        report.rows += record.n_rows
                        report.failed += len(record.failed)
        report.seconds = round(time.monotonic() - started, 3)
        return report

    def _ordered(self, units: list[Unit]) -> list[Unit]:
        own = [unit for unit in units if self._is_own(unit)]
        # The others from the end of theirs, where their own processes come last.
        return own + [unit for unit in reversed(units) if not self._is_own(unit)]

    def _is_own(self, unit: Unit) -> bool:
        return unit.number % self._n_shares == self._share

    def _next(self, units: list[Unit]) -> tuple[Unit, Claim] | None:
        while True:
            done, claims = self._folder.records(), self._folder.claims()
            left = [(unit, claims.get(unit.number)) for unit in units if unit.number not in done]
            for unit, last in left:
                if last is not None and last.is_alive():
                    continue
                if (claim := self._folder.claim(unit.number, last)) is not None:
                    return unit, claim
            if not any(last is not None and last.is_of_namesake() for _, last in left):
                return None
            # It may be this one's own, of before it was killed and started again: only time tells.
            time.sleep(_SECONDS_TO_WAIT)

    def embed(self, unit: Unit, claim: Claim, *, told: Told | None = None) -> Record | None:
        """Embed one unit that was claimed; return its record, or None if another process was first.

        Return None, too, if not one of many images can be read, although those of other units were: it waits
        for another attempt, by this process or one on another machine, which makes them count as failed.

        Raises
        ------
        ChangedInputError, UnitInputError
            The images of the unit cannot be listed, or are not those that were planned.
        StorageError
            The job's folder cannot be written to; or not one of many images can be read on this machine, nor
            was any before.
        """
        told = told or (lambda n_images, n_failed=0: None)
        if self._folder.record(unit.number) is not None:
            claim.withdraw()
            return None
        try:
            with beating(claim):
                record = self._embed(unit, claim.attempt, told)
            self._has_read = self._has_read or record.n_rows > 0
            if not _is_suspicious(record):
                return record if self._put(record) else None
        except BaseException as error:
            claim.withdraw()
            # Another process was first, and what this one wrote was removed.
            if isinstance(error, StorageError) and self._folder.record(unit.number) is not None:
                return None
            raise
        claim.end()
        if self._has_read:
            told(-record.n_images, -len(record.failed))
            return None
        raise StorageError(
            f"not one of {record.n_images:,} images of unit {unit.number} can be read on {record.host}"
            f" ({record.failed[0].path} {record.failed[0].reason}); check that their disk is mounted"
            " there, and start again: then they count as failed"
        )

    def _put(self, record: Record) -> bool:
        try:
            is_first = self._folder.put_record(record)
        except StorageError:
            # If the disk is full, the rows have the room that the next attempt needs.
            with suppress(OSError):
                if self._folder.record(record.unit) is None:
                    self._folder.delete_rows(record)
            raise
        if not is_first:
            self._folder.delete_rows(record)
        self._folder.release(record.unit)
        return is_first

    def _embed(self, unit: Unit, attempt: int, told: Told) -> Record:
        started = time.monotonic()
        counts = _Counts()
        name = self._folder.rows_name(unit.number)
        if attempt > _MAX_ATTEMPTS:
            reason = f"{attempt - 1} processes have ended while they embedded unit {unit.number}"
            counts.failed = [ImageFailure(name, reason) for name in names_of(unit, self._folder.files)]
        else:
            embedder = self._embedder if attempt == 1 else self._isolated
            sources = sources_of(unit, self._job, self._folder.files)
            with closing(embedder.stream(sources, thumbnails=True)) as results:
                self._write(name, results, counts, told)
        return Record(
            unit=unit.number,
            digest=unit.digest,
            rows=name if counts.n_rows else None,
            n_images=counts.n_rows + counts.n_again + len(counts.failed),
            n_rows=counts.n_rows,
            is_again=unit.is_again,
            attempt=attempt,
            seconds=round(time.monotonic() - started, 3),
            ended=time.time(),
            host=socket.gethostname(),
            failed=counts.failed,
            notes=dict(counts.notes),
        )

    def _write(
        self,
        name: str,
        results: Iterable[Embedded | ImageFailure],
        counts: "_Counts",
        told: Told,
    ) -> None:
        """Write the rows of a unit as one file, which appears whole; no file where there is no row."""
        results = iter(results)
        first = next((result for result in results if not counts.takes_failure(result, told)), None)
        if first is None:
            return
        digest = Fingerprint.from_dict(self._job.fingerprint).digest
        schema = marked_rows(self._schema.empty_table(), digest).schema
        with self._folder.rows_written(name) as file, pa.ipc.new_file(file, schema) as writer:
            for rows in _batches(chain([first], results), counts, told):
                table = row_schema.table(rows.values(), self._schema)
                counts.n_rows += table.num_rows
                writer.write_table(table.replace_schema_metadata(schema.metadata))


class _Counts:
    """What a unit's images have become; `n_again` have the content of others of their batch."""

    def __init__(self) -> None:
        self.n_rows = self.n_again = 0
        self.failed: list[ImageFailure] = []
        self.notes: Counter[str] = Counter()

    def takes_failure(self, result: Embedded | ImageFailure, told: Told) -> bool:
        """Count a failure; return whether it is one."""
        if not isinstance(result, ImageFailure):
            return False
        self.failed.append(result)
        told(1, 1)
        return True


def _batches(
    results: Iterator[Embedded | ImageFailure], counts: _Counts, told: Told
) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield rows by id, some thousand at a time, and count the rest."""
    batch = WriteBatch()
    for result in results:
        if counts.takes_failure(result, told) or isinstance(result, ImageFailure):
            continue
        told(1)
        counts.notes.update(result.notes)
        if result.id in batch.rows:
            batch.add_file(result.id, IndexedFile.of(result.source, result.stat))
            counts.n_again += 1
        else:
            batch.add_row(result, {})
        if len(batch.rows) == _ROWS_PER_BATCH:
            yield batch.rows
            batch = WriteBatch()
    if batch.rows:
        yield batch.rows


def _is_suspicious(record: Record) -> bool:
    """Whether not one of many images could be read, for the first time."""
    n_failed = len(record.failed)
    return record.attempt == 1 and n_failed == record.n_images and n_failed >= _MIN_SUSPICIOUS
