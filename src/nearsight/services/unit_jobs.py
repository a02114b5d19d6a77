"""Index with many processes: plan a job, work on its units, add what is done to the collection."""

import logging
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from nearsight.collection import Collection
from nearsight.distributed import (
    Committer,
    JobFolder,
    Worker,
    WorkReport,
    plan,
    plan_again,
    status,
)
from nearsight.errors import CollectionNotFoundError, FingerprintMismatchError, InvalidParameterError
from nearsight.images import Exclusions, Limits
from nearsight.images.path_encoding import absolute
from nearsight.progress import bar
from nearsight.services.collections import open_or_create
from nearsight.store import shown_uri

_log = logging.getLogger(__name__)

_SHARE = re.compile(r"(\d+)/(\d+)\Z")
_SECONDS_BETWEEN_COMMITS = 30.0


def parse_share(text: str) -> tuple[int, int]:
    """Read a share of the units, such as ``0/64``: the first of 64.

    Raises
    ------
    InvalidParameterError
        It is not written so, or there are not so many.

    Examples
    --------
    >>> parse_share("0/64")
    (0, 64)
    """
    match = _SHARE.match(text)
    if match is None or not int(match[1]) < int(match[2]):
        raise InvalidParameterError(
            f"--units is {text!r}; write I/N, I from 0 to N - 1, such as 0/64 for the first of 64 processes"
        )
    return int(match[1]), int(match[2])


def planned_job(
    directory: str | Path,
    uri: str,
    inputs: Sequence[str],
    *,
    model: str | None = None,
    storage: str | None = None,
    decode: str | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    exclusions: Exclusions | None = None,
    allow_remote: bool = False,
    limits: Limits | None = None,
    unit_images: int | None = None,
) -> JobFolder:
    """Return the folder of a job; if it is new, create the collection and divide the inputs into units.

    Parameters
    ----------
    directory : path
        Of the job.
    uri : str
        Of the collection.
    inputs : sequence of str
        See `distributed.plan`.
    model, storage, decode, device, cache_dir
        See `open_or_create`; they count for a new job.
    exclusions, allow_remote, limits
        See `Collection.add`.
    unit_images
        See `distributed.plan`.
    """
    folder = JobFolder(directory)

    uri = absolute(uri)

    def open_collection() -> Collection:
        return open_or_create(
            uri, model=model, storage=storage, decode=decode, device=device, cache_dir=cache_dir
        )

    job = plan(
        folder,
        inputs,
        uri,
        open_collection,
        exclusions=exclusions,
        allow_remote=allow_remote,
        limits=limits,
        unit_images=unit_images,
    )
    if model is not None and model != job.model and not job.model.startswith(f"{model}#"):
        raise FingerprintMismatchError(
            f"{folder.uri} is a job with the model {job.model}, not {model}; leave --model out, or name"
            " another folder with --job"
        )
    return folder


def work(folder: JobFolder, **options: Any) -> WorkReport:
    """Embed units of a job until none is left that nobody works on.

    Parameters
    ----------
    folder : JobFolder
    **options
        See `distributed.Worker`.
    """
    with _ended_by_sigterm():
        return Worker(folder, **options).run()


def work_with_ray(
    folder: JobFolder,
    address: str,
    *,
    uri: str | None = None,
    cache_dir: Path | None = None,
    progress: bool | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Embed all units of a job on a Ray cluster, and add them to the collection.

    Parameters
    ----------
    folder : JobFolder
    address : str
        See `distributed.ray.run`, which has the other options, too.
    uri, cache_dir, progress
        See `commit`.

    Returns
    -------
    dict
        The fields of `distributed.ray.RayReport`.
    """
    from nearsight.distributed import ray

    committer = Committer(folder, open_target(folder, uri, cache_dir))
    with _ended_by_sigterm(), bar("embedding images", folder.n_waiting(), progress=progress) as shown:
        return asdict(ray.run(folder, committer, address, told=shown.update, **options))


def commit(
    folder: JobFolder,
    *,
    uri: str | None = None,
    until_complete: bool = False,
    cache_dir: Path | None = None,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Add the units that are done to the collection.

    Parameters
    ----------
    folder : JobFolder
    uri : str, optional
        A collection: if it is the job's, it is opened by this URI, which may have its password.
    until_complete : bool, default False
        Whether to go on until all units of the job are in it.
    cache_dir : Path, optional
        For converted models.
    progress : bool, optional
        See `nearsight.progress.bar`.

    Returns
    -------
    dict
        The number of ``units`` that were added and of ``rows`` that are new, and what `job_facts` returns.
    """
    committer = Committer(folder, open_target(folder, uri, cache_dir))
    units = rows = 0
    n_images = status(folder).images
    n_left = None if n_images is None else n_images - folder.committed().n_images
    is_told = False
    with bar("adding images to the collection", n_left, progress=progress) as shown:
        while True:
            report = committer.commit(told=shown.update)
            units, rows = units + report.units, rows + report.rows
            if not until_complete or len(folder.committed().units) == len(folder.units()):
                break
            now = status(folder)
            if not now.running and now.done < now.units and not is_told:
                _log.warning(
                    "nobody works on %d of %d units; this waits until the command is started again that made"
                    " the job",
                    now.units - now.done,
                    now.units,
                )
            is_told = not now.running
            time.sleep(_SECONDS_BETWEEN_COMMITS)
    committer.maintain()
    return {"units_added": units, "rows_added": rows, **job_facts(folder)}


def open_target(folder: JobFolder, uri: str | None = None, cache_dir: Path | None = None) -> Collection:
    """Open the collection of a job; see `commit`."""
    place = folder.job.collection
    if uri is not None and shown_uri(absolute(uri)) == shown_uri(place):
        place = absolute(uri)
    try:
        return Collection.open(place, cache_dir=cache_dir, in_memory=False)
    except CollectionNotFoundError as error:
        missing = f"there is no collection at {error.uri}" if error.uri else str(error)
        raise CollectionNotFoundError(
            f"{missing}; the job {folder.uri} is for that collection: restore it, or index with another --job"
        ) from error


def job_facts(folder: JobFolder) -> dict[str, Any]:
    """Return how far a job is, as plain data."""
    return {
        "job": folder.uri,
        "collection": shown_uri(folder.job.collection),
        "model": folder.job.model,
        **asdict(status(folder)),
    }


def retry_failed(folder: JobFolder) -> int:
    """Add units of the images that have failed; return how many images."""
    return plan_again(folder)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End in order at SIGTERM, which schedulers send first: the attempt at the unit does not count then."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
