"""Compute the faces of a bank again, from their images, when the rules or the recognizer have changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from nearsight import progress as progress_display
from nearsight.errors import FingerprintMismatchError, ImageError, ImageFailure, InvalidParameterError
from nearsight.faces.models import DetectedFace
from nearsight.faces.pipeline import Face, FaceReader
from nearsight.faces.schema import BankedFace, schema
from nearsight.faces.storage import BankStorage
from nearsight.images import content_id, decode, find
from nearsight.parallel import ordered_map
from nearsight.text_format import count

# Where these differ, the stored boxes and landmarks are another detector's.
_OF_THE_DETECTOR = ("detector_sha256", "scan")
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """The result of `FaceBank.upgrade`.

    Attributes
    ----------
    faces : int
        Number of faces that were computed again.
    removed : list of str
        Paths of the images whose faces were removed, since they are missing or have changed.
    """

    faces: int = 0
    removed: list[str] = field(default_factory=list)


def upgrade_bank(storage: BankStorage, reader: FaceReader, *, drop_missing: bool) -> UpgradeReport:
    """Compute all faces of a bank again; see `FaceBank.upgrade`."""
    own, new = storage.manifest.fingerprint, reader.fingerprint
    if own == new:
        return UpgradeReport()
    if any(own.preprocessing.get(fact) != new.preprocessing.get(fact) for fact in _OF_THE_DETECTOR):
        raise FingerprintMismatchError(
            f"the faces in the bank at {storage.directory} were found by another detector"
            f" ({'; '.join(own.differences(new))}); enroll the photographs in another bank"
        )
    with storage.writing():
        table = storage.table()
        rows = table.drop_columns(["vector"]).to_pylist()
        faces, missing = _embedded_again(rows, reader)
        if missing and not drop_missing:
            named = ", ".join(missing[:_MAX_NAMED]) + (", ..." if len(missing) > _MAX_NAMED else "")
            raise InvalidParameterError(
                f"the faces in {count(len(missing), 'image')} cannot be computed again, since the file is"
                f" missing or has changed: {named}. Put it back, or run from the directory in which it was"
                f" enrolled; or drop these faces ({len(rows) - len(faces)} of {len(rows)}): --drop-missing"
            )
        kept = table.filter(pa.array([row["id"] in faces for row in rows], pa.bool_()))
        columns = {
            "vector": [faces[id].vector.tolist() for id in kept["id"].to_pylist()],
            "quality": [faces[id].quality.score for id in kept["id"].to_pylist()],
            "problems": [", ".join(faces[id].quality.problems) for id in kept["id"].to_pylist()],
            "is_gray": [faces[id].quality.is_gray for id in kept["id"].to_pylist()],
        }
        types = schema(storage.manifest.dim)
        for name, values in columns.items():
            # A column that the bank's version did not have is appended.
            index = kept.schema.get_field_index(name)
            column = pa.array(values, types.field(name).type)
            if index < 0:
                kept = kept.append_column(types.field(name), column)
            else:
                kept = kept.set_column(index, types.field(name), column)
        storage.replace_table(kept, fingerprint=new)
    return UpgradeReport(len(faces), missing)


def _embedded_again(
    rows: Iterable[Mapping[str, Any]], reader: FaceReader
) -> tuple[dict[str, Face], list[str]]:
    """Return the faces by their ids, and the paths of the images that cannot be used."""
    rows_of_image: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        face = BankedFace.from_row(row)
        rows_of_image.setdefault((face.image, face.path), []).append(row)

    def read(image: tuple[str, str]) -> dict[str, Face] | None:
        id, path = image
        try:
            source = next(iter(find([path])), None)
            if source is None or isinstance(source, ImageFailure):
                return None
            data = source.read(reader.limits)
            if content_id(data) != id:
                return None
            pixels = decode(data, path=path, limits=reader.limits).image
        except ImageError:
            return None
        own = rows_of_image[image]
        faces = {row["id"]: face for row in own for face in reader.embed(pixels, [_detected(row)])}
        return faces if len(faces) == len(own) else None

    results = ordered_map(read, rows_of_image, n_threads=reader.n_threads)
    tracked = progress_display.track(
        results, "computing faces again", total=len(rows_of_image), progress=reader.progress
    )
    faces: dict[str, Face] = {}
    missing: list[str] = []
    for (_, path), result in zip(rows_of_image, tracked, strict=True):
        if result is None:
            missing.append(path)
        else:
            faces |= result
    return faces, missing


def _detected(row: Mapping[str, Any]) -> DetectedFace:
    left, top, right, bottom = row["box"]
    landmarks = np.array(row["landmarks"], np.float32).reshape(-1, 2)
    return DetectedFace((left, top, right, bottom), landmarks, row["confidence"])
