"""A report of image cards: rows of a query and its hits, and contact sheets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nearsight.collection import Collection, Match
from nearsight.reports.html import jpeg_uri, link, policy_hash, render, template_source, write_html
from nearsight.reports.thumbnails import ThumbnailFolder
from nearsight.text_format import plain

# With more bytes of thumbnails than this, a report has them in a folder beside it: a page that holds them all
# is slow to open, and too large to send.
MAX_INLINE_BYTES = 1_000_000

SCALE = "Similarity is the cosine of two vectors: 1 is the same image. Cards link to the originals."


_NO_CHART = Markup()


@dataclass(frozen=True, slots=True)
class Card:
    """One image of a report.

    Attributes
    ----------
    path : str
        Path or address of the original, which the card links to.
    thumbnail : bytes or None
        JPEG.
    similarity : float or None
        Cosine in -1..1, drawn as a bar of 0..1; or another such `measure`.
    metadata : mapping
        Shown below the name; values of None are left out.
    badge : str
        A word such as "kept"; a card with one is framed.
    is_right : bool or None
        Whether it is a right or wrong answer to a query; None for neither. Its badge and frame say so.
    name : str
        Shown instead of the file's name.
    detail : str
        Shown instead of the folder.
    linked : bool
        False for an image without a file, such as one edited in memory.
    words : str
        Shown instead of a thumbnail.
    measure : str
        What `similarity` is called for those who cannot see the bar.
    """

    path: str
    thumbnail: bytes | None
    similarity: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    badge: str = ""
    is_right: bool | None = None
    name: str = ""
    detail: str = ""
    linked: bool = True
    words: str = ""
    measure: str = "similarity"

    def with_badge(self, badge: str) -> "Card":
        """Return the same card with a badge."""
        return replace(self, badge=badge)

    @property
    def href(self) -> str | None:
        """Address of the original, None where the card links to nothing."""
        return link(self.path) if self.linked else None

    @property
    def title(self) -> str:
        """The given name, or the file's."""
        return self.name or _name_and_folder(self.path)[0]

    @property
    def folder(self) -> str:
        """The given detail, or the folder, bucket or shard of an image without a given name."""
        return self.detail or ("" if self.name else _name_and_folder(self.path)[1])

    @property
    def short_folder(self) -> str:
        """The last two parts of a folder; its tooltip has the whole path."""
        parts = Path(self.folder).parts
        return self.folder if len(parts) <= 3 else str(Path("…", *parts[-2:]))

    @property
    def lines(self) -> dict[str, str]:
        """Metadata as text."""
        values = {key: value for key, value in self.metadata.items() if value is not None}
        return {key: v if isinstance(v, str) else str(plain(v)) for key, v in values.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """A query, its further parts if it has several, and its hits, the most similar first.

    `heading` names the measure of their bars. `more_hits` are other answers to the same query, by heading.
    """

    query: Card
    hits: Sequence[Card]
    label: str = "Query"
    more_queries: Sequence[Card] = ()
    heading: str = ""
    more_hits: Mapping[str, Sequence[Card]] = field(default_factory=dict)

    @property
    def answers(self) -> list[tuple[str, Sequence[Card]]]:
        """All lists of hits, with their headings."""
        return [(self.heading, self.hits), *self.more_hits.items()]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report: rows, a contact sheet, a table, or commands to copy.

    Attributes
    ----------
    title : str
        Heading; the links at the head of the page lead to it.
    lead : str
        The sentence below the heading.
    rows : sequence of Row
    grid : sequence of Card
        Images with words, without a query.
    sheet : sequence of Card
        Thumbnails without words.
    table : sequence of sequence of str
        The first row is the header, and the first column names the rows.
    chart : Markup
        SVG; see `reports.charts`.
    commands : sequence of str
    blank : str
        A word of the commands that the reader fills in, such as ``NAME``; empty for none.
    is_folded : bool
        Whether only the heading is shown until a reader opens it.
    divider : str
        Words on a line above the section, such as a threshold between what lies above it and below it.
    """

    title: str = ""
    lead: str = ""
    rows: Sequence[Row] = ()
    grid: Sequence[Card] = ()
    sheet: Sequence[Card] = ()
    table: Sequence[Sequence[str]] = ()
    chart: Markup = _NO_CHART
    commands: Sequence[str] = ()
    blank: str = ""
    is_folded: bool = False
    divider: str = ""

    @property
    def cards(self) -> Iterator[Card]:
        """Every card of the section."""
        for row in self.rows:
            yield row.query
            yield from row.more_queries
            yield from row.hits
        yield from self.grid
        yield from self.sheet


def gallery(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    facts: Mapping[str, str] | None = None,
    footer: Sequence[str] = (),
    source: Callable[[bytes], str] = jpeg_uri,
) -> str:
    """Return the HTML of a report; every text is escaped.

    A click on an image shows it large, the original where the browser can open it. Headings, or the labels of
    rows where there is only one heading, are linked at the head of the page.

    Parameters
    ----------
    title, lead : str
        Heading and the sentence below it.
    sections : sequence of Section
    facts : mapping of str to str
        Figures below the heading.
    footer : sequence of str
        Closing remarks, such as licenses.
    source : callable
        Returns the address of a JPEG thumbnail; by default a ``data:`` address, which holds the thumbnail.
    """
    script = template_source("gallery.js")
    if any(section.blank for section in sections):
        script += template_source("blanks.js")
    return render(
        "gallery.html",
        title=title,
        sections=sections,
        links=_links(sections),
        lead=lead,
        facts=facts or {},
        footer=footer,
        source=source,
        script=script,
        script_hash=policy_hash(script),
    )


def write_gallery(file: Path, title: str, sections: Sequence[Section], **options: Any) -> None:
    """Write a report; large ones have their thumbnails in a folder beside the page.

    A page with up to `MAX_INLINE_BYTES` of thumbnails is one file. The thumbnails of a larger one lie in
    ``NAME_images`` beside ``NAME.html``: move the two together.

    Parameters
    ----------
    file : Path
        Replaced whole; so is the folder of thumbnails of an earlier report.
    title, sections, **options
        See `gallery`.

    Raises
    ------
    StorageError
        A file cannot be written.
    """
    n_bytes = sum(len(card.thumbnail or b"") for section in sections for card in section.cards)
    folder = ThumbnailFolder(file)
    is_large = n_bytes > MAX_INLINE_BYTES
    write_html(file, gallery(title, sections, source=folder.source if is_large else jpeg_uri, **options))
    folder.remove_others()


def _links(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Return the anchors of the page with their texts; empty if there is only one."""
    links = [(f"s{i}", section.title) for i, section in enumerate(sections, 1) if section.title]
    if len(links) < 2:
        links = [
            (f"s{i}r{j}", row.query.words)
            for i, section in enumerate(sections, 1)
            for j, row in enumerate(section.rows, 1)
            if row.query.words
        ]
    return links if len(links) > 1 else []


def label_row(label: str, cards: Sequence[Card], caption: str) -> Row:
    """Return a row of images that share a label, which stands in the query's place."""
    return Row(Card("", None, name=label, words=label, linked=False), cards, label=caption)


def match_cards(collection: Collection, matches: Sequence[Match]) -> list[Card]:
    """Return a card for each match, with its thumbnail."""
    ids = [match.id for match in matches]
    thumbnails = collection.thumbnails(ids)
    exif = {item.id: item.exif() for item in collection.items(ids=ids)}
    return [
        Card(m.path, thumbnails.get(m.id), m.similarity, {**exif.get(m.id, {}), **m.metadata})
        for m in matches
    ]


def _name_and_folder(path: str) -> tuple[str, str]:
    """Return the name of an image and its folder, bucket or shard."""
    if path.startswith("tar://"):
        member, _, shard = path.removeprefix("tar://").partition("::")
        return member.rpartition("/")[2], shard
    if "://" in path:
        folder, _, name = path.rpartition("/")
        return name or path, folder
    return Path(path).name or path, "" if Path(path).parent == Path() else str(Path(path).parent)
