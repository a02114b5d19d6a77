"""The report of `nearsight duplicates`: each group in a row, the kept image first."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from nearsight import text_format
from nearsight.analyses.duplicate_groups import DuplicateGroup, Duplicates
from nearsight.collection import Collection, Item
from nearsight.reports.gallery import Card, Row, Section, write_gallery
from nearsight.text_format import count

# A browser takes too long to open more; the command's answer lists all.
MAX_GROUPS = 500

# Groups whose thumbnails are read together.
_GROUPS_AT_ONCE = 100

_DOUBTFUL = (
    "Many images here agree nearly as well as duplicates do. Some groups may be different photographs of one"
    " scene: look before you delete."
)
_HEADING = "Agreement of the pixels with the kept image"

_FOOTER = (
    "Nothing was deleted. The kept image of each group is on the left, with the reason. Every other image"
    " agrees with the kept one, or with most of its duplicates where it shares too little with the kept one.",
    "Agreement is the correlation of details after one image is aligned with the other. Cards link to the"
    " originals.",
)


def write_duplicates(file: Path, collection: Collection, duplicates: Duplicates) -> None:
    """Write the report of the duplicates in a collection: groups to review first, the weakest on top.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    duplicates : Duplicates
    """
    groups = duplicates.groups[:MAX_GROUPS]
    n_links = sum(len(group.hard_links) for group in duplicates.groups)
    facts = {
        "Images": f"{duplicates.n_images:,}",
        "Groups": f"{len(duplicates.groups):,}",
        "Redundant files": f"{sum(len(group.redundant) for group in duplicates.groups):,}",
        "Redundant size": text_format.size(sum(group.redundant_bytes for group in duplicates.groups)),
        "Files to review": f"{sum(len(group.review) for group in duplicates.groups):,}",
        "Match threshold": f"{duplicates.threshold:.2f}",
        "Collection": collection.uri,
    }
    if duplicates.expected_rate is not None:
        share = max(0.001, duplicates.expected_rate)
        facts["Expected false matches"] = f"up to {share:.1%} of images without a duplicate"
    leads = [_DOUBTFUL] if duplicates.is_doubtful else []
    if n_links:
        leads.append(f"{count(n_links, 'hard link')} of kept files: deleting them frees nothing.")
    if len(groups) < len(duplicates.groups):
        leads.append(f"The first {len(groups):,} of {len(duplicates.groups):,} groups, the weakest first.")
    title, lead = f"{count(len(duplicates.groups), 'group')} of duplicates", " ".join(leads)
    if not groups:
        title, lead = "No duplicates", "Every image occurs once."
    sections = [
        Section(title, text, _rows(collection, tier))
        for title, text, certain in (
            ("Review first", "Look at these before you delete a file. The weakest are on top.", False),
            ("Certain", "The kept image is at least as good in every respect. The weakest are on top.", True),
        )
        if (tier := [group for group in groups if group.certain is certain])
    ]
    write_gallery(file, title, sections, lead=lead, facts=facts, footer=_FOOTER)


def _rows(collection: Collection, groups: Sequence[DuplicateGroup]) -> list[Row]:
    rows = []
    for at in range(0, len(groups), _GROUPS_AT_ONCE):
        some = groups[at : at + _GROUPS_AT_ONCE]
        thumbnails = collection.thumbnails([item.id for group in some for item in group.items])
        rows += [_row(group, thumbnails) for group in some]
    return rows


def _row(group: DuplicateGroup, thumbnails: Mapping[str, bytes]) -> Row:
    keep, thumbnail = group.keep, thumbnails.get(group.keep.id)
    cards = [
        Card(path, thumbnail, 1.0, {"bytes": "identical"}, measure="agreement") for path in keep.paths[1:]
    ]
    links = {"file": "a hard link of the kept one: deleting it frees nothing"}
    cards += [Card(path, thumbnail, 1.0, links, measure="agreement") for path in group.hard_links]
    names = {item.id: PurePath(item.path).name or item.id[:12] for item in group.items}
    for item, agreement, verified_against, doubt in zip(
        group.items[1:], group.agreements, group.verified_against, group.doubts, strict=True
    ):
        metadata = {"review": doubt} if doubt else {}
        if verified_against != keep.id:
            metadata["agrees with"] = f"{names[verified_against]}; it shares too little with the kept image"
        metadata |= _file_facts(item)
        thumbnail = thumbnails.get(item.id)
        cards += [Card(path, thumbnail, agreement, metadata, measure="agreement") for path in item.paths]
    kept = Card(
        keep.path, thumbnails.get(keep.id), metadata={"kept": group.why} | _file_facts(keep), badge="kept"
    )
    # Those in doubt first, then the weakest, as the groups are.
    cards.sort(key=lambda card: ("review" not in card.metadata, card.similarity))
    return Row(kept, cards, label="", heading=_HEADING)


def _file_facts(item: Item) -> dict[str, str]:
    size = {"size": f"{item.width} × {item.height}, {text_format.size(item.size_bytes)}"}
    exif = {name: value for name, value in item.exif().items() if name in ("taken", "camera")}
    return size | exif | ({"changed": f"{item.modified:%Y-%m-%d}"} if item.modified else {})
