"""The page of `nearsight anomaly score`: defects first, with what is unusual colored, and why in words."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nearsight.anomaly.heatmap import overlay, reason
from nearsight.reports.gallery import Card, Row, Section, page, write
from nearsight.text_format import count

if TYPE_CHECKING:
    from nearsight.anomaly import AnomalyResult
    from nearsight.estimators.conformal import Threshold

# A page of more takes a browser too long; all of them are in the command's answer.
MOST_IMAGES = 1_000

_FOOTER = (
    "Yellow begins at half the threshold, a line runs where it is reached, and violet is twice that or more."
    " The highest scores come first.",
    "A score is in standard deviations of good images. Cards link to the originals.",
)


class Inspected:
    """The images of a page, the most unusual ones of however many are added."""

    def __init__(self) -> None:
        self._cards: list[tuple[float, bool, Card]] = []
        self._n_defects = self._n = 0

    def add(self, inspection: "AnomalyResult") -> None:
        """Take an image in."""
        self._n += 1
        self._n_defects += inspection.defect
        facts = {"score": f"{inspection.score:,.2f}", "why": reason(inspection)}
        small = io.BytesIO()
        overlay(inspection).save(small, "JPEG", quality=82)
        card = Card(inspection.path, small.getvalue(), metadata=facts)
        self._cards.append((inspection.score, inspection.defect, card))
        if len(self._cards) > 2 * MOST_IMAGES:
            self._cards = self._most_unusual()

    def write(self, file: Path, threshold: "Threshold", *, model: str) -> None:
        """Write the page.

        Parameters
        ----------
        file : Path
            Replaced whole.
        threshold : Threshold
            What a score was compared with.
        model : str
            Whose features were compared.
        """
        shown = self._most_unusual()
        figures = {
            "Images": f"{self._n:,}",
            "Defects": f"{self._n_defects:,}",
            "Threshold": f"{threshold.value:.3g}",
            "False alarms": f"{threshold.expected_rate:.1%} of good images",
            "Model": model,
        }
        rows = [
            row
            for row in (
                _row("defects", [card for _, defect, card in shown if defect]),
                _row("no defect", [card for _, defect, card in shown if not defect]),
            )
            if row.hits
        ]
        title = f"{count(self._n_defects, 'defect')} in {count(self._n, 'image')}"
        lead = "" if len(shown) == self._n else f"The {len(shown):,} most unusual images of {self._n:,}."
        html = page(title, [Section(rows=rows)] if rows else [], lead=lead, facts=figures, footer=_FOOTER)
        write(file, html)

    def _most_unusual(self) -> list[tuple[float, bool, Card]]:
        return sorted(self._cards, key=lambda entry: -entry[0])[:MOST_IMAGES]


def _row(name: str, cards: Sequence[Card]) -> Row:
    return Row(Card("", None, name=name, words=name, linked=False), cards, label=count(len(cards), "image"))
