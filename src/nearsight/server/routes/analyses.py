"""Analyses of a collection: each is a job, and its latest result is kept."""

import base64
import hashlib
import json
from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.responses import Response

from nearsight.collection import Collection
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.items import item_facts
from nearsight.server.routes.jobs import StartAnalysis
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service
from nearsight.services.collections import added_since
from nearsight.services.curation import remaining_issues
from nearsight.services.duplicate_decisions import DuplicateDecisions
from nearsight.services.duplicates import present_groups
from nearsight.services.field_values import field_values
from nearsight.services.map import ids_on_map, present_points

router = APIRouter(prefix="/v1/collections/{name}", tags=["analyses"])

LabelSource = Annotated[
    str | None,
    Field(max_length=63, description="Judge by labels: `folder` (of each image), or a metadata key."),
]
_Rate = Annotated[float | None, Field(gt=0, lt=1)]


class DuplicatesRequest(RequestBody):
    """See `Collection.find_duplicates`."""

    where: str | None = None
    false_alarm_rate: _Rate = None
    min_similarity: Annotated[float | None, Field(ge=-1, le=1)] = None


class ClustersRequest(RequestBody):
    """See `Collection.cluster`."""

    k: Annotated[int | None, Field(ge=1, le=100_000)] = None
    algorithm: Literal["density", "kmeans"] | None = None
    where: str | None = None
    min_cluster_size: Annotated[int | None, Field(ge=2)] = None
    detail: Annotated[int | None, Field(ge=-20, le=20)] = None


class MapRequest(RequestBody):
    """See `Collection.layout_2d`."""

    refit: bool = False
    method: Literal["auto", "umap", "pca"] | None = None


class AuditRequest(RequestBody):
    """See `Collection.audit`."""

    where: str | None = None
    split: str | None = None
    false_alarm_rate: _Rate = None


class DimensionRequest(RequestBody):
    """See `nearsight dimension`."""

    labels: LabelSource = None
    keep: Annotated[float, Field(gt=0, le=1)] = 0.9


class MonitorRequest(RequestBody):
    """Which images are new: by a date or by a filter; see `nearsight monitor`."""

    since: datetime | None = Field(None, description="Added then or later; UTC unless it has a zone.")
    new: str | None = Field(None, description="A filter, instead of `since`.")
    by: Annotated[list[str], Field(max_length=20)] = Field(
        [], description="Metadata whose values may have become more frequent; by default saved clusters."
    )
    where: str | None = Field(None, description="The known images; by default all that are not new.")


class OutliersRequest(RequestBody):
    """See `Collection.outliers`."""

    k: Annotated[int, Field(ge=1, le=10_000)] = 20
    where: str | None = None


class Decision(RequestBody):
    """A decision about every pair of some images."""

    ids: list[str] = Field(min_length=2, max_length=100)
    decision: Literal["different", "keep_both", "undecided"]


@router.get("/analyses", dependencies=[requires("read")])
async def list_analyses(request: Request, name: str) -> dict[str, list[str]]:
    """Return which analyses have a result that can be read; faces count when somebody has looked for them."""
    service: Service = request.app.state.service

    def read() -> list[str]:
        kinds = service.catalog.finished_kinds(name)
        return [*kinds, "faces"] if service.face_banks.exists(name) else kinds

    return {"analyses": await service.in_thread(read)}


@router.post("/duplicates", status_code=202, dependencies=[requires("write")])
async def find_duplicates(start: StartAnalysis, body: DuplicatesRequest) -> dict[str, Any]:
    """Find near-duplicates, as a job."""
    return await start("duplicates", body)


@router.get("/duplicates", dependencies=[requires("read")])
async def get_duplicates(
    request: Request, name: str, offset: int = Query(0, ge=0), limit: int = Query(100, ge=1, le=1000)
) -> dict[str, Any]:
    """Return groups of near-duplicates of the latest search, without what was decided."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        document = latest_result(service, name, "duplicates")
        collection = service.catalog.open(name)
        groups = DuplicateDecisions(collection).undecided_groups(document["groups"])
        groups = present_groups(collection, groups)
        for group in groups:
            for key in ("paths", "redundant", "review", "hard_links"):
                group[key] = [service.catalog.shown_path(path) for path in group[key]]
        end = offset + limit
        facts = {key: document[key] for key in ("images", "threshold", "false_alarm_rate", "expected_rate")}
        return {
            "groups": groups[offset:end],
            "total": len(groups),
            "next": end if end < len(groups) else None,
            **facts,
        }

    return await service.in_thread(read)


@router.post("/duplicates/decisions", dependencies=[requires("write")])
async def decide(request: Request, name: str, body: Decision) -> dict[str, int]:
    """Remember a decision: it holds for all later searches. `undecided` takes one back."""
    service: Service = request.app.state.service

    def note() -> int:
        collection = service.catalog.open(name)
        ids = [collection.get(id).id for id in body.ids]
        return DuplicateDecisions(collection).decide(ids, body.decision)

    return {"pairs": await service.in_thread(note)}


@router.get("/duplicates/decisions", dependencies=[requires("read")])
async def get_decisions(request: Request, name: str) -> dict[str, Any]:
    """Return all decisions about near-duplicates."""
    service: Service = request.app.state.service
    decisions = await service.in_thread(lambda: DuplicateDecisions(service.catalog.open(name)).all())
    return {"decisions": [{"ids": list(pair), "decision": each} for pair, each in decisions.items()]}


@router.post("/clusters", status_code=202, dependencies=[requires("write")])
async def find_clusters(start: StartAnalysis, body: ClustersRequest) -> dict[str, Any]:
    """Cluster the images, as a job."""
    return await start("clusters", body)


@router.post("/map", status_code=202, dependencies=[requires("write")])
async def lay_out(start: StartAnalysis, body: MapRequest) -> dict[str, Any]:
    """Lay the images out on a plane, as a job."""
    return await start("map", body)


@router.get("/map", dependencies=[requires("read")], response_class=Response)
async def get_map(request: Request, name: str) -> Response:
    """Return the latest map in binary, 26 bytes for each image.

    Little-endian, for n images: x (float32), y (float32), number of the cluster (uint16, 65535 for none), ids
    (16 bytes each). x and y of an image that has left the collection since are NaN.
    """
    service: Service = request.app.state.service

    def read() -> tuple[bytes, str]:
        content = service.catalog.finished_file(name, "map").read_bytes()
        data = present_points(service.catalog.open(name), content)
        return data, f'"{hashlib.blake2b(data, digest_size=16).hexdigest()}"'

    data, tag = await service.in_thread(read)
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="application/octet-stream", headers=headers)


@router.get("/map/values", dependencies=[requires("read")])
async def get_map_values(
    request: Request, name: str, field: str = Query(min_length=1, max_length=100)
) -> dict[str, Any]:
    """Return the values of a field in the order of the latest map, to color it by.

    `codes` are uint16, little-endian, in base64: the position in `categories`, 10 for other values, or 0 to
    1,023 between the `ends` of a scale; 65,535 where an image has no value, or has left the collection.
    """
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        ids = ids_on_map(service.catalog.finished_file(name, "map").read_bytes())
        values = field_values(service.catalog.open(name), field, ids)
        codes = base64.b64encode(values.codes.astype("<u2").tobytes()).decode()
        return {**asdict(values), "codes": codes}

    return await service.in_thread(read)


@router.post("/audit", status_code=202, dependencies=[requires("write")])
async def start_audit(start: StartAnalysis, body: AuditRequest) -> dict[str, Any]:
    """Look for images that are faulty, double, alone, or in two splits, as a job."""
    return await start("audit", body)


@router.get("/audit", dependencies=[requires("read")])
async def get_audit(request: Request, name: str) -> dict[str, Any]:
    """Return the latest audit, without issues of images that have left the collection since."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        document = latest_result(service, name, "audit")
        issues = remaining_issues(service.catalog.open(name), document["issues"])
        for issue in issues:
            issue["paths"] = [service.catalog.shown_path(path) for path in issue["paths"]]
        kinds = Counter(issue["kind"] for issue in issues)
        counts = {kind: kinds[kind] for kind in document["counts"] if kinds[kind]}
        return {**document, "issues": issues, "counts": counts}

    return await service.in_thread(read)


@router.post("/dimension", status_code=202, dependencies=[requires("write")])
async def advise_dimension(
    request: Request, name: str, start: StartAnalysis, body: DimensionRequest
) -> dict[str, Any]:
    """Say how many numbers of a vector are enough, as a job."""
    service: Service = request.app.state.service
    await service.in_thread(lambda: require_labels(service.catalog.open(name), body.labels))
    return await start("dimension", body)


@router.get("/dimension", dependencies=[requires("read")])
async def get_dimension(request: Request, name: str) -> dict[str, Any]:
    """Return the latest comparison of lengths of vectors."""
    service: Service = request.app.state.service
    return await service.in_thread(latest_result, service, name, "dimension")


@router.post("/monitor", status_code=202, dependencies=[requires("write")])
async def compare_new_images(
    request: Request, name: str, start: StartAnalysis, body: MonitorRequest
) -> dict[str, Any]:
    """Say whether new images are still like the known ones, as a job. The next run compares with it."""
    service: Service = request.app.state.service
    if (body.since is None) == (body.new is None):
        raise Problem(400, "say which images are new: by one of since and new", param="new")
    new = added_since(body.since) if body.since is not None else body.new

    def check() -> None:
        collection = service.catalog.open(name)
        collection.count(new)
        for key in body.by:
            require_key(collection, key, "by")

    await service.in_thread(check)
    return await start("monitor", body, new=new)


@router.get("/monitor", dependencies=[requires("read")])
async def get_comparison(request: Request, name: str) -> dict[str, Any]:
    """Return the latest comparison of new images with known ones."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        document = latest_result(service, name, "monitor")
        for image in document["unknown_kinds"]["images"]:
            image["path"] = service.catalog.shown_path(image["path"])
        return document

    return await service.in_thread(read)


@router.post("/outliers", status_code=202, dependencies=[requires("write")])
async def rank_outliers(start: StartAnalysis, body: OutliersRequest) -> dict[str, Any]:
    """Rank the images by how unusual they are, as a job; there is no threshold."""
    return await start("outliers", body)


@router.get("/outliers", dependencies=[requires("read")])
async def get_outliers(request: Request, name: str) -> dict[str, Any]:
    """Return the latest ranking, the most unusual first, without images that have left the collection."""
    service: Service = request.app.state.service

    def read() -> dict[str, Any]:
        ranked = latest_result(service, name, "outliers")["items"]
        found = service.catalog.open(name).items(ids=[each["id"] for each in ranked]) if ranked else ()
        facts = {item.id: item_facts(service, item) for item in found}
        return {
            "items": [
                {**facts[each["id"]], "distance": each["distance"]} for each in ranked if each["id"] in facts
            ]
        }

    return await service.in_thread(read)


def require_labels(collection: Collection, labels: str | None) -> None:
    """Refuse labels that are neither `folder` nor a metadata key."""
    if labels not in (None, "folder"):
        require_key(collection, labels, "labels")


def require_key(collection: Collection, key: str, param: str) -> None:
    """Refuse a metadata key that no image has."""
    known = collection.metadata_types()
    if key not in known:
        names = ", ".join(known) or "none"
        raise Problem(400, f"no image has the metadata {key!r}; known are: {names}", param=param)


def latest_result(service: Service, name: str, kind: str) -> dict[str, Any]:
    """Return the latest result of an analysis."""
    document: dict[str, Any] = json.loads(service.catalog.finished_file(name, kind).read_bytes())
    return document
