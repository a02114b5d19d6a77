"""The page of copies: each group side by side, the kept one in front."""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from nearsight import text_format
from nearsight.reports import gallery
from nearsight.reports.gallery import Card, Row, Section
from nearsight.text_format import count

if TYPE_CHECKING:
    from nearsight.analyses.duplicates import CopyGroup, Duplicates
    from nearsight.collection import Collection
    from nearsight.collection.schema import Item

# A page of more takes a browser too long; all of them are in the command's answer.
MOST_GROUPS = 500

# Groups whose thumbnails are in memory together with what became of them.
_AT_ONCE = 100

_ALIKE = (
    "Images here agree nearly as much as copies do, so some groups may be shots of one scene: look before"
    " you delete."
)

_FOOTER = (
    "Nothing was deleted. Of each group, the image on the left is best kept, for the reason given; every "
    "other agrees with it, or with most of its copies, where too little of the image is left to compare.",
    "Agreement is the correlation of details once the images are laid over each other, 1 at most. Bars "
    "show the similarity, the cosine of two vectors. Cards link to the originals.",
)


def write(file: Path, collection: "Collection", found: "Duplicates") -> None:
    """Write the page of what `Collection.duplicates` found.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        Where the thumbnails are.
    found : Duplicates
    """
    shown = found.groups[:MOST_GROUPS]
    redundant = sum(len(group.redundant) for group in found.groups)
    facts = {
        "Images": f"{found.n_images:,}",
        "Groups": f"{len(found.groups):,}",
        "Files not needed": f"{redundant:,}",
        "Their size": text_format.size(sum(_bytes(group) for group in found.groups)),
        "Agreement above": f"{found.threshold:.2f}",
        "Collection": str(collection.directory),
    }
    if found.expected_rate is not None:
        share = max(0.1, 100 * found.expected_rate)
        facts["Of those without a copy, given one"] = f"up to {share:.1f} %"
    title = f"{count(len(found.groups), 'image')} in several copies"
    lead = (
        ""
        if len(shown) == len(found.groups)
        else f"The {len(shown):,} largest of {len(found.groups):,} groups."
    )
    if found.is_doubtful:
        lead = f"{_ALIKE} {lead}".rstrip()
    if not shown:
        title, lead = "No copies", "Every image is there once."
    rows = [row for part in _parts(shown) for row in _rows(collection, part)]
    html = gallery.page(title, [Section(rows=rows)] if rows else [], lead=lead, facts=facts, footer=_FOOTER)
    gallery.write(file, html)


def _parts(groups: "Sequence[CopyGroup]") -> "list[list[CopyGroup]]":
    """Cut into parts whose thumbnails are read in one go."""
    return [list(groups[at : at + _AT_ONCE]) for at in range(0, len(groups), _AT_ONCE)]


def _rows(collection: "Collection", groups: "Sequence[CopyGroup]") -> list[Row]:
    thumbnails = collection.thumbnails([item.id for group in groups for item in group.items])
    rows = []
    for group in groups:
        small = thumbnails.get(group.keep.id)
        why = {"why": group.why} | _facts(group.keep)
        kept = Card(group.keep.path, small, metadata=why, badge="kept")
        others = [Card(path, small, metadata={"bytes": "the same"}) for path in group.keep.paths[1:]]
        names = {item.id: PurePath(item.path).name or item.id[:12] for item in group.items}
        for item, similarity, agreement, by in zip(
            group.items[1:], group.similarities, group.agreements, group.against, strict=True
        ):
            facts = {"agreement": f"{agreement:.2f}"}
            if by != group.keep.id:
                facts["with"] = f"{names[by]}; it shows too little of what the kept one does"
            facts |= _facts(item)
            others += [Card(path, thumbnails.get(item.id), similarity, facts) for path in item.paths]
        rows.append(Row(kept, others, label=""))
    return rows


def _facts(item: "Item") -> dict[str, Any]:
    size = f"{item.width} × {item.height}, {text_format.size(item.size_bytes)}"
    return {"size": size, "changed": f"{item.modified:%Y-%m-%d}" if item.modified else None}


def _bytes(group: "CopyGroup") -> int:
    copies = group.keep.size_bytes * (len(group.keep.paths) - 1)
    return copies + sum(item.size_bytes * len(item.paths) for item in group.items[1:])
