"""The commands of `nearsight classify`."""

import click

from nearsight.cli.commands.classify import check, fit, predict, suggest
from nearsight.cli.framework import Subgroup


@click.group(cls=Subgroup, commands=[fit.fit, predict.predict, check.check, suggest.suggest])
def classify() -> None:
    """Classify images by examples or by names alone."""
