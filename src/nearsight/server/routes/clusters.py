"""The latest clusters of a collection, and edits of them, which can be undone."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from nearsight.analyses.clusters import Clustering
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.routes.analyses import latest_result
from nearsight.server.routes.jobs import IdempotencyKey, accepted, analysis_args
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service
from nearsight.services.cluster_edits import ClusterEdits
from nearsight.services.clusters import present_clusters
from nearsight.services.documents import edited_clusters_document

router = APIRouter(prefix="/v1/collections/{name}/clusters", tags=["analyses"])

_Revision = Annotated[
    str | None,
    Field(max_length=64, description="That of the clusters that were looked at; others are refused."),
]


class RevisedClusters(RequestBody):
    """An edit of the clusters."""

    revision: _Revision = None


class NewClusterName(RevisedClusters):
    """A new name of a cluster."""

    name: str = Field(min_length=1, max_length=100)


class ClusterMerge(RevisedClusters):
    """Clusters that become one, which keeps the name of the first."""

    ids: list[int] = Field(min_length=2, max_length=1000)


class ImageMove(RevisedClusters):
    """Images that move to a cluster, to none (-1), or to a new one (null)."""

    ids: list[str] = Field(min_length=1, max_length=10_000)
    to: int | None = Field(ge=-1)


class ClusterSplit(RevisedClusters):
    """How many parts one cluster becomes; by default as many as there are."""

    k: Annotated[int | None, Field(ge=2, le=1000)] = None


@router.get("", dependencies=[requires("read")])
async def get_clusters(request: Request, name: str) -> dict[str, Any]:
    """Return the latest clusters, without images that have left the collection since.

    `edits` says what was changed, and `revision` names this state.
    """
    service: Service = request.app.state.service
    return await service.in_thread(_current, service, name)


@router.patch("/{id}", dependencies=[requires("write")])
async def rename_cluster(request: Request, name: str, id: int, body: NewClusterName) -> dict[str, Any]:
    """Rename a cluster."""
    document = await _edited(
        request, name, lambda edits: edits.rename(id, body.name, revision=body.revision), id
    )
    return {key: document["clusters"][id][key] for key in ("id", "name", "size", "representative")}


@router.post("/merge", dependencies=[requires("write")])
async def merge_clusters(request: Request, name: str, body: ClusterMerge) -> dict[str, Any]:
    """Make one cluster of several; return all clusters. Those behind one that is gone move up by a number."""
    return await _edited(
        request, name, lambda edits: edits.merge(body.ids, revision=body.revision), *body.ids
    )


@router.post("/move", dependencies=[requires("write")])
async def move_images(request: Request, name: str, body: ImageMove) -> dict[str, Any]:
    """Move images to another cluster; return all clusters. Later images that resemble them follow."""
    targets = [] if body.to is None or body.to < 0 else [body.to]
    return await _edited(
        request, name, lambda edits: edits.move(body.ids, body.to, revision=body.revision), *targets
    )


@router.post("/undo", dependencies=[requires("write")])
async def undo_edit(request: Request, name: str, body: RevisedClusters) -> dict[str, Any]:
    """Take the latest edit back; return all clusters. The latest ten can be undone."""
    return await _edited(request, name, lambda edits: edits.undo(revision=body.revision))


@router.post("/{id}/split", status_code=202, dependencies=[requires("write")])
async def split_cluster(
    request: Request,
    response: Response,
    name: str,
    id: int,
    body: ClusterSplit,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Cluster one cluster again, by itself, as a job; every image stays in one of its parts."""
    service: Service = request.app.state.service

    def prepare() -> dict[str, Any]:
        _check_editable(_current(service, name), [id])
        return {**analysis_args(service, name, "clusters", body), "id": id}

    args = await service.in_thread(prepare)
    return await accepted(request, response, "cluster_split", args, idempotency_key)


async def _edited(
    request: Request, name: str, edit: Callable[[ClusterEdits], Clustering], *ids: int
) -> dict[str, Any]:
    service: Service = request.app.state.service

    def run() -> dict[str, Any]:
        _check_editable(_current(service, name), ids)
        edit(ClusterEdits(service.catalog.open(name)))
        service.catalog.forget_order(name)  # metadata may have changed
        return _current(service, name)

    return await service.in_thread(run)


def _check_editable(document: dict[str, Any], ids: Any) -> None:
    for id in ids:
        if not 0 <= id < len(document["clusters"]):
            raise Problem(404, f"there is no cluster {id}", code="cluster_not_found")
    if document["revision"] is None:
        raise Problem(
            409,
            "these clusters are not saved in the collection, since they are of a part of it, or it is"
            " read-only; only clusters of all images can be edited",
            code="not_saved",
        )


def _current(service: Service, name: str) -> dict[str, Any]:
    """Return the clusters of the latest search, or those saved since by an edit or by the command line."""
    collection = service.catalog.open(name)
    edits = ClusterEdits(collection)
    revision = edits.revision
    document: dict[str, Any] = {"edits": [], "where": None, "revision": None}
    if service.catalog.result_file(name, "clusters").exists() or not revision:
        document |= latest_result(service, name, "clusters")
    if revision and document["revision"] != revision:
        document |= {**edited_clusters_document(edits.read()), "where": None, "revision": revision}
        service.catalog.write_result(name, "clusters", document)
    # Clusters of a part are shown, but not saved.
    document["revision"] = None if document["where"] is not None else revision or None
    return present_clusters(collection, document)
