"""What `nearsight index --job` and `nearsight job DIR` share."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nearsight.cli.framework import FAILURE, Run
from nearsight.errors import StorageError
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.distributed import JobFolder


def index_units(
    run: Run,
    directory: str,
    units: str | None,
    paths: Sequence[str],
    new: Mapping[str, Any],
    finding: Mapping[str, Any],
    working: Mapping[str, Any],
    ray: Mapping[str, Any],
) -> int:
    """Plan a job where there is none, and work on its units; without `units`, add them too.

    Parameters
    ----------
    run : Run
    directory : Path
        Of the job.
    units : str or None
        The share, such as ``0/64``.
    paths : sequence of str
    new : mapping
        Model, storage and decoding of a new collection.
    finding : mapping
        Exclusions, limits, whether to fetch what is remote, and the size of units.
    working : mapping
        Threads and processes.
    ray : mapping
        The cluster's ``address``, and what an actor takes; empty without Ray.
    """
    from nearsight.services import unit_jobs

    share, n_shares = unit_jobs.parse_share(units) if units else (0, 1)
    places: dict[str, Any] = {"device": run.device, "cache_dir": run.settings.cache_dir}
    progress = run.console.progress
    run.if_interrupted = "units that are done are saved, and the same command continues from there"
    folder = unit_jobs.planned_job(directory, run.collection, paths, **new, **finding, **places)
    if ray:
        report = unit_jobs.work_with_ray(
            folder, **ray, **working, **places, uri=run.collection, progress=progress
        )
    else:
        options = {"share": share, "n_shares": n_shares, **working, **places}
        report = asdict(unit_jobs.work(folder, **options, progress=progress))
    if units is None and not ray:
        facts = unit_jobs.commit(
            folder, uri=run.collection, cache_dir=run.settings.cache_dir, progress=progress
        )
    else:
        facts = unit_jobs.job_facts(folder)
    rate = round(report["images"] / report["seconds"], 1) if report["seconds"] else 0.0
    skipped, unchanged = folder.job.skipped or {}, folder.job.unchanged
    run.console.document(
        {
            "job": folder.uri,
            **report,
            "images_per_second": rate,
            "skipped": skipped,
            "unchanged": unchanged,
            "status": facts,
        }
    )
    run.report_skipped(skipped)
    if unchanged:
        run.console.say(f"{count(unchanged, 'image')} in the collection already, unchanged")
    if not facts["units"]:
        run.console.say("There is nothing to embed")
        return 0
    run.console.say(
        f"{count(report['units'], 'unit')} with {count(report['images'], 'image')}"
        f" in {report['seconds']:.1f} s ({rate:,.0f} per second), {report['failed']:,} failed"
    )
    n_added = report.get("rows_added", facts.get("rows_added"))
    if n_added is not None:
        run.console.say(f"{count(n_added, 'image')} added to {printable(facts['collection'])}")
    say_status(run, facts)
    if share >= facts["units"]:
        run.console.note(_too_few_units(folder, share, n_shares, facts["units"]))
    if refused := report["refused"]:
        others = f" ({count(len(refused) - 1, 'other unit')} likewise)" if len(refused) > 1 else ""
        raise StorageError(f"{refused[0]}{others}")
    return FAILURE if run.strict and report["failed"] else 0


def _too_few_units(folder: "JobFolder", share: int, n_shares: int, n_units: int) -> str:
    """Say why a process had no unit of its own, and how there would be enough."""
    size = folder.job.unit_images
    whole = f"The job has {count(n_units, 'unit')}, so --units {share}/{n_shares} begins with none"
    n_images = sum(unit.n_images or 0 for unit in folder.units() if unit.kind == "rows")
    wanted = -(-n_images // n_shares)
    if not 0 < wanted < size:
        # Of shards, each is a unit.
        return f"{whole}: use fewer processes"
    return f"{whole}: use fewer processes, or make another job with --unit-images {wanted} instead of {size}"


def say_status(run: Run, facts: Mapping[str, Any]) -> None:
    """Say how far a job is, and what to do next."""
    run.console.say(
        f"{facts['done']:,} of {count(facts['units'], 'unit')} done, {facts['committed']:,} committed,"
        f" {facts['running']:,} running, {facts['interrupted']:,} interrupted"
    )
    # When nobody works, the rate is that of the past, and no time is left.
    rate = f", {facts['images_per_second']:,.0f} per second" if facts["running"] else ""
    left = f", {_duration(facts['seconds_left'])} left" if rate and facts["seconds_left"] else ""
    run.console.say(f"{count(facts['embedded'], 'image')} embedded, {facts['failed']:,} failed{rate}{left}")
    job = printable(facts["job"])
    if facts["committed"] < facts["done"]:
        run.console.note(f"Add what is done to the collection with: nearsight job {job} --commit")
    # Whoever works takes the others' units, too.
    if facts["done"] < facts["units"] and not facts["running"]:
        run.console.note("Nobody works on the other units; start the command again that made the job")
    if facts["failed"]:
        run.console.note(f"See the failed images with: nearsight job {job} --failed")


def _duration(seconds: float) -> str:
    """Write how long something takes.

    Examples
    --------
    >>> _duration(20), _duration(1000), _duration(100_000)
    ('1 minute', '17 minutes', '27.8 hours')
    """
    if seconds < 3600:
        return count(max(1, round(seconds / 60)), "minute")
    return f"{seconds / 3600:,.1f} hours"


def say_failed(run: Run, folder: "JobFolder") -> None:
    """List the images that have failed."""
    from nearsight.distributed import failures

    failed = failures(folder)
    run.console.document({"job": folder.uri, "failed": [asdict(failure) for failure in failed]})
    for failure in failed:
        run.console.say(f"{printable(failure.path)}: {printable(failure.reason)}")
    if not failed:
        run.console.note("No image has failed.")
