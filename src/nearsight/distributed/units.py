"""The units of a job: what one process embeds at a time, and what is known of the job as a whole."""

import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from nearsight.distributed.job_files import JobFiles
from nearsight.errors import ImageFailure, InvalidParameterError, NewerFormatError, StorageError
from nearsight.images import Exclusions, FileSource, ImageSource, decode_path, find
from nearsight.images.path_encoding import absolute, is_shard_name, is_url
from nearsight.object_storage.driver import url_to_fs

FORMAT = 1
#: Images of a unit, unless another number is asked for: minutes of work, and 50 MB of rows.
UNIT_IMAGES = 4096
_FACTS = b"nearsight job"
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
        Hash of the inputs: of the paths of a listing; of a file's size and time otherwise.
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
    rows = opened_table(file).read(_SCHEMA.names, use_threads=False).to_pylist()
    return [Unit(**row, is_again=is_again) for row in rows]


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
    StorageError
        The Parquet file cannot be read.
    """
    if unit.kind == "tar":
        return [decode_path(unit.source)]
    place = open_source(unit.source, files)
    try:
        file = opened_table(place)
        column = name_column(file.schema_arrow, unit.source)
        names = file.read_row_group(unit.part, columns=[column], use_threads=False)[column]
    except (OSError, pa.ArrowException) as error:
        raise StorageError(
            f"{unit.source}: the images of unit {unit.number} cannot be listed: {error}"
        ) from error
    texts = names.slice(unit.start, unit.n_images).to_pylist()
    source = decode_path(unit.source)
    base = str(Path(source).parent) if _is_users(unit.source) and not is_url(unit.source) else ""
    first = 1 + unit.start + sum(file.metadata.row_group(part).num_rows for part in range(unit.part))
    return [
        # Without a name, it would be the folder itself, with all that is in it.
        absolute(decode_path(text), base) if text else f"{source}, row {row}{_EMPTY}"
        for row, text in enumerate(texts, first)
    ]


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
