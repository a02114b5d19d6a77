"""Labels that people give, and the classifiers that learn from them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse

from nearsight.analyses import label_queue
from nearsight.analyses.classification import Prediction
from nearsight.collection import Collection
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.analyses import latest_result
from nearsight.server.routes.items import page_of_items
from nearsight.server.routes.jobs import IdempotencyKey, accepted, analysis_args
from nearsight.server.service import Service
from nearsight.services import classifiers
from nearsight.services.documents import prediction_document
from nearsight.services.label_sets import (
    DEFAULT_KEY,
    MAX_CLASSES,
    LabelChange,
    LabelSet,
    label_keys,
    matching_ids,
    whole_ids,
)
from nearsight.services.labels import require_free_key

router = APIRouter(prefix="/v1/collections/{name}", tags=["labels"])

# With more labels than this, fitting and checking are jobs; below, they take about a second.
_MOST_AT_ONCE = 2000
_MOST_CHECKED_AT_ONCE = 500
_MAX_IDS = 10_000
_Key = Annotated[str, Field(max_length=63)]
_Ids = Annotated[list[str], Field(max_length=_MAX_IDS)]
_Doubtful = Literal["refuse", "merge", "drop", "keep"]
QueryKey = Annotated[str, Query(max_length=63)]


class NewLabel(BaseModel):
    """A label for images, named by ids or by a filter; null takes their label away."""

    ids: _Ids | None = None
    where: str | None = None
    label: str | None


class LabelChanges(BaseModel):
    """Changes that are written together; each can be undone alone."""

    key: _Key = DEFAULT_KEY
    changes: list[NewLabel] = Field(min_length=1, max_length=100)


class Classes(BaseModel):
    """The classes in the order of their keys."""

    key: _Key = DEFAULT_KEY
    classes: list[str] = Field(max_length=MAX_CLASSES)


class LabelUndo(BaseModel):
    """The change to take back; without a number, the last one."""

    key: _Key = DEFAULT_KEY
    change: int | None = None


class Confirmation(BaseModel):
    """Images whose label is right."""

    key: _Key = DEFAULT_KEY
    ids: _Ids


class QueueRequest(BaseModel):
    """How many images to label next, and which not."""

    key: _Key = DEFAULT_KEY
    n: int = Field(12, ge=1, le=200)
    skipped: _Ids = []


class CheckRequest(BaseModel):
    """See `Collection.check_labels`."""

    key: _Key = DEFAULT_KEY
    doubtful: _Doubtful = "refuse"


class ClassifierRequest(BaseModel):
    """See `Collection.fit_classifier`."""

    key: _Key = DEFAULT_KEY
    name: str = classifiers.DEFAULT
    doubtful: _Doubtful = "refuse"
    method: Literal["auto", "prototype", "neighbors", "probe"] | None = None
    false_alarm_rate: Annotated[float | None, Field(gt=0, lt=1)] = None
    examples_per_class: Annotated[int | None, Field(ge=1)] = None


class SavedCopy(BaseModel):
    """The classifier to keep under another name."""

    source: str = classifiers.DEFAULT


class PredictionRequest(BaseModel):
    """Images of the collection to label."""

    ids: _Ids


class SavedPredictions(BaseModel):
    """Where to save predicted labels; see `nearsight classify predict --save-as`."""

    save_as: _Key
    where: str | None = None
    overwrite: bool = False


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
    rows: Iterator[str] = label_set.csv(service.catalog.shown_path)
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/labels/queue", dependencies=[requires("read")])
async def get_queue(request: Request, name: str, body: QueueRequest) -> dict[str, Any]:
    """Return the images to label next, with what the collection's own classifier makes of them.

    About a quarter are check images, drawn at random.
    """
    service: Service = request.app.state.service

    def read() -> list[dict[str, Any]]:
        collection = service.catalog.open(name)
        LabelSet(collection, body.key)
        queue = label_queue.next_images(collection, body.key, body.n, skipped=set(body.skipped))
        return [{**_shown(service, each.prediction), "check": each.is_check} for each in queue]

    return {"images": await service.in_thread(read)}


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

    return await service.in_thread(judge)


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

    document = await service.in_thread(run)
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


@router.get("/classifiers", dependencies=[requires("read")])
async def list_classifiers(request: Request, name: str) -> dict[str, Any]:
    """Return the names of the classifiers; `default` is the collection's own."""
    service: Service = request.app.state.service
    return {
        "classifiers": await service.in_thread(
            lambda: classifiers.classifier_names(service.catalog.open(name))
        )
    }


@router.post("/classifiers", dependencies=[requires("write")])
async def fit(
    request: Request,
    response: Response,
    name: str,
    body: ClassifierRequest,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Fit a classifier on the labels: at once, or with many labels as a job (202)."""
    service: Service = request.app.state.service

    def run() -> dict[str, Any] | None:
        collection = service.catalog.open(name)
        classifiers.classifier_file(collection, body.name)
        if len(LabelSet(collection, body.key).labels()) > _MOST_AT_ONCE:
            return None
        options = body.model_dump(exclude_none=True, exclude={"key"})
        return classifiers.fit_on_labels(collection, body.key, progress=False, **options)

    document = await service.in_thread(run)
    if document is not None:
        return document
    args = await service.in_thread(analysis_args, service, name, "classifier", body)
    return await accepted(request, response, "classifier", args, idempotency_key)


@router.get("/classifiers/{classifier}/file", dependencies=[requires("read")], response_class=Response)
async def get_classifier(request: Request, name: str, classifier: str) -> Response:
    """Return a classifier as a file that `nearsight classify predict --from` reads."""
    service: Service = request.app.state.service

    def read() -> bytes:
        return _require(service.catalog.open(name), classifier).read_bytes()

    return Response(await service.in_thread(read), media_type="application/octet-stream")


@router.put("/classifiers/{classifier}", dependencies=[requires("write")])
async def save(request: Request, name: str, classifier: str, body: SavedCopy) -> dict[str, str]:
    """Keep a classifier under another name."""
    service: Service = request.app.state.service

    def copy() -> None:
        collection = service.catalog.open(name)
        _require(collection, body.source)
        classifiers.save_classifier(collection, classifier, source=body.source)

    await service.in_thread(copy)
    return {"name": classifier}


@router.delete("/classifiers/{classifier}", status_code=204, dependencies=[requires("write")])
async def delete(request: Request, name: str, classifier: str) -> None:
    """Delete a classifier."""
    service: Service = request.app.state.service

    def remove() -> None:
        collection = service.catalog.open(name)
        _require(collection, classifier)
        classifiers.delete_classifier(collection, classifier)

    await service.in_thread(remove)


@router.get("/classifiers/{classifier}/predictions", dependencies=[requires("read")])
async def predict_page(
    request: Request,
    name: str,
    classifier: str,
    where: str | None = None,
    cursor: str | None = None,
    limit: int = Query(100, ge=1, le=1000),
) -> dict[str, Any]:
    """Return the predicted labels of a page of images. `next` is the cursor of the page after it."""
    service: Service = request.app.state.service

    def run() -> dict[str, Any]:
        items, total, after = page_of_items(service, name, where, cursor, limit)
        predictions = _predictions(service, name, classifier, [item.id for item in items])
        return {"predictions": predictions, "total": total, "next": after}

    return await service.in_thread(run)


@router.post("/classifiers/{classifier}/predictions", dependencies=[requires("read")])
async def predict(request: Request, name: str, classifier: str, body: PredictionRequest) -> dict[str, Any]:
    """Return the predicted labels of images of the collection."""
    service: Service = request.app.state.service

    def run() -> list[dict[str, Any]]:
        ids = whole_ids(service.catalog.open(name), body.ids)
        return _predictions(service, name, classifier, ids)

    return {"predictions": await service.in_thread(run)}


@router.post("/classifiers/{classifier}/save", status_code=202, dependencies=[requires("write")])
async def save_predictions(
    request: Request,
    response: Response,
    name: str,
    classifier: str,
    body: SavedPredictions,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Save the predicted labels of all images, or of those that match, as metadata; a job."""
    service: Service = request.app.state.service

    def args() -> dict[str, Any]:
        collection = service.catalog.open(name)
        _require(collection, classifier)
        require_free_key(collection, body.save_as, overwrite=body.overwrite)
        return {**analysis_args(service, name, "predictions", body), "name": classifier}

    return await accepted(request, response, "predictions", await service.in_thread(args), idempotency_key)


def _named(collection: Collection, change: NewLabel) -> list[str]:
    if (change.ids is None) == (change.where is None):
        raise Problem(400, "name the images of a change either by ids or by where", param="changes")
    if change.ids is not None:
        return whole_ids(collection, change.ids)
    return matching_ids(collection, change.where or "")


def _require(collection: Collection, classifier: str) -> Path:
    if classifier not in classifiers.classifier_names(collection):
        raise Problem(404, f"there is no classifier {classifier!r}", code="classifier_not_found")
    return classifiers.require_classifier(collection, classifier)


def _predictions(service: Service, name: str, classifier: str, ids: list[str]) -> list[dict[str, Any]]:
    collection = service.catalog.open(name)
    _require(collection, classifier)
    fitted = classifiers.named_classifier(collection, classifier)
    paths = {item.id: item.path for item in collection.items(ids=ids)}
    vectors = collection.vectors(ids)
    predictions = fitted.predict(vectors, ids, [paths[id] for id in ids])
    return [_shown(service, each) for each in predictions]


def _shown(service: Service, prediction: Prediction) -> dict[str, Any]:
    document = prediction_document(prediction)
    return {**document, "path": service.catalog.shown_path(prediction.path)}


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
