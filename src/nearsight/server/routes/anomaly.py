"""Detectors of defects: fit, score, watch a folder, set the threshold, confirm, fit again."""

import io
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Path, Query, Request
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.responses import Response

from nearsight.anomaly import AnomalyResult
from nearsight.anomaly.heatmap import overlay
from nearsight.images import content_id
from nearsight.images.privacy import without_metadata
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.inputs import check_images, read_form
from nearsight.server.routes.jobs import IdempotencyKey, accepted
from nearsight.server.schemas import SCORED_IMAGES, RequestBody
from nearsight.server.service import Service
from nearsight.server.vectors import while_connected
from nearsight.services.anomaly import score_document
from nearsight.services.inspection_documents import detector_document, effect_document, threshold_document
from nearsight.services.inspections import Inspection

router = APIRouter(prefix="/v1/collections/{name}/detectors", tags=["anomaly"])

_MB = 2**20
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_SANDBOX = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, no-cache"}

DetectorName = Annotated[str, Path(pattern=_NAME)]
ImageId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


class NewDetector(RequestBody):
    """Good images, from a folder of the server or from a collection; see `AnomalyDetector`."""

    name: Annotated[str, Field(pattern=_NAME)]
    folder: str | None = None
    where: str | None = None
    ids: Annotated[list[str] | None, Field(min_length=1, max_length=100_000)] = None
    false_alarm_rate: Annotated[float | None, Field(gt=0, lt=1)] = None
    level: Literal["combined", "image", "patch"] | None = None
    max_tiles: Annotated[int | None, Field(ge=1, le=1000)] = None
    n_patches: Annotated[int | None, Field(ge=1, le=100_000)] = None


class InspectedFolder(RequestBody):
    """A folder of the server whose images are scored: those there now, or as they come."""

    folder: str
    watch: bool = False
    settle_s: Annotated[float, Field(ge=0, le=3600)] = 2.0


class NewThreshold(RequestBody):
    """A threshold; null goes back to the calibrated one."""

    threshold: Annotated[float | None, Field(ge=-1e6, le=1e6)]


class VerdictOfImages(RequestBody):
    """What people decided about images; null takes it back."""

    ids: Annotated[list[str], Field(min_length=1, max_length=1000)]
    verdict: Literal["good", "defect"] | None


async def _inspection(request: Request, name: str, detector: DetectorName) -> Inspection:
    service: Service = request.app.state.service

    def find() -> Inspection:
        inspection = Inspection(service.catalog.detectors(name) / detector)
        if not inspection.exists():
            raise Problem(404, f"there is no detector {detector!r}", code="detector_not_found")
        return inspection

    return await service.in_thread(find)


RequestedInspection = Annotated[Inspection, Depends(_inspection)]


@router.get("", dependencies=[requires("read")])
async def list_detectors(request: Request, name: str) -> dict[str, Any]:
    """Return the detectors of a collection."""
    service: Service = request.app.state.service

    def read() -> list[dict[str, Any]]:
        folder = service.catalog.detectors(name)
        each = [Inspection(place) for place in sorted(folder.iterdir())] if folder.is_dir() else []
        return [_shown(detector_document(inspection)) for inspection in each if inspection.exists()]

    return {"detectors": await service.in_thread(read)}


@router.post("", status_code=202, dependencies=[requires("write")])
async def fit_detector(
    request: Request, response: Response, name: str, body: NewDetector, idempotency_key: IdempotencyKey = None
) -> dict[str, Any]:
    """Fit a detector on good images, as a job."""
    service: Service = request.app.state.service
    shown = body.model_dump(exclude_none=True)
    source_names = [each for each in ("folder", "where", "ids") if each in shown]
    if len(source_names) != 1:
        raise Problem(400, "name the good images by one of folder, where and ids", param="folder")

    def prepare() -> dict[str, Any]:
        inspection = Inspection(service.catalog.detectors(name) / body.name)
        if inspection.exists():
            raise Problem(
                409,
                f"there is a detector {body.name!r} already; refit it or choose another name",
                param="name",
            )
        if body.folder is not None:
            source: dict[str, Any] = {"folder": str(service.catalog.folder(body.folder))}
        else:
            collection = service.catalog.open(name)
            collection.count(body.where)  # a filter that is wrong is told now
            ids = [collection.get(id).id for id in body.ids or ()]
            source = {
                "where": body.where,
                "ids": ids,
                "directory": service.catalog.shown_place(name),
            }
        source["shown"] = {key: shown[key] for key in source_names}
        return {"inspection": str(inspection.directory), "source": source}

    prepared = await service.in_thread(prepare)
    options = {key: value for key, value in shown.items() if key not in ("name", "folder", "where", "ids")}
    args = {**options, **prepared, "collection": name, "shown": {**shown, "detector": body.name}}
    args["shown"].pop("ids", None)
    return await accepted(request, response, "anomaly_fit", {**args, **service.worker_args}, idempotency_key)


@router.get("/{detector}", dependencies=[requires("read")])
async def get_detector(request: Request, inspection: RequestedInspection) -> dict[str, Any]:
    """Return what a detector was fitted on, how it is set, and numbers of what it scored."""
    service: Service = request.app.state.service
    return _shown(await service.in_thread(detector_document, inspection))


@router.delete("/{detector}", status_code=204, dependencies=[requires("write")])
async def delete_detector(request: Request, name: str, inspection: RequestedInspection) -> Response:
    """Delete a detector, what it scored, and what was decided; folders that it watches are left alone."""
    service: Service = request.app.state.service
    for state in ("queued", "running"):
        for job in await service.in_thread(service.jobs.table.list, state=state, limit=1000):
            if job.args.get("inspection") == str(inspection.directory):
                await service.jobs.cancel(job.id)
    await service.in_thread(inspection.delete)
    return Response(status_code=204)


@router.post("/{detector}/refit", status_code=202, dependencies=[requires("write")])
async def refit_detector(
    request: Request,
    response: Response,
    name: str,
    inspection: RequestedInspection,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Fit a detector again: with what was confirmed as good, without confirmed defects; then score again."""
    service: Service = request.app.state.service
    facts = await service.in_thread(inspection.facts)
    args = {
        **facts["options"],
        "source": facts["source"],
        "inspection": str(inspection.directory),
        "collection": name,
        "shown": {"detector": inspection.name, **facts["source"]["shown"]},
    }
    args["shown"].pop("ids", None)
    return await accepted(request, response, "anomaly_fit", {**args, **service.worker_args}, idempotency_key)


@router.post("/{detector}/folders", status_code=202, dependencies=[requires("write")])
async def inspect_folder(
    request: Request,
    response: Response,
    name: str,
    inspection: RequestedInspection,
    body: InspectedFolder,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Score a folder of the server as a job, or watch it until the job is cancelled.

    A watched file is scored once it has not changed for `settle_s` seconds and can be decoded to its end.
    """
    service: Service = request.app.state.service
    folder = await service.in_thread(service.catalog.folder, body.folder)
    args = {
        **body.model_dump(),
        "folder": str(folder),
        "inspection": str(inspection.directory),
        "collection": name,
        "shown": {"detector": inspection.name, **body.model_dump()},
        **service.worker_args,
    }
    kind = "anomaly_watch" if body.watch else "anomaly_score"
    if body.watch:
        args["n_threads"] = 1  # it runs beside everything else
    return await accepted(request, response, kind, args, idempotency_key)


@router.post("/{detector}/score", openapi_extra=SCORED_IMAGES, dependencies=[requires("write")])
async def score_images(
    request: Request, name: str, inspection: RequestedInspection, keep: bool = Query(True)
) -> dict[str, Any]:
    """Score images that are sent in a form. They are kept, with their heatmaps, unless `keep` is false."""
    service: Service = request.app.state.service
    images = await _images_of_form(request, service)

    def score() -> dict[str, Any]:
        results, revision = service.detectors.score(inspection, images)
        threshold = inspection.threshold().value
        scores, failed = [], []
        for index, ((file, data), result) in enumerate(zip(images, results, strict=True)):
            if not isinstance(result, AnomalyResult):
                failed.append({"index": index, "path": file, "reason": result.reason})
                continue
            id = content_id(data)
            if keep:
                inspection.keep(id, file, data)
                inspection.add(id, result, revision)
            judged = replace(result, threshold=threshold, defect=not result.score <= threshold)
            size = result.image.size if result.image else (0, 0)
            facts = {"index": index, "id": id, "levels": result.levels, "width": size[0], "height": size[1]}
            scores.append({**facts, **score_document(judged)})
        return {"scores": scores, "failed": failed}

    return await while_connected(request, service.in_analysis_thread(score))


@router.get("/{detector}/images", dependencies=[requires("read")])
async def list_images(
    request: Request,
    inspection: RequestedInspection,
    side: Literal["defect", "good"] | None = None,
    is_decided: bool | None = None,
    order: Literal["score", "time"] = "score",
    offset: int = Query(0, ge=0, le=10**9),
    limit: int = Query(100, ge=1, le=1000),
) -> dict[str, Any]:
    """Return scored images, the most anomalous or the latest first.

    `side` goes by the verdict of an image; without one, by the threshold.
    """
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        images, total = inspection.images(
            side=side, is_decided=is_decided, order=order, offset=offset, limit=limit
        )
        end = offset + limit
        return {
            "images": [_shown_image(service, image) for image in images],
            "total": total,
            "next": end if end < total else None,
            "counts": inspection.counts(),
            "failed": [
                {**each, "path": service.catalog.shown_path(each["path"])} for each in inspection.failures()
            ],
        }

    return await service.in_thread(read)


@router.get("/{detector}/images/{id}", dependencies=[requires("read")])
async def get_image(request: Request, inspection: RequestedInspection, id: ImageId) -> dict[str, Any]:
    """Return what is known of a scored image."""
    service: Service = request.app.state.service
    return _shown_image(service, await service.in_thread(inspection.image, id))


@router.get("/{detector}/images/{id}/preview", dependencies=[requires("read")], response_class=Response)
async def get_preview(request: Request, inspection: RequestedInspection, id: ImageId) -> Response:
    """Return a small JPEG of a scored image; it is there also when the file is gone."""
    service: Service = request.app.state.service
    data = await service.in_thread(inspection.preview, id)
    return Response(data, media_type="image/jpeg", headers=_SANDBOX)


@router.get("/{detector}/images/{id}/original", dependencies=[requires("read")], response_class=Response)
async def get_original_of_scored(request: Request, inspection: RequestedInspection, id: ImageId) -> Response:
    """Return the file of a scored image, without its EXIF and other metadata."""
    service: Service = request.app.state.service

    def read() -> tuple[bytes, str]:
        found = inspection.content(id)
        if found is None:
            raise Problem(404, "the file of this image is gone or has changed", code="file_gone")
        return without_metadata(found[1], limits=service.limits)

    data, media = await service.in_thread(read)
    return Response(data, media_type=media, headers=_SANDBOX)


@router.get("/{detector}/images/{id}/heatmap", dependencies=[requires("read")], response_class=Response)
async def get_heatmap(
    request: Request,
    inspection: RequestedInspection,
    id: ImageId,
    form: Literal["grid", "png"] = Query("grid", alias="format"),
) -> Response:
    """Return the heatmap of a scored image, in the unit of the score.

    ``grid``: little-endian width and height (uint16), then height × width values (float32), row by row.
    ``png``: drawn over the image, with colors that begin at half the threshold.
    """
    service: Service = request.app.state.service

    def read() -> tuple[bytes, str]:
        grid = inspection.heatmap(id)
        if grid is None:
            raise Problem(404, "this image was scored as a whole; it has no heatmap", code="no_heatmap")
        if form == "png":
            return _drawn(inspection, id, grid), "image/png"
        shape = np.array(grid.shape[::-1], "<u2").tobytes()
        return shape + np.ascontiguousarray(grid, "<f4").tobytes(), "application/octet-stream"

    data, media = await service.in_thread(read)
    return Response(data, media_type=media, headers=_SANDBOX)


@router.post("/{detector}/verdicts", dependencies=[requires("write")])
async def decide_images(
    request: Request, inspection: RequestedInspection, body: VerdictOfImages
) -> dict[str, Any]:
    """Remember whether images are good or defective; a refit uses it. null takes it back."""
    service: Service = request.app.state.service
    changed = await service.in_thread(inspection.decide, body.ids, body.verdict)
    return {"changed": changed, "counts": await service.in_thread(inspection.counts)}


@router.get("/{detector}/threshold", dependencies=[requires("read")])
async def get_threshold(request: Request, inspection: RequestedInspection) -> dict[str, Any]:
    """Return the threshold, and the expected rate of false alarms of others, with its uncertainty."""
    service: Service = request.app.state.service
    document: dict[str, Any] = await service.in_thread(threshold_document, inspection)
    return document


@router.get("/{detector}/threshold/effect", dependencies=[requires("read")])
async def get_effect(
    request: Request, inspection: RequestedInspection, at: float = Query(ge=-1e6, le=1e6)
) -> dict[str, Any]:
    """Return what another threshold would do: false alarms, and which images would change sides."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        document = effect_document(inspection, at)
        for side in ("become_defects", "become_good"):
            document[side] = [_shown_image(service, image) for image in inspection.named(document[side])]
        return document

    return await service.in_thread(read)


@router.put("/{detector}/threshold", dependencies=[requires("write")])
async def set_threshold(
    request: Request, inspection: RequestedInspection, body: NewThreshold
) -> dict[str, Any]:
    """Set the threshold; null goes back to the calibrated one."""
    service: Service = request.app.state.service
    await service.in_thread(inspection.set_threshold, body.threshold)
    return _shown(await service.in_thread(detector_document, inspection))


def _shown(document: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a detector without the directories of this machine."""
    return {**document, "source": document["source"]["shown"]}


def _shown_image(service: Service, image: dict[str, Any]) -> dict[str, Any]:
    return {**image, "path": service.catalog.shown_path(image["path"])}


def _drawn(inspection: Inspection, id: str, grid: NDArray[np.float32]) -> bytes:
    facts = inspection.image(id)
    image = Image.open(io.BytesIO(inspection.preview(id)))
    heatmap = np.asarray(Image.fromarray(grid).resize(image.size, Image.Resampling.BILINEAR), np.float32)
    result = AnomalyResult(
        facts["path"], facts["score"], facts["threshold"], facts["defect"], facts["levels"], heatmap, image
    )
    file = io.BytesIO()
    overlay(result, longer_px=max(image.size)).save(file, "PNG")
    return file.getvalue()


async def _images_of_form(request: Request, service: Service) -> list[tuple[str, bytes]]:
    most = service.settings.max_images
    form = await read_form(request, max_files=most + 1)
    try:
        files = [each for each in form.getlist("image") if isinstance(each, UploadFile)]
        images = [(file.filename or "image", await file.read()) for file in files]
    finally:
        await form.close()
    if not images or len(images) > most:
        raise Problem(400, f"there are {len(images)} files named 'image'; send 1 to {most}", param="image")
    check_images([data for _, data in images], max_bytes=service.settings.max_image_mb * _MB)
    return images
