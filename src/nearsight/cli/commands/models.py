"""`nearsight models`."""

from typing import TYPE_CHECKING, Any

import click

import nearsight
from nearsight import text_format
from nearsight.cli.framework import Command, Run

if TYPE_CHECKING:
    from nearsight.models.huggingface.known_models import KnownModel


@click.command(
    cls=Command,
    json_shape="""{"models": [{"model", "dim": int, "license", "available": bool, "install",
             "input": [height, width] or null, "size_bytes": int or null, "training_data", "accuracy",
             "source", "fingerprint": text or null}]},
 or with NAME: {"model": {...}, "layers": {name: shape}}""",
    examples=("nearsight models", "nearsight models efficientnet-lite0", "nearsight models dinov2-small"),
)
@click.argument("name", required=False)
@click.pass_obj
def models(run: Run, /, *, name: str | None) -> None:
    """List the embedding models, or describe one.

    The list has the built-in models, those of plugins, those downloaded from a hub, and well-known models
    that a hub offers. With NAME, the command also lists the layers from which `--layer` can take vectors.
    """
    if name is not None:
        return _describe(run, name)
    from nearsight.models.huggingface.hub import fetched_models
    from nearsight.models.huggingface.known_models import KNOWN_MODELS
    from nearsight.models.huggingface.model_card import is_non_commercial

    entries = [
        (entry.spec, entry.available(), entry.install)
        for entry in [*nearsight.list_models(), *fetched_models()]
    ]
    downloaded = [spec.id for spec, _, _ in entries if spec.id.startswith("hub:")]
    hub_models = [_hub_facts(model, downloaded) for model in KNOWN_MODELS]
    run.console.document(
        {"models": [*(_facts(spec, available, install) for spec, available, install in entries), *hub_models]}
    )
    rows = [
        [
            spec.id,
            str(spec.dim),
            "x".join(map(str, spec.input_px)),
            text_format.size(spec.size_bytes),
            spec.license + " (NON-COMMERCIAL)" * is_non_commercial(spec.license),
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
            run.console.say(f"To install {spec.id}: {install}")
    run.console.say("\nFrom a hub, downloaded at first use (pip install 'nearsight[hub]'):")
    rows = [
        [
            model.name,
            str(model.dim),
            model.license + " (NON-COMMERCIAL)" * is_non_commercial(model.license),
            "yes" if facts["available"] else "no",
            "yes" if model.reads_text else "no",
            model.accuracy,
            model.revision[:7] or "kept at first use",
        ]
        for model, facts in zip(KNOWN_MODELS, hub_models, strict=True)
    ]
    header = ("model", "dim", "license", "downloaded", "text", "accuracy (published)", "commit")
    for line in text_format.table(rows, header=header, right=(1,)):
        run.console.say(line)
    run.console.say(
        "\nYour own models: dir:PATH, hub:ORG/REPO@REVISION, onnx:FILE, pca:FILE, sift-vlad:FILE,"
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


def _hub_facts(model: "KnownModel", downloaded: list[str]) -> dict[str, Any]:
    return {
        "model": model.name,
        "dim": model.dim,
        "license": model.license,
        "available": any(name.startswith(model.source) for name in downloaded),
        "install": "pip install 'nearsight[hub]'",
        "input": None,
        "size_bytes": None,
        "training_data": "",
        "accuracy": model.accuracy,
        "source": model.source,
        "fingerprint": None,
    }


def _describe(run: Run, name: str) -> None:
    from nearsight.models import find_model

    entry = find_model(name)
    facts = _facts(entry.spec, entry.available(), entry.install)
    layers = entry.variants.layers() if entry.variants else {}
    run.console.document({"model": facts, "layers": layers})
    for line in text_format.table(
        [[key.replace("_", " "), str(value)] for key, value in facts.items() if value]
    ):
        run.console.say(line)
    if layers:
        run.console.say("\nLayers, and their output shapes for one image:")
    for line in text_format.table([[layer, " x ".join(map(str, shape))] for layer, shape in layers.items()]):
        run.console.say(line)
