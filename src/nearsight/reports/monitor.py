"""The report of `nearsight monitor`: new images of kinds that the collection does not know."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nearsight.collection import Collection, Item
from nearsight.reports.gallery import Card, Section, write_gallery


def write_monitor(
    file: Path,
    collection: Collection,
    items: Sequence[Item],
    facts: Mapping[str, str],
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
    advice : sequence of str
    """
    thumbnails = collection.thumbnails([item.id for item in items])
    cards = [
        Card(item.path, thumbnails.get(item.id), metadata={**item.exif(), **item.metadata}) for item in items
    ]
    lead = "The farthest from all known images first. About 5 % of known images lie as far."
    section = Section("Beyond the limit", lead if cards else "There are none.", grid=cards)
    write_gallery(
        file,
        "New images beside known ones",
        [section],
        lead=" ".join(advice),
        facts=dict(facts),
        footer=("Cards link to the originals.",),
    )
