"""The report of `nearsight classify predict`: images by label, the least certain first."""

from collections.abc import Sequence
from heapq import nsmallest
from pathlib import Path

from nearsight.analyses.classification import Prediction
from nearsight.collection import Collection
from nearsight.reports.gallery import Card, Row, Section, label_row, write_gallery
from nearsight.text_format import count

# A browser takes too long to open more; the command's answer lists all.
MAX_IMAGES = 2_000

_FOOTER = (
    "The bar is the probability of the label, given that the image shows one of the classes. In each row, the"
    " least certain images come first: look for mistakes there.",
    "Cards link to the originals.",
)

_SUGGESTION_FOOTER = (
    "The bar is the probability of the predicted label. Write your labels into the table of `classify suggest"
    " --out`, which has the same order, and give it to `classify fit --labels`. Cards link to the originals.",
)

ImagePrediction = tuple[Prediction, bytes | None]


def write_predictions(
    file: Path,
    predictions: Sequence[ImagePrediction],
    *,
    model: str,
    false_alarm_rate: float | None,
) -> None:
    """Write the report of predicted labels.

    Parameters
    ----------
    file : Path
        Replaced whole.
    predictions : sequence of (Prediction, bytes or None)
        Each with the image's JPEG thumbnail.
    model : str
        Name of the embedding model.
    false_alarm_rate : float or None
        Share of images of the known classes that may be called unknown; None where no rate is guaranteed.
    """
    shown = nsmallest(MAX_IMAGES, predictions, key=lambda pair: pair[0].probability)
    by_label: dict[str, list[ImagePrediction]] = {}
    for pair in shown:
        by_label.setdefault("" if pair[0].unknown else pair[0].label, []).append(pair)
    # The largest class first, unknown images last.
    labels = sorted(by_label, key=lambda label: (label == "", -len(by_label[label]), label))
    facts = {
        "Images": f"{len(predictions):,}",
        "Predicted classes": f"{sum(label != '' for label in labels):,}",
        "Unknown": f"{sum(prediction.unknown for prediction, _ in predictions):,}",
    }
    if false_alarm_rate is not None:
        facts["False alarms"] = f"at most {false_alarm_rate:.1%} of known images"
    facts["Model"] = model
    lead = (
        f"The {len(shown):,} least certain of {len(predictions):,}." if len(shown) < len(predictions) else ""
    )
    rows = [_row(label, by_label[label]) for label in labels]
    sections = [Section(rows=rows)] if rows else []
    title = f"Labels of {count(len(predictions), 'image')}"
    write_gallery(file, title, sections, lead=lead, facts=facts, footer=_FOOTER)


def write_suggestions(file: Path, collection: Collection, suggestions: Sequence[Prediction]) -> None:
    """Write the report of images to label next, in their order.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    suggestions : sequence of Prediction
        The most useful first; without a label where no classifier is fitted.
    """
    thumbnails = collection.thumbnails([p.id for p in suggestions])
    cards = [
        Card(
            p.path,
            thumbnails.get(p.id),
            p.probability if p.label else None,
            {"unlike all classes; nearest" if p.unknown else "predicted": p.label} if p.label else {},
        )
        for p in suggestions
    ]
    facts = {"Collection": collection.uri, "Model": collection.spec.id}
    title = f"{count(len(cards), 'image')} to label next"
    lead = "In this order: labels of the first images teach a classifier most."
    sections = [Section(grid=cards)] if cards else []
    if not cards:
        title, lead = "Nothing to label", "All images have a label already."
    write_gallery(file, title, sections, lead=lead, facts=facts, footer=_SUGGESTION_FOOTER)


def _row(label: str, predictions: Sequence[ImagePrediction]) -> Row:
    cards = [
        Card(p.path, thumbnail, p.probability, {"nearest class": p.label} if p.unknown else {})
        for p, thumbnail in predictions
    ]
    caption = count(len(cards), "image") + (", the least certain first" if len(cards) > 1 else "")
    return label_row(label or "unknown", cards, caption)
