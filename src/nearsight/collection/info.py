"""The summary of a collection."""

from typing import TYPE_CHECKING, Any

from nearsight.store import NUMBER_TYPES

if TYPE_CHECKING:
    from nearsight.collection.collection import Collection


def collection_info(collection: "Collection") -> dict[str, Any]:
    """Return what a collection is and holds; see `Collection.info`."""
    n = collection.count()
    size_bytes = sum(f.stat().st_size for f in collection.directory.rglob("*") if f.is_file())
    return {
        "directory": str(collection.directory),
        "images": n,
        "model": collection.spec.id,
        "dim": collection.spec.dim,
        "storage": collection.storage,
        "fingerprint": collection.fingerprint.digest,
        "license": collection.spec.license,
        "size_bytes": size_bytes,
        "bytes_per_image": round(size_bytes / n) if n else 0,
        "bytes_per_vector": collection.spec.dim * NUMBER_TYPES[collection.storage].bit_width // 8,
        "metadata": collection.metadata_types(),
        "created": collection.created.isoformat(),
        "written_by": collection.written_by,
    }
