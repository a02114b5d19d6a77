"""What a collection is and holds."""

from typing import Any, Protocol

from nearsight.collection import schema
from nearsight.collection.manifest import Manifest
from nearsight.collection.view import View
from nearsight.store import VectorStore
from nearsight.store.lance.arrow import NUMBERS


class Stored(View, Protocol):
    """A collection with its store."""

    _store: VectorStore
    _manifest: Manifest


def info(self: Stored) -> dict[str, Any]:
    """Return what the collection is and holds.

    Returns
    -------
    dict
        ``bytes_per_vector`` is what the numbers of one vector take; ``bytes_per_image`` is everything on
        disk, thumbnails, index and old versions included, by the number of images.
    """
    n = self._store.count()
    size = sum(f.stat().st_size for f in self.directory.rglob("*") if f.is_file())
    storage = self._manifest.storage
    return {
        "directory": str(self.directory),
        "images": n,
        "model": self.spec.id,
        "dim": self.spec.dim,
        "storage": storage,
        "fingerprint": self.fingerprint.digest,
        "license": self.spec.license,
        "size_bytes": size,
        "bytes_per_image": round(size / n) if n else 0,
        "bytes_per_vector": self.spec.dim * NUMBERS[storage].bit_width // 8,
        "metadata": {
            c.removeprefix(schema.PREFIX): str(self._store.schema.field(c).type)
            for c in schema.metadata_columns(self._store.schema)
        },
        "created": self._manifest.created.isoformat(),
        "written_by": self._manifest.written_by,
    }
