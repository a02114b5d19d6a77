"""Faces: find, group, identify; name, confirm, reject, merge, split, hide and forget people."""

import io
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from nearsight.faces import FaceBank, verify
from nearsight.faces.crops import face_crops
from nearsight.faces.people import People
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.inputs import (
    ImageInput,
    check_images,
    files_of,
    image_of,
    media_type,
    read_form,
    read_json,
)
from nearsight.server.routes.jobs import StartAnalysis
from nearsight.server.schemas import FACE_IMAGES, NAMED_FACE_IMAGES, RequestBody
from nearsight.server.service import Service
from nearsight.server.vectors import while_connected
from nearsight.services.faces import (
    enrollment_document,
    face_document,
    group_of,
    identify,
    person_document,
    person_id,
    verification_document,
    write_faces,
)

router = APIRouter(prefix="/v1/collections/{name}/faces", tags=["faces"], dependencies=[requires("faces")])

_T = TypeVar("_T")
_MB = 2**20
# A face's box in an image of that content never changes; but who is removed should not stay for long.
_CROP_CACHE = "private, max-age=3600"
_SANDBOX = "default-src 'none'; sandbox"

_Rate = Annotated[float | None, Field(gt=0, lt=1)]
_Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
_Faces = Annotated[list[str], Field(min_length=1, max_length=10_000)]
_PersonIds = Annotated[list[str], Field(min_length=1, max_length=1000)]


class FacesRequest(RequestBody):
    """See `FaceBank.group`; `where` says in which images to look."""

    where: str | None = None
    false_match_rate: _Rate = None


class BankUpgrade(RequestBody):
    """What becomes of faces whose image is missing or has changed."""

    drop_missing: bool = Field(False, description="Remove them; by default they stop the upgrade.")


class NewPersonName(RequestBody):
    """A name for a group or person; that of another person joins the two."""

    id: str
    name: _Name


class FaceChoice(RequestBody):
    """Faces by their ids."""

    faces: _Faces


class NamedFaces(FaceChoice):
    """Faces by their ids, and whose they are."""

    name: _Name | None = None


class Merge(RequestBody):
    """Persons and groups that are one person."""

    ids: Annotated[list[str], Field(min_length=2, max_length=1000)]
    name: _Name | None = None


class Hiding(RequestBody):
    """Persons and groups to hide, or to show again."""

    ids: _PersonIds
    hidden: bool = True


class DecisionUndo(RequestBody):
    """The change to take back, if it is the latest; by default whichever is the latest."""

    change: str | None = None


class Forgetting(RequestBody):
    """What to remove without a trace: exactly one of these."""

    ids: _PersonIds | None = None
    faces: _Faces | None = None
    unnamed: bool = False
    everything: bool = False


@router.post("", status_code=202)
async def find_faces(start: StartAnalysis, body: FacesRequest) -> dict[str, Any]:
    """Look for faces in images that were not looked into, and group all by person, as a job."""
    return await start("faces", body)


@router.post("/upgrade", status_code=202)
async def upgrade_faces(
    request: Request, name: str, start: StartAnalysis, body: BankUpgrade
) -> dict[str, Any]:
    """Compute all faces again from their images, as a job: once, where an earlier version computed them."""
    await _with_bank(request, name, lambda bank: None)
    return await start("faces_upgrade", body)


@router.get("")
async def list_people(
    request: Request,
    name: str,
    hidden: bool = False,
    least: int = Query(2, ge=1, description="Groups without a name have at least so many faces."),
    offset: int = Query(0, ge=0, le=10**9),
    limit: int = Query(100, ge=1, le=10_000),
) -> dict[str, Any]:
    """Return people, those with most faces first; with `hidden`, only those that are hidden."""

    def read(bank: FaceBank) -> dict[str, Any]:
        groups = bank.people.groups()
        listed = [
            group
            for group in groups
            if group.hidden == hidden and (group.person or len(group.faces) >= least)
        ]
        history = bank.people.history()
        end = offset + limit
        return {
            "people": [person_document(group) for group in listed[offset:end]],
            "total": len(listed),
            "next": end if end < len(listed) else None,
            "names": sorted(group.person for group in groups if group.person),
            "hidden": sum(group.hidden for group in groups),
            "alone": sum(not group.person and len(group.faces) < least for group in groups),
            "change": {"id": history[0].id, "action": history[0].action} if history else None,
        }

    return await _with_bank(request, name, read)


@router.get("/export", response_class=Response)
async def export(
    request: Request, name: str, kind: Annotated[Literal["json", "npz"], Query(alias="format")] = "json"
) -> Response:
    """Return all faces: everything except the vectors as JSON, or the vectors with ids, persons and paths.

    It is personal data like the bank; who is forgotten later stays in it.
    """
    service: Service = request.app.state.service

    def write(bank: FaceBank) -> bytes:
        stream = io.BytesIO()
        write_faces(stream, bank, kind, service.catalog.shown_path)
        return stream.getvalue()

    headers = {
        "Cache-Control": "private, no-store",
        "Content-Disposition": f'attachment; filename="{name}-faces.{kind}"',
    }
    media_type = "application/json" if kind == "json" else "application/octet-stream"
    return Response(await _with_bank(request, name, write), media_type=media_type, headers=headers)


@router.get("/people/{id}")
async def get_person(
    request: Request,
    name: str,
    id: str,
    offset: int = Query(0, ge=0, le=10**9),
    limit: int = Query(200, ge=1, le=10_000),
) -> dict[str, Any]:
    """Return a person or group, and a page of the faces: those with the name, then those that match."""
    service: Service = request.app.state.service

    def read(bank: FaceBank) -> dict[str, Any]:
        group = group_of(bank.people.groups(), id)
        end = offset + limit
        faces = [face_document(face, group.suggested.get(face.id)) for face in group.faces[offset:end]]
        for face in faces:
            face["path"] = service.catalog.shown_path(face["path"])
        return {
            "person": person_document(group),
            "faces": faces,
            "total": len(group.faces),
            "next": end if end < len(group.faces) else None,
        }

    return await _with_bank(request, name, read)


@router.get("/people/{id}/images")
async def get_images(request: Request, name: str, id: str) -> dict[str, Any]:
    """Return the ids of the collection's images that show a person, without those that only may."""
    service: Service = request.app.state.service

    def read(bank: FaceBank) -> dict[str, Any]:
        group = group_of(bank.people.groups(), id)
        ids = list(dict.fromkeys(face.image for face in group.faces if face.id not in group.suggested))
        paths = {item.id: item.path for item in service.catalog.open(name).items(ids=ids)}
        present = [image for image in ids if image in paths]
        return {"ids": present, "paths": [service.catalog.shown_path(paths[image]) for image in present]}

    return await _with_bank(request, name, read)


@router.get("/{face}/crop", response_class=Response)
async def get_crop(request: Request, name: str, face: str, side: int = Query(160, ge=16, le=512)) -> Response:
    """Return a face, cut out of its image: a square JPEG."""
    service: Service = request.app.state.service

    def read(bank: FaceBank) -> bytes | None:
        return face_crops(bank.people.faces([face]), limits=service.limits, side_px=side).get(face)

    data = await _with_bank(request, name, read)
    if data is None:
        raise Problem(404, "there is no such face, or its image is gone or has changed", code="no_crop")
    headers = {"Cache-Control": _CROP_CACHE, "Content-Security-Policy": _SANDBOX}
    return Response(data, media_type="image/jpeg", headers=headers)


@router.post("/name")
async def name_person(request: Request, name: str, body: NewPersonName) -> dict[str, Any]:
    """Name a group, or rename a person. With the name of another person, the two become one."""

    def change(people: People) -> dict[str, Any]:
        key = group_of(people.groups(), body.id).key
        n_faces = people.name(key, body.name)
        return {"id": person_id(people.key(body.name)), "faces": n_faces}

    return await _change(request, name, change)


@router.post("/confirm")
async def confirm(request: Request, name: str, body: NamedFaces) -> dict[str, Any]:
    """Give faces the name of whom they match, or the name that is sent."""

    def change(people: People) -> dict[str, Any]:
        if body.name is not None:
            return {"faces": people.assign(body.faces, body.name)}
        return {"faces": sum(people.confirm(body.faces).values())}

    return await _change(request, name, change)


@router.post("/reject")
async def reject(request: Request, name: str, body: FaceChoice) -> dict[str, Any]:
    """Decide that faces are not of the person or group that they are in or match."""
    return await _change(request, name, lambda people: {"faces": people.reject(body.faces)})


@router.post("/split")
async def split(request: Request, name: str, body: NamedFaces) -> dict[str, Any]:
    """Split faces off: together they are another person."""
    return await _change(request, name, lambda people: {"id": person_id(people.split(body.faces, body.name))})


@router.post("/merge")
async def merge(request: Request, name: str, body: Merge) -> dict[str, Any]:
    """Make one of several persons and groups."""

    def change(people: People) -> dict[str, Any]:
        groups = people.groups()
        merged = people.merge([group_of(groups, id).key for id in body.ids], body.name)
        return {"id": person_id(merged)}

    return await _change(request, name, change)


@router.post("/hide")
async def hide(request: Request, name: str, body: Hiding) -> dict[str, Any]:
    """Hide persons and groups, or show them again."""

    def change(people: People) -> dict[str, Any]:
        groups = people.groups()
        return {"changed": people.hide([group_of(groups, id).key for id in body.ids], body.hidden)}

    return await _change(request, name, change)


@router.post("/undo")
async def undo(request: Request, name: str, body: DecisionUndo) -> dict[str, Any]:
    """Take the latest change back."""
    return await _change(request, name, lambda people: {"action": people.undo(body.change).action})


@router.post("/forget")
async def forget(request: Request, name: str, body: Forgetting) -> dict[str, Any]:
    """Remove faces, with their vectors and names, from all files of the bank. This cannot be undone.

    Photographs stay. A later job does not bring back persons or faces that were removed.
    """
    chosen = [body.ids is not None, body.faces is not None, body.unnamed, body.everything]
    if sum(chosen) != 1:
        raise Problem(400, "say what to forget: exactly one of ids, faces, unnamed and everything")

    def remove(bank: FaceBank) -> dict[str, Any]:
        if body.everything:
            n_faces = len(bank.faces())
            bank.destroy()
            return {"removed": n_faces}
        if body.unnamed:
            return {"removed": bank.forget_unnamed()}
        if body.faces is not None:
            return {"removed": bank.remove(faces=body.faces)}
        groups = bank.people.groups()
        keys = {group_of(groups, id).key for id in body.ids or ()}
        return {"removed": bank.people.remove(lambda id, key: key in keys)}

    return await _with_bank(request, name, remove)


@router.post("/enroll", openapi_extra=NAMED_FACE_IMAGES)
async def enroll(request: Request, name: str) -> dict[str, Any]:
    """Enroll a person from images of the collection (`ids`) or from images that are sent and not kept."""
    service: Service = request.app.state.service
    fields, inputs = await _images(request, service, name)
    person = fields.get("name")
    if not isinstance(person, str) or not person.strip() or len(person) > 200:
        raise Problem(400, "name must be a text of 1 to 200 characters", param="name")

    def run() -> dict[str, Any]:
        bank = service.face_banks.with_models(name, create=True)
        report = bank.enroll(inputs, name=person)
        document = enrollment_document(bank, report)
        for listed in ("cautions", "failed"):
            _show_paths(service, document[listed])
        return document

    document: dict[str, Any] = await while_connected(request, service.in_analysis_thread(run))
    return document


@router.post("/identify", openapi_extra=FACE_IMAGES)
async def identify_faces(
    request: Request, name: str, false_match_rate: float | None = Query(None, gt=0, lt=1)
) -> dict[str, Any]:
    """Identify the persons in images of the collection (`ids`), or in images that are sent and not kept."""
    service: Service = request.app.state.service
    _, inputs = await _images(request, service, name)
    options = {} if false_match_rate is None else {"false_match_rate": false_match_rate}

    def run() -> dict[str, Any]:
        document = identify(service.face_banks.with_models(name), inputs, **options)
        for listed in ("faces", "failed"):
            _show_paths(service, document[listed])
        document["without_faces"] = [service.catalog.shown_path(path) for path in document["without_faces"]]
        return document

    document: dict[str, Any] = await while_connected(request, service.in_analysis_thread(run))
    return document


@router.post("/verify", openapi_extra=FACE_IMAGES)
async def verify_faces(
    request: Request, name: str, false_match_rate: float | None = Query(None, gt=0, lt=1)
) -> dict[str, Any]:
    """Decide whether two images show the same person, by the largest face of each.

    They are images of the collection (`ids`), or images that are sent and not kept. No faces need be known.
    """
    service: Service = request.app.state.service
    _, inputs = await _images(request, service, name)
    if len(inputs) != 2:
        raise Problem(400, f"there are {len(inputs)} images; two are compared")
    options = {} if false_match_rate is None else {"false_match_rate": false_match_rate}

    def run() -> dict[str, Any]:
        return verification_document(verify(service.face_banks.reader(name), *inputs, **options))

    return await while_connected(request, service.in_analysis_thread(run))


async def _with_bank(request: Request, name: str, read: Callable[[FaceBank], _T]) -> _T:
    service: Service = request.app.state.service
    return await service.in_thread(lambda: read(service.face_banks.open(name)))


async def _change(request: Request, name: str, change: Callable[[People], dict[str, Any]]) -> dict[str, Any]:
    """Change something, and return with the result the change that can be undone now."""

    def run(bank: FaceBank) -> dict[str, Any]:
        people = bank.people
        result = change(people)
        history = people.history()
        return {**result, "change": history[0].id if history else None}

    return await _with_bank(request, name, run)


async def _images(request: Request, service: Service, name: str) -> tuple[dict[str, Any], list[Any]]:
    """Return the fields of a request, and its images: paths of the collection, and bytes."""
    settings = service.settings
    images: list[bytes] = []
    if media_type(request) == "multipart/form-data":
        form = await read_form(request, max_files=settings.max_images + 1)
        try:
            images = await files_of(form, "image")
            fields: dict[str, Any] = {key: value for key, value in form.items() if isinstance(value, str)}
            fields["ids"] = [value for value in form.getlist("ids") if isinstance(value, str)]
        finally:
            await form.close()
    else:
        fields = await read_json(request)
        sent = fields.get("images") or []
        if not isinstance(sent, list):
            raise Problem(400, "images must be a list of data URIs or base64 texts", param="images")
        for i, value in enumerate(sent):
            image = image_of(value, i)
            if not isinstance(image, ImageInput):
                raise Problem(400, "send the image itself, or the ids of images", param="images")
            images.append(image.data)
    ids = fields.get("ids") or []
    if not isinstance(ids, list) or not all(isinstance(id, str) for id in ids):
        raise Problem(400, "ids must be a list of texts", param="ids")
    if not 1 <= len(images) + len(ids) <= settings.max_images:
        raise Problem(
            400,
            f"there are {len(images) + len(ids)} images; send 1 to {settings.max_images}, as files named"
            " 'image', as JSON with images, or by ids",
        )
    check_images(images, max_bytes=settings.max_image_mb * _MB)

    def paths() -> list[str]:
        collection = service.catalog.open(name)
        return [collection.get(id).path for id in ids]

    return fields, [*await service.in_thread(paths), *images]


def _show_paths(service: Service, documents: list[dict[str, Any]]) -> None:
    for document in documents:
        document["path"] = service.catalog.shown_path(document["path"])
