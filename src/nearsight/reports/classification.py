"""The page of `nearsight classify predict`: images by their label, the doubtful ones first."""

from collections.abc import Sequence
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING

from nearsight.reports.gallery import Card, Row, Section, page, write
from nearsight.text_format import count

if TYPE_CHECKING:
    from nearsight.analyses.classification import Prediction

# A page of more takes a browser too long; all of them are in the command's answer.
MOST_IMAGES = 2_000

_FOOTER = (
    "The bar is the probability of the label among the classes, given that the image shows one of them. In"
    " each row, the least certain images come first: that is where to look for mistakes.",
    "Cards link to the originals.",
)


def write_labels(
    file: Path,
    images: "Sequence[tuple[Prediction, bytes | None]]",
    *,
    facts: dict[str, str],
    rate: float | None,
) -> None:
    """Write what images were taken for.

    Parameters
    ----------
    file : Path
        Replaced whole.
    images : sequence of (Prediction, bytes or None)
        With their thumbnails, JPEG.
    facts : dict of str to str
        Shown with the figures.
    rate : float or None
        Share of known images that may be called unknown; None where nothing is promised.
    """
    shown = nsmallest(MOST_IMAGES, images, key=lambda pair: pair[0].probability)
    by_label: dict[str, list[tuple[Prediction, bytes | None]]] = {}
    for prediction, thumbnail in shown:
        by_label.setdefault("" if prediction.unknown else prediction.label, []).append(
            (prediction, thumbnail)
        )
    # The largest class first, what is none of them last.
    order = sorted(by_label, key=lambda label: (label == "", -len(by_label[label]), label))
    rows = [_row(label, by_label[label]) for label in order]
    unknown = sum(prediction.unknown for prediction, _ in images)
    figures = {
        "Images": f"{len(images):,}",
        "Classes met": f"{sum(label != '' for label in order):,}",
        "Unknown": f"{unknown:,}",
        **({"False alarms": f"at most {rate:.1%} of known images"} if rate is not None else {}),
        **facts,
    }
    lead = "" if len(shown) == len(images) else f"The {len(shown):,} least certain of {len(images):,}."
    title = f"{count(len(images), 'image')}, labeled"
    html = page(title, [Section(rows=rows)] if rows else [], lead=lead, facts=figures, footer=_FOOTER)
    write(file, html)


def _row(label: str, images: "list[tuple[Prediction, bytes | None]]") -> Row:
    in_doubt = sorted(images, key=lambda pair: pair[0].probability)
    cards = [
        Card(p.path, thumbnail, p.probability, {"nearest": p.label} if p.unknown else {})
        for p, thumbnail in in_doubt
    ]
    name = label or "none of them"
    said = count(len(cards), "image") + (", the least certain first" if len(cards) > 1 else "")
    return Row(Card("", None, name=name, words=name, linked=False), cards, label=said)
