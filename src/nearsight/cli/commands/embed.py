"""`nearsight embed`."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import nearsight
from nearsight.cli import options
from nearsight.cli.framework import Command, Run, out_file
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.embedder import Embedded
    from nearsight.errors import ImageFailure
    from nearsight.images import Exclusions


@click.command(
    cls=Command,
    json_shape="""{"embedded": int, "skipped": {ending: int}, "failed": [{"path", "reason"}], "file", "model",
 "dim": int, "seconds": float, "images_per_second": float}""",
    examples=("nearsight embed photos/ --out vectors.npz",),
)
@options.paths
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    callback=out_file(".npz"),
    metavar="FILE.npz",
    help="The file of vectors.",
)
@options.model
@options.dim("Truncate vectors to D dimensions, with a model that was trained for it (Matryoshka).")
@options.decode
@options.device
@options.walk
@options.processes
@options.limits
@click.pass_obj
def embed(
    run: Run,
    /,
    *,
    paths: tuple[str, ...],
    out: Path,
    model: str | None,
    dim: int | None,
    decode: str | None,
    exclusions: "Exclusions",
    allow_remote: bool,
    threads: int | None,
    processes: int | None,
    **limits: float | None,
) -> int:
    """Embed images into a file of vectors.

    No collection is needed. FILE.npz holds vectors (n, d) float32, paths and ids, in the order of the input.
    It is written whole or not at all. A folder is walked as by `nearsight index`.
    """
    from nearsight.artifacts import write_npz
    from nearsight.models import DEFAULT_MODEL
    from nearsight.models.model_name import ModelVariant
    from nearsight.services.collections import embed_paths

    model = model or DEFAULT_MODEL
    embedder = nearsight.Embedder(
        model if dim is None else ModelVariant(dim=dim).applied_to(model),
        device=run.device,
        decode=decode or "auto",
        n_threads=threads,
        n_processes=run.settings.n_processes if processes is None else processes,
        limits=options.limits_of(**limits),
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
    )
    spec = embedder.backend.spec
    started = time.perf_counter()
    failures: list[ImageFailure] = []
    skipped: Counter[str] = Counter()
    results = embed_paths(
        embedder,
        paths,
        allow_remote=allow_remote,
        exclusions=exclusions,
        skipped=skipped,
        on_error=run.on_error,
    )
    n_embedded = write_npz(out, spec.dim, _rows(results, failures))
    seconds = time.perf_counter() - started
    rate = (n_embedded + len(failures)) / seconds
    run.console.document(
        {
            "embedded": n_embedded,
            "skipped": dict(skipped.most_common()),
            "failed": [asdict(failure) for failure in failures],
            "file": str(out),
            "model": spec.id,
            "dim": spec.dim,
            "seconds": round(seconds, 3),
            "images_per_second": round(rate, 1),
        }
    )
    run.console.say(
        f"{count(n_embedded, 'vector')} of {spec.dim:,} dimensions written to {printable(str(out))}"
        f" ({rate:,.0f} per second)"
    )
    run.report_skipped(skipped)
    return run.report_failures(failures, n_images=n_embedded)


def _rows(
    results: "Iterator[Embedded | ImageFailure]", failures: "list[ImageFailure]"
) -> "Iterator[tuple[list[str], list[str], Any]]":
    """Yield ids, paths and vector of each embedded image, and append the failures to `failures`."""
    for result in results:
        if isinstance(result, nearsight.ImageFailure):
            failures.append(result)
        else:
            yield [result.id], [result.source.path], result.vector
