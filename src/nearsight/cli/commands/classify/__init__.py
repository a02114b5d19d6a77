"""The commands of `nearsight classify`."""

import click

from nearsight.cli.commands.classify import fit, predict, suggest
from nearsight.cli.framework import Subgroup


@click.group(cls=Subgroup, commands=[fit.fit, predict.predict, suggest.suggest])
def classify() -> None:
    """Classify images, from a few examples or names alone."""
