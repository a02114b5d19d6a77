"""`nearsight index`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight.cli import options
from nearsight.cli.framework import BAD_INPUT, RESUMABLE, Command, Run
from nearsight.cli.unit_jobs import index_units
from nearsight.errors import ImageFailure
from nearsight.text_format import count

if TYPE_CHECKING:
    from nearsight.collection import AddReport, Collection
    from nearsight.images import Exclusions
    from nearsight.images.image_lookup import Resolution
    from nearsight.services.csv_tables import MetadataTable


@click.command(
    cls=Command,
    json_shape="""{"added": int, "updated": int, "unchanged": int, "removed": int, "skipped": {ending: int},
 "failed": [{"path", "reason"}], "seconds": float, "images_per_second": float, "embedded": int,
 "same_content": int, "vanished": [path], "excluded": [path], "notes": {note: int},
 "unmatched": {name: rows} and "ambiguous": {name: [path]}, with --metadata}
With --job:
{"job": DIR, "units": int, "images": int, "rows": int, "failed": int, "seconds": float,
 "images_per_second": float, "refused": [str], "skipped": {ending: int}, "unchanged": int,
 "status": STATUS, as nearsight job DIR prints}""",
    examples=(
        "nearsight index ~/photos",
        "nearsight index shoes/ --meta season=winter --metadata prices.csv",
        "nearsight index ~/photos --prune",
        "nearsight index ~/photos --exclude private/ --exclude '*_small.jpg'",
        "nearsight index ~/photos --dim 256 --storage float16",
        "nearsight index s3://bucket/photos --job s3://bucket/jobs/1 --units 0/64",
        "nearsight index s3://bucket/photos --job jobs/1 --ray auto --actor-gpus 0.25",
    ),
)
@options.paths
@options.model
@options.dim(
    "Dimensions of a vector in a new collection. Vectors are truncated if the model was trained for it"
    " (Matryoshka), and else projected (PCA)."
)
@options.storage
@options.decode
@options.device
@click.option("--prune", is_flag=True, help="Remove images below PATH whose files no longer exist.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="Set metadata of every image. Repeatable.")
@click.option(
    "--metadata",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    help="Set metadata from the columns of a table; its column `path` names the images: by path (absolute or"
    " relative to the table), file name, or file name without its ending.",
)
@click.option(
    "--job",
    metavar="DIR|URL",
    help="Index by units of some thousand images, which any number of processes share; DIR, which they all"
    " see, or s3://bucket/path or gs://, holds the plan and what is done. See `nearsight job`.",
)
@click.option(
    "--units",
    metavar="I/N",
    help="With --job: begin with every N-th unit from I on, then help the others; 0/64 is the first of 64"
    " processes. `nearsight job DIR --commit` adds what is done to the collection. Default: all units, and"
    " add them.",
)
@click.option(
    "--unit-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --job: most images of a unit, which is what a killed process loses; a tar shard is one unit"
    " whatever it holds. Counts for a new job. Default: 4096.",
)
@click.option(
    "--ray",
    metavar="ADDRESS|auto|local",
    help="With --job: embed on a Ray cluster (pip install 'nearsight[ray]'), and add what is done.",
)
@click.option(
    "--actor-cpus", type=click.FloatRange(min=0), metavar="N", help="With --ray: cores per actor. Default: 2."
)
@click.option(
    "--actor-gpus",
    type=click.FloatRange(min=0),
    metavar="N",
    help="With --ray: GPUs per actor, such as 0.25. Default: 0.",
)
@options.walk
@options.processes
@options.limits
@click.pass_obj
def index(
    run: Run,
    /,
    *,
    paths: tuple[str, ...],
    model: str | None,
    dim: int | None,
    storage: str | None,
    decode: str | None,
    prune: bool,
    meta: tuple[str, ...],
    metadata: Path | None,
    job: str | None,
    units: str | None,
    unit_images: int | None,
    ray: str | None,
    actor_cpus: float | None,
    actor_gpus: float | None,
    exclusions: "Exclusions",
    allow_remote: bool,
    threads: int | None,
    processes: int | None,
    **limits: float | None,
) -> int:
    """Add new and changed images to the collection.

    PATH is a folder (with its subfolders), a file, a glob, a tar shard, or a URL such as
    s3://bucket/folder. The collection is created if it does not exist. An interrupted command continues
    where it stopped when it is run again. If not one image can be read, no collection is created (exit code
    2).

    Passed over are files without an image's ending, hidden names, the trash and thumbnails of other
    programs (@eaDir, #recycle, $RECYCLE.BIN, .Trash*, lost+found, .thumbnails, ._*), and folders that hold
    a file .nomedia. What was passed over is counted. Images of the collection that lie below PATH and are
    excluded now are removed from it; elsewhere they stay until their folder is indexed again.

    With --job, PATH may also be a Parquet file with a column of paths or URLs. Images of shards and of such
    files are embedded even if the collection has them. A process that is killed loses the unit that it works
    on, and the same command continues.
    """
    if job is None and any(option is not None for option in (units, unit_images, ray)):
        raise click.UsageError(
            "--units, --unit-images and --ray need --job DIR, a folder that all processes see"
        )
    if ray is not None and units is not None:
        raise click.UsageError("give --units or --ray: Ray takes all units")
    if job is not None:
        _refuse_with_job({"--prune": prune, "--meta": meta, "--metadata": metadata, "--dim": dim})
        return index_units(
            run,
            job,
            units,
            paths,
            {"model": model, "storage": storage, "decode": decode},
            {
                "exclusions": exclusions,
                "allow_remote": allow_remote,
                "limits": options.limits_of(**limits),
                "unit_images": unit_images,
            },
            {
                "n_threads": threads,
                "n_processes": run.settings.n_processes if processes is None else processes,
            },
            options.without_none(address=ray, cpus=actor_cpus, gpus=actor_gpus) if ray else {},
        )
    from nearsight.services.collections import add_images, has_collection, unreadable_inputs
    from nearsight.services.csv_tables import MetadataTable, parse_pair

    common = dict(map(parse_pair, meta))
    table = MetadataTable(metadata) if metadata else None
    run.if_interrupted = RESUMABLE
    resolution = _resolve(run, table, paths, exclusions, allow_remote=allow_remote) if table else None

    def add(collection: "Collection") -> "AddReport":
        return collection.add(
            list(paths),
            metadata=(lambda path: {**common, **table.row(path)}) if table else common,
            prune=prune,
            exclude=exclusions.patterns,
            include_hidden=exclusions.include_hidden,
            allow_remote=allow_remote,
            on_error=run.on_error,
            limits=options.limits_of(**limits),
            n_threads=threads,
            n_processes=run.settings.n_processes if processes is None else processes,
            progress=run.console.progress,
        )

    report = unreadable_inputs(
        run.collection,
        paths,
        exclusions=exclusions,
        limits=options.limits_of(**limits),
        on_error=run.on_error,
    ) or add_images(
        run.collection,
        add,
        model=model,
        dim=dim,
        storage=storage,
        decode=decode,
        device=run.device,
        cache_dir=run.settings.cache_dir,
    )
    names = {"unmatched": resolution.unmatched, "ambiguous": resolution.ambiguous} if resolution else {}
    run.console.document({**report.to_dict(), **names})
    _say(run, report, prune=prune)
    for line in resolution.report(str(metadata)) if resolution else ():
        run.console.warn(line)
    code = run.report_failures(report.failed, n_images=report.added + report.updated + report.unchanged)
    if report.failed and not has_collection(run.collection):
        run.console.warn(f"No image could be read, so no collection was created at {run.shown_collection}.")
        return code or BAD_INPUT
    return code


def _refuse_with_job(others: Mapping[str, object]) -> None:
    if names := [name for name, value in others.items() if value]:
        raise click.UsageError(
            f"{' and '.join(names)} cannot be used with --job; run nearsight index or tag afterwards"
        )


def _say(run: Run, report: "AddReport", *, prune: bool) -> None:
    same = (
        f" ({count(report.same_content, 'more file')} with the same content)" if report.same_content else ""
    )
    run.console.say(
        f"{count(report.added - report.same_content, 'image')} added{same}, {report.updated:,} updated,"
        f" {report.unchanged:,} unchanged, {report.removed:,} removed in {report.seconds:.1f} s"
        f" ({report.images_per_second:,.0f} per second)"
    )
    run.report_skipped(report.skipped)
    if report.excluded:
        n_images = count(len(report.excluded), "image")
        run.console.note(f"{n_images} removed: below PATH, and excluded now")
    for note, n_files in report.notes.items():
        run.console.note(f"{count(n_files, 'file')}: {note}")
    if report.vanished and not prune:
        run.console.note(
            f"The files of {count(len(report.vanished), 'image')} no longer exist; --prune removes the images"
        )


def _resolve(
    run: Run,
    table: "MetadataTable",
    paths: tuple[str, ...],
    exclusions: "Exclusions",
    *,
    allow_remote: bool,
) -> "Resolution":
    """Look for the images that the rows of the table name, before anything is embedded.

    A remote shard is downloaded twice for it, since only its end shows the last name.
    """
    from nearsight import images
    from nearsight.services.collections import lookup_if_any

    found = images.find(list(paths), allow_remote=allow_remote, exclusions=exclusions)
    resolution = table.resolve(
        (one.path for one in found if not isinstance(one, ImageFailure)),
        lambda: lookup_if_any(run.collection),
    )
    resolution.require_most(str(table.file))
    return resolution
