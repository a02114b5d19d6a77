"""The report of `nearsight search`: the query and its hits."""

from collections.abc import Sequence
from pathlib import Path

from nearsight import images
from nearsight.collection import Collection, Match
from nearsight.errors import ImageError, ImageFailure
from nearsight.reports.gallery import SCALE, Card, Row, Section, gallery, match_cards
from nearsight.reports.html import write_html
from nearsight.text_format import count

_THUMBNAIL_PX = 256


def write_search(
    file: Path,
    collection: Collection,
    matches: Sequence[Match],
    *,
    query: str | bytes | None = None,
    query_id: str | None = None,
    text: str | None = None,
) -> None:
    """Write the report of one search.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    matches : sequence of Match
        The most similar first.
    query : str or bytes, optional
        The query image, or
    query_id : str, optional
        its id in the collection, or the start of one, or
    text : str, optional
        the words of a text search.
    """
    if text is not None:
        card = Card("", None, name=f"“{text}”", words=text, linked=False)
    elif query_id is not None:
        item = collection.get(query_id)
        card = Card(item.path, collection.thumbnails([item.id]).get(item.id), metadata=item.metadata)
    elif isinstance(query, bytes):
        card = Card("", _thumbnail(query), name="standard input", linked=False)
    else:
        card = Card(query or "", _thumbnail(query or ""))
    facts = {
        "Searched": count(len(collection), "image"),
        "Model": collection.spec.id,
        "Collection": str(collection.directory),
    }
    sections = [Section(rows=[Row(card, match_cards(collection, matches))])]
    title = f"Images {'of' if text else 'like'} {card.title}" if card.title else "Similar images"
    write_html(file, gallery(title, sections, facts=facts, footer=[SCALE]))


def _thumbnail(query: str | bytes) -> bytes:
    source = next(images.find([query], allow_remote=True))
    if isinstance(source, ImageFailure):
        raise ImageError(source.path, source.reason)
    return images.thumbnail(images.decode(source, min_side_px=_THUMBNAIL_PX).image, _THUMBNAIL_PX)
