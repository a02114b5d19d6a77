"""The commands of `nearsight anomaly`."""

import click

from nearsight.cli.commands.anomaly import fit, rank, score
from nearsight.cli.framework import Subgroup


@click.group(cls=Subgroup, commands=[fit.fit, score.score, rank.rank])
def anomaly() -> None:
    """Detect defects after seeing only good images."""
