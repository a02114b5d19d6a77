"""Naming what is on images: `classify`, from names alone or from a few examples."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import nearsight
from nearsight import text_format
from nearsight.cli import options
from nearsight.cli.commands.index import require_some, stream, tell
from nearsight.cli.commands.search import present
from nearsight.cli.framework import BadInputError, Command, Run, Subgroup, out_file
from nearsight.errors import CollectionNotFoundError, ImageFailure
from nearsight.text_format import count, printable

if TYPE_CHECKING:
    from nearsight.analyses.classification import Classifier, Prediction
    from nearsight.embedder import Embedded

Labeled = list[tuple["Embedded", "Prediction"]]

# Images whose vectors wait to be labeled together.
_AT_ONCE = 64


@click.group(cls=Subgroup)
def classify() -> None:
    """Put names to images: from a few examples, or untrained."""


_classifier = click.option(
    "--classifier",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npz",
    help="A classifier that `classify fit --out` wrote. Default: the collection's own.",
)


@classify.command(
    cls=Command,
    json_shape="""{"classes": [{"label", "examples": int}], "method", "chosen_by",
 "accuracy": float or null, "calibration_error": float or null,
 "false_alarm_rate": float or null, "why_no_unknown", "failed": [{"path", "reason"}], "file", "model"}""",
    examples=(
        "nearsight classify fit --labels folder",
        "nearsight classify fit --labels examples/ --shots 5",
        "nearsight classify fit --labels labels.csv --out shoes.npz",
    ),
)
@click.option(
    "--labels",
    required=True,
    metavar="LABELS",
    help="`folder`: the folder that each image of the collection lies in. Or a folder that has a folder"
    " for each class, or a CSV file with the columns path and label, or a metadata key.",
)
@click.option(
    "--shots", type=click.IntRange(min=1), metavar="K", help="At most K images of each class, by chance."
)
@click.option(
    "--method",
    type=click.Choice(["auto", "prototype", "neighbors", "probe"]),
    default="auto",
    show_default=True,
    help="How classes are told apart.",
)
@click.option(
    "--false-alarm-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="R",
    default=0.05,
    show_default=True,
    help="Share of images of these classes that may be called unknown.",
)
@options.where
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=out_file(".npz"),
    metavar="FILE.npz",
    help="Keep it there instead of in the collection; then no collection is needed.",
)
@options.model
@options.device
@click.pass_obj
def fit(
    run: Run,
    /,
    *,
    labels: str,
    shots: int | None,
    method: str,
    false_alarm_rate: float,
    where: str | None,
    out: Path | None,
    model: str | None,
) -> int:
    """Learn classes from a few images that have a label.

    Images of the collection are used as they are; others are embedded, and do not come in. From 20
    examples a class on, the examples choose the method. Fewer than the stated rate needs (19 in all for
    5 %) promise nothing: then no image is called unknown, and this says so.
    """
    from nearsight.analyses.classification import fit_alone

    collection = None
    with suppress(CollectionNotFoundError):
        collection = run.open_collection()
    if collection is None and out is None:
        raise BadInputError(
            f"there is no collection at {run.collection} to keep the classifier in; name a file:"
            " --out FILE.npz"
        )
    if collection is not None and model is not None:
        raise click.UsageError("the model is that of the collection; leave --model out")
    parameters: dict[str, Any] = {
        "shots": shots,
        "method": method,
        "false_alarm_rate": false_alarm_rate,
    }
    named = _labels(collection, labels, where)
    if collection is None:
        made = fit_alone(_embedder(run, model), named, file=out or "", **parameters)
    else:
        made = collection.fit_classifier(named, file=out, progress=run.console.progress, **parameters)
    _tell_fit(run, made, out or Path(run.collection) / "classifier.npz")
    return tell(run, made.failed)


def _embedder(run: Run, model: str | None, **options: Any) -> "nearsight.Embedder":
    from nearsight.models import DEFAULT_MODEL

    return nearsight.Embedder(
        model or DEFAULT_MODEL,
        device=run.device,
        cache_dir=run.settings.cache_dir,
        progress=run.console.progress,
        **options,
    )


def _labels(collection: "nearsight.Collection | None", given: str, where: str | None) -> dict[str, str]:
    """Read labels by id or path from what `--labels` names."""
    from nearsight.analyses.classification import labels_by_folder, labels_by_key

    path = Path(given)
    if given == "folder" and collection is not None:
        return labels_by_folder(collection, where)
    if path.is_dir():
        return _labels_in(path)
    if path.is_file():
        return _labels_from(path)
    if collection is not None and given in collection.info()["metadata"]:
        return labels_by_key(collection, given, where)
    keys = ", ".join(collection.info()["metadata"]) if collection is not None else ""
    raise BadInputError(
        f"--labels {given!r} is no folder, no file"
        + (f" and no metadata key (there are: {keys or 'none'})" if collection is not None else "")
        + "; name a folder of classes, a CSV file with the columns path and label, or write --labels folder"
    )


def _labels_in(folder: Path) -> dict[str, str]:
    """Return the name of the folder right below `folder` that each image lies in."""
    from nearsight import images

    found: dict[str, str] = {}
    for source in images.find([folder]):
        if not isinstance(source, ImageFailure):
            parts = Path(source.path).relative_to(folder.absolute()).parts
            if len(parts) > 1:
                found[source.path] = parts[0]
    if not found:
        raise BadInputError(f"{folder} has no folders with images; make one for each class")
    return found


def _labels_from(file: Path) -> dict[str, str]:
    from nearsight.cli.csv_tables import read_column

    return read_column(file, "label")


def _tell_fit(run: Run, made: "Classifier", file: Path) -> None:
    estimator = made.estimator
    judged = estimator.left_out_.get(estimator.method_, {})
    promised = estimator.threshold_.false_alarm_rate if estimator.threshold_ else None
    run.console.document(
        {
            "classes": [{"label": label, "examples": n} for label, n in made.counts.items()],
            "method": estimator.method_,
            "chosen_by": estimator.chosen_by_,
            "accuracy": judged.get("accuracy"),
            "calibration_error": judged.get("calibration_error"),
            "false_alarm_rate": promised,
            "why_no_unknown": estimator.why_no_threshold_,
            "failed": [asdict(failure) for failure in made.failed],
            "file": str(file),
            "model": made.model,
        }
    )
    n = sum(made.counts.values())
    run.console.say(
        f"{count(len(made.counts), 'class', 'classes')} from {count(n, 'image')}, told apart by"
        f" {estimator.method_} (chosen by {estimator.chosen_by_}); kept in {printable(str(file))}"
    )
    if judged:
        run.console.say(f"Of examples left out, {judged['accuracy']:.0%} were labeled right")
    if promised is None:
        run.console.note(f"Nothing will be called unknown: {estimator.why_no_threshold_}", fg="yellow")


@classify.command(
    cls=Command,
    json_shape="""{"predictions": [{"path", "label", "probability": float, "unknown": bool}],
 "failed": [{"path", "reason"}], "model", "false_alarm_rate": float or null}""",
    examples=(
        "nearsight classify predict new-photos/ --open",
        "nearsight classify predict --classifier shoes.npz photo.jpg --json",
        'nearsight classify predict --names "dress,hat,shoes" photos/',
        "nearsight classify predict --names @names.txt photos/ --json",
    ),
)
@options.paths
@click.option(
    "--names",
    multiple=True,
    metavar="NAME,...",
    help="Untrained: what to choose from; @FILE has a name on each line. Repeatable.",
)
@_classifier
@options.page("Write a page of the images by label.")
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
    file: Path | None,
    out: Path | None,
    show: bool,
    model: str | None,
    allow_remote: bool,
    threads: int | None,
    fail_fast: bool,
    **limits: float | None,
) -> int:
    """Label images.

    With what `classify fit` learned, or untrained with --names.

    The probability is that of the label among the classes. `unknown` images are probably none of them:
    fewer of the known classes are called so than the rate given to `fit`, or, with --names, those that common
    words fit better than any of the names.
    """
    require_some(paths)
    run.fail_fast = fail_fast
    if names and file:
        raise click.UsageError("give --names or --classifier, not both")
    label, model, rate = _from_names(run, names, model) if names else _from_examples(run, file, model)
    embedder = _embedder(run, model, n_threads=threads, limits=options.limits_of(**limits))
    failed: list[ImageFailure] = []
    wants_page = out is not None or show
    results = stream(
        embedder, list(paths), allow_remote=allow_remote, fail_fast=fail_fast, thumbnails=wants_page
    )
    found = list(_labeled(results, lambda some: label(some, embedder), failed))
    run.console.document(
        {
            "predictions": [as_prediction(prediction) for _, prediction in found],
            "failed": [asdict(failure) for failure in failed],
            "model": embedder.backend.spec.id,
            "false_alarm_rate": rate,
        }
    )
    _say(run, [prediction for _, prediction in found])
    if wants_page:
        from nearsight.reports.classification import write_predictions

        page = out or run.settings.cache_dir / "labels.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        labeled = [(prediction, image.thumbnail) for image, prediction in found]
        write_predictions(page, labeled, model=embedder.backend.spec.id, false_alarm_rate=rate)
        present(run, page, show=show)
    return tell(run, failed, some=bool(found))


Labeller = Callable[[list["Embedded"], "nearsight.Embedder"], list["Prediction"]]


def _from_names(run: Run, names: tuple[str, ...], model: str | None) -> tuple[Labeller, str, float | None]:
    from nearsight.analyses.classification import Prediction
    from nearsight.models import DEFAULT_MODEL, load_text_encoder
    from nearsight.models.text.zero_shot import ZeroShotClassifier

    model = model or DEFAULT_MODEL
    tower = load_text_encoder(model, cache_dir=run.settings.cache_dir)
    untrained = ZeroShotClassifier(tower, names_of(names))

    def label(images: list["Embedded"], embedder: "nearsight.Embedder") -> list[Prediction]:
        found = untrained.predict(_stacked(images))
        return [
            Prediction(image.id, image.source.path, name, float(p.max()), bool(unknown))
            for image, name, p, unknown in zip(
                images, found.labels, found.probabilities, found.unknown, strict=True
            )
        ]

    return label, model, None


def _from_examples(run: Run, file: Path | None, model: str | None) -> tuple[Labeller, str, float | None]:
    from nearsight.analyses import classification

    given, file = file, file or Path(run.collection) / classification.FILENAME
    if given is None and not file.is_file():
        raise click.UsageError(
            f"there is nothing to choose from: {file} does not exist. Fit a classifier on a few images"
            " (nearsight classify fit --labels ...), or choose untrained: --names NAME,..."
        )
    fitted = classification.Classifier.load(file)
    place = classification.model_of(Path(run.collection), fitted)

    def label(images: list["Embedded"], embedder: "nearsight.Embedder") -> "list[Prediction]":
        fitted.require(embedder.backend.spec.fingerprint)
        return fitted.predict(_stacked(images), [p.id for p in images], [p.source.path for p in images])

    threshold = fitted.estimator.threshold_
    if threshold is None:
        run.console.note(f"Nothing is called unknown: {fitted.estimator.why_no_threshold_}", fg="yellow")
    return label, model or place, threshold.false_alarm_rate if threshold else None


def _stacked(images: list["Embedded"]) -> Any:
    import numpy as np

    return np.array([image.vector for image in images], np.float32)


def _labeled(
    results: "Iterator[Embedded | ImageFailure]",
    label: "Callable[[list[Embedded]], list[Prediction]]",
    failed: list[ImageFailure],
) -> "Iterator[tuple[Embedded, Prediction]]":
    waiting: list[Embedded] = []
    for result in results:
        if isinstance(result, ImageFailure):
            failed.append(result)
            continue
        waiting.append(result)
        if len(waiting) == _AT_ONCE:
            yield from zip(waiting, label(waiting), strict=True)
            waiting = []
    if waiting:
        yield from zip(waiting, label(waiting), strict=True)


def as_prediction(prediction: "Prediction") -> dict[str, Any]:
    """Return a prediction as the contract writes it."""
    return {
        "path": prediction.path,
        "label": prediction.label,
        "probability": round(prediction.probability, 4),
        "unknown": prediction.unknown,
    }


def _say(run: Run, found: "list[Prediction]") -> None:
    # The probability is that of the nearest class, which an unknown image does not have.
    rows = [
        ["unknown", "-", p.path] if p.unknown else [p.label, f"{p.probability:.2f}", p.path] for p in found
    ]
    for line in text_format.table(rows, header=("label", "probability", "path") if rows else (), right=(1,)):
        run.console.say(line)


@classify.command(
    cls=Command,
    json_shape="""{"suggestions": [{"id", "path", "label" or null, "probability": float or null}]}""",
    examples=("nearsight classify suggest -n 20",),
)
@click.option(
    "-n", "n", type=click.IntRange(min=1), metavar="N", default=10, show_default=True, help="How many."
)
@_classifier
@options.where
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    callback=out_file(".csv"),
    metavar="FILE.csv",
    help="Write a table to fill in, for `classify fit --labels`.",
)
@click.pass_obj
def suggest(run: Run, /, *, n: int, file: Path | None, where: str | None, out: Path | None) -> None:
    """Say which images of the collection to label next.

    Those whose label is most in doubt, and that stand for many others; before anything was fitted, those that
    stand for most.
    """
    collection = run.open_collection()
    found = collection.suggest_labels(n, where=where, file=file)
    run.console.document(
        {
            "suggestions": [
                {
                    "id": p.id,
                    "path": p.path,
                    "label": p.label or None,
                    "probability": round(p.probability, 4) if p.label else None,
                }
                for p in found
            ]
        }
    )
    rows = [[p.label or "-", f"{p.probability:.2f}" if p.label else "-", p.path or p.id] for p in found]
    header = ("now", "probability", "path") if rows else ()
    for line in text_format.table(rows, header=header, right=(1,)):
        run.console.say(line)
    if not rows:
        all_done = collection.count(where) > 0
        run.console.note("All of them have a label already." if all_done else text_format.nothing(where))
    if out:
        from nearsight.cli.csv_tables import write_column

        write_column(out, "label", [p.path for p in found if p.path])
        if rows:
            run.console.note(f"Fill in the column label of {printable(str(out))}")


def names_of(given: tuple[str, ...]) -> list[str]:
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
