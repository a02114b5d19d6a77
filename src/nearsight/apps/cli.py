"""The `nearsight` command: its name, its version and the list of its commands."""

import click

import nearsight
from nearsight.apps.command import Family, Group
from nearsight.apps.commands import (
    asking,
    faces,
    filling,
    grouping,
    inspecting,
    keeping,
    labelling,
    machine,
    mapping,
    quantizing,
    recommending,
    tidying,
)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    commands=[
        filling.index,
        asking.search,
        labelling.classify,
        inspecting.anomaly,
        tidying.dups,
        grouping.cluster,
        grouping.segment,
        recommending.recommend,
        mapping.map_,
        faces.faces,
        asking.ls,
        asking.info,
        keeping.rm,
        keeping.optimize,
        keeping.project,
        asking.export,
        filling.embed,
        Family(own=machine.models, commands=[quantizing.quantize]),
        machine.doctor,
        machine.demo,
        machine.completion,
    ],
)
@click.version_option(nearsight.__version__, prog_name="nearsight")
def cli() -> None:
    """Turn a folder of pictures into something you can search.

    Start with `nearsight demo`, or with `nearsight index ~/Pictures` and
    `nearsight search PICTURE --open`.
    """


def main() -> None:
    """Run the command line."""
    cli()
