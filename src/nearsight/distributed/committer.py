"""Adds the rows of units to the collection, each image once whatever happens.

The rows of a unit may be added any number of times: an image that has a row gets nothing but the files that
it lacks. So an answer that was lost, a second process that does the same, and one that is killed between two
steps change nothing, with every store; and the same content in two units becomes one row with both files.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from nearsight.collection import Collection
from nearsight.distributed.job_folder import JobFolder, Record
from nearsight.errors import (
    CollectionNotFoundError,
    FingerprintMismatchError,
    ImageFailure,
    RowsRefusedError,
    StorageError,
)
from nearsight.images import decode_path
from nearsight.models import Fingerprint
from nearsight.store import shown_uri

# Units that are added before this is recorded; whoever comes after a crash adds so many again.
_UNITS_PER_RECORD = 8


@dataclass(slots=True)
class CommitReport:
    """What a commit has done.

    Attributes
    ----------
    units : int
        That it has added.
    rows : int
        That are new.
    again : list of int
        Units whose rows are gone, and which are embedded again.
    """

    units: int = 0
    rows: int = 0
    again: list[int] = field(default_factory=list)


class Committer:
    """Adds the units of a job that are done to its collection.

    Parameters
    ----------
    folder : JobFolder
    collection : Collection
        That of the job.

    Raises
    ------
    FingerprintMismatchError
        The collection was upgraded to another model since.
    """

    def __init__(self, folder: JobFolder, collection: Collection) -> None:
        expected = Fingerprint.from_dict(folder.job.fingerprint)
        if expected != collection.fingerprint:
            raise FingerprintMismatchError(
                f"{folder.uri} holds vectors of {expected.model}, and the collection is of"
                f" {collection.spec.id} now; index the images again with another --job"
            )
        self._folder = folder
        self._collection = collection

    def commit(self, *, told: Callable[[int], object] | None = None) -> CommitReport:
        """Add all units that are done and not in the collection; return what was new.

        Several processes may do so at the same time.
        """
        report = CommitReport()
        while True:
            with self._folder.committing():
                committed = self._folder.committed()
                numbers = sorted(self._folder.records() - committed.units)[:_UNITS_PER_RECORD]
                records = [record for number in numbers if (record := self._folder.record(number))]
                if not records:
                    self._folder.sweep(committed)
                    return report
                added = [record for record in records if self._add(record, report)]
                self._record(added)
            for record in added:
                report.units += 1
                if told is not None:
                    told(record.n_images)

    def maintain(self) -> None:
        """Have the index of the collection built, and its files merged; for the last commit of a process.

        In a database, rows that come after the index take many times as long.
        """
        self._collection.maintain()

    def _add(self, record: Record, report: CommitReport) -> bool:
        if record.rows is None:
            return True
        try:
            for batch in _batches(self._folder, record):
                report.rows += self._restore(batch, record)
        except _LostRowsError:
            if record.unit in self._folder.committed().units:
                # Another process has added it, which nothing kept from that.
                return False
            # Without the rows the unit is not done, whatever its record says.
            self._folder.forget(record)
            report.again.append(record.unit)
            return False
        except (OSError, pa.ArrowException) as error:
            # Of the collection, most likely: what is embedded stays, and waits.
            if isinstance(error, StorageError):
                raise
            is_gone = isinstance(error, CollectionNotFoundError)
            reason = "it is gone; restore it" if is_gone else f"{error}; mend that"
            raise StorageError(
                f"{shown_uri(self._folder.job.collection)}: the rows of unit {record.unit} cannot be added:"
                f" {reason}, and run the same command again. What is done is saved in {self._folder.uri}"
            ) from error
        return True

    def _restore(self, batch: pa.Table, record: Record) -> int:
        """Add rows; images that the collection's engine cannot hold join those of the unit that failed."""
        while True:
            try:
                return self._collection.restore_rows(batch)
            except RowsRefusedError as error:  # noqa: PERF203 - a few times at most
                ids, paths = (batch[name].to_pylist() for name in ("id", "paths"))
                is_refused = [id in error.reasons for id in ids]
                if not any(is_refused):
                    raise
                known = {failure.path for failure in record.failed}
                record.failed.extend(
                    ImageFailure(decode_path(path), error.reasons[id])
                    for id, own in zip(ids, paths, strict=True)
                    for path in (own if id in error.reasons else ())
                    if decode_path(path) not in known
                )
                self._folder.amend(record)
                batch = batch.filter(pa.array([not refused for refused in is_refused]))

    def _record(self, records: list[Record]) -> None:
        # Read again: where nothing kept others from it, they have added units meanwhile.
        committed = self._folder.committed()
        new = [record for record in records if record.unit not in committed.units]
        for record in new:
            committed.add(record)
        if new:
            self._folder.put_committed(committed)
        # Last: until it is recorded, whoever comes after a crash needs the rows.
        for record in records:
            self._folder.delete_rows(record)


class _LostRowsError(Exception):
    """The file of the rows of a unit is gone or damaged."""


def _batches(folder: JobFolder, record: Record) -> Iterator[pa.Table]:
    try:
        with (
            folder.rows_read(record.rows or "") as path,
            pa.memory_map(str(path), "r") as file,
            pa.ipc.open_file(file) as reader,
        ):
            for index in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(index)])
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise _LostRowsError from error
