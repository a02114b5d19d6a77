"""What doors share about segments of customers: the lines of a table, and results as JSON documents."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight.collection import Collection
from nearsight.images.image_lookup import Resolution
from nearsight.services.collections import resolve_names
from nearsight.services.csv_tables import read_customers

if TYPE_CHECKING:
    from nearsight.analyses.customer_segments import CustomerImage, Segment, Segmentation


def customer_lines(collection: Collection, table: Path) -> "tuple[list[CustomerImage], Resolution]":
    """Return the customer, image and weight of each row, with ids where a name is known, and what names mean.

    Raises
    ------
    MetadataError
        The table is wrong.
    InvalidParameterError
        More than half of the rows name no image of the collection, or several.
    """
    rows = read_customers(table)
    resolution = resolve_names(collection, [image for _, image, _ in rows], table)
    lines = [(customer, resolution.ids.get(image, image), weight) for customer, image, weight in rows]
    return lines, resolution


def segmentation_document(segmentation: "Segmentation", resolution: Resolution) -> dict[str, Any]:
    """Return segments of customers as plain data."""
    return {
        "segments": [_segment_document(segment) for segment in segmentation.segments],
        "customers": segmentation.customers,
        "rejected": segmentation.rejected,
        "unknown": segmentation.unmatched,
        "silhouette": segmentation.silhouette,
        "ambiguous": resolution.ambiguous,
    }


def _segment_document(segment: "Segment") -> dict[str, Any]:
    values = asdict(segment)
    return {"id": values.pop("id"), "size": len(segment.customers), "name": values.pop("name"), **values}
