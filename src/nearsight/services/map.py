"""The part of a map that shows some images, the clusters that color it, and a map in binary."""

from typing import TYPE_CHECKING

import numpy as np

from nearsight.analyses.clusters import Clustering
from nearsight.collection import Collection, Item
from nearsight.errors import FingerprintMismatchError, InvalidParameterError
from nearsight.services.clusters import clustering_file, present_ids

if TYPE_CHECKING:
    from nearsight.analyses.map import ImageMap


def place_on_map(
    collection: Collection, layout: "ImageMap", where: str | None
) -> tuple[list[Item], "ImageMap"]:
    """Return the images that match and are on a map, and the part of the map that shows them."""
    on_map = set(layout.ids)
    items = [item for item in collection.items(where) if item.id in on_map]
    return items, layout.subset([item.id for item in items])


def ids_on_map(content: bytes) -> list[str]:
    """Return the ids of a map in binary (`analysis_jobs.map`), in its order."""
    digits = content[len(content) * 10 // 26 :].hex()
    return [digits[at : at + 32] for at in range(0, len(digits), 32)]


def present_points(collection: Collection, content: bytes) -> bytes:
    """Return a map in binary, with NaN as the position of images that have left the collection since."""
    there, ids = present_ids(collection), ids_on_map(content)
    positions = np.frombuffer(content, "<f4", 2 * len(ids)).reshape(2, -1).copy()
    positions[:, [id not in there for id in ids]] = np.nan
    changed: bytes = positions.tobytes()
    return changed + content[positions.nbytes :]


def saved_clusters(
    collection: Collection, where: str | None = None, *, progress: bool | None = None
) -> dict[str, tuple[int, str | None]]:
    """Return number and name of each image's cluster among the collection's saved ones; -1 is noise.

    Empty if no clusters are saved, or if they are damaged or of another model.
    """
    file = clustering_file(collection)
    if not file.exists():
        return {}
    try:
        clustering = collection.predict_clusters(Clustering.load(file), where=where, progress=progress)
    except (InvalidParameterError, FingerprintMismatchError):
        return {}
    clusters: dict[str, tuple[int, str | None]] = dict.fromkeys(clustering.noise, (-1, None))
    for cluster in clustering.clusters:
        clusters |= dict.fromkeys(cluster.ids, (cluster.id, cluster.name))
    return clusters
