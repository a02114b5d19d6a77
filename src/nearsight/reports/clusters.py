"""The pages of clusters and of customers' segments: a contact sheet for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nearsight.collection.view import items_of
from nearsight.reports import gallery
from nearsight.reports.gallery import Card, Section
from nearsight.text_format import count

if TYPE_CHECKING:
    from nearsight.analyses.clusters import Cluster, Clustering
    from nearsight.analyses.customer_segments import Segment, Segmentation
    from nearsight.collection import Collection

# A page of more takes a browser too long; all are in the command's answer.
_IMAGES, _CLUSTERS, _CUSTOMERS = 48, 100, 12
# On all sheets together, unless each had too few to tell what it is.
_ALL_IMAGES, _LEAST_IMAGES = 1500, 12
# Twice as large as a sheet shows them, for fine screens: many, and the few of a segment.
_IMAGE_PX, _LARGE_PX = 148, 264

_LINKS = "Images link to the originals; the first of a sheet are the most typical."


def write(file: Path, collection: "Collection", found: "Clustering") -> None:
    """Write the page of what `Collection.cluster` found.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        Where the thumbnails are.
    found : Clustering
    """
    inside = sum(len(c.ids) for c in found.clusters)
    n = inside + len(found.noise)
    shown = [c for c in found.clusters[:_CLUSTERS] if c.ids]
    most = min(_IMAGES, max(_LEAST_IMAGES, _ALL_IMAGES // max(1, len(shown))))
    sections = [
        Section(
            _title(c), _lead(found, c, most), sheet=_sheet(collection, _some(c.representatives, c.ids, most))
        )
        for c in shown
    ]
    if found.noise:
        sections.append(
            Section(
                "In no cluster",
                f"{count(len(found.noise), 'image')} without enough others like them"
                f"{_part(found.noise, most)}.",
                sheet=_sheet(collection, _some([], found.noise, most)),
            )
        )
    facts = {
        "Images": f"{n:,}",
        "Clusters": f"{len(found.clusters):,}",
        "In no cluster": f"{len(found.noise) / max(n, 1):.0%}",
        "Found by": "their number (k-means)" if found.algorithm == "kmeans" else "density",
        "Model": collection.spec.id,
        "Collection": str(collection.directory),
    }
    title = f"{count(len(found.clusters), 'kind')} of images" if found.clusters else "No clusters"
    lead = "" if len(found.clusters) <= _CLUSTERS else f"The {_CLUSTERS} largest of {len(found.clusters):,}."
    gallery.write(file, gallery.page(title, sections, lead=lead, facts=facts, footer=[_LINKS]))


def write_segments(file: Path, collection: "Collection", found: "Segmentation") -> None:
    """Write the page of what `Collection.segment` or `assign_customers` found."""
    sections = [
        Section(
            _capital(s.label) if s.label else f"Segment {s.id}",
            _describe(s),
            sheet=_sheet(collection, s.representatives, _LARGE_PX),
        )
        for s in found.segments
    ]
    facts = {
        "Customers": f"{len(found.customers):,}",
        "Segments": f"{len(found.segments):,}",
        "Collection": str(collection.directory),
    }
    if np.isfinite(found.silhouette):
        facts["Silhouette"] = f"{found.silhouette:.2f}"
    if found.strangers:
        sections.append(Section("In no segment", _names(found.strangers)))
        facts["In no segment"] = f"{len(found.strangers):,}"
    if found.unknown:
        facts["Left out"] = f"{count(len(found.unknown), 'name')} without an image"
    footer = [
        "Customers are compared by the mean of their images and by how much these differ: the breadth of "
        "their taste is 0 where all images of one customer are the same, and 1 where they have nothing in "
        "common. A silhouette of 1 means distinct segments, 0 a continuum.",
        "Images are those that stand for a segment, the most typical first; they link to the originals.",
    ]
    title = f"{count(len(found.customers), 'customer')} in {count(len(found.segments), 'segment')}"
    gallery.write(file, gallery.page(title, sections, facts=facts, footer=footer))


def _title(cluster: "Cluster") -> str:
    return _capital(cluster.label) if cluster.label else f"Cluster {cluster.id}"


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]


def _lead(found: "Clustering", cluster: "Cluster", most: int) -> str:
    parts = [count(len(cluster.ids), "image") + _part(cluster.ids, most), f"cluster {cluster.id}"]
    named = (cluster.label or "").split(", ")
    also = [word for word in cluster.words if word not in named]
    if also:
        parts.append("also " + ", ".join(also))
    near = _most_alike(found, cluster)
    if near is not None:
        parts.append(f"most like {near.label or f'cluster {near.id}'}")
    return " · ".join(parts)


def _part(ids: Sequence[str], most: int) -> str:
    """Say how many are shown, where that is not all."""
    return f", of which {most} are shown" if len(ids) > most else ""


def _most_alike(found: "Clustering", cluster: "Cluster") -> "Cluster | None":
    """Return the cluster that this one joins as a whole, where it joins a single one."""
    k = len(found.clusters)
    for a, b, _, _ in found.tree:
        if cluster.id in (a, b):
            other = b if a == cluster.id else a
            return found.clusters[other] if other < k else None
    return None


def _describe(segment: "Segment") -> str:
    parts = [count(len(segment.customers), "customer")]
    if segment.customers:
        such = ", such as" if len(segment.customers) > _CUSTOMERS else ":"
        parts[0] += f"{such} {_names(segment.customers)}"
    if np.isfinite(segment.spread):
        parts.append(f"breadth of taste {segment.spread:.2f}")
    return " · ".join(parts)


def _names(customers: Sequence[str]) -> str:
    more = len(customers) - _CUSTOMERS
    return ", ".join(customers[:_CUSTOMERS]) + (f" and {more:,} more" if more > 0 else "")


def _some(first: Sequence[str], ids: Sequence[str], most: int) -> list[str]:
    """Return some images: those that stand for all, and then evenly spread ones."""
    held = set(ids)
    shown = [id for id in first if id in held]
    rest = [id for id in ids if id not in set(shown)]
    free = most - len(shown)
    if len(rest) > free:
        rest = [rest[int(i)] for i in np.linspace(0, len(rest) - 1, max(free, 0)).round()]
    return shown + rest


def _sheet(collection: "Collection", ids: Sequence[str], px: int = _IMAGE_PX) -> list[Card]:
    items = items_of(collection, ids)
    here = [id for id in ids if id in items]
    thumbnails = collection.thumbnails(here)
    small = {id: gallery.shrunk(thumbnails[id], px) for id in here if thumbnails.get(id)}
    return [Card(items[id].path, small.get(id)) for id in here]
