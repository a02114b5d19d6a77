"""The `nearsight` command: its name, its version and the list of its commands."""

import click

import nearsight
from nearsight.cli.commands import (
    anomaly,
    classify,
    cluster,
    duplicates,
    faces,
    index,
    map,
    models,
    quantize,
    recommend,
    rm,
    search,
)
from nearsight.cli.framework import Family, Group


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    commands=[
        index.index,
        search.search,
        classify.classify,
        anomaly.anomaly,
        duplicates.dups,
        cluster.cluster,
        cluster.segment,
        recommend.recommend,
        map.map_,
        faces.faces,
        search.ls,
        search.info,
        rm.rm,
        rm.optimize,
        rm.project,
        search.export,
        index.embed,
        Family(own=models.models, commands=[quantize.quantize]),
        models.doctor,
        models.demo,
        models.completion,
    ],
)
@click.version_option(nearsight.__version__, prog_name="nearsight")
def cli() -> None:
    """Turn a folder of images into something you can search.

    Start with `nearsight demo`, or with `nearsight index ~/Images` and
    `nearsight search IMAGE --open`.
    """


def main() -> None:
    """Run the command line."""
    cli()
