"""Putting images in: `index`, and `embed` for those who want only the vectors."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from glob import has_magic, iglob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import nearsight
from nearsight.cli import options
from nearsight.cli.framework import FAILURES_FOUND, RESUMES, BadInputError, Command, Run, out_file
from nearsight.errors import CollectionNotFoundError
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.collection import AddReport
    from nearsight.embedder import Embedded, OnError
    from nearsight.errors import ImageFailure

_MOST_FAILURES_SHOWN = 20


@click.command(
    cls=Command,
    json_shape="""{"added": int, "updated": int, "unchanged": int, "removed": int, "embedded": int,
 "vanished": [path], "failed": [{"path", "reason"}], "seconds": float, "images_per_second": float}""",
    examples=(
        "nearsight index ~/Images",
        "nearsight index shoes/ --meta season=winter --metadata prices.csv",
        "nearsight index ~/Images --prune",
        "nearsight index ~/Images --dim 256 --storage float16",
    ),
)
@options.paths
@options.model
@options.dim(
    "Of a new collection: numbers a vector has. They are cut where the model was trained for it, else"
    " projected (PCA) onto what the images differ in."
)
@options.storage
@options.device
@click.option("--prune", is_flag=True, help="Remove images below PATH that are gone from disk.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="Attach to every image. Repeatable.")
@click.option(
    "--metadata",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    help="Attach the columns of a table; its column `path` names the images.",
)
@options.cost
@click.pass_obj
def index(
    run: Run,
    /,
    paths: tuple[str, ...],
    *,
    model: str | None,
    dim: int | None,
    storage: str | None,
    prune: bool,
    meta: tuple[str, ...],
    metadata: Path | None,
    allow_remote: bool,
    threads: int | None,
    fail_fast: bool,
    **limits: float | None,
) -> int:
    """Bring the collection up to date with images.

    PATH is a folder (walked), a file, a glob, a tar shard, or an address such as s3://bucket/folder.
    Only what is new or has changed is embedded. The collection is made if it is not there.
    Stopping costs nothing: the same command goes on from there.
    """
    from nearsight.cli.csv_tables import Sheet, parse_pair

    require_some(paths)
    fixed = dict(map(parse_pair, meta))
    sheet = Sheet(metadata) if metadata else None
    run.fail_fast = fail_fast
    run.if_stopped = RESUMES

    def fill(collection: "nearsight.Collection") -> "AddReport":
        return collection.add(
            list(paths),
            metadata=(lambda path: {**fixed, **sheet.of(path)}) if sheet else fixed,
            prune=prune,
            allow_remote=allow_remote,
            on_error="raise" if fail_fast else "record",
            limits=options.limits_of(**limits),
            n_threads=threads,
            progress=run.console.progress,
        )

    report = _fill(run, fill, model=model, dim=dim, storage=storage)
    run.console.document(report.to_dict())
    run.console.say(
        f"{count(report.added, 'image')} added, {report.updated:,} updated, {report.unchanged:,} unchanged,"
        f" {report.removed:,} removed in {report.seconds:.1f} s ({report.images_per_second:,.0f} a second)"
    )
    if sheet and sheet.unmet:
        run.console.note(f"{count(len(sheet.unmet), 'row')} of {sheet.file} named no image met here")
    if report.vanished and not prune:
        run.console.note(f"{count(len(report.vanished), 'image')} gone from disk; --prune removes them")
    return tell(run, report.failed, some=bool(report.added or report.updated or report.unchanged))


def require_some(paths: Sequence[str]) -> None:
    """Refuse a command line of which nothing exists: a slip of the pen, and not a failed image."""
    missing = [path for path in paths if "://" not in path and not _exists(path)]
    if len(missing) == len(paths):
        raise BadInputError(f"there is nothing at {', '.join(missing)}; check the spelling")


def _exists(path: str) -> bool:
    # Path.glob knows no absolute patterns.
    return os.path.lexists(path) or (has_magic(path) and any(True for _ in iglob(path, recursive=True)))  # noqa: PTH207


def _fill(
    run: Run,
    fill: "Callable[[nearsight.Collection], AddReport]",
    *,
    model: str | None,
    dim: int | None,
    storage: str | None,
) -> "AddReport":
    """Fill the collection, or make it; only a new one gets the default model and storage."""
    from nearsight.analyses.reduced_index import fill_short, require_storage
    from nearsight.models import DEFAULT_MODEL, load_model

    given: dict[str, Any] = {"device": run.device, "cache_dir": run.settings.cache_dir}
    if model:
        given["model"] = model
    if dim is not None:
        return fill_short(run.collection, dim, fill, storage=storage, **given)
    try:
        collection = nearsight.Collection.open(run.collection, **given)
        require_storage(collection, storage)
    except CollectionNotFoundError:
        # Loaded first: one that cannot be would leave an empty collection, which refuses every other model.
        given["model"] = load_model(
            model or DEFAULT_MODEL, device=run.device, cache_dir=run.settings.cache_dir
        )
        collection = nearsight.Collection.create(run.collection, storage=storage or "float32", **given)
    return fill(collection)


def tell(run: Run, failed: "list[ImageFailure]", *, some: bool = True) -> int:
    """Name the images that failed, or say that there were not even `some`, and return the exit code."""
    if not failed:
        if not some:
            run.console.note("No images were found there.")
        return 0
    run.console.warn(f"{count(len(failed), 'image')} could not be used:")
    for failure in failed[:_MOST_FAILURES_SHOWN]:
        run.console.warn(f"  {printable(failure.path)}: {printable(failure.reason)}")
    if len(failed) > _MOST_FAILURES_SHOWN:
        run.console.warn(f"  and {len(failed) - _MOST_FAILURES_SHOWN:,} more; --json lists all")
    return FAILURES_FOUND


@click.command(
    cls=Command,
    json_shape="""{"embedded": int, "failed": [{"path", "reason"}], "file", "model", "dim": int,
 "seconds": float, "images_per_second": float}""",
    examples=("nearsight embed photos/ --out vectors.npz",),
)
@options.paths
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    callback=out_file(".npz"),
    metavar="FILE.npz",
    help="Written at the end, whole.",
)
@options.model
@options.dim("Numbers a vector has, for models trained to be cut.")
@options.device
@options.cost
@click.pass_obj
def embed(
    run: Run,
    /,
    paths: tuple[str, ...],
    *,
    out: Path,
    model: str | None,
    dim: int | None,
    allow_remote: bool,
    threads: int | None,
    fail_fast: bool,
    **limits: float | None,
) -> int:
    """Turn images into a file of vectors.

    No collection is needed. FILE.npz holds vectors (n, d) float32, paths and ids, in input order.
    """
    from nearsight.artifacts import write_npz
    from nearsight.models import DEFAULT_MODEL
    from nearsight.models.model_name import Variant

    require_some(paths)
    run.fail_fast = fail_fast
    if dim is not None:
        model = Variant(dim=dim).applied_to(model or DEFAULT_MODEL)
    embedder = nearsight.Embedder(
        model or DEFAULT_MODEL,
        device=run.device,
        n_threads=threads,
        limits=options.limits_of(**limits),
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
    )
    started = time.perf_counter()
    spec = embedder.backend.spec
    failed: list[ImageFailure] = []
    results = stream(embedder, list(paths), allow_remote=allow_remote, fail_fast=fail_fast)
    n = write_npz(out, spec.dim, _good(results, failed))
    seconds = time.perf_counter() - started
    rate = (n + len(failed)) / seconds
    run.console.document(
        {
            "embedded": n,
            "failed": [asdict(failure) for failure in failed],
            "file": str(out),
            "model": spec.id,
            "dim": spec.dim,
            "seconds": round(seconds, 3),
            "images_per_second": round(rate, 1),
        }
    )
    run.console.say(
        f"{count(n, 'vector')} of {spec.dim} written to {printable(str(out))} ({rate:,.0f} a second)"
    )
    return tell(run, failed, some=n > 0)


def stream(
    embedder: "nearsight.Embedder",
    paths: list[str],
    *,
    allow_remote: bool,
    fail_fast: bool,
    thumbnails: bool = False,
) -> "Iterator[Embedded | ImageFailure]":
    """Embed what a command line names, with a progress bar."""
    from nearsight import images

    found = images.find(paths, allow_remote=allow_remote)
    with embedder.bar(
        images.count(paths, allow_remote=allow_remote) if embedder.can_count(paths) else None
    ) as bar:
        on_error: OnError = "raise" if fail_fast else "record"
        for result in embedder.stream(found, on_error=on_error, thumbnails=thumbnails):
            bar.update()
            yield result


def _good(
    results: "Iterator[Embedded | ImageFailure]", failed: "list[ImageFailure]"
) -> "Iterator[tuple[list[str], list[str], Any]]":
    """Pass on what has a vector, and set failures aside."""
    for result in results:
        if isinstance(result, nearsight.ImageFailure):
            failed.append(result)
        else:
            yield [result.id], [result.source.path], result.vector
