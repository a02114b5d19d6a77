"""The HTML report of a demo: edited images, example searches, and a contact sheet."""

from collections.abc import Sequence
from pathlib import Path

from nearsight.collection import Item
from nearsight.demo.result import DemoResult
from nearsight.reports.gallery import SCALE, Card, Row, Section, match_cards, write_gallery
from nearsight.reports.html import smaller_jpeg
from nearsight.text_format import count

_SHEET_PX = 112


def write_report(result: DemoResult, sheet: Sequence[Item], n_images: int) -> None:
    """Write the report of a demo.

    Parameters
    ----------
    result : DemoResult
    sheet : sequence of Item
        The images of the contact sheet, in their order.
    n_images : int
        Number of images in the collection.
    """
    spec = result.collection.spec
    sections = [
        _edits_section(result, n_images),
        _queries_section(result),
        _sheet_section(result, sheet, n_images),
        Section("What to do next", commands=result.commands),
    ]
    licenses = [f"Images: {name}, {license}." for name, license in result.images.licenses.items()]
    write_gallery(
        result.report,
        result.images.title,
        [section for section in sections if section.rows or section.sheet or section.commands],
        lead=f"One embedding pass over {count(n_images, 'image')} on this machine gave all of this.",
        facts={
            "Images": f"{n_images:,}",
            "This run": result.speed,
            "Model": spec.id,
            "Dimensions": f"{spec.dim:,}",
        },
        footer=[SCALE, f"Model: {spec.id}, {spec.license}.", *licenses],
    )


def _edits_section(result: DemoResult, n_images: int) -> Section:
    rows = []
    for edited in result.edits:
        name = Path(edited.item.path).name
        query = Card(edited.item.path, edited.thumbnail, name=edited.edit.name, detail=name, linked=False)
        hits = match_cards(result.collection, edited.matches)
        if edited.rank:
            hits[edited.rank - 1] = hits[edited.rank - 1].with_badge("original")
        label = f"Missed. {edited.reason}" if edited.reason else "Edited image"
        rows.append(Row(query, hits, label))
    lead = (
        f"{count(len(rows), 'image')} edited in memory and searched for among all {n_images:,}. The original"
        f" is the first match of {result.n_originals_first} of {len(rows)}."
    )
    return Section("Edited images find their original", lead, rows)


def _queries_section(result: DemoResult) -> Section:
    thumbnails = result.collection.thumbnails([query.item.id for query in result.queries])
    rows = []
    for query in result.queries:
        item = query.item
        card = Card(item.path, thumbnails.get(item.id), metadata=item.metadata)
        label = f"Query, where {query.where}" if query.where else "Query"
        rows.append(Row(card, match_cards(result.collection, query.matches), label))
    return Section("Example searches", "Different images, each with its nearest neighbors.", rows)


def _sheet_section(result: DemoResult, sheet: Sequence[Item], n_images: int) -> Section:
    thumbnails = result.collection.thumbnails([item.id for item in sheet])
    cards = [
        Card(item.path, smaller_jpeg(thumbnails[item.id], _SHEET_PX))
        for item in sheet
        if item.id in thumbnails
    ]
    shown = f"All {n_images:,}" if len(cards) == n_images else f"{len(cards):,} of {n_images:,}"
    return Section("The whole collection", f"{shown}, similar images side by side.", sheet=cards)
