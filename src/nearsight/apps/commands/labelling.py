"""Naming what is on pictures: `classify predict`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import nearsight
from nearsight.apps import output
from nearsight.apps.command import Command, Run, Subgroup
from nearsight.apps.commands import options
from nearsight.apps.commands.filling import require_some, stream, tell
from nearsight.errors import Failure


@click.group(cls=Subgroup)
def classify() -> None:
    """Put names to pictures."""


@classify.command(
    cls=Command,
    json_shape="""{"predictions": [{"path", "label", "probability": float, "unknown": bool}],
 "failed": [{"path", "reason"}], "model"}""",
    examples=(
        'nearsight classify predict --names "dress,hat,shoes" photos/',
        "nearsight classify predict --names @names.txt photos/ --json",
    ),
)
@options.paths
@click.option(
    "--names",
    required=True,
    multiple=True,
    metavar="NAME,...",
    help="What to choose from; @FILE has a name on each line. Repeatable.",
)
@options.model
@options.device
@options.cost
@click.pass_obj
def predict(
    run: Run,
    /,
    paths: tuple[str, ...],
    *,
    names: tuple[str, ...],
    model: str | None,
    allow_remote: bool,
    threads: int | None,
    fail_fast: bool,
    **limits: float | None,
) -> int:
    """Choose among names for each picture, untrained.

    No collection is needed. The probability is that of the name among those given. A picture that common
    words fit better than any of the names is `unknown`: probably none of them.
    """
    from nearsight.models import DEFAULT_MODEL, load_text
    from nearsight.models.text.zeroshot import ZeroShotClassifier

    require_some(paths)
    run.fail_fast = fail_fast
    cache_dir = run.settings.cache_dir
    classifier = ZeroShotClassifier(load_text(model or DEFAULT_MODEL, cache_dir=cache_dir), _names(names))
    embedder = nearsight.Embedder(
        model or DEFAULT_MODEL,
        device=run.device,
        n_threads=threads,
        limits=options.limits_of(**limits),
        cache_dir=cache_dir,
        progress=run.console.progress,
    )
    predictions: list[dict[str, Any]] = []
    failed: list[Failure] = []
    for result in stream(embedder, list(paths), allow_remote=allow_remote, fail_fast=fail_fast):
        if isinstance(result, Failure) or result.vector is None:
            failed += [result] if isinstance(result, Failure) else []
            continue
        found = classifier.predict(result.vector[None])
        probability = float(found.probabilities.max())
        predictions.append(
            {
                "path": result.source.path,
                "label": found.labels[0],
                "probability": round(probability, 4),
                "unknown": bool(found.unknown[0]),
            }
        )
    run.console.document(
        {
            "predictions": predictions,
            "failed": [asdict(failure) for failure in failed],
            "model": embedder.backend.spec.id,
        }
    )
    rows = [
        ["unknown" if p["unknown"] else p["label"], f"{p['probability']:.2f}", p["path"]] for p in predictions
    ]
    for line in output.table(rows, header=("label", "probability", "path") if rows else (), right=(1,)):
        run.console.say(line)
    return tell(run, failed)


def _names(given: tuple[str, ...]) -> list[str]:
    """Read names off the command line, or out of files with one on each line."""
    found: list[str] = []
    for word in given:
        if word.startswith("@"):
            try:
                lines = Path(word[1:]).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise click.BadParameter(f"{word[1:]!r} cannot be read: {error}") from error
            found += [line.strip() for line in lines if line.strip()]
        else:
            found += [name.strip() for name in word.split(",") if name.strip()]
    return found
