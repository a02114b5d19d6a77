"""The report of `nearsight segment-customers`: a contact sheet for each segment."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nearsight.analyses.customer_segments import Segment, Segmentation
from nearsight.collection import Collection
from nearsight.reports.clusters import capitalized, sheet
from nearsight.reports.gallery import Section, write_gallery
from nearsight.text_format import count

_N_CUSTOMERS = 12
# A segment has few images, so they are larger than those of a cluster.
_THUMBNAIL_PX = 264

_FOOTER = (
    "Customers are compared by the mean of their images and by how much these differ. The spread is 0 where"
    " all images of a customer are the same, and 1 where they have nothing in common. A silhouette of 1 means"
    " distinct segments, 0 a continuum.",
    "Each segment shows its representative images, the most typical first. Images link to the originals.",
)


def write_segments(file: Path, collection: Collection, segmentation: Segmentation) -> None:
    """Write the report of `Collection.segment_customers` or `Collection.assign_customers`.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    segmentation : Segmentation
    """
    customers, segments = segmentation.customers, segmentation.segments
    sections = [
        Section(
            capitalized(segment.name) if segment.name else f"Segment {segment.id}",
            _lead(segment),
            sheet=sheet(collection, segment.representatives, _THUMBNAIL_PX),
        )
        for segment in segments
    ]
    facts = {
        "Customers": f"{len(customers):,}",
        "Segments": f"{len(segments):,}",
        "Collection": collection.uri,
    }
    if np.isfinite(segmentation.silhouette):
        facts["Silhouette"] = f"{segmentation.silhouette:.2f}"
    if segmentation.rejected:
        sections.append(Section("In no segment", _names(segmentation.rejected)))
        facts["In no segment"] = f"{len(segmentation.rejected):,}"
    if segmentation.unmatched:
        facts["Left out"] = f"{count(len(segmentation.unmatched), 'name')} without an image"
    title = f"{count(len(customers), 'customer')} in {count(len(segments), 'segment')}"
    write_gallery(file, title, sections, facts=facts, footer=_FOOTER)


def _lead(segment: Segment) -> str:
    parts = [count(len(segment.customers), "customer")]
    if segment.customers:
        parts[0] += f": {_names(segment.customers)}"
    if np.isfinite(segment.spread):
        parts.append(f"spread {segment.spread:.2f}")
    return " · ".join(parts)


def _names(customers: Sequence[str]) -> str:
    n_more = len(customers) - _N_CUSTOMERS
    return ", ".join(customers[:_N_CUSTOMERS]) + (f" and {n_more:,} more" if n_more > 0 else "")
