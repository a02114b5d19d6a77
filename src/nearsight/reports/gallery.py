"""One HTML file of thumbnails that needs nothing else: no network, no scripts, no folder beside it."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight.artifacts import exported
from nearsight.errors import ImageError, ImageFailure
from nearsight.text_format import count, plain, printable

if TYPE_CHECKING:
    from nearsight.collection import Collection, Match

THUMBNAIL_PX = 256

SCALE = "Similarity is the cosine of two vectors: 1 is the same image. Cards link to the originals."

# Values of more characters get lines of their own.
_WIDE = 32

# Nothing may be fetched and nothing may run, whatever a file name tries.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

EYE = (
    '<svg viewBox="0 0 32 32" fill="none" stroke="currentColor" stroke-width="2.6" aria-hidden="true">'
    '<path d="M2.5 16S7.5 7 16 7s13.5 9 13.5 9-5 9-13.5 9S2.5 16 2.5 16Z"/>'
    '<circle cx="16" cy="16" r="4.6"/>'
    '<circle cx="17.6" cy="14.4" r="1.1" fill="currentColor" stroke="none"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Card:
    """One image on a page.

    Attributes
    ----------
    path : str
        Where the original is; the card links there if it is a file or a web address.
    thumbnail : bytes or None
        JPEG.
    similarity : float or None
        Cosine in -1..1; drawn as a bar of 0..1.
    metadata : mapping
        Shown below the name.
    badge : str
        A word of praise, such as "the original"; such a card is framed.
    name : str
        Shown instead of the file's name.
    detail : str
        Shown instead of the folder.
    linked : bool
        False for an image that is no file, such as one edited in memory.
    words : str
        Shown where the image would be.
    """

    path: str
    thumbnail: bytes | None
    similarity: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    badge: str = ""
    name: str = ""
    detail: str = ""
    linked: bool = True
    words: str = ""

    def with_badge(self, badge: str) -> "Card":
        """Return the same card with a word of praise."""
        return replace(self, badge=badge)


@dataclass(frozen=True, slots=True)
class Row:
    """A query and what it found, the most similar first."""

    query: Card
    hits: Sequence[Card]
    label: str = "Looked for"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page: rows of queries, a contact sheet, or commands to copy."""

    title: str = ""
    lead: str = ""
    rows: Sequence[Row] = ()
    sheet: Sequence[Card] = ()
    commands: Sequence[str] = ()


def page(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    facts: Mapping[str, str] | None = None,
    footer: Sequence[str] = (),
) -> str:
    """Return the HTML of a whole page; every text given is escaped.

    Parameters
    ----------
    title, lead : str
        Heading and the sentence below it.
    sections : sequence of Section
        In order.
    facts : mapping of str to str
        Figures shown below the heading.
    footer : sequence of str
        Closing remarks, such as licenses.
    """
    css = files("nearsight.reports").joinpath("gallery.css").read_text(encoding="utf-8")
    figures = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in (facts or {}).items())
    return "".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n',
            f"<title>{_text(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<div class=wrap>\n",
            f'<header><div class="brand">{EYE}<span>nearsight</span></div><h1>{_text(title)}</h1>',
            f'<p class="lead">{_text(lead)}</p>' if lead else "",
            f'<dl class="facts">{figures}</dl>' if figures else "",
            "</header>\n<main>\n",
            *(_section(section) for section in sections),
            "</main>\n<footer>",
            *(f"<p>{_text(line)}</p>" for line in footer),
            "</footer>\n</div>\n</body>\n</html>\n",
        ]
    )


def write(path: Path, html: str) -> None:
    """Write a page whole or not at all.

    Raises
    ------
    StorageError
        The disk refuses.
    """
    with exported(path) as file:
        file.write(html.encode("utf-8"))


def write_search(
    file: Path,
    collection: "Collection",
    found: "Sequence[Match]",
    *,
    query: str | bytes | None = None,
    like_id: str | None = None,
    text: str | None = None,
) -> None:
    """Write the page of one search.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        Where the thumbnails are.
    found : sequence of Match
        The most similar first.
    query : str or bytes, optional
        The image looked for, or
    like_id : str, optional
        its id, or a unique start of one, in the collection, or
    text : str, optional
        the words looked for.
    """
    if text is not None:
        card = Card("", None, name=f"“{text}”", words=text, linked=False)
    elif like_id is not None:
        item = collection.get(like_id)
        card = Card(item.path, collection.thumbnails([item.id]).get(item.id), metadata=item.metadata)
    elif isinstance(query, bytes):
        card = Card("", _thumbnail(query), name="standard input", linked=False)
    else:
        card = Card(query or "", _thumbnail(query or ""))
    name = card.name or _split(card.path)[0]
    facts = {
        "Searched": count(len(collection), "image"),
        "Model": collection.spec.id,
        "Collection": str(collection.directory),
    }
    sections = [Section(rows=[Row(card, hits(collection, found))])]
    title = f"Images {'of' if text else 'like'} {name}" if name else "Similar images"
    write(file, page(title, sections, facts=facts, footer=[SCALE]))


def hits(collection: "Collection", found: "Sequence[Match]") -> list[Card]:
    """Return a card for each match, with its thumbnail from the collection."""
    thumbnails = collection.thumbnails([match.id for match in found])
    return [Card(m.path, thumbnails.get(m.id), m.similarity, m.metadata) for m in found]


def _thumbnail(query: str | bytes) -> bytes:
    from nearsight import images

    source = next(images.find([query], allow_remote=True))
    if isinstance(source, ImageFailure):
        raise ImageError(source.path, source.reason)
    return images.thumbnail(images.decode(source, min_side_px=THUMBNAIL_PX).image, THUMBNAIL_PX)


def shrunk(jpeg: bytes, side_px: int) -> bytes:
    """Return a thumbnail that is no longer than that on either side."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        image.thumbnail((side_px, side_px))
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=78)
    return out.getvalue()


def link(path: str) -> str | None:
    """Return where a browser finds the original, or None for what it cannot open.

    Examples
    --------
    >>> link("https://example.org/a b.jpg"), link("s3://bucket/a.jpg")
    ('https://example.org/a%20b.jpg', None)
    """
    scheme, sign, _ = path.partition("://")
    if not sign:
        return Path(path).absolute().as_uri() if path else None
    if scheme.lower() not in ("http", "https"):
        return None
    from urllib.parse import quote

    return quote(path, safe=":/?#[]@!$&'()*+,;=%~", errors="surrogateescape")


def _text(text: str) -> str:
    return escape(printable(text), quote=True)


def _section(section: Section) -> str:
    parts = ["<section>"]
    if section.title:
        parts.append(f"<h2>{_text(section.title)}</h2>")
    if section.lead:
        parts.append(f'<p class="lead">{_text(section.lead)}</p>')
    parts += [_row(row) for row in section.rows]
    if section.sheet:
        parts += ['<ul class="sheet">', *(_tile(card) for card in section.sheet), "</ul>"]
    if section.commands:
        parts.append(f"<pre>{chr(10).join(_text(line) for line in section.commands)}</pre>")
    return "".join([*parts, "</section>\n"])


def _row(row: Row) -> str:
    hits = "".join(f"<li>{_card(card, rank)}</li>\n" for rank, card in enumerate(row.hits, 1))
    found = f'<ol class="grid">{hits}</ol>' if hits else '<p class="empty">Nothing was found.</p>'
    return (
        f'<div class="row"><div class="query"><p class="label">{_text(row.label)}</p>{_card(row.query)}</div>'
        f"<div>{found}</div></div>\n"
    )


def _card(card: Card, rank: int | None = None) -> str:
    name, folder = _split(card.path)
    mark = f'<span class="mark">{rank}</span>' if rank else ""
    well = f'<div class="well">{_image(card)}{mark}</div>'
    caption = [
        f'<span class="badge">{_text(card.badge)}</span>' if card.badge else "",
        _similarity(card.similarity),
        "" if card.words else f'<span class="name">{_text(card.name or name)}</span>',
        _folder(card.detail or ("" if card.name else folder)),
    ]
    metadata = "".join(
        _entry(key, _value(value)) for key, value in card.metadata.items() if value is not None
    )
    if metadata:
        caption.append(f'<dl class="meta">{metadata}</dl>')
    body = f"{well}<figcaption>{''.join(caption)}</figcaption>"
    return f'<figure class="card{" found" if card.badge else ""}">{_linked(card, body)}</figure>'


def _entry(key: str, value: str) -> str:
    # Beside its key, a sentence would be a column of single words.
    wide = " class=wide" if len(value) > _WIDE else ""
    return f"<dt{wide}>{_text(key)}</dt><dd{wide}>{_text(value)}</dd>"


def _split(path: str) -> tuple[str, str]:
    """Return the name of an image and what it lies in: a folder, a bucket, or a shard."""
    if path.startswith("tar://"):
        member, _, shard = path.removeprefix("tar://").partition("::")
        return member.rpartition("/")[2], shard
    if "://" in path:
        folder, _, name = path.rpartition("/")
        return name or path, folder
    return Path(path).name or path, "" if Path(path).parent == Path() else str(Path(path).parent)


def _folder(folder: str) -> str:
    if not folder:
        return ""
    parts = Path(folder).parts
    # The end tells images apart; the whole path is in the tooltip, and shown to those who use keys.
    short = folder if len(parts) <= 3 else str(Path("…", *parts[-2:]))
    return f'<span class="folder">{_text(short)}</span><span class="whole">{_text(folder)}</span>'


def _tile(card: Card) -> str:
    return f"<li>{_linked(card, _image(card))}</li>"


def _linked(card: Card, body: str) -> str:
    target = link(card.path) if card.linked else None
    if target is None:
        return f"<span>{body}</span>" if body.startswith("<img") else body
    return f'<a href="{escape(target, quote=True)}" title="{_text(card.path)}">{body}</a>'


def _image(card: Card) -> str:
    if card.words:
        return f'<span class="words">{_text(card.words)}</span>'
    if card.thumbnail is None:
        return '<span class="none">no thumbnail</span>'
    data = base64.b64encode(card.thumbnail).decode("ascii")
    alt = _text(card.name or _split(card.path)[0] or "image")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{alt}" decoding="async">'


def _similarity(similarity: float | None) -> str:
    if similarity is None:
        return ""
    share = min(max(similarity, 0.0), 1.0)
    return (
        f'<span class="sim"><span class="bar" aria-hidden="true"><i style="width:{share:.1%}"></i></span>'
        f'<span aria-label="similarity">{similarity:.3f}</span></span>'
    )


def _value(value: Any) -> str:
    return value if isinstance(value, str) else str(plain(value))
