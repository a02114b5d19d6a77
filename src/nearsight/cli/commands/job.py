"""`nearsight job`: list, show, follow, cancel, resume."""

import time
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import click

from nearsight.cli.framework import FAILURE, Command, Run, Subgroup
from nearsight.services.jobs import ENDED, STATES, Job, JobTable
from nearsight.services.server_settings import resolve
from nearsight.settings import environment
from nearsight.text_format import printable

_SHAPE = """{"id": str, "kind": str, "state": str, "done": float, "total": float|null, "message": str,
 "result": {...}|null, "error": str|null, "created": str, "started": str|null, "ended": str|null}"""

_data = click.option(
    "--data", metavar="DIR", help="The service's directory. Default: $NEARSIGHT_DATA, or ./nearsight-data."
)
_id = click.argument("id")


def _table(data: str | None) -> JobTable:
    settings = resolve({"data": data}, {k: v for k, v in environment().items() if k == "NEARSIGHT_DATA"})
    return JobTable(settings.data)


def _facts(job: Job) -> dict[str, Any]:
    facts = asdict(job)
    for name in ("args", "pid", "key_prefix", "is_cancel_requested"):
        del facts[name]
    for name in ("created", "started", "ended"):
        if facts[name] is not None:
            facts[name] = datetime.fromtimestamp(facts[name], timezone.utc).isoformat(timespec="seconds")
    return facts


def _line(job: Job) -> str:
    share = f"{100 * job.done / job.total:3.0f} %" if job.total else ""
    subject = job.args.get("shown", {}).get("folder") or job.args.get("collection") or ""
    facts = f"{job.id}  {job.kind:<10}  {job.state:<11}  {share:>5}  {printable(str(subject))}"
    return f"{facts}  {job.error or job.message}"


@click.command(
    "list", cls=Command, json_shape='{"jobs": [JOB]}', examples=("nearsight job list --state running",)
)
@click.option("--state", type=click.Choice(STATES), help="Only jobs in this state.")
@_data
@click.pass_obj
def list_(run: Run, /, *, state: str | None, data: str | None) -> None:
    """List the jobs of the service, the latest first."""
    jobs = _table(data).list(state=state)
    run.console.document({"jobs": [_facts(job) for job in jobs]})
    for job in jobs:
        run.console.say(_line(job).rstrip())
    if not jobs:
        run.console.note("There are no jobs.")


@click.command(cls=Command, json_shape=_SHAPE, examples=("nearsight job show 3fa9c1d277b0e55d",))
@_id
@_data
@click.pass_obj
def show(run: Run, /, *, id: str, data: str | None) -> None:
    """Show one job."""
    _show(run, _table(data).get(id))


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
        if (line := _line(job)) != last:
            last = line
            run.console.note(line.rstrip())
        time.sleep(0.5)
    _show(run, job)
    return 0 if job.state == "done" else FAILURE


@click.command(cls=Command, json_shape=_SHAPE, examples=("nearsight job cancel 3fa9c1d277b0e55d",))
@_id
@_data
@click.pass_obj
def cancel(run: Run, /, *, id: str, data: str | None) -> None:
    """Cancel a job that waits or runs.

    What it has saved stays.
    """
    _show(run, _table(data).cancel(id))


@click.command(cls=Command, json_shape=_SHAPE, examples=("nearsight job resume 3fa9c1d277b0e55d",))
@_id
@_data
@click.pass_obj
def resume(run: Run, /, *, id: str, data: str | None) -> None:
    """Queue a job again that did not end well.

    It was interrupted, failed or cancelled.
    """
    _show(run, _table(data).resume(id))


def _show(run: Run, job: Job) -> None:
    run.console.document(_facts(job))
    run.console.say(_line(job).rstrip())


job = Subgroup("job", commands=[list_, show, follow, cancel, resume], help="Manage the jobs of the service.")
