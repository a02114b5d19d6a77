"""The report of `nearsight anomaly score`: defects first, then the threshold, then good images, folded."""

import io
from pathlib import Path

from nearsight import text_format
from nearsight.anomaly import AnomalyResult
from nearsight.anomaly.heatmap import overlay, reason
from nearsight.estimators.conformal import Threshold
from nearsight.reports.gallery import Card, Section, label_row, write_gallery
from nearsight.text_format import count

# A browser takes too long to open more; the command's answer lists all.
MAX_IMAGES = 1_000

_FOOTER = (
    "Heatmaps: yellow begins at half the threshold, a line is drawn at the threshold, and violet is twice the"
    " threshold or more.",
    "A score is in standard deviations of good images. Cards link to the originals.",
)


class AnomalyReport:
    """Collects results one by one and keeps the most anomalous images for the report."""

    def __init__(self) -> None:
        self._cards: list[tuple[float, bool, Card]] = []
        self._n_defects = self._n_images = 0

    def add(self, result: AnomalyResult) -> None:
        """Add the result of one image, which must have been scored with ``heatmaps=True``."""
        self._n_images += 1
        self._n_defects += result.defect
        metadata = {
            "score": text_format.score(result.score),
            "why": reason(result),
            "note": "; ".join(result.notes) or None,
        }
        jpeg = io.BytesIO()
        overlay(result).save(jpeg, "JPEG", quality=82)
        card = Card(result.path, jpeg.getvalue(), metadata=metadata)
        self._cards.append((result.score, result.defect, card))
        if len(self._cards) > 2 * MAX_IMAGES:
            self._cards = self._most_anomalous()

    def write(self, file: Path, threshold: Threshold, *, model: str) -> None:
        """Write the report.

        Parameters
        ----------
        file : Path
            Replaced whole.
        threshold : Threshold
            Scores above its value are defects.
        model : str
            Name of the embedding model.
        """
        cards = self._most_anomalous()
        facts = {
            "Images": f"{self._n_images:,}",
            "Defects": f"{self._n_defects:,}",
            "Threshold": text_format.score(threshold.value),
            "Expected false alarms": f"{threshold.expected_rate:.1%} of good images",
            "Model": model,
        }
        title = f"{count(self._n_defects, 'defect')} in {count(self._n_images, 'image')}"
        is_part = len(cards) < self._n_images
        lead = f"The {len(cards):,} most anomalous images of {self._n_images:,}." if is_part else ""
        sections = _sections(cards, threshold)
        write_gallery(file, title, sections, lead=lead, facts=facts, footer=_FOOTER)

    def _most_anomalous(self) -> list[tuple[float, bool, Card]]:
        return sorted(self._cards, key=lambda entry: -entry[0])[:MAX_IMAGES]


def _sections(cards: list[tuple[float, bool, Card]], threshold: Threshold) -> list[Section]:
    defects, good = ([card for _, defect, card in cards if defect is wanted] for wanted in (True, False))
    sections = []
    if defects:
        row = label_row("defects", defects, count(len(defects), "image"))
        sections.append(Section("Defects", "The highest scores come first.", [row]))
    if good:
        row = label_row("no defect", good, count(len(good), "image"))
        divider = (
            f"Threshold {text_format.score(threshold.value)}: on average {threshold.expected_rate:.1%} of"
            " good images lie above it"
        )
        title = f"No defect: {count(len(good), 'image')}"
        sections.append(
            Section(title, "The nearest to the threshold come first.", [row], is_folded=True, divider=divider)
        )
    return sections
