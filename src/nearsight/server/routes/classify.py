"""Classifiers that learn from labels."""

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.responses import Response

from nearsight.analyses.classification import FittedClassifier, Prediction
from nearsight.collection import Collection
from nearsight.images import content_id
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.inputs import ImageInput, read_form
from nearsight.server.routes.items import page_of_items
from nearsight.server.routes.jobs import StartAnalysis
from nearsight.server.schemas import IMAGES_FORM, RequestBody
from nearsight.server.service import Service
from nearsight.server.vectors import embed_inputs
from nearsight.services import classifiers
from nearsight.services.documents import prediction_document
from nearsight.services.label_sets import DEFAULT_KEY, LabelSet, whole_ids
from nearsight.services.labels import require_free_key

router = APIRouter(prefix="/v1/collections/{name}", tags=["classifiers"])

# With more labels than this, fitting is a job; below, it takes about a second.
_MOST_AT_ONCE = 2000
_MAX_IDS = 10_000
Key = Annotated[str, Field(max_length=63)]
Ids = Annotated[list[str], Field(max_length=_MAX_IDS)]
Doubtful = Literal["refuse", "merge", "drop", "keep"]


class ClassifierRequest(RequestBody):
    """See `Collection.fit_classifier`."""

    key: Key = DEFAULT_KEY
    name: str = classifiers.DEFAULT
    doubtful: Doubtful = "refuse"
    method: Literal["auto", "prototype", "neighbors", "probe", "label-spreading"] | None = None
    false_alarm_rate: Annotated[float | None, Field(gt=0, lt=1)] = None
    examples_per_class: Annotated[int | None, Field(ge=1)] = None
    use_unlabeled: bool = False


class SavedCopy(RequestBody):
    """The classifier to keep under another name."""

    source: str = classifiers.DEFAULT


class PredictionRequest(RequestBody):
    """Images of the collection to label."""

    ids: Ids


class SavedPredictions(RequestBody):
    """Where to save predicted labels; see `nearsight classify predict --save-as`."""

    save_as: Key
    where: str | None = None
    overwrite: bool = False


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
async def fit(request: Request, name: str, start: StartAnalysis, body: ClassifierRequest) -> dict[str, Any]:
    """Fit a classifier on the labels: at once, or with many labels as a job (202)."""
    service: Service = request.app.state.service

    def run() -> dict[str, Any] | None:
        collection = service.catalog.open(name)
        classifiers.classifier_file(collection, body.name)
        if len(LabelSet(collection, body.key).labels()) > _MOST_AT_ONCE:
            return None
        options = body.model_dump(exclude_none=True, exclude={"key"})
        return classifiers.fit_on_labels(collection, body.key, progress=False, **options)

    document = await service.in_analysis_thread(run)
    return await start("classifier", body) if document is None else document


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


@router.post("/classifiers/{classifier}/predict", openapi_extra=IMAGES_FORM, dependencies=[requires("read")])
async def predict_images(request: Request, name: str, classifier: str) -> dict[str, Any]:
    """Return the predicted labels of images that are sent as a form; they are not added."""
    service: Service = request.app.state.service
    fitted = await service.in_thread(lambda: _named_classifier(service.catalog.open(name), classifier))
    form = await read_form(request, max_files=service.settings.max_images + 1)
    try:
        files = [file for file in form.getlist("image") if isinstance(file, UploadFile)]
        contents = [await file.read() for file in files]
        names = [file.filename or "image" for file in files]
    finally:
        await form.close()
    model = await service.catalog.model(name, service.in_thread)
    embedded = await embed_inputs(request, [ImageInput(data) for data in contents], model=model.alias)
    ids = [content_id(data) for data in contents]
    predictions = await service.in_thread(fitted.predict, embedded.vectors, ids, names)
    return {"predictions": [prediction_document(each) for each in predictions]}


@router.post("/classifiers/{classifier}/save", status_code=202, dependencies=[requires("write")])
async def save_predictions(
    request: Request, name: str, classifier: str, start: StartAnalysis, body: SavedPredictions
) -> dict[str, Any]:
    """Save the predicted labels of all images, or of those that match, as metadata; a job."""
    service: Service = request.app.state.service

    def check() -> None:
        collection = service.catalog.open(name)
        _require(collection, classifier)
        require_free_key(collection, body.save_as, overwrite=body.overwrite)

    await service.in_thread(check)
    return await start("predictions", body, name=classifier)


def _require(collection: Collection, classifier: str) -> Path:
    if classifier not in classifiers.classifier_names(collection):
        raise Problem(404, f"there is no classifier {classifier!r}", code="classifier_not_found")
    return classifiers.require_classifier(collection, classifier)


def _named_classifier(collection: Collection, classifier: str) -> FittedClassifier:
    _require(collection, classifier)
    return classifiers.named_classifier(collection, classifier)


def _predictions(service: Service, name: str, classifier: str, ids: list[str]) -> list[dict[str, Any]]:
    collection = service.catalog.open(name)
    fitted = _named_classifier(collection, classifier)
    paths = {item.id: item.path for item in collection.items(ids=ids)}
    vectors = collection.vectors(ids)
    predictions = fitted.predict(vectors, ids, [paths[id] for id in ids])
    return [shown_prediction(service, each) for each in predictions]


def shown_prediction(service: Service, prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as clients see it: without the directories of this machine."""
    document = prediction_document(prediction)
    return {**document, "path": service.catalog.shown_path(prediction.path)}
