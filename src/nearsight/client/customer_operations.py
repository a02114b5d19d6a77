"""Segments of customers that a client can ask for; see `nearsight.client.operations`."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearsight.client.job_operations import finished
from nearsight.client.operations import collection_path
from nearsight.client.requests import Named, Operation, Request
from nearsight.text_format import csv_row

if TYPE_CHECKING:
    from nearsight.analyses.customer_segments import CustomerImage, Segmentation


def segment_customers(
    collection: Named,
    images: "Iterable[CustomerImage]",
    k: int | None = None,
    *,
    words: Sequence[str] | None = None,
    false_alarm_rate: float | None = None,
) -> "Operation[Segmentation]":
    """Segment customers by the images of what they bought; see `Collection.segment_customers`.

    Parameters
    ----------
    images : iterable of (customer, image, weight)
    k, words, false_alarm_rate
        See `Collection.segment_customers`; without words (an empty list), segments have no names.
    """
    params = {
        "k": k,
        "word": list(words or ()),
        "names": words is None or bool(words),
        "false_alarm_rate": false_alarm_rate,
    }
    sent = {name: value for name, value in params.items() if value is not None}
    place = collection_path(collection, "segments")
    request = Request("POST", place, files=[("file", ("table.csv", _table(images)))], params=sent)
    yield from finished((yield request).json())
    return (yield from customer_segments(collection))


def customer_segments(collection: Named) -> "Operation[Segmentation]":
    """Return the latest segments of customers that the service found."""
    document = (yield Request("GET", collection_path(collection, "segments"))).json()
    content = (yield Request("GET", collection_path(collection, "segments", "file"))).content
    return _filled(_loaded(content), document)


def assign_customers(
    collection: Named, segmentation: "Segmentation", images: "Iterable[CustomerImage]"
) -> "Operation[Segmentation]":
    """Assign customers to segments without changing these; see `Collection.assign_customers`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "segments.npz"
        segmentation.save(file)
        content = file.read_bytes()
    files = [("file", ("table.csv", _table(images))), ("segments", ("segments.npz", content))]
    place = collection_path(collection, "segments", "assign")
    return _filled(segmentation, (yield Request("POST", place, files=files)).json())


def _table(images: "Iterable[CustomerImage]") -> bytes:
    rows = ((customer, image, str(weight)) for customer, image, weight in images)
    return b"".join(csv_row(row) for row in (("customer", "image", "weight"), *rows))


def _loaded(content: bytes) -> "Segmentation":
    from nearsight.analyses.customer_segments import Segmentation

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "segments.npz"
        file.write_bytes(content)
        return Segmentation.load(file)


def _filled(segmentation: "Segmentation", document: dict[str, Any]) -> "Segmentation":
    """Return the segments with the customers that a document names."""
    of = {each["id"]: each["customers"] for each in document["segments"]}
    segments = [replace(segment, customers=of[segment.id]) for segment in segmentation.segments]
    return replace(
        segmentation, segments=segments, customers=document["customers"], unmatched=document["unknown"]
    )
