"""The `nearsight` command: its name, its version and its commands."""

import click

import nearsight
from nearsight.cli import utf8_mode
from nearsight.cli.commands import (
    anomaly,
    audit,
    classify,
    cluster,
    compact,
    completion,
    copy,
    demo,
    dimension,
    doctor,
    duplicates,
    embed,
    export,
    faces,
    help,
    index,
    info,
    job,
    keys,
    ls,
    map,
    models,
    monitor,
    plan,
    quantize,
    recommend,
    reduce_dim,
    rm,
    search,
    segment_customers,
    serve,
    tag,
    train,
    trash,
    upgrade,
)
from nearsight.cli.commands.eval import evaluate
from nearsight.cli.framework import Family, Group


@click.group(
    cls=Group,
    aliases={"dups": "duplicates"},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    sections={
        "Collections": [
            index.index,
            search.search,
            ls.ls,
            info.info,
            tag.tag,
            rm.rm,
            trash.trash,
            export.export,
            copy.copy,
            compact.compact,
        ],
        "Analyses": [
            duplicates.duplicates,
            audit.audit,
            cluster.cluster,
            map.map_,
            classify.classify,
            recommend.recommend,
            segment_customers.segment_customers,
            anomaly.anomaly,
            faces.faces,
        ],
        "Models": [
            Family(own=models.models, commands=[quantize.quantize]),
            embed.embed,
            evaluate,
            train.train,
            upgrade.upgrade,
            upgrade.rollback,
            monitor.monitor,
            dimension.dimension,
            reduce_dim.reduce_dim,
        ],
        "Service and large jobs": [serve.serve, keys.keys, job.job, plan.plan],
        "Help": [demo.demo, doctor.doctor, completion.completion, help.help],
    },
)
@click.version_option(nearsight.__version__, prog_name="nearsight")
def cli() -> None:
    """Search, deduplicate, cluster and label a folder of images.

    Start with `nearsight demo`, or with `nearsight index ~/photos` and
    `nearsight search IMAGE --open`.
    """


def main() -> None:
    """Run the command line."""
    utf8_mode.enter()
    cli()
