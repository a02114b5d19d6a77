"""Open or create a face bank, export it, and its results as JSON documents."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from nearsight.artifacts import exported
from nearsight.errors import CollectionNotFoundError, ImageFailure, InvalidParameterError, UnknownIdError
from nearsight.text_format import plain

if TYPE_CHECKING:
    from nearsight.collection import Collection
    from nearsight.faces import (
        BankedFace,
        EnrollReport,
        FaceBank,
        FaceGroup,
        FaceVerification,
        IdentifiedFace,
    )
    from nearsight.faces.decisions import PersonKey

# The bank's folder in the collection's directory.
_FOLDER = "faces"


def bank_directory(collection_directory: Path) -> Path:
    """Return where the face bank of a collection lies."""
    return collection_directory / _FOLDER


def open_or_create_bank(
    directory: Path, *, detector: str | None = None, recognizer: str | None = None, **reader_options: Any
) -> "FaceBank":
    """Open the face bank in a directory, or create it.

    Parameters
    ----------
    directory : Path
    detector, recognizer : str, optional
        Models of a new bank; the default models otherwise.
    **reader_options
        For `FaceReader`.

    Raises
    ------
    InvalidParameterError
        The bank exists, and `detector` or `recognizer` is given. Leave it out, or name another directory.
    MissingExtraError
        The models are not installed; the message holds the command that installs them.
    """
    from nearsight.faces import FaceBank

    models = {"detector": detector, "recognizer": recognizer}
    chosen: dict[str, Any] = {key: name for key, name in models.items() if name}
    try:
        bank = FaceBank.open(directory, **reader_options)
    except CollectionNotFoundError:
        return FaceBank.create(directory, **chosen, **reader_options)
    if chosen:
        raise InvalidParameterError(
            f"the face bank at {directory} has its models already; leave out the {' and '.join(chosen)}, or"
            " create another bank (--bank DIR)"
        )
    return bank


def export_faces(bank: "FaceBank", file: Path) -> int:
    """Write the faces of a bank to a file; return their number.

    Parameters
    ----------
    bank : FaceBank
    file : Path
        See `write_faces` for what its ending means. It is replaced whole.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    with exported(file) as stream:
        return write_faces(stream, bank, file.suffix.lower().removeprefix("."))


def write_faces(
    stream: IO[bytes], bank: "FaceBank", kind: str, shown_path: Callable[[str], str] = str
) -> int:
    """Write the faces of a bank; return their number.

    Parameters
    ----------
    stream : file
    bank : FaceBank
    kind : {"json", "npz"}
        Everything except the vectors, or the vectors with ids, persons and paths.
    shown_path : callable
        How a path is written.
    """
    faces, vectors = bank.vectors()
    faces = [replace(face, path=shown_path(face.path)) for face in faces]
    if kind == "json":
        rows = [plain(asdict(face)) for face in faces]
        stream.write(json.dumps({"faces": rows}, indent=1).encode("ascii"))
    else:
        paths = [face.path.encode("utf-8", "backslashreplace").decode() for face in faces]
        np.savez(
            stream,
            vectors=vectors,
            ids=np.array([face.id for face in faces]),
            persons=np.array([face.person for face in faces]),
            paths=np.array(paths),
        )
    return len(faces)


def unread_paths(bank: "FaceBank", collection: "Collection", where: str | None = None) -> list[str]:
    """Return a path of each image of a collection in which nobody has looked for faces."""
    known = bank.known_images()
    return [item.path for item in collection.items(where) if item.id not in known]


def person_id(key: "PersonKey") -> str:
    """Return a short id of a person or group, for addresses: a name would end up in logs.

    Examples
    --------
    >>> from nearsight.faces.decisions import PersonKey
    >>> person_id(PersonKey("g7", "")), person_id(PersonKey("", "Ada"))
    ('g7', 'p-99a563ab2f6e')
    """
    return key.group or f"p-{hashlib.sha256(key.person.encode()).hexdigest()[:12]}"


def group_of(groups: Iterable["FaceGroup"], id: str) -> "FaceGroup":
    """Return the person or group of an id of `person_id`.

    Raises
    ------
    UnknownIdError
        There is none: it was merged, renamed or removed, or groups were computed again.
    """
    for group in groups:
        if person_id(group.key) == id:
            return group
    raise UnknownIdError(f"there is no person or group {id!r}; it may have another name now")


def groups_document(groups: Sequence["FaceGroup"], failed: Sequence[ImageFailure]) -> dict[str, Any]:
    """Return groups of faces as plain data; faces that are alone are counted."""
    listed = [group for group in groups if group.person or len(group.faces) > 1]
    return {
        "groups": [
            {
                "group": group.group or None,
                "name": group.person or None,
                "size": len(group.faces),
                "hidden": group.hidden,
                "faces": [
                    {
                        "id": face.id,
                        "path": face.path,
                        "box": rounded(face.box),
                        "enrolled": bool(face.person),
                    }
                    for face in group.faces
                ],
            }
            for group in listed
        ],
        "alone": len(groups) - len(listed),
        "failed": [asdict(failure) for failure in failed],
    }


def person_document(group: "FaceGroup", n_shown: int = 4) -> dict[str, Any]:
    """Return a person or group as plain data, with the ids of its best faces."""
    own = [face for face in group.faces if face.id not in group.suggested]
    return {
        "id": person_id(group.key),
        "name": group.person or None,
        "group": group.group or None,
        "faces": len(own),
        "suggested": len(group.suggested),
        "images": len({face.image for face in own}),
        "hidden": group.hidden,
        "shown": [face.id for face in sorted(own, key=lambda face: -face.quality)[:n_shown]],
    }


def face_document(face: "BankedFace", similarity: float | None = None) -> dict[str, Any]:
    """Return a face of a person as plain data; `similarity` is that of one that only matches."""
    return {
        "id": face.id,
        "image": face.image,
        "path": face.path,
        "box": rounded(face.box),
        "enrolled": bool(face.person),
        "similarity": None if similarity is None else round(similarity, 4),
        "quality": round(face.quality, 3),
        "problems": face.problems,
    }


def enrollment_document(bank: "FaceBank", report: "EnrollReport") -> dict[str, Any]:
    """Return what became of images to enroll as plain data."""
    persons = bank.persons()
    return {
        "enrolled": report.enrolled,
        "already": report.already,
        "cautions": [asdict(caution) for caution in report.cautions],
        "failed": [asdict(failure) for failure in report.failed],
        "skipped": report.skipped,
        "persons": len(persons),
        "faces": sum(persons.values()),
        "models": models_document(bank),
    }


def identified_document(path: str, face: "IdentifiedFace") -> dict[str, Any]:
    """Return an identified face as plain data."""
    return {
        "path": path,
        "box": rounded(face.face.box),
        "name": face.person,
        "similarity": round(face.similarity, 4),
        "unknown": face.person is None,
        "ambiguous": face.ambiguous,
        "doubt": face.doubt,
        "nearest": face.nearest,
        "rival": face.rival,
        "rival_similarity": round(face.rival_similarity, 4),
        "confidence": round(face.face.confidence, 3),
        "quality": round(face.face.quality.score, 3),
        "differs": list(face.differs),
    }


def identify(bank: "FaceBank", inputs: Any, **options: Any) -> dict[str, Any]:
    """Identify the faces in images, and return plain data; see `FaceBank.identify`."""
    rate = {key: options[key] for key in ("false_match_rate",) if key in options}
    identifier = bank.identifier(**rate)
    faces: list[dict[str, Any]] = []
    without_faces: list[str] = []
    failed: list[ImageFailure] = []
    for result in bank.identify(inputs, identifier=identifier, **options):
        if isinstance(result, ImageFailure):
            failed.append(result)
            continue
        path = result.image.source.path
        faces += [identified_document(path, face) for face in result.faces]
        if not result.faces:
            without_faces.append(path)
    threshold = identifier.threshold_ if identifier is not None else None
    return {
        "faces": faces,
        "without_faces": without_faces,
        "failed": [asdict(failure) for failure in failed],
        "threshold": threshold.value if threshold else None,
        "false_match_rate": threshold.false_alarm_rate if threshold else None,
        "models": models_document(bank),
    }


def verification_document(result: "FaceVerification") -> dict[str, Any]:
    """Return whether two images show the same person, as a JSON document."""
    return {
        "same": result.same,
        "similarity": round(result.similarity, 4),
        "threshold": round(result.threshold.value, 4),
        "false_match_rate": result.threshold.false_alarm_rate,
    }


def models_document(bank: "FaceBank") -> list[dict[str, str]]:
    """Return the bank's models with their licenses."""
    return [{"model": model, "license": license} for model, license in bank.models]


def rounded(box: tuple[float, float, float, float]) -> list[int]:
    """Return a box in whole pixels."""
    return [round(value) for value in box]
