"""The keys of points."""

import uuid

_KEYS = uuid.UUID("5d0c9a52-6f0f-4d0e-9f3e-0a2d4f6c8b11")


def key_of(id: str) -> str:
    """Return the key of the point of a row: Qdrant takes numbers and UUIDs only."""
    return str(uuid.uuid5(_KEYS, id))
