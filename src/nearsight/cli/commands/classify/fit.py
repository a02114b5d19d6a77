"""`classify fit`."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

import nearsight
from nearsight.cli import options
from nearsight.cli.commands.classify.labels import contradictions, read
from nearsight.cli.commands.classify.labels import labels as labels_options
from nearsight.cli.framework import BadInputError, Command, Run
from nearsight.errors import CollectionNotFoundError
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.classification import FittedClassifier
    from nearsight.images import Exclusions


@click.command(
    cls=Command,
    json_shape="""{"classes": [{"label", "examples": int}], "method", "chosen_by", "unlabeled": int,
 "accuracy": float or null, "calibration_error": float or null,
 "false_alarm_rate": float or null, "why_no_unknown", "failed": [{"path", "reason"}], "file", "model"}""",
    examples=(
        "nearsight classify fit --labels folder",
        "nearsight classify fit --labels examples/ --examples-per-class 5",
        "nearsight classify fit --labels labels.csv --to shoes.npz",
        "nearsight classify fit --labels labels.csv --use-unlabeled",
    ),
)
@labels_options
@click.option(
    "--examples-per-class",
    type=click.IntRange(min=1),
    metavar="N",
    help="Use at most N random examples of each class.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "prototype", "neighbors", "probe", "label-spreading"]),
    help="Classifier. prototype: nearest class mean; neighbors: k nearest neighbors; probe: linear probe, by"
    " ridge regression; label-spreading: a probe that learns from images without a label, too."
    "  [default: auto]",
)
@click.option(
    "--use-unlabeled",
    is_flag=True,
    help="Learn from the collection's images without a label, too. It helps most with one to five examples of"
    " each class.",
)
@options.false_alarm_rate("Share of images of the known classes that may be called unknown.  [default: 0.05]")
@options.where
@options.to_file("Save the classifier to this file instead of in the collection.", ".npz")
@options.model
@options.device
@options.walk
@options.strict
@click.pass_obj
def fit(
    run: Run,
    /,
    *,
    labels: str,
    doubtful: str,
    examples_per_class: int | None,
    method: str | None,
    use_unlabeled: bool,
    false_alarm_rate: float | None,
    where: str | None,
    to_file: Path | None,
    model: str | None,
    exclusions: "Exclusions",
) -> int:
    """Fit a classifier on a few labeled images.

    At least two classes are needed; of one, learn with `anomaly fit`. The vectors of images in the collection
    are reused. Other images are embedded, but not added. With at least 20 examples per class,
    cross-validation chooses the method. If there are too few examples for the stated rate (19 in all for
    0.05), no image is called unknown, and a note says so. With --to, no collection is needed.
    """
    from nearsight.analyses import classification
    from nearsight.models import DEFAULT_MODEL

    collection = None
    with suppress(CollectionNotFoundError):
        collection = run.open_collection()
    if collection is None and to_file is None:
        raise BadInputError(
            f"there is no collection at {run.shown_collection} to save the classifier in; name a file:"
            " --to FILE.npz"
        )
    if collection is not None and model is not None:
        raise click.UsageError("the collection has its model; leave out --model")
    if collection is None and use_unlabeled:
        raise click.UsageError("--use-unlabeled takes images from a collection; index them first")
    if method == "label-spreading" and not use_unlabeled:
        raise click.UsageError("--method label-spreading needs --use-unlabeled")
    if use_unlabeled and method not in (None, "auto", "label-spreading"):
        raise click.UsageError(
            f"--method {method} does not learn from images without a label; leave out --use-unlabeled"
        )
    fit_options = options.without_none(
        examples_per_class=examples_per_class, method=method, false_alarm_rate=false_alarm_rate
    )
    fit_options["contradictions"] = contradictions(doubtful)
    label_by_image = read(run, collection, labels, doubtful, where, exclusions)
    if collection is not None:
        file = to_file or collection.directory / classification.FILENAME
        classifier = collection.fit_classifier(
            label_by_image,
            file=file,
            use_unlabeled=use_unlabeled,
            progress=run.console.progress,
            **fit_options,
        )
    else:
        file = to_file or Path()
        embedder = nearsight.Embedder(
            model or DEFAULT_MODEL,
            device=run.device,
            cache_dir=run.settings.cache_dir,
            progress=run.console.progress,
        )
        classifier = classification.fit_classifier_on_files(
            embedder, label_by_image, file=file, **fit_options
        )
    _say(run, classifier, file)
    return run.report_failures(classifier.failed, n_images=sum(classifier.counts.values()))


def _say(run: Run, classifier: "FittedClassifier", file: Path) -> None:
    from nearsight.services import documents

    estimator = classifier.estimator
    scores = estimator.left_out_.get(estimator.method_, {})
    threshold = estimator.threshold_
    document = documents.classifier_document(classifier)
    run.console.document({**document, "file": str(file), "model": classifier.model})
    images = count(sum(classifier.counts.values()), "image")
    if estimator.method_ == "label-spreading":
        images += f" and {count(estimator.n_unlabeled_, 'image')} without a label"
    run.console.say(
        f"Fitted {count(len(classifier.counts), 'class', 'classes')} on {images} with the method"
        f" {estimator.method_} (chosen by {estimator.chosen_by_}); saved in {printable(str(file))}"
    )
    if scores:
        run.console.say(f"Cross-validated accuracy: {scores['accuracy']:.0%}")
    if threshold is None:
        run.console.note(f"No image will be called unknown: {estimator.why_no_threshold_}", fg="yellow")
