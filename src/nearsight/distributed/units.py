"""The units of a job: what one process embeds at a time, and what is known of the job as a whole."""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from nearsight.distributed.job_files import JobFiles
from nearsight.errors import (
    ChangedInputError,
    ImageFailure,
    InvalidParameterError,
    NearsightError,
    NewerFormatError,
    UnitInputError,
)
from nearsight.images import Exclusions, FileSource, ImageSource, decode_path, find
from nearsight.images.path_encoding import absolute, encode_path, is_shard_name, is_url
from nearsight.images.remote import remote_stat
from nearsight.object_storage.driver import url_to_fs

# Digests of earlier versions do not tell a shard or a table from one that replaced it.
FORMAT, _FIRST_COMPARED = 2, 2
#: Images of a unit, unless another number is asked for: minutes of work, and 50 MB of rows.
UNIT_IMAGES = 4096
_FACTS = b"nearsight job"
# The first member's name, time and first bytes.
_HEAD_BYTES = 4096
# The end of what stands for a row that names nothing.
_EMPTY = " (empty)"
# Columns of a table of images that may name them, the first that there is.
_NAME_COLUMNS = ("path", "url", "key", "image", "file", "filename", "image_path", "image_url")

#: A tar shard, or some rows of a Parquet file of paths and URLs.
Kind = Literal["tar", "rows"]


@dataclass(frozen=True, slots=True)
class Unit:
    """What one process embeds at a time.

    Attributes
    ----------
    number : int
        From 0 in the order of the inputs.
    kind : {"tar", "rows"}
    source : str
        The shard, or the Parquet file; a name without a folder is a file of the job.
    part, start : int
        Row group of the Parquet file, and the first row in it.
    n_images : int or None
        How many rows; None for a shard, which nobody has opened yet.
    digest : str
        Hash of the inputs, see `digest_of` and `digest_of_shard`; empty if it is not known.
    is_again : bool
        Whether it holds images that have failed in an earlier unit.
    """

    number: int
    kind: Kind
    source: str
    part: int
    start: int
    n_images: int | None
    digest: str
    is_again: bool = False


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What is known of a job as a whole.

    Attributes
    ----------
    collection : str
        Where the rows go, without a password; earlier versions wrote it, too.
    model : str
        Name of the model.
    fingerprint : dict
        Of the collection's vectors.
    inputs : tuple of str
        Absolute, or URLs.
    exclude : tuple of str
    include_hidden, allow_remote : bool
        See `Collection.add`.
    limits : dict
        See `images.Limits`.
    skipped : dict of str to int
        What was passed over, by kind.
    unchanged : int
        Images of folders that the collection had, and which are in no unit.
    unit_images : int
        Most images of a unit; a shard is one whatever it holds.
    """

    collection: str
    model: str
    fingerprint: dict[str, Any]
    inputs: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    include_hidden: bool = False
    allow_remote: bool = False
    limits: dict[str, Any] | None = None
    skipped: dict[str, int] | None = None
    unchanged: int = 0
    unit_images: int = UNIT_IMAGES

    @property
    def exclusions(self) -> Exclusions:
        """What is passed over."""
        return Exclusions(self.exclude, include_hidden=self.include_hidden)


_SCHEMA = pa.schema(
    [
        pa.field("number", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("n_images", pa.int64()),
        pa.field("digest", pa.string(), nullable=False),
    ]
)


def units_bytes(units: Iterable[Unit], job: JobFacts) -> bytes:
    """Return the units and the facts of a job as a Parquet file."""
    text = json.dumps({"format": FORMAT, **asdict(job)})
    table = pa.Table.from_pylist([asdict(unit) for unit in units], _SCHEMA)
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_FACTS: text.encode()}), file)
    return file.getvalue()


def read_job(file: IO[bytes], place: str) -> JobFacts:
    """Read the facts of a job from the file of its plan.

    Parameters
    ----------
    file : binary file
    place : str
        For messages.

    Raises
    ------
    InvalidParameterError
        The file is not one of a job.
    NewerFormatError
        A newer nearsight wrote it.
    """
    try:
        facts = json.loads((pq.read_schema(file).metadata or {})[_FACTS])
    except (pa.ArrowInvalid, KeyError, ValueError) as error:
        raise InvalidParameterError(
            f"{place} holds no plan of a job ({error}); name another folder with --job"
        ) from error
    if facts["format"] > FORMAT:
        raise NewerFormatError(
            f"{place} is of format {facts['format']}, and this version reads {FORMAT}:"
            " pip install --upgrade nearsight"
        )
    # Earlier versions did not write all of them.
    known = {field.name: facts[field.name] for field in fields(JobFacts) if field.name in facts}
    return JobFacts(**{**known, "inputs": tuple(known["inputs"]), "exclude": tuple(known["exclude"])})


def read_units(file: IO[bytes], *, is_again: bool = False) -> list[Unit]:
    """Read the units of a file that `units_bytes` made."""
    table = opened_table(file)
    rows = table.read(_SCHEMA.names, use_threads=False).to_pylist()
    if json.loads(table.schema_arrow.metadata[_FACTS])["format"] < _FIRST_COMPARED:
        rows = [{**row, "digest": ""} for row in rows]
    return [Unit(**row, is_again=is_again) for row in rows]


def digest_of(names: Iterable[str | None]) -> str:
    """Return a hash of what the rows of a table name."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((name or "").encode() + b"\0")
    return digest.hexdigest()[:32]


def digest_of_shard(place: str) -> str:
    """Return a hash by which a shard is told from another one of its name, at the cost of one small read.

    Of a file, it is that of its size and its first bytes: machines may have copies of their own, with other
    times. A server tells time and entity tag in its listing.

    Raises
    ------
    Exception
        It cannot be read; each driver raises exceptions of its own.
    """
    if is_url(place):
        fs, path = url_to_fs(place)
        stat = remote_stat(fs.info(path))
        return digest_of([str(stat.size_bytes), str(stat.stamp)])
    with open(place, "rb") as file:
        head = file.read(_HEAD_BYTES)
        return digest_of([str(os.fstat(file.fileno()).st_size), head.hex()])


def opened_table(file: Any) -> pq.ParquetFile:
    """Open a Parquet file for reads with ``use_threads=False``.

    What it reads ahead, and what `read_table` reads, threads still hold when that returns. If the process
    ends in that moment, and a file of Python was read, it is aborted.
    """
    return pq.ParquetFile(file, pre_buffer=False)


def open_source(source: str, files: JobFiles) -> Any:
    """Return a local path, or an open remote file, for pyarrow."""
    if is_url(source):
        fs, place = url_to_fs(source)
        return fs.open(place, "rb")
    return decode_path(source) if _is_users(source) else files.opened(source)


def names_of(unit: Unit, files: JobFiles) -> list[str]:
    """Return what a unit names: a shard, or the images of its rows; for an empty row, which one it is.

    Raises
    ------
    ChangedInputError
        The shard or the Parquet file is not the one that was planned.
    UnitInputError
        It cannot be read on this machine.
    """
    source = decode_path(unit.source)
    if unit.kind == "tar":
        # What could not be read when the job was planned may fail now, as images do.
        if unit.digest:
            with _readable(unit, source):
                digest = digest_of_shard(source)
            _require_planned(unit, digest)
        return [source]
    with _readable(unit, source):
        file = opened_table(open_source(unit.source, files))
        try:
            column = name_column(file.schema_arrow, unit.source)
            names = file.read_row_group(unit.part, columns=[column], use_threads=False)[column]
        except (IndexError, InvalidParameterError):
            # It has fewer rows, or no names any more.
            names = pa.chunked_array([[]], pa.string())
    texts = texts_of(names.slice(unit.start, unit.n_images))
    _require_planned(unit, digest_of(texts))
    base = str(Path(source).parent) if _is_users(unit.source) and not is_url(unit.source) else ""
    first = 1 + unit.start + sum(file.metadata.row_group(part).num_rows for part in range(unit.part))
    return [
        # Without a name, it would be the folder itself, with all that is in it.
        absolute(decode_path(text), base) if text else f"{source}, row {row}{_EMPTY}"
        for row, text in enumerate(texts, first)
    ]


@contextmanager
def _readable(unit: Unit, source: str) -> Iterator[None]:
    """Say which unit cannot be read on this machine."""
    try:
        yield
    except NearsightError:
        raise
    except Exception as error:  # each driver raises exceptions of its own
        raise UnitInputError(
            f"{source}: the images of unit {unit.number} cannot be listed: {error}; check that the file"
            " is there and can be reached, and start again"
        ) from error


def texts_of(names: pa.ChunkedArray) -> list[str | None]:
    """Return a column of names as text; a byte that is not UTF-8 as `encode_path` writes it."""
    try:
        return list(names.to_pylist())
    except UnicodeDecodeError:
        raw = names.cast(pa.large_binary()).to_pylist()
        return [None if name is None else encode_path(os.fsdecode(name)) for name in raw]


def _require_planned(unit: Unit, digest: str) -> None:
    """Refuse a unit whose images are other ones: some would be counted twice, and others never."""
    if unit.digest not in ("", digest):
        raise ChangedInputError(
            f"{decode_path(unit.source)} has changed since the job was planned: the images of unit"
            f" {unit.number} are others now, and were not embedded. Put the file back as it was and start"
            " again, or index the new one with another --job; what is done stays"
        )


def sources_of(unit: Unit, job: JobFacts, files: JobFiles) -> Iterator[ImageSource | ImageFailure]:
    """Find the images of a unit, in their order."""
    # What a listing names was chosen when it was made; in a shard, the choice is still open.
    exclusions = job.exclusions if unit.kind == "tar" else Exclusions(include_hidden=True)
    for name in names_of(unit, files):
        if name.endswith(_EMPTY):
            yield ImageFailure(name, "names no image")
        # Unlike that of Path, it does not raise for a name that is too long, or in a folder that is closed.
        elif os.path.isfile(name) and not is_shard_name(name):  # noqa: PTH113
            yield FileSource(name, name)
        else:
            yield from find(name, allow_remote=job.allow_remote, exclusions=exclusions)


def name_column(schema: pa.Schema, source: str) -> str:
    """Return the column of a table that names images.

    Raises
    ------
    InvalidParameterError
        There is none.
    """
    texts = [
        field.name
        for field in schema
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    ]
    column = next((name for name in _NAME_COLUMNS if name in texts), texts[0] if len(texts) == 1 else None)
    if column is None:
        raise InvalidParameterError(
            f"{source} has no column of text that names images: call it one of {', '.join(_NAME_COLUMNS)}"
        )
    return column


def _is_users(source: str) -> bool:
    """Whether a Parquet file is not one of the job, whose names are without a folder."""
    return "/" in source.replace("\\", "/")
