"""A face as a row of the bank."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nearsight.faces.pipeline import Face, ImageFaces
from nearsight.images import decode_path, encode_path

_BOX = pa.list_(pa.float32(), 4)
_LANDMARKS = pa.list_(pa.float32(), 10)


@dataclass(frozen=True, slots=True)
class BankedFace:
    """A face in the bank.

    Attributes
    ----------
    id : str
        16 hex digits, made of the image's content and the place of the face in it.
    person : str
        Empty while nobody has said whose it is.
    group : str
        Of a face without a person: the group it was put into; empty where there is none.
    path : str
        The image, as it was given.
    image : str
        Hash of its content.
    box : tuple of float
        Left, top, right, bottom in pixels.
    confidence, quality : float
        How sure the detector is, and how good the image is for recognizing; in 0..1.
    problems : str
        What is poor about the image, in words; empty where nothing is.
    enrolled_at : datetime
        When it came into the bank; UTC.
    """

    id: str
    person: str
    group: str
    path: str
    image: str
    box: tuple[float, float, float, float]
    confidence: float
    quality: float
    problems: str
    enrolled_at: datetime

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "BankedFace":
        """Read a row with the columns `COLUMNS`."""
        values = {name: row[name] for name in COLUMNS}
        values["image"] = values.pop("picture")  # the column's name in every bank written so far
        left, top, right, bottom = values["box"]
        return cls(**{**values, "box": (left, top, right, bottom), "path": decode_path(values["path"])})


COLUMNS = (
    "id",
    "person",
    "group",
    "path",
    "picture",
    "box",
    "confidence",
    "quality",
    "problems",
    "enrolled_at",
)


def schema(dim: int) -> pa.Schema:
    """Return the columns of a new bank."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("person", pa.string(), nullable=False),
            pa.field("group", pa.string(), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("picture", pa.string(), nullable=False),
            pa.field("box", _BOX, nullable=False),
            pa.field("landmarks", _LANDMARKS, nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
            pa.field("confidence", pa.float32(), nullable=False),
            pa.field("quality", pa.float32(), nullable=False),
            pa.field("problems", pa.string(), nullable=False),
            pa.field("enrolled_at", pa.timestamp("us", tz="UTC"), nullable=False),
        ]
    )


def face_id(image: str, face: Face) -> str:
    """Return what names a face: the same place in the same image is the same face."""
    place = ",".join(str(round(value)) for value in face.box)
    return hashlib.sha256(f"{image}:{place}".encode()).hexdigest()[:16]


def table_of(faces: Iterable[tuple[ImageFaces, Face, str]], dim: int) -> pa.Table:
    """Return rows for the store.

    Parameters
    ----------
    faces : iterable of (ImageFaces, Face, str)
        A face with the image it is in, and the person it belongs to; empty for nobody yet.
    dim : int
        Length of the vectors.
    """
    now = datetime.now(timezone.utc)
    rows = [
        {
            "id": face_id(reading.id, face),
            "person": person,
            "group": "",
            "path": encode_path(reading.source.path),
            "picture": reading.id,
            "box": list(face.box),
            "landmarks": face.landmarks.ravel().tolist(),
            "vector": face.vector.tolist(),
            "confidence": face.confidence,
            "quality": face.quality.score,
            "problems": ", ".join(face.quality.problems),
            "enrolled_at": now,
        }
        for reading, face, person in faces
    ]
    return pa.Table.from_pylist(rows, schema=schema(dim))


def matrix_of(table: pa.Table, dim: int) -> NDArray[np.float32]:
    """Return the (n, dim) vectors of rows."""
    column = table["vector"].combine_chunks()
    flat = column.flatten() if not isinstance(column, pa.ChunkedArray) else column.combine_chunks().flatten()
    vectors: NDArray[np.float32] = np.asarray(flat, np.float32).reshape(-1, dim)
    return vectors
