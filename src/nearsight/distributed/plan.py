"""Divides the inputs of a job into units, once."""

# Paths stay strings: names that are not UTF-8 survive, and a million of them stay cheap.
# ruff: noqa: PTH100

import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from glob import has_magic
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nearsight.collection import Collection
from nearsight.collection.file_index import FileIndex
from nearsight.distributed.job_folder import JobFolder
from nearsight.distributed.status import failures
from nearsight.distributed.units import (
    UNIT_IMAGES,
    JobFacts,
    Unit,
    digest_of,
    digest_of_shard,
    name_column,
    open_source,
    opened_table,
    texts_of,
    units_bytes,
)
from nearsight.errors import ImageError, ImageFailure, InvalidParameterError, NearsightError
from nearsight.images import Exclusions, ImageSource, Limits, encode_path, find, no_image_text
from nearsight.images.glob_patterns import expand
from nearsight.images.path_encoding import is_shard_name, is_url
from nearsight.object_storage.driver import url_to_fs
from nearsight.store import shown_uri

# Units whose paths share a file; the file's own directory is read whole by whoever opens it.
_UNITS_PER_FILE = 256


def plan(
    folder: JobFolder,
    inputs: Sequence[str],
    uri: str,
    open_collection: Callable[[], Collection],
    *,
    exclusions: Exclusions | None = None,
    allow_remote: bool = False,
    limits: Limits | None = None,
    unit_images: int | None = None,
) -> JobFacts:
    """Divide inputs into units, unless that was done before; return the facts of the job.

    A tar shard is a unit, and so are 4,096 rows of a Parquet file of paths and URLs, and 4,096 images of
    folders in the order of their paths, without those that the collection has unchanged. The plan is one
    file, which appears whole or not at all: of several processes that plan at the same time, one is heard,
    and all go on with its plan.

    Parameters
    ----------
    folder : JobFolder
    inputs : sequence of str
        Folders, files, globs, shards, URLs, and Parquet files.
    uri : str
        Of the collection that the rows are for.
    open_collection : callable
        Opens or creates it; called only if there is no plan yet.
    exclusions, allow_remote, limits
        See `Collection.add`.
    unit_images : int, optional
        Most images of a unit. By default 4,096 in a new job, and otherwise what the job has.

    Raises
    ------
    InvalidParameterError
        There is no image; or the folder's job has other inputs, another collection or other options.
    StorageError
        The folder cannot be written to.
    """
    exclusions, skipped = exclusions or Exclusions(), Counter[str]()
    job = JobFacts(
        # Without its password: the folder's files are read by whoever sees them.
        collection=shown_uri(uri) if is_url(uri) else os.path.abspath(uri),
        model="",
        fingerprint={},
        inputs=tuple(path if is_url(path) else os.path.abspath(path) for path in inputs),
        exclude=exclusions.patterns,
        include_hidden=exclusions.include_hidden,
        allow_remote=allow_remote,
        limits=asdict(limits or Limits()),
        unit_images=unit_images or UNIT_IMAGES,
    )
    if not folder.is_planned():
        with folder.planning():
            if not folder.is_planned():
                collection = open_collection()
                job = replace(job, model=collection.model_name, fingerprint=collection.fingerprint.to_dict())
                planner = _Planner(folder, job, exclusions, skipped, FileIndex.of(collection))
                _write(planner)
    _require_same(folder, job, *(["unit_images"] if unit_images else []))
    return folder.job


def plan_again(folder: JobFolder) -> int:
    """Add units of the images that have failed, unless they wait already; return how many images."""
    with folder.planning():
        number, n_before = len(folder.units()), folder.n_again()
        names = [encode_path(failure.path) for failure in failures(folder, waiting=False)]
        if not names:
            return 0
        writer = _Listing(folder, folder.job.unit_images)
        units = [replace(unit, number=number + unit.number) for unit in writer.units(iter(names))]
        if not folder.put_again(n_before + 1, units_bytes(units, folder.job)):
            # Another process has done so meanwhile.
            writer.remove()
            return 0
    return len(names)


def _write(planner: "_Planner") -> None:
    folder, job = planner.folder, planner.job
    units = [replace(unit, number=number) for number, unit in enumerate(planner.units())]
    if not units and not planner.n_unchanged:
        raise InvalidParameterError(no_image_text(list(job.inputs), planner.skipped))
    skipped = dict(planner.skipped.most_common())
    job = replace(job, skipped=skipped, unchanged=planner.n_unchanged)
    if not folder.put_plan(units_bytes(units, job)):
        planner.listing.remove()


def _require_same(folder: JobFolder, job: JobFacts, *others: str) -> None:
    theirs = replace(folder.job, collection=shown_uri(folder.job.collection))
    for name in ("inputs", "collection", "exclude", "include_hidden", "allow_remote", "limits", *others):
        if getattr(theirs, name) != getattr(job, name):
            raise InvalidParameterError(
                f"{folder.uri} is a job with {name.replace('_', ' ')} {_shown(getattr(theirs, name))}, not"
                f" {_shown(getattr(job, name))}; repeat the command it was made with, or name another folder"
                " with --job"
            )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value[:3])) if isinstance(value, tuple) else str(value)


@dataclass(slots=True)
class _Planner:
    folder: JobFolder
    job: JobFacts
    exclusions: Exclusions
    skipped: Counter[str]
    known: FileIndex
    n_unchanged: int = 0
    listing: "_Listing" = field(init=False)

    def __post_init__(self) -> None:
        self.listing = _Listing(self.folder, self.job.unit_images)

    def units(self) -> Iterator[Unit]:
        """Yield the units, without numbers: first those of files that are units by themselves."""
        names: list[str] = []
        for path in self.job.inputs:
            for place in self._expanded(path):
                if is_shard_name(place):
                    yield Unit(0, "tar", encode_path(place), 0, 0, None, _digest_of_shard(place))
                elif place.lower().endswith(".parquet"):
                    yield from self._units_of_table(place)
                else:
                    names.append(place)
        yield from self.listing.units(self._found(names))

    def _found(self, places: Sequence[str]) -> Iterator[str]:
        options: dict[str, Any] = {"allow_remote": self.job.allow_remote, "exclusions": self.exclusions}
        for source in find(list(places), **options, skipped=self.skipped):
            if not isinstance(source, ImageFailure) and self._is_unchanged(source):
                self.n_unchanged += 1
                continue
            # A failure is found again, and recorded, by whoever works on the unit.
            yield encode_path(source.path if isinstance(source, ImageFailure) else source.key)

    def _is_unchanged(self, source: ImageSource) -> bool:
        if not len(self.known) or not source.key:
            return False
        try:
            stat = source.stat()
        except ImageError:
            return False  # as above
        return self.known.has_unchanged(encode_path(source.key), stat.size_bytes, stat.stamp)

    def _expanded(self, path: str) -> Iterator[str]:
        """Yield what a path stands for; a glob is expanded where that may give shards or tables."""
        if not has_magic(path) or (not is_url(path) and os.path.lexists(path)):
            yield path
        elif not is_url(path):
            matches = list(expand(path, exclusions=self.exclusions))
            yield from matches or [path]
        elif path.lower().endswith((".tar", ".tar.gz", ".tgz", ".parquet")):
            fs, pattern = url_to_fs(path)
            matches = [str(fs.unstrip_protocol(place)) for place in sorted(fs.glob(pattern))]
            yield from matches or [path]
        else:
            yield path

    def _units_of_table(self, place: str) -> Iterator[Unit]:
        source = encode_path(place)
        try:
            file = opened_table(open_source(source, self.folder.files))
        except NearsightError:
            raise
        except Exception as error:  # each driver raises exceptions of its own
            raise InvalidParameterError(
                f"{place} cannot be read as a Parquet file of paths: {error}"
            ) from error
        column = name_column(file.schema_arrow, place)
        size = self.job.unit_images
        for part in range(file.num_row_groups):
            names = file.read_row_group(part, columns=[column], use_threads=False)[column]
            for start in range(0, len(names), size):
                texts = texts_of(names.slice(start, size))
                yield Unit(0, "rows", source, part, start, len(texts), digest_of(texts))


class _Listing:
    """Writes paths into Parquet files of the job: a row group is a unit."""

    def __init__(self, folder: JobFolder, unit_images: int) -> None:
        self._folder = folder
        self._unit_images = unit_images
        # Of two processes that plan at once, each writes files of its own.
        self._token = secrets.token_hex(4)
        self._names: list[str] = []

    def units(self, names: Iterator[str]) -> Iterator[Unit]:
        """Yield a unit for each part of the names."""
        parts = iter(lambda: list(islice(names, self._unit_images)), [])
        number = 0
        while group := list(islice(parts, 1)):
            name = f"paths-{self._token}-{len(self._names):05d}.parquet"
            self._names.append(name)
            files = self._folder.files
            schema = pa.schema([pa.field("path", pa.string(), nullable=False)])
            with files.created(name) as file, pq.ParquetWriter(file, schema) as writer:
                for index, part in enumerate(_chain(group, islice(parts, _UNITS_PER_FILE - 1))):
                    writer.write_table(pa.table([part], schema=schema), row_group_size=self._unit_images)
                    yield Unit(number, "rows", name, index, 0, len(part), digest_of(part))
                    number += 1

    def remove(self) -> None:
        """Remove the files: another process has planned."""
        for name in self._names:
            self._folder.files.delete(name)


def _chain(first: list[list[str]], rest: Iterable[list[str]]) -> Iterator[list[str]]:
    yield from first
    yield from rest


def _digest_of_shard(place: str) -> str:
    try:
        return digest_of_shard(place)
    except Exception:
        # Whoever works on the unit finds out why, and records it.
        return ""
