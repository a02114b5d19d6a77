"""`classify predict`."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import nearsight
from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.framework import Command, Run
from nearsight.errors import ImageFailure
from nearsight.text_format import count

if TYPE_CHECKING:
    from nearsight.analyses.classification import Prediction
    from nearsight.images import Exclusions


@click.command(
    cls=Command,
    json_shape="""{"predictions": [{"path", "label", "probability": float, "unknown": bool}],
 "failed": [{"path", "reason"}], "model", "false_alarm_rate": float or null, "differences": [str]}""",
    examples=(
        "nearsight classify predict new-photos/ --open",
        "nearsight classify predict --from shoes.npz photo.jpg --json",
        'nearsight classify predict --names "dress,hat,shoes" photos/',
        "nearsight classify predict photos/ --save-as kind && nearsight export kinds.csv",
    ),
)
@options.paths
@options.names(
    "Class names to choose from, without examples (zero-shot). @FILE has one name per line. Repeatable."
)
@options.from_file("The classifier that `classify fit --to` saved. Default: the collection's own.")
@click.option(
    "--save-as", metavar="KEY", help="Write the labels of images of the collection into their metadata."
)
@click.option("--overwrite", is_flag=True, help="With --save-as: allow a KEY that holds metadata already.")
@options.report("predictions", "Write an HTML report of the images by label.")
@options.model
@options.device
@options.walk
@options.limits
@click.pass_obj
def predict(
    run: Run,
    /,
    *,
    paths: tuple[str, ...],
    names: list[str] | None,
    from_file: Path | None,
    save_as: str | None,
    overwrite: bool,
    report: Path | None,
    model: str | None,
    exclusions: "Exclusions",
    allow_remote: bool,
    threads: int | None,
    **limits: float | None,
) -> int:
    """Predict the labels of images.

    By default, the classifier is the one that `classify fit` saved in the collection. With --names, it is a
    zero-shot classifier, which needs no examples. The probability is that of the label among the classes. An
    unknown image probably belongs to none of them. `classify fit --false-alarm-rate` limits the share of
    known images that are called unknown. With --names, an image is unknown if common words describe it better
    than any of the names.
    """
    from nearsight.analyses.image_conditions import ConditionComparison
    from nearsight.services import labels
    from nearsight.services.collections import embed_paths

    if names is not None and from_file is not None:
        raise click.UsageError("--names and --from name two classifiers; give only one of them")
    if overwrite and save_as is None:
        raise click.UsageError("--overwrite applies to --save-as KEY; add it")
    collection = None if save_as is None else run.open_collection()
    if collection is not None and save_as is not None:
        labels.require_free_key(collection, save_as, overwrite=overwrite)
    if names is not None:
        labeler = labels.zero_shot_labeler(names, model=model, cache_dir=run.settings.cache_dir)
    else:
        labeler = labels.fitted_labeler(run.collection_files, file=from_file, model=model)
        if labeler.why_no_unknown:
            run.console.note(f"No image is called unknown: {labeler.why_no_unknown}", fg="yellow")
    embedder = nearsight.Embedder(
        labeler.model,
        device=run.device,
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
        n_threads=threads,
        limits=options.limits_of(**limits),
    )
    comparison = ConditionComparison(labeler.conditions)
    skipped: Counter[str] = Counter()
    results = embed_paths(
        embedder,
        paths,
        allow_remote=allow_remote,
        exclusions=exclusions,
        skipped=skipped,
        on_error=run.on_error,
        thumbnails=report is not None or labeler.conditions is not None,
    )
    predictions: list[tuple[Prediction, bytes | None]] = []
    failed: list[ImageFailure] = []
    for result in labels.label_images(labeler, embedder, results, comparison):
        if isinstance(result, ImageFailure):
            failed.append(result)
        else:
            predictions.append(result)
    model_id = embedder.backend.spec.id
    run.console.document(
        {
            "predictions": [_document(prediction) for prediction, _ in predictions],
            "failed": [asdict(failure) for failure in failed],
            "model": model_id,
            "false_alarm_rate": labeler.false_alarm_rate,
            "differences": comparison.notes,
        }
    )
    _say(run, [prediction for prediction, _ in predictions])
    if comparison.notes:
        run.console.note(
            "Unlike the images that the classifier was fitted on, so labels may be wrong:", fg="yellow"
        )
        for note in comparison.notes:
            run.console.note(f"  {note}", fg="yellow")
    if collection is not None and save_as is not None:
        n_saved = labels.save_labels(collection, [p for p, _ in predictions], save_as, overwrite=overwrite)
        run.console.note(f"{n_saved:,} of {count(len(predictions), 'image')} are in the collection.")
    if report is not None:
        from nearsight.reports.classification import write_predictions

        write_predictions(report, predictions, model=model_id, false_alarm_rate=labeler.false_alarm_rate)
        run.present_report(report)
    run.report_skipped(skipped, is_result=False)
    return run.report_failures(failed, n_images=len(predictions))


def _document(prediction: "Prediction") -> dict[str, Any]:
    return {
        "path": prediction.path,
        "label": prediction.label,
        "probability": round(prediction.probability, 4),
        "unknown": prediction.unknown,
    }


def _say(run: Run, predictions: "list[Prediction]") -> None:
    # The probability is that of the nearest class, to which an unknown image does not belong.
    rows = [
        ["unknown", "-", p.path] if p.unknown else [p.label, f"{p.probability:.2f}", p.path]
        for p in predictions
    ]
    for line in text_format.table(rows, header=("label", "probability", "path") if rows else (), right=(1,)):
        run.console.say(line)
