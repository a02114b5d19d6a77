"""Where clusters are saved."""

import os
from pathlib import Path

from nearsight.analyses.clusters import FILENAME, Clustering
from nearsight.collection import Collection


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
