"""The report of `nearsight cluster`: a contact sheet for each cluster."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nearsight.analyses.cluster_members import Cluster
from nearsight.analyses.clusters import Clustering
from nearsight.collection import Collection
from nearsight.collection.arrays import items_by_id
from nearsight.reports.gallery import Card, Section, write_gallery
from nearsight.reports.html import smaller_jpeg
from nearsight.reports.titles import title_of
from nearsight.text_format import count

# A browser takes too long to open more; the command's answer lists all.
MAX_CLUSTERS = 100
# Of each cluster: as many as 1,500 on all sheets allow, within these limits.
MIN_IMAGES, MAX_IMAGES, _MAX_ALL_IMAGES = 12, 48, 1500
# Twice the size that a sheet shows, for fine screens.
THUMBNAIL_PX = 148

_ALGORITHMS = {"density": "density (HDBSCAN)", "kmeans": "k-means"}
#: What images are clustered by, for readers.
COORDINATES = {"umap": "UMAP coordinates", "diffusion": "diffusion coordinates", "vectors": "the vectors"}


def write_clusters(file: Path, collection: Collection, clustering: Clustering) -> None:
    """Write the report of a collection's clusters.

    Parameters
    ----------
    file : Path
        Replaced whole.
    collection : Collection
        It has the thumbnails.
    clustering : Clustering
    """
    clusters, noise = clustering.clusters, clustering.noise
    n_images = sum(len(cluster.ids) for cluster in clusters) + len(noise)
    shown = [cluster for cluster in clusters[:MAX_CLUSTERS] if cluster.ids]
    n_each = min(MAX_IMAGES, max(MIN_IMAGES, _MAX_ALL_IMAGES // max(1, len(shown))))
    sections = [
        Section(
            capitalized(cluster.name) if cluster.name else f"Cluster {cluster.id}",
            _lead(clustering, cluster, n_each, taken_with(collection, cluster.ids)),
            sheet=sheet(collection, _selection(cluster.representatives, cluster.ids, n_each)),
        )
        for cluster in shown
    ]
    if noise:
        lead = f"{_count_shown(noise, n_each)} with too few similar images for a cluster."
        sections.append(Section("Noise", lead, sheet=sheet(collection, _selection([], noise, n_each))))
    facts = {
        "Images": f"{n_images:,}",
        "Clusters": f"{len(clusters):,}",
        "Noise": f"{len(noise) / max(n_images, 1):.0%}",
        "Algorithm": _algorithm(clustering),
        "Model": collection.spec.id,
        "Collection": collection.uri,
    }
    title = count(len(clusters), "cluster") if clusters else "No clusters"
    lead = "" if len(clusters) <= MAX_CLUSTERS else f"The {MAX_CLUSTERS} largest of {len(clusters):,}."
    footer = ["Images link to the originals; the representative images of a cluster come first."]
    write_gallery(file, title, sections, lead=lead, facts=facts, footer=footer)


def _algorithm(clustering: Clustering) -> str:
    name = _ALGORITHMS[clustering.algorithm]
    return name if clustering.coordinates is None else f"{name} on {COORDINATES[clustering.coordinates]}"


def capitalized(label: str) -> str:
    """Return a label with a capital first letter, and the others as they are."""
    return label[:1].upper() + label[1:]


def sheet(collection: Collection, ids: Sequence[str], side_px: int = THUMBNAIL_PX) -> list[Card]:
    """Return a card for each image that is still in the collection, with a smaller thumbnail."""
    items = items_by_id(collection, ids)
    present = [id for id in ids if id in items]
    thumbnails = collection.thumbnails(present)
    small = {id: smaller_jpeg(thumbnails[id], side_px) for id in present if thumbnails.get(id)}
    return [Card(items[id].path, small.get(id), name=title_of(items[id].metadata)) for id in present]


def taken_with(collection: Collection, ids: Sequence[str]) -> list[str]:
    """Return in words when images were taken, and with which camera if it is that of most of them."""
    items = items_by_id(collection, ids).values()
    days = sorted(item.taken.date() for item in items if item.taken)
    parts = []
    if days:
        parts.append(f"taken {days[0]}" + (f" to {days[-1]}" if days[-1] != days[0] else ""))
    cameras = Counter(item.camera for item in items if item.camera)
    for camera, n in cameras.most_common(1):
        if 2 * n > len(items):
            parts.append(camera)
    return parts


def _lead(clustering: Clustering, cluster: Cluster, n_shown: int, taken: Sequence[str]) -> str:
    parts = [_count_shown(cluster.ids, n_shown), f"cluster {cluster.id}", *taken]
    other_words = [word for word in cluster.words if word not in (cluster.name or "")]
    if other_words:
        parts.append("also " + ", ".join(other_words))
    nearest = _nearest_cluster(clustering, cluster)
    if nearest is not None:
        parts.append(f"most similar to {nearest.name or f'cluster {nearest.id}'}")
    return " · ".join(parts)


def _count_shown(ids: Sequence[str], n_shown: int) -> str:
    return count(len(ids), "image") + (f" ({n_shown} shown)" if len(ids) > n_shown else "")


def _nearest_cluster(clustering: Clustering, cluster: Cluster) -> Cluster | None:
    """Return the cluster that this one merges with first, None if that is a group of clusters."""
    k = len(clustering.clusters)
    for a, b, _, _ in clustering.tree:
        if cluster.id in (a, b):
            other = b if a == cluster.id else a
            return clustering.clusters[other] if other < k else None
    return None


def _selection(representatives: Sequence[str], ids: Sequence[str], n: int) -> list[str]:
    """Return `n` images: the representative ones, then evenly spaced others."""
    members = set(ids)
    first = [id for id in representatives if id in members]
    others = [id for id in ids if id not in set(first)]
    n_others = max(n - len(first), 0)
    if len(others) > n_others:
        others = [others[int(i)] for i in np.linspace(0, len(others) - 1, n_others).round()]
    return first + others
