"""`eval`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run

if TYPE_CHECKING:
    from nearsight.evaluation import Evaluation
    from nearsight.images import Exclusions

# evaluation.METRICS; importing it would make --help slow.
_METRICS = ["recall@1", "recall@5", "recall@10", "map@10", "r_precision", "knn_accuracy"]


@click.command(
    "eval",
    cls=Command,
    json_shape="""{"models": [{"model", "dim": int, "bytes_per_vector": int, "images_per_second": float,
   "license", "recall@1": float, "map@10": float, "knn_accuracy": float, "...": float,
   "intervals": {metric: [low, high]}}],
 "comparisons": [{"first", "second", "difference": float, "low": float, "high": float, "p": float,
   "verdict": "better", "worse" or "tie", "detectable": float, "queries_needed": int or null}],
 "metric", "recommended", "verdict", "queries": int, "gallery": int, "leaks": [[path, path]],
 "detectable": float or null, "skipped": [{"model", "reason"}],
 "learned_classes": {"models": [model], "classes": [label], "learned": {model: {"value", "low", "high"}},
   "others": {model: {"value", "low", "high"}},
   "differences": {model: {"value", "low", "high", "p"}}} or null,
 "dimensions": [{"dim": int, "value": float, "low": float, "high": float}], "advised_dim": int,
 "failed": [{"path", "reason"}]}""",
    examples=(
        "nearsight eval photos/ --open",
        "nearsight eval dataset/ --model efficientnet-lite0 --model dir:finetuned --metric recall@1",
    ),
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="A model to compare; give the option again for others.  [default: all that are installed]",
)
@click.option(
    "--metric",
    type=click.Choice(_METRICS),
    default="map@10",
    show_default=True,
    metavar="|".join(_METRICS),
    help="The metric that decides.",
)
@options.report("evaluation", "Write an HTML report: figures, differences, and the queries that differ most.")
@options.device
@options.walk
@options.strict
@click.pass_obj
def evaluate(
    run: Run,
    /,
    *,
    folder: Path,
    models: tuple[str, ...],
    metric: str,
    report: Path | None,
    exclusions: "Exclusions",
) -> int:
    """Compare models on your own labeled images.

    DIR holds one folder of images a class. With folders train and test, the images of test are searched
    among the others; else each image is searched among all others. Near-duplicates are never compared.

    The smallest difference that so many images can show between the best model and the recommended one (or
    the next) comes first; --json and the report have it for each pair. Each metric has a 95 % interval. Two
    models that the images cannot tell apart are a tie, and the faster one is recommended. Classes that a
    trained model did not learn are judged apart, and no image that one learned from is searched for, nor a
    near-duplicate of one in DIR. The vectors shortened by PCA show how many numbers are enough.
    """
    from nearsight import evaluation
    from nearsight.services.evaluation import (
        evaluated,
        evaluation_document,
        installed_models,
        require_unlearned,
    )

    names, skipped = (list(models), []) if models else installed_models()
    read = evaluation.read_labeled_folder(folder, exclusions)
    labeled = require_unlearned(read, names)
    if labeled is not read:
        n = labeled.splits.count("test")
        run.console.note(
            f"Note: a model learned from some of these images. Only the {text_format.count(n, 'other')} are"
            " searched for, so that no model has an advantage."
        )
    with evaluated(
        labeled,
        names,
        metric=metric,
        skip_failing=not models,
        device=run.device,
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
    ) as (judged, collection):
        result = replace(judged, skipped=[*judged.skipped, *skipped])
        run.console.document(evaluation_document(result))
        _say(run, result)
        if report is not None:
            from nearsight.reports.evaluation import write_evaluation

            ids = {path: item.id for item in collection.items() for path in item.paths}
            thumbnails = collection.thumbnails(list(set(ids.values())))
            by_path = {path: thumbnails[id] for path, id in ids.items() if id in thumbnails}
            write_evaluation(report, result, by_path, str(folder))
            run.present_report(report)
        return run.report_failures(result.failed, n_images=len(result.paths))


def _say(run: Run, result: "Evaluation") -> None:
    from nearsight.evaluation import learned_sentence, metric_title

    if result.detectable_sentence:
        run.console.say(result.detectable_sentence)
        run.console.say()
    shown = dict.fromkeys(["recall@1", result.metric, "knn_accuracy", "probe_accuracy"])
    header = ["model", *map(metric_title, shown), "images/s", "numbers"]
    rows = [
        [
            model.model,
            *(
                f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})"
                for e in (model.metrics[name] for name in shown)
            ),
            f"{model.images_per_second:,.0f}",
            f"{model.dim:,}",
        ]
        for model in result.models
    ]
    for line in text_format.table(rows, header=header, right=range(1, len(header))):
        run.console.say(line)
    run.console.say()
    run.console.say(result.verdict, bold=True)
    if result.advised_dim < result.recommended.dim and not _is_truncatable(result.recommended.model):
        run.console.say(
            f"Its vectors shortened to {result.advised_dim:,} numbers by PCA are as good: nearsight index"
            f" PATH --model {text_format.printable(_shortened(result.recommended.model))} --dim"
            f" {result.advised_dim}"
        )
    if sentence := learned_sentence(result):
        run.console.say(sentence)
    for model in result.skipped:
        run.console.note(f"Not compared: {model.model}, {model.reason}")
    if result.leaks:
        run.console.note(
            f"Note: {text_format.count(len(result.leaks), 'pair')} of near-duplicates on both sides of the"
            " split, which are not compared."
        )


def _is_truncatable(name: str) -> bool:
    """Return whether ``index --dim`` truncates the model's vectors, in place of PCA."""
    from nearsight.models import find_model

    return bool(find_model(_shortened(name)).spec.matryoshka_dims)


def _shortened(name: str) -> str:
    """Return the model to give with ``--dim``: PCA takes the mean out, so there is no ``#centered``."""
    from nearsight.models.model_name import split_model_name

    base, variant = split_model_name(name)
    return replace(variant, centered=False).applied_to(base)
