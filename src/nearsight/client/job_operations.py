"""What a client can ask for about jobs, and how it waits for them; see `nearsight.client.operations`."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nearsight.client.requests import Operation, Request
from nearsight.errors import ServiceError

#: How often a job is looked at.
POLL_S = 0.5


def jobs(
    client: object, *, state: str | None = None, kind: str | None = None, collection: str | None = None
) -> Operation[list[dict[str, Any]]]:
    """Return the latest jobs of the service, the latest first: of a state, of a kind, in a collection."""
    asked = {"state": state, "kind": kind, "collection": collection}
    params = {name: value for name, value in asked.items() if value is not None}
    answer = yield Request("GET", "/v1/jobs", params=params)
    listed: list[dict[str, Any]] = answer.json()["jobs"]
    return listed


def job(client: object, id: str) -> Operation[dict[str, Any]]:
    """Return a job: its state, how far it is, and its result."""
    return (yield from _facts("GET", id))


def cancel(client: object, id: str) -> Operation[dict[str, Any]]:
    """Cancel a job that waits or runs, or leave one that was interrupted or failed."""
    return (yield from _facts("DELETE", id))


def resume(client: object, id: str) -> Operation[dict[str, Any]]:
    """Queue a job again that was interrupted, failed or cancelled."""
    return (yield from _facts("POST", id, "/resume"))


def wait(client: object, id: str) -> Operation[dict[str, Any]]:
    """Wait until a job has ended, and return it.

    Raises
    ------
    ServiceError
        It failed, or was cancelled or interrupted.
    """
    return (yield from finished((yield from job(client, id))))


def finished(job: Mapping[str, Any]) -> Operation[dict[str, Any]]:
    """Wait until a job has ended, and return it.

    Raises
    ------
    ServiceError
        It failed, or was cancelled or interrupted.
    """
    facts = dict(job)
    while not has_ended(facts):
        facts = yield from _facts("GET", facts["id"], delay_s=POLL_S)
    return facts


def has_ended(job: Mapping[str, Any]) -> bool:
    """Return whether a job is done.

    Raises
    ------
    ServiceError
        It failed, or was cancelled or interrupted.
    """
    if job["state"] in ("failed", "cancelled", "interrupted"):
        how = "has failed" if job["state"] == "failed" else f"was {job['state']}"
        raise ServiceError(f"the job {job['id']} {how}: {job['error'] or 'it has no result'}")
    return bool(job["state"] == "done")


def job_result(request: Request) -> Operation[dict[str, Any]]:
    """Ask for a job, wait until it has ended, and return its result.

    Raises
    ------
    ServiceError
        It failed, or was cancelled or interrupted.
    """
    facts: dict[str, Any] = (yield from finished((yield request).json()))["result"]
    return facts


def _facts(method: str, id: str, way: str = "", *, delay_s: float = 0.0) -> Operation[dict[str, Any]]:
    answer = yield Request(method, f"/v1/jobs/{quote(id, safe='')}{way}", delay_s=delay_s)
    facts: dict[str, Any] = answer.json()
    return facts
