"""Cluster images, and assign new images to the clusters."""

import tempfile
from pathlib import Path

import conformal_clip_data

from nearsight import Collection

folders = sorted(p for p in Path(conformal_clip_data.__file__).parent.rglob("*") if p.is_dir())
textiles = [sorted(folder.glob("*.jpg")) for folder in folders]
old = [path for files in textiles for path in files[:60]]
new = [path for files in textiles for path in files[60:70]]

with tempfile.TemporaryDirectory() as folder:
    collection = Collection.create(Path(folder) / "collection")
    collection.add(old)
    clustering = collection.cluster(words=[])
    for cluster in clustering.clusters:
        print(f"cluster {cluster.id}: {len(cluster.ids)} images, such as {cluster.representative}")
    print(f"{len(clustering.noise)} images are noise\n")

    collection.add(new, metadata={"batch": "new"})
    assigned = collection.predict_clusters(clustering, where="batch = 'new'")
    for cluster in assigned.clusters:
        print(f"cluster {cluster.id}: {len(cluster.ids)} of the new images")
    print(f"{len(assigned.noise)} of the new images are noise")
