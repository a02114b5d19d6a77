"""Find the kinds of images in a folder, and say later where new images belong."""

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
    found = collection.cluster(words=[])
    for cluster in found.clusters:
        print(f"cluster {cluster.id}: {len(cluster.ids)} images, such as {cluster.representative}")
    print(f"{len(found.noise)} images belong to none\n")

    collection.add(new, metadata={"batch": "new"})
    later = collection.predict_clusters(found, where="batch = 'new'")
    for cluster in later.clusters:
        print(f"cluster {cluster.id}: {len(cluster.ids)} of the new images")
    print(f"{len(later.noise)} of the new ones belong to none")
