"""`upgrade` and `rollback`."""

from typing import TYPE_CHECKING, Literal

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.services.upgrade import CollectionUpgrade


@click.command(
    cls=Command,
    json_shape="""{"old_model", "new_model", "images": int, "embedded": int, "expected_seconds": float,
 "new_bytes": int, "overlap": float or null, "overlap_interval": [low, high] or null, "compared": int,
 "learned": int, "recall@1": {"old": float, "new": float, "difference": float, "low": float, "high": float,
   "p": float} or null,
 "bridge_recall": {"value": float, "low": float, "high": float} or null,
 "switched": bool, "dropped": int, "estimated": int, "refitted": [path],
 "stale": [{"path", "kind", "command", "reason"}]} or {"committed": true}
 or {"abandoned": true}""",
    examples=(
        "nearsight upgrade --to dir:my-model --labels category --dry-run",
        "nearsight upgrade --to efficientnet-lite2",
        "nearsight upgrade --commit",
    ),
)
@click.option("--to", "model", metavar="MODEL", help="The new model.")
@click.option(
    "--labels",
    metavar="LABELS",
    help="Compare both models by labels: `folder` (the folder of each image), or a metadata key.",
)
@click.option("--dry-run", is_flag=True, help="Stop after a sample: agreement, labels, time, and bytes.")
@click.option(
    "--missing",
    type=click.Choice(["refuse", "keep", "drop"]),
    default="refuse",
    show_default=True,
    metavar="refuse|keep|drop",
    help="With images whose files are gone: stop, keep an estimate of their vector, or leave them out.",
)
@click.option("--force", is_flag=True, help="Change the collection although labels say that it gets worse.")
@click.option("--commit", "do_commit", is_flag=True, help="Delete the vectors of the old model.")
@click.option("--abandon", "do_abandon", is_flag=True, help="End the upgrade and delete the new vectors.")
@options.device
@click.pass_obj
def upgrade(
    run: Run,
    /,
    *,
    model: str | None,
    labels: str | None,
    dry_run: bool,
    missing: Literal["refuse", "keep", "drop"],
    force: bool,
    do_commit: bool,
    do_abandon: bool,
) -> None:
    """Move the collection to another model.

    Every image is embedded again, into rows beside the old ones, while searches go on. Then both models are
    compared, and one file changes the collection. A killed upgrade goes on with the same command; rollback
    brings the old model back, until --commit deletes its vectors.

    From the sample on, search --model MODEL searches by the new model: a bridge learned from the sample
    proposes images, and those are embedded. With --missing keep, images whose files are gone keep a vector
    that the bridge estimates, and the metadata vector_estimated = true, until index finds the file again.

    Labels decide: if the new model finds significantly fewer of the right ones, nothing is changed.
    Classifiers, clusters, the map and recommenders are fitted again on the new vectors. Fitted files that
    keep no inputs, such as segments of customers, are listed with the command that fits them.
    """
    if (model is not None) + do_commit + do_abandon != 1:
        raise click.UsageError("give one of --to MODEL, --commit and --abandon")
    collection = run.open_collection()
    if model is None:
        if do_commit:
            from nearsight.services.upgrade import commit_upgrade

            commit_upgrade(collection)
        else:
            from nearsight.collection.upgrade import abandon

            abandon(collection.location)
        run.console.document({"committed" if do_commit else "abandoned": True})
        run.console.say("The old vectors are deleted." if do_commit else "The upgrade is ended.")
        return
    from nearsight.services.labels import labels_of
    from nearsight.services.upgrade import upgrade as move
    from nearsight.services.upgrade import upgrade_document

    report = move(
        collection,
        model,
        labels=None if labels is None else labels_of(collection, labels),
        missing=missing,
        only_sample=dry_run,
        allow_worse=force,
        device=run.device,
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
    )
    run.console.document(upgrade_document(report))
    _say(run, report)


@click.command(
    cls=Command,
    json_shape='{"model", "already_rolled_back": bool, "lacking": int, "stale": [path]}',
    examples=("nearsight rollback",),
)
@click.pass_obj
def rollback(run: Run, /) -> None:
    """Bring back the model before the latest upgrade.

    No image is embedded, because the old vectors are still there until `upgrade --commit` deletes them.
    Metadata that was set after the upgrade stays, and images that were removed stay out. Images that were
    added after the upgrade lack a vector; index their folders again.
    """
    from nearsight.services.upgrade import roll_back

    done = roll_back(run.open_collection().location, cache_dir=run.settings.cache_dir)
    model, n_lacking = done.collection.spec.id, done.n_lacking
    run.console.document(
        {
            "model": model,
            "already_rolled_back": done.was_done,
            "lacking": n_lacking,
            "stale": [str(file.path) for file in done.report.stale],
        }
    )
    run.console.say(
        f"The collection was already rolled back; it holds vectors of {model}."
        if done.was_done
        else f"The collection holds vectors of {model} again."
    )
    for file in done.report.stale:
        run.console.note(
            f"Note: {printable(str(file.path))} is of the newer model; fit it again: {file.command}"
        )
    if n_lacking:
        run.console.note(
            f"Note: {count(n_lacking, 'image')} came after the upgrade; index their folders again."
        )


def _say(run: Run, report: "CollectionUpgrade") -> None:
    comparison = report.comparison
    if comparison.overlap.n:
        run.console.say(
            f"Of the ten nearest images, both models agree on {comparison.overlap.value:.0%}"
            f" ({count(comparison.n_images, 'image')} compared)."
        )
    if comparison.recall is not None:
        gap = comparison.recall
        run.console.say(
            f"recall@1 of the labels: {comparison.new_recall:.3f} instead of {comparison.old_recall:.3f}"
            f" ({gap.value:+.3f}, 95 % interval {gap.low:+.3f} to {gap.high:+.3f})."
        )
    if n := comparison.n_learned:
        rest = "only the others were searched for"
        if comparison.recall is None:
            rest = "no other has a label, so labels say nothing about the models"
        run.console.say(f"A model learned from {count(n, 'labeled image')}, which it finds too well; {rest}.")
    if not report.switched:
        if report.bridge_recall is not None:
            value, low, high = report.bridge_recall
            search = run.command("search", "IMAGE", "--model", report.new_model)
            run.console.say(
                f"{printable(search)} works from now on, by a bridge: it"
                f" finds {value:.0%} ({low:.0%} to {high:.0%}) of the ten nearest images, as the sample says."
            )
        run.console.say(
            f"The upgrade would take about {report.expected_seconds:,.0f} more seconds and"
            f" {text_format.size(report.new_bytes)}. Run the same command without --dry-run."
        )
        return
    run.console.say(
        f"The collection holds vectors of {printable(report.new_model)} now."
        f" {printable(run.command('rollback'))} brings {printable(report.old_model)} back;"
        f" {printable(run.command('upgrade', '--commit'))} deletes its vectors.",
        bold=True,
    )
    if report.n_dropped:
        run.console.note(f"Note: {count(report.n_dropped, 'image')} left out: their files are gone.")
    if report.n_estimated:
        run.console.note(
            f"Note: the files of {count(report.n_estimated, 'image')} are gone; their vectors are estimates."
            ' --where "vector_estimated = true" selects them. Once the files are there again, index their'
            " folders: then they are embedded."
        )
    for path in report.refitted:
        run.console.say(f"Fitted again on the new vectors: {printable(str(path))}.")
    for file in report.stale:
        run.console.note(
            f"Note: {printable(str(file.path))} was learned from the old model ({printable(file.reason)});"
            f" fit it again: {file.command}"
        )
