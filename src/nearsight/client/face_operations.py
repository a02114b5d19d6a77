"""What a client can ask for about the faces of a collection; see `nearsight.client.operations`.

Persons and faces are mappings, as the service tells them; `id` of a person changes with the name.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from nearsight.artifacts import exported
from nearsight.client.job_operations import job_result
from nearsight.client.operations import image_files
from nearsight.client.requests import Named, Operation, Request
from nearsight.errors import InvalidParameterError

_PAGE = 1000


def find(
    faces: Named, *, where: str | None = None, false_match_rate: float | None = None
) -> Operation[list[dict[str, Any]]]:
    """Look for faces in new images, group all by person, and return the people."""
    body = {"where": where, "false_match_rate": false_match_rate}
    yield from job_result(Request("POST", _path(faces), json=body))
    return (yield from people(faces))


def upgrade(faces: Named, *, drop_missing: bool = False) -> Operation[dict[str, Any]]:
    """Compute all faces again from their images: once, where an earlier version computed them.

    Parameters
    ----------
    drop_missing : bool, default False
        Remove faces whose image is missing or has changed.

    Returns
    -------
    dict
        ``faces``, ``n_removed``, and the paths of the first 1,000 ``removed``.
    """
    request = Request("POST", _path(faces, "upgrade"), json={"drop_missing": drop_missing})
    return (yield from job_result(request))


def export(faces: Named, file: str | Path) -> Operation[int]:
    """Write all faces to a file; return their number. It is personal data.

    Parameters
    ----------
    file : path
        A ``.json`` file gets everything except the vectors, an ``.npz`` file the vectors with ids, persons
        and paths.
    """
    kind = Path(file).suffix.lower().removeprefix(".")
    if kind not in ("json", "npz"):
        raise InvalidParameterError(f"cannot export to {file}: the file must end in .json or .npz")
    content = (yield Request("GET", _path(faces, "export"), params={"format": kind})).content
    with exported(Path(file)) as stream:
        stream.write(content)
    if kind == "json":
        return len(json.loads(content)["faces"])
    with np.load(io.BytesIO(content)) as arrays:
        return len(arrays["ids"])


def people(faces: Named, *, hidden: bool = False, least: int = 2) -> Operation[list[dict[str, Any]]]:
    """Return people, those with most faces first; groups without a name have `least` faces or more."""
    found: list[dict[str, Any]] = []
    offset: int | None = 0
    while offset is not None:
        params = {"hidden": hidden, "least": least, "offset": offset, "limit": _PAGE}
        page = (yield Request("GET", _path(faces), params=params)).json()
        found += page["people"]
        offset = page["next"]
    return found


def person(faces: Named, id: str) -> Operation[list[dict[str, Any]]]:
    """Return the faces of a person: those with the name, then those that match."""
    found: list[dict[str, Any]] = []
    offset: int | None = 0
    while offset is not None:
        params = {"offset": offset, "limit": _PAGE}
        page = (yield Request("GET", _path(faces, "people", id), params=params)).json()
        found += page["faces"]
        offset = page["next"]
    return found


def images(faces: Named, id: str) -> Operation[list[str]]:
    """Return the ids of the collection's images that show a person."""
    ids: list[str] = (yield Request("GET", _path(faces, "people", id, "images"))).json()["ids"]
    return ids


def crop(faces: Named, face: str, *, side_px: int = 160) -> Operation[bytes]:
    """Return a face as a square JPEG."""
    return (yield Request("GET", _path(faces, face, "crop"), params={"side": side_px})).content


def name(faces: Named, id: str, name: str) -> Operation[str]:
    """Name a group or rename a person; return the person's new id."""
    answer = yield _change(faces, "name", id=id, name=name)
    return str(answer.json()["id"])


def confirm(faces: Named, ids: Sequence[str], *, name: str | None = None) -> Operation[int]:
    """Give faces the name of whom they match, or another; return their number."""
    return int((yield _change(faces, "confirm", faces=list(ids), name=name)).json()["faces"])


def reject(faces: Named, ids: Sequence[str]) -> Operation[int]:
    """Decide that faces are not of the person that they are or match; return their number."""
    return int((yield _change(faces, "reject", faces=list(ids))).json()["faces"])


def split(faces: Named, ids: Sequence[str], *, name: str | None = None) -> Operation[str]:
    """Split faces off: together they are another person; return that person's id."""
    return str((yield _change(faces, "split", faces=list(ids), name=name)).json()["id"])


def merge(faces: Named, ids: Sequence[str], *, name: str | None = None) -> Operation[str]:
    """Make one of several persons and groups; return the id."""
    return str((yield _change(faces, "merge", ids=list(ids), name=name)).json()["id"])


def hide(faces: Named, ids: Sequence[str], *, hidden: bool = True) -> Operation[int]:
    """Hide persons and groups, or show them again; return how many changed."""
    return int((yield _change(faces, "hide", ids=list(ids), hidden=hidden)).json()["changed"])


def undo(faces: Named) -> Operation[str]:
    """Take the latest change back; return what it was, such as ``name``."""
    return str((yield _change(faces, "undo")).json()["action"])


def forget(
    faces: Named,
    ids: Sequence[str] | None = None,
    *,
    faces_ids: Sequence[str] | None = None,
    unnamed: bool = False,
    everything: bool = False,
) -> Operation[int]:
    """Remove people by their ids, faces by theirs, unnamed faces, or everything; return how many faces."""
    body = {
        "ids": None if ids is None else list(ids),
        "faces": None if faces_ids is None else list(faces_ids),
        "unnamed": unnamed,
        "everything": everything,
    }
    return int((yield _change(faces, "forget", **body)).json()["removed"])


def enroll(
    faces: Named, inputs: Any = None, *, name: str, ids: Sequence[str] = ()
) -> Operation[dict[str, Any]]:
    """Enroll a person from images that are sent and not kept, or from images of the collection.

    Returns
    -------
    dict
        As `nearsight faces enroll --json` prints it.
    """
    answer = yield _with_images(faces, "enroll", inputs, {"name": name, "ids": list(ids)})
    return answer.json()  # type: ignore[no-any-return]  # a mapping, by the API


def identify(
    faces: Named, inputs: Any = None, *, ids: Sequence[str] = (), false_match_rate: float | None = None
) -> Operation[dict[str, Any]]:
    """Identify the persons in images that are sent and not kept, or in images of the collection.

    Returns
    -------
    dict
        As `nearsight faces identify --json` prints it.
    """
    params = {} if false_match_rate is None else {"false_match_rate": false_match_rate}
    answer = yield _with_images(faces, "identify", inputs, {"ids": list(ids)}, params)
    return answer.json()  # type: ignore[no-any-return]  # a mapping, by the API


def verify(
    faces: Named, inputs: Any = None, *, ids: Sequence[str] = (), false_match_rate: float | None = None
) -> Operation[dict[str, Any]]:
    """Decide whether two images show the same person, by the largest face of each.

    Parameters
    ----------
    inputs : images
        They are sent and not kept; two, or one beside one of `ids`.
    ids : sequence of str
        Images of the collection.

    Returns
    -------
    dict
        As `nearsight faces verify --json` prints it.
    """
    params = {} if false_match_rate is None else {"false_match_rate": false_match_rate}
    answer = yield _with_images(faces, "verify", inputs, {"ids": list(ids)}, params)
    return answer.json()  # type: ignore[no-any-return]  # a mapping, by the API


def _with_images(
    faces: Named, what: str, inputs: Any, fields: dict[str, Any], params: dict[str, Any] | None = None
) -> Request:
    if inputs is None:
        return Request("POST", _path(faces, what), json=fields, params=params)
    return Request("POST", _path(faces, what), files=image_files(inputs), data=fields, params=params)


def _change(owner: Named, what: str, /, **body: Any) -> Request:
    return Request("POST", _path(owner, what), json={key: v for key, v in body.items() if v is not None})


def _path(faces: Named, *parts: str) -> str:
    quoted = [quote(part, safe="") for part in (faces.name, "faces", *parts)]
    return "/".join(["/v1/collections", *quoted])
