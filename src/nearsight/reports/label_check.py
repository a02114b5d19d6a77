"""The report of `nearsight classify check`: suspect labels, the most probable errors first, and confusion."""

from collections.abc import Sequence
from pathlib import Path

from nearsight.analyses.label_check import LabelCheck, Suspect
from nearsight.collection import Collection
from nearsight.reports.gallery import Card, Row, Section, label_row, write_gallery
from nearsight.text_format import count

# A browser takes too long to open more; the command's answer lists all.
MAX_IMAGES = 1_000
# A wider table cannot be read.
MAX_CLASSES = 60

_FOOTER = (
    "Each image was classified by the others, never by itself. The bar is the probability of the suggested"
    " label. Some suspects are merely unusual: look before you correct.",
    "Cards link to the originals.",
)


def write_label_check(file: Path, collection: Collection, check: LabelCheck) -> None:
    """Write the report of suspect labels.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    check : LabelCheck
    """
    shown = check.suspects[:MAX_IMAGES]
    stored = {item.id for item in collection.items(ids=[suspect.id for suspect in shown])}
    thumbnails = collection.thumbnails([suspect.id for suspect in shown if suspect.id in stored])
    likely = [suspect for suspect in shown if suspect.likely]
    others = [suspect for suspect in shown if not suspect.likely]
    sections = [
        Section("Probably wrong", "The most probable errors first.", _rows(likely, thumbnails)),
        Section(
            "Doubtful",
            "They look more like another class, but most of these labels are right.",
            _rows(others, thumbnails),
            is_folded=bool(likely),
        ),
    ]
    sections = [section for section in sections if section.rows]
    if len(check.classes) <= MAX_CLASSES:
        sections.append(_confusion(check))
    facts = {
        "Images": f"{check.n_images:,}",
        "Classes": f"{len(check.classes):,}",
        "Cross-validated accuracy": f"{check.accuracy:.1%}",
        "Wrong labels, by estimate": f"{check.n_expected:,}",
        "Collection": collection.uri,
    }
    for cut in check.cuts:
        if cut.precision is not None:
            facts[cut.name.capitalize()] = f"{cut.n:,}, {cut.precision:.0%} of them wrong by estimate"
    is_part = len(shown) < len(check.suspects)
    lead = f"The {len(shown):,} most suspect of {len(check.suspects):,}." if is_part else ""
    title = f"{count(len(likely), 'label')} probably wrong" if likely else "No label is probably wrong"
    write_gallery(file, title, sections, lead=lead, facts=facts, footer=_FOOTER)


def _rows(suspects: Sequence[Suspect], thumbnails: dict[str, bytes]) -> list[Row]:
    groups: dict[str, list[Card]] = {}
    for suspect in suspects:
        card = Card(
            suspect.path,
            thumbnails.get(suspect.id),
            suspect.probability,
            {"label": suspect.label, "looks like": suspect.suggested},
        )
        groups.setdefault(suspect.label, []).append(card)
    return [label_row(label, cards, f"{len(cards):,} with this label") for label, cards in groups.items()]


def _confusion(check: LabelCheck) -> Section:
    names = [facts.label for facts in check.classes]
    table = [["label", *names, "accuracy"]]
    for facts, line in zip(check.classes, check.confusion, strict=True):
        accuracy = "not judged" if facts.accuracy is None else f"{facts.accuracy:.0%}"
        table.append([facts.label, *(str(n) if n else "·" for n in line), accuracy])
    lead = "Rows are labels, columns what the other images say."
    return Section("Confusion matrix", lead, table=table)
