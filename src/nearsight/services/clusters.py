"""Where clusters are saved, what is left of them, and which of them show people."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nearsight.analyses.cluster_members import Cluster
from nearsight.analyses.cluster_names import MIXED, PERHAPS
from nearsight.analyses.clusters import FILENAME, Clustering
from nearsight.collection import Collection
from nearsight.errors import MissingExtraError, UnknownModelError, WeightsError
from nearsight.faces.models import FaceDetector, detect, load_detector
from nearsight.progress import track

# A cluster shows people if at least half of its first representative images have a face of a tenth of the
# shorter side or more. Portraits are mostly face.
_N_IMAGES, _MIN_SHARE_WITH_FACE = 6, 0.5
_MIN_FACE, _MIN_PORTRAIT_FACE = 0.1, 0.3
# Looking for faces takes a second for every cluster.
_MOST_CLUSTERS = 100


def clustering_file(collection: Collection) -> Path:
    """Return where a collection's own clusters are saved."""
    return collection.directory / FILENAME


def save_clustering(
    collection: Collection, clustering: Clustering, *, file: Path | None = None, where: str | None = None
) -> bool:
    """Save clusters, so that images can be assigned to them later; return whether they were saved.

    Parameters
    ----------
    file : Path, optional
        By default, the collection's own file, if the collection can be written to and all its images were
        clustered: the clusters of a part do not replace those of the whole.
    where : str, optional
        The images that were clustered, if not all.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    if file is None and (where is not None or not os.access(collection.directory, os.W_OK)):
        return False
    clustering.save(file or clustering_file(collection))
    return True


def present_ids(collection: Collection) -> set[str]:
    """Return the ids of all images that are in the collection now."""
    return {id for batch in collection.iter_batches(["id"]) for id in batch.column("id").to_pylist()}


def present_clusters(collection: Collection, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return `clusters_document` without images that have left the collection since; numbers stay."""
    there = present_ids(collection)
    clusters = []
    for cluster in document["clusters"]:
        ids, typical = ([id for id in cluster[name] if id in there] for name in ("ids", "representatives"))
        first = next(iter([*typical, *ids]), None)
        left = {"ids": ids, "size": len(ids), "representative": first, "representatives": typical}
        clusters.append({**cluster, **left})
    return {**document, "clusters": clusters, "noise": [id for id in document["noise"] if id in there]}


def name_people(
    collection: Collection,
    clustering: Clustering,
    *,
    detector: FaceDetector | None = None,
    progress: bool | None = None,
) -> Clustering:
    """Return the clustering with clusters of faces named "portraits" or "people".

    The vocabulary of a classifier has clothes, but no people: portraits would be named after neckties. A
    cluster of smaller faces is renamed only if its name is none, has "perhaps", or is mixed.

    Parameters
    ----------
    detector : FaceDetector, optional
        By default the default one; without its package, nothing is renamed.
    progress : bool, optional
        Show progress on stderr; by default only where that is a terminal.
    """
    if detector is None:
        try:
            detector = load_detector()
        except (MissingExtraError, UnknownModelError, WeightsError):
            return clustering
    names = {}
    for cluster in track(
        clustering.clusters[:_MOST_CLUSTERS], "looking for faces", unit="clusters", progress=progress
    ):
        face = _typical_face(collection, cluster, detector)
        is_unsure = cluster.name is None or cluster.name.startswith((PERHAPS, MIXED))
        if face >= _MIN_PORTRAIT_FACE:
            names[cluster.id] = "portraits"
        elif face >= _MIN_FACE and is_unsure:
            names[cluster.id] = "people"
    return clustering.renamed(names) if names else clustering


def _typical_face(collection: Collection, cluster: Cluster, detector: FaceDetector) -> float:
    """Return the side of the largest face that half of the images have, as a share of the shorter side."""
    thumbnails = collection.thumbnails(cluster.representatives[:_N_IMAGES])
    sides = [_largest_face(jpeg, detector) for jpeg in thumbnails.values() if jpeg]
    if not sides:
        return 0.0
    return float(np.quantile(sides, 1 - _MIN_SHARE_WITH_FACE, method="lower"))


def _largest_face(jpeg: bytes, detector: FaceDetector) -> float:
    with Image.open(io.BytesIO(jpeg)) as opened:
        image = opened.convert("RGB")
    shorter = min(image.size)
    faces = detect(detector, image, smallest_px=max(_MIN_FACE * shorter, 1.0))
    return faces[0].side_px / shorter if faces else 0.0
