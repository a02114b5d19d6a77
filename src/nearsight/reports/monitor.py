"""The report of `nearsight monitor`: new images of kinds that the collection does not know."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nearsight.collection import Collection, Item
from nearsight.reports.gallery import Card, Section, write_gallery


def write_monitor(
    file: Path,
    collection: Collection,
    items: Sequence[Item],
    *,
    facts: Mapping[str, str],
    answers: Sequence[Sequence[str]],
    growth: Sequence[Sequence[str]],
    advice: Sequence[str],
) -> None:
    """Write the report of one run.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    items : sequence of Item
        New images beyond the limit, the most unusual first.
    facts : mapping of str to str
    answers : sequence of sequence of str
        Question, answer, what was measured, p.
    growth : sequence of sequence of str
        Value, share of new images, share of known images, p.
    advice : sequence of str
    """
    thumbnails = collection.thumbnails([item.id for item in items])
    cards = [
        Card(item.path, thumbnails.get(item.id), metadata={**item.exif(), **item.metadata}) for item in items
    ]
    lead = "The farthest from all known images first. About 5 % of known images lie as far."
    sections = [
        Section(
            "Answers",
            "A single upload always differs, so only two runs in a row, over other new images, count.",
            table=[["question", "answer", "measured", "p"], *answers],
        ),
        Section(
            "More frequent than before",
            "Fisher's exact test, adjusted for the number of values (Holm).",
            table=[["value", "of new images", "of known images", "p"], *growth],
        ),
        Section("Beyond the limit", lead if cards else "There are none.", grid=cards),
    ]
    write_gallery(
        file,
        "New images beside known ones",
        [section for section in sections if growth or section is not sections[1]],
        lead=" ".join(advice),
        facts=dict(facts),
        footer=("Cards link to the originals.",),
    )
