"""Getting to know the installation: `models`, `doctor`, `demo`, `completion`."""

from pathlib import Path
from typing import Any

import click

import nearsight
from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands.search import present
from nearsight.cli.framework import FAILURES_FOUND, RESUMES, Command, Run
from nearsight.settings import DEFAULT_DEMO
from nearsight.text_format import printable

_SHELLS = ("bash", "zsh", "fish")
_STATUS_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(
    cls=Command,
    json_shape="""{"models": [{"model", "dim": int, "license", "available": bool, "install",
             "input": [height, width], "size_bytes": int, "training_data", "accuracy", "source",
             "fingerprint"}]}, or with NAME: {"model": {...}, "layers": {name: shape}}""",
    examples=("nearsight models", "nearsight models efficientnet-lite0"),
)
@click.argument("name", required=False)
@click.pass_obj
def models(run: Run, /, name: str | None) -> None:
    """List the models that can be asked for by name.

    Those of a hub that have been fetched are among them.

    With NAME, tell what there is to know of that one, with the layers that vectors can be taken from.
    """
    if name is not None:
        return _model(run, name)
    from nearsight.models.huggingface.hub import fetched_models
    from nearsight.models.huggingface.model_card import is_non_commercial

    found = [*nearsight.list_models(), *fetched_models()]
    entries = [(entry.spec, entry.available(), entry.install) for entry in found]
    run.console.document(
        {"models": [_facts(spec, available, install) for spec, available, install in entries]}
    )
    rows = [
        [
            spec.id,
            str(spec.dim),
            "x".join(map(str, spec.input_px)),
            text_format.size(spec.size_bytes),
            spec.license + " (NOT COMMERCIAL)" * is_non_commercial(spec.license),
            "yes" if available else "no",
            "; ".join(filter(None, [spec.training_data, spec.accuracy])),
        ]
        for spec, available, _ in entries
    ]
    header = ("model", "dim", "input", "size", "license", "available", "trained on")
    for line in text_format.table(rows, header=header, right=(1, 3)):
        run.console.say(line)
    for spec, available, install in entries:
        if install and not available:
            run.console.say(f"For {spec.id}: {install}")
    run.console.say(
        "Your own, by place: dir:PATH, hub:ORG/REPO@REVISION, onnx:FILE, pca:FILE, sift-vlad:FILE,"
        " torch:MODULE:FACTORY"
    )
    return None


def _facts(spec: "nearsight.ModelSpec", available: bool, install: str) -> dict[str, Any]:
    return {
        "model": spec.id,
        "dim": spec.dim,
        "license": spec.license,
        "available": available,
        "install": install,
        "input": spec.input_px,
        "size_bytes": spec.size_bytes,
        "training_data": spec.training_data,
        "accuracy": spec.accuracy,
        "source": spec.source,
        "fingerprint": spec.fingerprint.digest,
    }


def _model(run: Run, name: str) -> None:
    from nearsight.models import find_model

    entry = find_model(name)
    facts = _facts(entry.spec, entry.available(), entry.install)
    layers = entry.forms.layers() if entry.forms else {}
    run.console.document({"model": facts, "layers": layers})
    for line in text_format.table(
        [[key.replace("_", " "), str(value)] for key, value in facts.items() if value]
    ):
        run.console.say(line)
    if layers:
        run.console.say("\nLayers, and their shapes for one image:")
    for line in text_format.table([[layer, " x ".join(map(str, shape))] for layer, shape in layers.items()]):
        run.console.say(line)


@click.command(
    cls=Command, json_shape="""{"checks": [{"name", "status": "ok"|"warn"|"fail", "detail", "fix"}]}"""
)
@click.pass_obj
def doctor(run: Run, /) -> int:
    """Check this machine and installation.

    What is installed, whether it runs, whether an image embeds, and what to do if not.
    """
    from nearsight.doctor import examine

    checks = []
    for check in examine(run.settings, run.collection):
        checks.append(check)
        status = click.style(f"{check.status:<4}", fg=_STATUS_COLORS[check.status])
        run.console.say(f"{status}  {check.name:<11}  {printable(check.detail)}")
        if check.fix:
            run.console.say(f"{'':<4}  {'':<11}  -> {printable(check.fix)}")
    run.console.document({"checks": [check.to_dict() for check in checks]})
    return FAILURES_FOUND if any(check.status == "fail" for check in checks) else 0


@click.command(
    cls=Command,
    json_shape="""{"page", "collection", "images": int, "embedded": int, "seconds": float,
 "images_per_second": float, "edits": [{"path", "edit", "rank": int|null, "similarity": float|null}],
 "queries": [{"id", "path", "where", "hits": [{"id", "path", "similarity", "metadata"}]}],
 "failed": [{"path", "reason"}], "licenses": {name: license}, "next": [command]}""",
    examples=("nearsight demo --open", "nearsight demo ~/Images --out /tmp/my-images"),
)
@click.argument("folder", required=False, type=click.Path())
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    default=DEFAULT_DEMO,
    show_default=True,
    help="Where the page and the collection go.",
)
@options.k("Neighbors of each image.", default=5)
@click.option("--open", "show", is_flag=True, help="Show the page in the browser.")
@click.pass_obj
def demo(run: Run, /, folder: str | None, out: Path, k: int, show: bool) -> int:
    """Index some images and show what came of it.

    It writes one page with searches worth looking at.
    Without FOLDER, it takes photographs from installed packages (pip install 'nearsight[demo]').
    Images are neither copied nor changed.
    """
    from nearsight.cli.commands.index import require_some, tell
    from nearsight.demo.run import play

    if folder is not None:
        require_some([folder])
    run.if_stopped = RESUMES
    result = play(folder, out, k=k, cache_dir=run.settings.cache_dir, progress=run.console.progress)
    run.console.document(result.to_dict())
    for line in result.lines():
        run.console.say(line)
    present(run, result.page, show=show)
    return tell(run, result.report.failed)


@click.command(
    cls=Command,
    json_shape="""{"shell", "script"}""",
    examples=("nearsight completion bash > ~/.local/share/bash-completion/completions/nearsight",),
)
@click.argument("shell", type=click.Choice(_SHELLS), metavar="bash|zsh|fish")
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print the completion script of a shell.

    It lets the shell complete commands, options and the names of models.
    """
    from click.shell_completion import get_completion_class

    run: Run = ctx.obj
    kind: Any = get_completion_class(shell)
    script = kind(ctx.find_root().command, {}, "nearsight", "_NEARSIGHT_COMPLETE").source()
    run.console.document({"shell": shell, "script": script})
    run.console.say(script.rstrip())
