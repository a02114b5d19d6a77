"""The report of `nearsight duplicates`: each group in a row, the kept image first."""

from collections.abc import Sequence
from pathlib import Path, PurePath

from nearsight import text_format
from nearsight.analyses.duplicates import DuplicateGroup, Duplicates
from nearsight.collection import Collection, Item
from nearsight.reports.gallery import Card, Row, Section, gallery
from nearsight.reports.html import write_html
from nearsight.text_format import count

# A browser takes too long to open more; the command's answer lists all.
MAX_GROUPS = 500

# Groups whose thumbnails are read together.
_GROUPS_AT_ONCE = 100

_DOUBTFUL = (
    "Many images here agree nearly as well as duplicates do. Some groups may be different photographs of one"
    " scene: look before you delete."
)

_FOOTER = (
    "Nothing was deleted. The kept image of each group is on the left, with the reason. Every other image"
    " agrees with the kept one, or with most of its duplicates where it shares too little with the kept one.",
    "Agreement is the correlation of details after one image is aligned with the other, at most 1. Bars show"
    " the similarity, the cosine of two vectors. Cards link to the originals.",
)


def write_duplicates(file: Path, collection: Collection, duplicates: Duplicates) -> None:
    """Write the report of the duplicates in a collection.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    duplicates : Duplicates
    """
    groups = duplicates.groups[:MAX_GROUPS]
    facts = {
        "Images": f"{duplicates.n_images:,}",
        "Groups": f"{len(duplicates.groups):,}",
        "Redundant files": f"{sum(len(group.redundant) for group in duplicates.groups):,}",
        "Redundant size": text_format.size(sum(_redundant_bytes(group) for group in duplicates.groups)),
        "Match threshold": f"{duplicates.threshold:.2f}",
        "Collection": str(collection.directory),
    }
    if duplicates.expected_rate is not None:
        share = max(0.001, duplicates.expected_rate)
        facts["Expected false matches"] = f"up to {share:.1%} of images without a duplicate"
    leads = [_DOUBTFUL] if duplicates.is_doubtful else []
    if len(groups) < len(duplicates.groups):
        leads.append(f"The {len(groups):,} largest of {len(duplicates.groups):,} groups.")
    title, lead = f"{count(len(duplicates.groups), 'group')} of duplicates", " ".join(leads)
    if not groups:
        title, lead = "No duplicates", "Every image occurs once."
    rows = []
    for at in range(0, len(groups), _GROUPS_AT_ONCE):
        rows += _rows(collection, groups[at : at + _GROUPS_AT_ONCE])
    sections = [Section(rows=rows)] if rows else []
    write_html(file, gallery(title, sections, lead=lead, facts=facts, footer=_FOOTER))


def _rows(collection: Collection, groups: Sequence[DuplicateGroup]) -> list[Row]:
    thumbnails = collection.thumbnails([item.id for group in groups for item in group.items])
    rows = []
    for group in groups:
        keep, thumbnail = group.keep, thumbnails.get(group.keep.id)
        cards = [Card(path, thumbnail, metadata={"bytes": "the same"}) for path in keep.paths[1:]]
        names = {item.id: PurePath(item.path).name or item.id[:12] for item in group.items}
        for item, similarity, agreement, verified_against in zip(
            group.items[1:], group.similarities, group.agreements, group.verified_against, strict=True
        ):
            metadata = {"agreement": f"{agreement:.2f}"}
            if verified_against != keep.id:
                metadata["agrees with"] = (
                    f"{names[verified_against]}; it shares too little with the kept image"
                )
            metadata |= _file_facts(item)
            cards += [Card(path, thumbnails.get(item.id), similarity, metadata) for path in item.paths]
        kept = Card(keep.path, thumbnail, metadata={"why": group.why} | _file_facts(keep), badge="kept")
        rows.append(Row(kept, cards, label=""))
    return rows


def _file_facts(item: Item) -> dict[str, str]:
    size = {"size": f"{item.width} × {item.height}, {text_format.size(item.size_bytes)}"}
    return size | ({"changed": f"{item.modified:%Y-%m-%d}"} if item.modified else {})


def _redundant_bytes(group: DuplicateGroup) -> int:
    same_bytes = group.keep.size_bytes * (len(group.keep.paths) - 1)
    return same_bytes + sum(item.size_bytes * len(item.paths) for item in group.items[1:])
