"""Jobs: index a folder; look at, follow, cancel and resume any job."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from nearsight.errors import InvalidParameterError
from nearsight.server.auth import requires
from nearsight.server.errors import Problem
from nearsight.server.inputs import media_type
from nearsight.server.schemas import RequestBody
from nearsight.server.service import Service
from nearsight.services.jobs import ENDED, Job

router = APIRouter(prefix="/v1", tags=["jobs"])

# What it takes to start a job, by its kind, where that is another scope than `write`.
_SCOPES = {
    **dict.fromkeys(("faces", "faces_upgrade"), "faces"),
    **dict.fromkeys(("evaluation", "training", "quantization"), "admin"),
}


class IndexRequest(RequestBody):
    """A folder below a root of the service, such as ``archive/2024``."""

    folder: str
    exclude: list[str] = Field([])
    include_hidden: bool = False
    prune: bool = False
    metadata: dict[str, str | float | bool] | None = None


async def job_facts(service: Service, job: Job) -> dict[str, Any]:
    """Return a job as clients see it: without the directories of this machine."""
    [facts] = await _facts_of(service, [job])
    return facts


async def _facts_of(service: Service, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    is_any_queued = any(job.state == "queued" for job in jobs)
    waits = await service.in_thread(service.jobs.table.waits) if is_any_queued else {}
    return [{**_facts(service, job), "waits_for": waits.get(job.id)} for job in jobs]


def _facts(service: Service, job: Job) -> dict[str, Any]:
    facts = asdict(job)
    shown = service.catalog.shown_path
    for name in ("created", "started", "ended"):
        seconds = facts[name]
        facts[name] = None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat()
    facts["collection"] = job.args.get("collection")
    facts["args"] = job.args.get("shown", {})
    for name in ("pid", "key_prefix", "is_cancel_requested"):
        del facts[name]
    if job.state == "running" and job.is_cancel_requested:
        facts["state"] = "cancelling"
    if result := facts["result"]:
        if "failed" in result:
            result["failed"] = [{**each, "path": shown(each["path"])} for each in result["failed"]]
        for name in ("vanished", "excluded", "removed"):
            if isinstance(result.get(name), list):
                result[name] = [shown(path) for path in result[name]]
    return facts


class RepeatedRequest(Exception):  # noqa: N818 - it is no error
    """A request that made a job already, which is the answer."""

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__(facts["id"])
        self.facts = facts


async def answer_repeated(request: Request, repeated: Exception) -> Response:
    """Answer as the first request was answered."""
    facts = repeated.facts if isinstance(repeated, RepeatedRequest) else {}
    return JSONResponse(facts, 202, {"Location": f"/v1/jobs/{facts['id']}"})


async def _idempotency_key(
    request: Request, idempotency_key: Annotated[str | None, Header(max_length=200)] = None
) -> str | None:
    """Return the key of a request; one that made a job already is answered with that.

    Before anything is checked: what the job made may be what the request would now be refused for.
    """
    # The parts of a form have another separator each time.
    if not idempotency_key or media_type(request) == "multipart/form-data":
        return idempotency_key
    service: Service = request.app.state.service
    sent = [
        request.method,
        request.url.path,
        request.url.query,
        hashlib.sha256(await request.body()).hexdigest(),
    ]
    request.state.digest = hashlib.sha256("\n".join(sent).encode()).hexdigest()
    prefix = getattr(request.state, "key_prefix", "")
    job = await service.in_thread(
        service.jobs.table.repeated, request.state.digest, key_prefix=prefix, idempotency_key=idempotency_key
    )
    if job is not None:
        raise RepeatedRequest(await job_facts(service, job))
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]


async def accepted(
    request: Request, response: Response, kind: str, args: dict[str, Any], idempotency_key: str | None
) -> dict[str, Any]:
    """Queue a job, and answer 202 with its place; the same key within a day gives the same job."""
    service: Service = request.app.state.service
    prefix = getattr(request.state, "key_prefix", "")
    if (digest := getattr(request.state, "digest", None)) is not None:
        args = {**args, "request": digest}
    try:
        job, _ = await service.jobs.add(kind, args, key_prefix=prefix, idempotency_key=idempotency_key)
    except InvalidParameterError as error:
        raise Problem(409, str(error), code="idempotency_key_reused") from error
    response.status_code = 202
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return await job_facts(service, job)


def analysis_args(service: Service, name: str, kind: str, body: BaseModel | None = None) -> dict[str, Any]:
    """Return what the job of an analysis works on; a filter that is wrong is refused now, not by the job."""
    shown = {} if body is None else body.model_dump(mode="json", exclude_none=True)
    service.catalog.open(name).count(shown.get("where"))
    return {
        **shown,
        "shown": shown,
        "collection": name,
        "directory": service.catalog.shown_place(name),
        "result_file": str(service.catalog.result_file(name, kind).absolute()),
        **service.worker_args,
    }


class AnalysisStart:
    """Starts an analysis of the collection that a request names, as a job."""

    def __init__(
        self, request: Request, response: Response, name: str, idempotency_key: IdempotencyKey = None
    ) -> None:
        self._request, self._response, self._name = request, response, name
        self._idempotency_key = idempotency_key

    async def __call__(self, kind: str, body: BaseModel | None = None, **args: Any) -> dict[str, Any]:
        """Queue a job of a kind with the options of a body, and answer with the job.

        Further `args` are for the job alone.
        """
        service: Service = self._request.app.state.service
        facts = await service.in_thread(analysis_args, service, self._name, kind, body)
        return await accepted(self._request, self._response, kind, {**facts, **args}, self._idempotency_key)


StartAnalysis = Annotated[AnalysisStart, Depends()]


@router.post("/collections/{name}/index", status_code=202, dependencies=[requires("write")])
async def index_folder(
    request: Request,
    response: Response,
    name: str,
    body: IndexRequest,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Add a folder of the server to a collection. An unchanged file costs next to nothing."""
    service: Service = request.app.state.service
    folder = await service.in_thread(service.catalog.folder, body.folder)
    collection = await service.in_thread(service.catalog.open, name)
    if body.metadata:
        await service.in_thread(collection.check_metadata, body.metadata)
    args = {
        **body.model_dump(),
        "collection": name,
        "shown": body.model_dump(exclude_none=True),
        "folder": str(folder),
        "directory": service.catalog.shown_place(name),
        **service.worker_args,
    }
    return await accepted(request, response, "index", args, idempotency_key)


@router.get("/jobs", dependencies=[requires("read")])
async def list_jobs(
    request: Request,
    state: Literal["queued", "running", "done", "failed", "cancelled", "interrupted"] | None = None,
    kind: str | None = Query(None, max_length=100),
    collection: str | None = Query(None, max_length=100),
    limit: int = Query(100, ge=1, le=1000),
) -> dict[str, Any]:
    """Return jobs, the latest first: all, or those of a state, of a kind, or in a collection."""
    service: Service = request.app.state.service
    asked = {"state": state, "kind": kind, "collection": collection}
    jobs = await service.in_thread(service.jobs.table.list, **asked, limit=limit)
    return {"jobs": await _facts_of(service, jobs)}


async def _job(request: Request, id: str) -> Job:
    service: Service = request.app.state.service
    try:
        job: Job = await service.in_thread(service.jobs.table.get, id)
    except InvalidParameterError:
        raise Problem(404, "there is no such job", code="job_not_found") from None
    return job


RequestedJob = Annotated[Job, Depends(_job)]


@router.get("/jobs/{id}", dependencies=[requires("read")])
async def get_job(request: Request, job: RequestedJob) -> dict[str, Any]:
    """Return one job."""
    return await job_facts(request.app.state.service, job)


@router.delete("/jobs/{id}", status_code=202, dependencies=[requires("write")])
async def cancel_job(request: Request, job: RequestedJob) -> dict[str, Any]:
    """Cancel a job that waits or runs, or leave one that was interrupted or failed."""
    service: Service = request.app.state.service
    try:
        return await job_facts(service, await service.jobs.cancel(job.id))
    except InvalidParameterError as error:
        raise Problem(409, str(error), code="job_has_ended") from error


@router.post("/jobs/{id}/resume", status_code=202, dependencies=[requires("write")])
async def resume_job(request: Request, job: RequestedJob) -> dict[str, Any]:
    """Queue a job again that was interrupted, failed or cancelled.

    Those of faces also need the scope `faces`, and those of models `admin`, as to start them does.
    """
    service: Service = request.app.state.service
    if (scope := _SCOPES.get(job.kind)) is not None:
        service.gate.admit(request, scope)
    try:
        return await job_facts(service, await service.jobs.resume(job.id))
    except InvalidParameterError as error:
        raise Problem(409, str(error), code="job_not_resumable") from error


async def _unfinished(job: RequestedJob, last_event_id: str | None = Header(None)) -> Job:
    """Answer a client that reconnects after the end with 204: else it would do so for ever."""
    if last_event_id is not None and job.state in ENDED:
        raise Problem(204, "the job has ended")
    return job


UnfinishedJob = Annotated[Job, Depends(_unfinished)]


@router.get("/jobs/{id}/events", response_class=EventSourceResponse, dependencies=[requires("read")])
async def follow_job(request: Request, job: UnfinishedJob) -> AsyncIterator[ServerSentEvent]:
    """Follow a job by server-sent events: `progress`, and at last `end`."""
    service: Service = request.app.state.service
    number = 0
    async for current in service.jobs.watch(job.id, service.stopping):
        number += 1
        name = "end" if current.state in ENDED else "progress"
        yield ServerSentEvent(data=await job_facts(service, current), event=name, id=str(number))
