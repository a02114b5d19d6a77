"""The rows of a face bank."""

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


@dataclass(frozen=True, slots=True)
class BankedFace:
    """A face in the bank.

    Attributes
    ----------
    id : str
        16 hex digits: a hash of the image's content and the face's box.
    person : str
        Name of the person; empty for a face without a name.
    group : str
        Group of a face without a person; empty if it is in none.
    path : str
        The image, as it was passed.
    image : str
        Hash of the image's content.
    box : tuple of float
        Left, top, right, bottom in pixels.
    confidence, quality : float
        Confidence of the detector, and quality of the image for recognition; both in 0..1.
    problems : str
        Problems of the image in words, such as ``blurred``; empty if there are none.
    enrolled_at : datetime
        When the face was enrolled; UTC.
    is_gray : bool
        Whether the face has no color; False in banks of earlier versions.
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
    is_gray: bool = False

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "BankedFace":
        """Return the face of a row with the columns `COLUMNS`."""
        values = {name: row[name] for name in COLUMNS if name in row}
        values["image"] = values.pop("picture")  # the column's name in every bank written so far
        left, top, right, bottom = values["box"]
        return cls(**{**values, "box": (left, top, right, bottom), "path": decode_path(values["path"])})


def schema(dim: int) -> pa.Schema:
    """Return the columns of a new bank."""
    types = {
        "id": pa.string(),
        "person": pa.string(),
        "group": pa.string(),
        "path": pa.string(),
        "picture": pa.string(),
        "box": pa.list_(pa.float32(), 4),
        "landmarks": pa.list_(pa.float32(), 10),
        "vector": pa.list_(pa.float32(), dim),
        "confidence": pa.float32(),
        "quality": pa.float32(),
        "problems": pa.string(),
        "enrolled_at": pa.timestamp("us", tz="UTC"),
        "is_gray": pa.bool_(),
    }
    return pa.schema([pa.field(name, type_, nullable=False) for name, type_ in types.items()])


#: The columns of a `BankedFace`: all but the numbers of the face.
COLUMNS = tuple(name for name in schema(1).names if name not in ("landmarks", "vector"))


def face_id(image: str, face: Face) -> str:
    """Return a face's id: the same box in the same image is the same face."""
    box = ",".join(str(round(value)) for value in face.box)
    return hashlib.sha256(f"{image}:{box}".encode()).hexdigest()[:16]


def to_table(faces: Iterable[tuple[ImageFaces, Face, str]], dim: int) -> pa.Table:
    """Return rows for the store.

    Parameters
    ----------
    faces : iterable of (ImageFaces, Face, str)
        A face's image, the face, and its person; empty for no person.
    dim : int
        Length of the vectors.
    """
    now = datetime.now(timezone.utc)
    rows = [
        {
            "id": face_id(image.id, face),
            "person": person,
            "group": "",
            "path": encode_path(image.source.path),
            "picture": image.id,
            "box": list(face.box),
            "landmarks": face.landmarks.ravel().tolist(),
            "vector": face.vector.tolist(),
            "confidence": face.confidence,
            "quality": face.quality.score,
            "problems": ", ".join(face.quality.problems),
            "enrolled_at": now,
            "is_gray": face.quality.is_gray,
        }
        for image, face, person in faces
    ]
    return pa.Table.from_pylist(rows, schema=schema(dim))


def images_of(table: pa.Table) -> set[str]:
    """Return the ids of the images of rows."""
    return set(table["picture"].to_pylist())


def vectors_of(table: pa.Table, dim: int) -> NDArray[np.float32]:
    """Return the (n, dim) vectors of rows."""
    column = table["vector"].combine_chunks()
    flat = column.flatten() if not isinstance(column, pa.ChunkedArray) else column.combine_chunks().flatten()
    vectors: NDArray[np.float32] = np.asarray(flat, np.float32).reshape(-1, dim)
    return vectors
