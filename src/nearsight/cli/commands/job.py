"""`nearsight job`: the service's jobs, and those of `nearsight index --job`."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import click

from nearsight.cli.framework import FAILURE, Command, Family, Run
from nearsight.cli.unit_jobs import say_failed, say_status
from nearsight.services.jobs import ENDED, STATES, Job, JobTable
from nearsight.services.server_settings import resolve
from nearsight.settings import environment
from nearsight.text_format import count, printable

_SHAPE = """{"id": str, "kind": str, "state": str, "done": float, "total": float|null, "message": str,
 "result": {...}|null, "error": str|null, "created": str, "started": str|null, "ended": str|null,
 "waits_for": str|null}"""

_data = click.option(
    "--data", metavar="DIR", help="The service's directory. Default: $NEARSIGHT_DATA, or ./nearsight-data."
)
_id = click.argument("id")


def _table(data: str | None) -> JobTable:
    settings = resolve({"data": data}, {k: v for k, v in environment().items() if k == "NEARSIGHT_DATA"})
    return JobTable(settings.data)


def _facts(job: Job, waits: Mapping[str, str]) -> dict[str, Any]:
    facts = {**asdict(job), "waits_for": waits.get(job.id)}
    for name in ("args", "pid", "key_prefix", "is_cancel_requested"):
        del facts[name]
    for name in ("created", "started", "ended"):
        if facts[name] is not None:
            facts[name] = datetime.fromtimestamp(facts[name], timezone.utc).isoformat(timespec="seconds")
    return facts


def _line(job: Job, waits: Mapping[str, str]) -> str:
    share = f"{100 * job.done / job.total:3.0f} %" if job.total else ""
    subject = job.args.get("shown", {}).get("folder") or job.args.get("collection") or ""
    facts = f"{job.id}  {job.kind:<10}  {job.state:<11}  {share:>5}  {printable(str(subject))}"
    return f"{facts}  {job.error or job.message or waits.get(job.id, '')}"


@click.command(
    "list", cls=Command, json_shape='{"jobs": [JOB]}', examples=("nearsight job list --state running",)
)
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@_data
@click.pass_obj
def list_(run: Run, /, *, state: str | None, data: str | None) -> None:
    """List the jobs of the service, the latest first."""
    table = _table(data)
    jobs, waits = table.list(state=state), table.waits()
    run.console.document({"jobs": [_facts(job, waits) for job in jobs]})
    for job in jobs:
        run.console.say(_line(job, waits).rstrip())
    if not jobs:
        run.console.note("There are no jobs.")


@click.command(cls=Command, json_shape=_SHAPE, examples=("nearsight job show 3fa9c1d277b0e55d",))
@_id
@_data
@click.pass_obj
def show(run: Run, /, *, id: str, data: str | None) -> None:
    """Show one job."""
    table = _table(data)
    _show(run, table, table.get(id))


@click.command(cls=Command, json_shape=_SHAPE, examples=("nearsight job follow 3fa9c1d277b0e55d",))
@_id
@_data
@click.pass_obj
def follow(run: Run, /, *, id: str, data: str | None) -> int:
    """Wait until a job has ended.

    The exit code is 0 if it is done.
    """
    table = _table(data)
    last = ""
    while (job := table.get(id)).state not in ENDED:
        if (line := _line(job, table.waits() if job.state == "queued" else {})) != last:
            last = line
            run.console.note(line.rstrip())
        time.sleep(0.5)
    _show(run, table, job)
    return 0 if job.state == "done" else FAILURE


@click.command(cls=Command, json_shape=_SHAPE, examples=("nearsight job cancel 3fa9c1d277b0e55d",))
@_id
@_data
@click.pass_obj
def cancel(run: Run, /, *, id: str, data: str | None) -> None:
    """Cancel a job that waits, runs or stopped early.

    What it has saved stays. One that was interrupted or failed is not offered to go on any more.
    """
    table = _table(data)
    _show(run, table, table.cancel(id))


@click.command(cls=Command, json_shape=_SHAPE, examples=("nearsight job resume 3fa9c1d277b0e55d",))
@_id
@_data
@click.pass_obj
def resume(run: Run, /, *, id: str, data: str | None) -> None:
    """Queue a job again that did not end well.

    It was interrupted, failed or cancelled.
    """
    table = _table(data)
    _show(run, table, table.resume(id))


def _show(run: Run, table: JobTable, job: Job) -> None:
    waits = table.waits()
    run.console.document(_facts(job, waits))
    run.console.say(_line(job, waits).rstrip())


@click.command(
    "job",
    cls=Command,
    json_shape="""{"job": DIR, "collection": URI, "model": str, "units": int, "done": int,
 "committed": int, "running": int, "interrupted": int, "images": int|null, "embedded": int, "failed": int,
 "images_per_second": float, "seconds_left": float|null}
which is STATUS; --commit: STATUS with "units_added" and "rows_added"; --retry-failed: STATUS with "retried"
--failed: {"job": DIR, "failed": [{"path", "reason"}]}""",
    examples=(
        "nearsight job jobs/1",
        "nearsight job jobs/1 --commit",
        "nearsight job s3://bucket/jobs/1 --failed",
        "nearsight job list",
    ),
)
@click.argument("directory", metavar="DIR|URL", required=False)
@click.option("--commit", is_flag=True, help="Add the units that are done to the collection.")
@click.option("--wait", is_flag=True, help="With --commit: go on until all units are in the collection.")
@click.option("--failed", is_flag=True, help="List the images that have failed.")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Make units of the images that have failed; start the command again that made the job.",
)
@click.pass_obj
def own(
    run: Run, /, *, directory: str | None, commit: bool, wait: bool, failed: bool, retry_failed: bool
) -> None:
    """Show or commit a job of units; list the service's jobs.

    A job of units is a folder that `nearsight index --job DIR` makes. Any process may commit it, as often as
    it likes and while others work: each image comes into the collection once. A job keeps no password: if
    the URI of the collection has one, give it to --commit with -c. The jobs of the service have an id; list,
    show, follow, cancel and resume are for those.
    """
    if directory is None:
        context = click.get_current_context()
        run.console.say((context.parent or context).get_help())
        return
    if sum((commit, failed, retry_failed)) > 1:
        raise click.UsageError("give one of --commit, --failed and --retry-failed")
    from nearsight.distributed import JobFolder
    from nearsight.services import unit_jobs

    folder = JobFolder(directory)
    _require_job(folder.is_planned(), directory)
    if failed:
        say_failed(run, folder)
        return
    facts: dict[str, Any] = {}
    if commit:
        run.if_interrupted = "what was committed is saved, and the same command continues from there"
        facts = unit_jobs.commit(
            folder,
            uri=run.collection,
            until_complete=wait,
            cache_dir=run.settings.cache_dir,
            progress=run.console.progress,
        )
        run.console.say(f"{count(facts['rows_added'], 'image')} added to {printable(facts['collection'])}")
    elif retry_failed:
        n_images = unit_jobs.retry_failed(folder)
        facts = {"retried": n_images, **unit_jobs.job_facts(folder)}
        run.console.say(
            f"{count(n_images, 'image')} will be tried again"
            if n_images
            else "The images that have failed wait for another attempt already"
            if facts["failed"]
            else "No image has failed"
        )
    facts = facts or unit_jobs.job_facts(folder)
    run.console.document(facts)
    say_status(run, facts)


def _require_job(is_planned: bool, directory: str) -> None:
    if not is_planned:
        name = printable(directory)
        raise click.UsageError(
            f"there is no job at {name}: it is no folder of nearsight index --job, and none of the commands"
            " list, show, follow, cancel, resume; a job of the service is shown by nearsight job show ID"
        )


job = Family(own=own, commands=[list_, show, follow, cancel, resume])
