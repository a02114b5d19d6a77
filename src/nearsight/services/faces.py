"""Open or create a face bank, and export it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nearsight.artifacts import exported
from nearsight.errors import CollectionNotFoundError, InvalidParameterError
from nearsight.faces import FaceBank
from nearsight.text_format import plain


def open_or_create_bank(
    directory: Path, *, detector: str | None = None, recognizer: str | None = None, **reader_options: Any
) -> FaceBank:
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


def export_faces(bank: FaceBank, file: Path) -> int:
    """Write the faces of a bank to a file; return their number.

    Parameters
    ----------
    bank : FaceBank
    file : Path
        A ``.json`` file gets everything except the vectors, an ``.npz`` file the vectors with ids, persons
        and paths. It is replaced whole.

    Raises
    ------
    StorageError
        The file cannot be written.
    """
    faces, vectors = bank.vectors()
    with exported(file) as stream:
        if file.suffix.lower() == ".json":
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
