"""Labels that people give, which images they label next, and which labels are doubted."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from nearsight.analyses import label_queue
from nearsight.collection import Collection
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.analyses import latest_result
from nearsight.server.routes.classify import Doubtful, Ids, Key, shown_prediction
from nearsight.server.routes.items import page_of_items
from nearsight.server.routes.jobs import IdempotencyKey, accepted, analysis_args
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service
from nearsight.services import classifiers
from nearsight.services.label_queues import LEASE_S, MAX_LEASE_S, LabelQueue
from nearsight.services.label_sets import (
    DEFAULT_KEY,
    MAX_CLASSES,
    LabelChange,
    LabelSet,
    label_keys,
    matching_ids,
    whole_ids,
)

router = APIRouter(prefix="/v1/collections/{name}", tags=["labels"])

# With more labels than this, a check is a job; below, it takes about a second.
_MOST_CHECKED_AT_ONCE = 500
QueryKey = Annotated[str, Query(max_length=63)]


class NewLabel(RequestBody):
    """A label for images, named by ids or by a filter; null takes their label away."""

    ids: Ids | None = None
    where: str | None = None
    label: str | None


class LabelChanges(RequestBody):
    """Changes that are written together; each can be undone alone."""

    key: Key = DEFAULT_KEY
    changes: list[NewLabel] = Field(min_length=1, max_length=100)


class Classes(RequestBody):
    """The classes in the order of their keys."""

    key: Key = DEFAULT_KEY
    classes: list[str] = Field(max_length=MAX_CLASSES)


class LabelUndo(RequestBody):
    """The change to take back; without a number, the last one."""

    key: Key = DEFAULT_KEY
    change: int | None = None


class Confirmation(RequestBody):
    """Images whose label is right."""

    key: Key = DEFAULT_KEY
    ids: Ids


class QueueRequest(RequestBody):
    """How many images to label next, and which not; with a labeler, others do not get them meanwhile."""

    key: Key = DEFAULT_KEY
    n: int = Field(12, ge=1, le=200)
    skipped: Ids = Field([])
    labeler: str | None = Field(None, min_length=1, max_length=100)
    lease_s: float = Field(LEASE_S, gt=0, le=MAX_LEASE_S)
    held: Ids = Field([], description="Images that this labeler still has; the lease goes on.")


class CheckRequest(RequestBody):
    """See `Collection.check_labels`."""

    key: Key = DEFAULT_KEY
    doubtful: Doubtful = "refuse"


@router.get("/labels", dependencies=[requires("read")])
async def get_labels(request: Request, name: str, key: QueryKey = DEFAULT_KEY) -> dict[str, Any]:
    """Return the classes with their number of images, and the metadata keys that may hold labels."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        collection = service.catalog.open(name)
        classes = LabelSet(collection, key).classes()
        return {
            "key": key,
            "keys": label_keys(collection),
            "classes": [{"label": label, "images": n} for label, n in classes.items()],
            "labeled": sum(classes.values()),
            "images": len(collection),
        }

    return await service.in_thread(read)


@router.get("/labels/items", dependencies=[requires("read")])
async def list_labels(
    request: Request,
    name: str,
    key: QueryKey = DEFAULT_KEY,
    cursor: str | None = None,
    limit: int = Query(1000, ge=1, le=1000),
) -> dict[str, Any]:
    """Return a page of labeled images. `next` is the cursor of the page after it."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        label_set = LabelSet(service.catalog.open(name), key)
        if key not in label_set.collection.metadata_types():
            return {"items": [], "total": 0, "next": None}
        items, total, after = page_of_items(service, name, f"metadata.{key} IS NOT NULL", cursor, limit)
        shown = service.catalog.shown_path
        return {
            "items": [
                {"id": item.id, "path": shown(item.path), "label": str(item.metadata[key])} for item in items
            ],
            "total": total,
            "next": after,
        }

    return await service.in_thread(read)


@router.post("/labels", dependencies=[requires("write")])
async def change_labels(request: Request, name: str, body: LabelChanges) -> dict[str, Any]:
    """Give images labels, or take labels away. What is answered is on disk."""
    service: Service = request.app.state.service

    def change() -> list[int]:
        label_set = LabelSet(service.catalog.open(name), body.key)
        named = [LabelChange(_named(label_set.collection, each), each.label) for each in body.changes]
        numbers = label_set.change(named)
        service.catalog.forget_order(name)
        return numbers

    return {"changes": await service.in_thread(change)}


@router.post("/labels/undo", dependencies=[requires("write")])
async def undo(request: Request, name: str, body: LabelUndo) -> dict[str, Any]:
    """Take back a change of labels; images that got another label since keep it."""
    service: Service = request.app.state.service

    def take_back() -> dict[str, Any]:
        undone = LabelSet(service.catalog.open(name), body.key).undo(body.change)
        service.catalog.forget_order(name)
        if undone is None:
            raise Problem(409, "there is nothing to undo", code="nothing_to_undo")
        return {"change": undone.number, "label": undone.label, "labels": undone.before}

    return await service.in_thread(take_back)


@router.put("/labels/classes", dependencies=[requires("write")])
async def set_classes(request: Request, name: str, body: Classes) -> dict[str, Any]:
    """Choose the classes and their order."""
    service: Service = request.app.state.service
    names = await service.in_thread(
        lambda: LabelSet(service.catalog.open(name), body.key).set_classes(body.classes)
    )
    return {"classes": names}


@router.get("/labels/export", dependencies=[requires("read")], response_class=StreamingResponse)
async def export(request: Request, name: str, key: QueryKey = DEFAULT_KEY) -> StreamingResponse:
    """Return all labeled images as a table (CSV): id, path, label."""
    service: Service = request.app.state.service
    label_set = await service.in_thread(lambda: LabelSet(service.catalog.open(name), key))
    headers = {"Content-Disposition": f'attachment; filename="{name}-{key}.csv"'}
    rows: Iterator[bytes] = label_set.csv(service.catalog.shown_path)
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/labels/queue", dependencies=[requires("read")])
async def get_queue(request: Request, name: str, body: QueueRequest) -> dict[str, Any]:
    """Return the images to label next, with what the collection's own classifier makes of them.

    About a quarter are check images, drawn at random. Images that others have are left out; `leased` says how
    many these are. To lease images needs the scope write.
    """
    service: Service = request.app.state.service
    if body.labeler is not None:
        service.gate.admit(request, "write")

    def read() -> tuple[dict[str, Any], bool]:
        turn = LabelQueue(service.catalog.open(name), body.key).next(
            body.n, labeler=body.labeler, lease_s=body.lease_s, skipped=set(body.skipped), held=body.held
        )
        shown = [{**shown_prediction(service, i.prediction), "check": i.is_check} for i in turn.images]
        return {"images": shown, "leased": turn.n_leased}, turn.is_stale

    document, is_stale = await service.in_thread(read)
    if is_stale:
        service.in_background(
            f"label queue {name} {body.key}", lambda: LabelQueue(service.catalog.open(name), body.key).plan()
        )
    return document


@router.get("/labels/accuracy", dependencies=[requires("read")])
async def get_accuracy(request: Request, name: str, key: QueryKey = DEFAULT_KEY) -> dict[str, Any]:
    """Return how often the classifier is right on check images that it was not fitted on."""
    service: Service = request.app.state.service

    def judge() -> dict[str, Any]:
        collection = service.catalog.open(name)
        LabelSet(collection, key)
        held_out = label_queue.held_out_accuracy(collection, key)
        return {
            "judged": len(held_out.right),
            "right": int(held_out.right.sum()),
            "accuracy": held_out.accuracy,
            "interval": held_out.interval,
            "mean_probability": held_out.mean_probability,
            "calibration": held_out.calibration,
        }

    return await service.in_analysis_thread(judge)


@router.post("/labels/check", dependencies=[requires("write")])
async def check(
    request: Request,
    response: Response,
    name: str,
    body: CheckRequest,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Look for labels that are probably wrong: at once, or with many labels as a job (202)."""
    service: Service = request.app.state.service
    kind = f"label_check_{body.key}"

    def run() -> dict[str, Any] | None:
        collection = service.catalog.open(name)
        if len(LabelSet(collection, body.key).labels()) > _MOST_CHECKED_AT_ONCE:
            return None
        document = classifiers.check_on_labels(collection, body.key, doubtful=body.doubtful, progress=False)
        service.catalog.write_result(name, kind, document)
        return _suspects(service, name, body.key, document)

    document = await service.in_analysis_thread(run)
    if document is not None:
        return document
    args = await service.in_thread(analysis_args, service, name, kind, body)
    return await accepted(request, response, "label_check", args, idempotency_key)


@router.get("/labels/check", dependencies=[requires("read")])
async def get_check(request: Request, name: str, key: QueryKey = DEFAULT_KEY) -> dict[str, Any]:
    """Return the latest check, without labels that were confirmed or changed since."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        LabelSet(service.catalog.open(name), key)
        return _suspects(service, name, key, latest_result(service, name, f"label_check_{key}"))

    return await service.in_thread(read)


@router.post("/labels/confirm", dependencies=[requires("write")])
async def confirm(request: Request, name: str, body: Confirmation) -> dict[str, int]:
    """Note that labels are right: checks name them no more, until they are changed."""
    service: Service = request.app.state.service

    def note() -> int:
        collection = service.catalog.open(name)
        return LabelSet(collection, body.key).confirm(whole_ids(collection, body.ids))

    return {"confirmed": await service.in_thread(note)}


def _named(collection: Collection, change: NewLabel) -> list[str]:
    if (change.ids is None) == (change.where is None):
        raise Problem(400, "name the images of a change either by ids or by where", param="changes")
    if change.ids is not None:
        return whole_ids(collection, change.ids)
    return matching_ids(collection, change.where or "")


def _suspects(service: Service, name: str, key: str, document: dict[str, Any]) -> dict[str, Any]:
    """Return a check without what a person has decided since."""
    label_set = LabelSet(service.catalog.open(name), key)
    labels, confirmed = label_set.labels(), label_set.confirmed()
    shown = service.catalog.shown_path
    doubted = [
        {**each, "path": shown(each["path"])}
        for each in document["suspects"]
        if labels.get(each["id"]) == each["label"] != confirmed.get(each["id"])
    ]
    return {
        **document,
        "suspects": doubted,
        "failed": [{**each, "path": shown(each["path"])} for each in document["failed"]],
    }
