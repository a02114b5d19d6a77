"""`nearsight doctor`."""

import click

from nearsight.cli.framework import FAILURE, Command, Run
from nearsight.text_format import printable

_STATUS_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(
    cls=Command, json_shape="""{"checks": [{"name", "status": "ok"|"warn"|"fail", "detail", "fix"}]}"""
)
@click.pass_obj
def doctor(run: Run) -> int:
    """Check this machine and the installation.

    Each check that does not pass says how to fix it. The exit code is 1 if a check fails, and 0 if there
    are only warnings.
    """
    from nearsight.doctor import run_checks

    checks = []
    for check in run_checks(run.settings, run.collection):
        checks.append(check)
        status = click.style(f"{check.status:<4}", fg=_STATUS_COLORS[check.status])
        run.console.say(f"{status}  {check.name:<11}  {printable(check.detail)}")
        if check.fix:
            run.console.say(f"{'':<4}  {'':<11}  -> {printable(check.fix)}")
    run.console.document({"checks": [check.to_dict() for check in checks]})
    return FAILURE if any(check.status == "fail" for check in checks) else 0
