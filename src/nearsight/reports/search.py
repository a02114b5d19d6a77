"""The report of `nearsight search`: the query and its hits."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nearsight import images
from nearsight.collection import Collection, Match
from nearsight.errors import ImageError, ImageFailure
from nearsight.reports.gallery import SCALE, Card, Row, Section, match_cards, write_gallery
from nearsight.text_format import count

_THUMBNAIL_PX = 256
_COMBINED_SCALE = (
    "Similarity is a sum of standard deviations from the mean of the collection: the mean over what is"
    " wanted, less what is unwanted. Cards link to the originals."
)


def write_search(
    file: Path,
    collection: Collection,
    matches: Sequence[Match],
    *,
    queries: Sequence[str | bytes] = (),
    ids: Sequence[str] = (),
    text: str | None = None,
    not_texts: Sequence[str] = (),
    not_queries: Sequence[str] = (),
    not_ids: Sequence[str] = (),
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
    queries : sequence of str or bytes
        Query images: paths, URLs or the content of a file.
    ids : sequence of str
        Query images of the collection; starts of ids will do.
    text : str, optional
    not_texts : sequence of str
        Descriptions of unwanted images.
    not_queries, not_ids : sequence of str
        Unwanted images, as in `queries` and `ids`.
    """
    cards = [*map(_image_card, queries), *(_item_card(collection, id) for id in ids)]
    like = [card.title for card in cards]
    cards += [_text_card(f"“{words}”") for words in ([] if text is None else [text])]
    cards += [_text_card(f"not “{words}”") for words in not_texts]
    unwanted = [*map(_image_card, not_queries), *(_item_card(collection, id) for id in not_ids)]
    cards += [replace(card, name=f"not {card.title}") for card in unwanted]
    facts = {
        "Searched": count(len(collection), "image"),
        "Model": collection.spec.id,
        "Collection": collection.uri,
    }
    row = Row(cards[0], match_cards(collection, matches), more_queries=cards[1:])
    is_cosine = len(cards) == 1 or not (text or not_texts)
    unlike = [card.title for card in unwanted]
    footer = [SCALE if is_cosine else _COMBINED_SCALE]
    write_gallery(
        file, _title(like, text, not_texts, unlike), [Section(rows=[row])], facts=facts, footer=footer
    )


def _title(like: Sequence[str], text: str | None, not_texts: Sequence[str], unlike: Sequence[str]) -> str:
    parts = ["Images"]
    if like:
        parts.append(f"like {like[0] if len(like) == 1 else count(len(like), 'image')}")
    if text is not None:
        parts.append(f"of “{text}”")
    parts += [f"not “{words}”" for words in not_texts]
    if unlike:
        parts.append(f"not like {unlike[0] if len(unlike) == 1 else count(len(unlike), 'image')}")
    return " ".join(parts)


def _text_card(words: str) -> Card:
    return Card("", None, name=words, words=words, linked=False)


def _item_card(collection: Collection, id: str) -> Card:
    item = collection.get(id)
    thumbnail = collection.thumbnails([item.id]).get(item.id)
    return Card(item.path, thumbnail, metadata={**item.exif(), **item.metadata})


def _image_card(query: str | bytes) -> Card:
    if isinstance(query, bytes):
        return Card("", _thumbnail(query), name="standard input", linked=False)
    return Card(query, _thumbnail(query))


def _thumbnail(query: str | bytes) -> bytes:
    source = next(images.find([query], allow_remote=True))
    if isinstance(source, ImageFailure):
        raise ImageError(source.path, source.reason)
    return images.thumbnail(images.decode(source, min_side_px=_THUMBNAIL_PX).image, _THUMBNAIL_PX)
