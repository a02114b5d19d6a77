"""Jobs over HTTP, with workers that do as the tests say."""

import asyncio
import json
import time

import pytest

from nearsight.server import jobs
from nearsight.server.routes import anomaly
from nearsight.services.keys import KeyStore

ROUTE = "/v1/jobs"

# Stands for nearsight.services.job_worker: does what the folder's name says.
WORKER = """
import json, sys, time
job = json.loads(sys.stdin.readline())
name = job["args"]["folder"].rsplit("/", 1)[-1]
for i in range(3):
    print(json.dumps({"message": "adding", "done": i, "total": 3}), flush=True)
if name == "fails":
    print(json.dumps({"error": "the disk is full", "error_type": "StorageError"}))
    sys.exit(1)
if name == "crashes":
    sys.exit(9)
if name == "waits":
    sys.stdin.read()
failed = [{"path": job["args"]["folder"] + "/a.png", "reason": "x"}]
print(json.dumps({"result": {"added": 3, "failed": failed}}))
"""


@pytest.fixture
def client(serve, tmp_path, monkeypatch):
    package = tmp_path / "workers"
    package.mkdir()
    (package / "stand_in_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.setattr(jobs, "WORKER_MODULE", "stand_in_worker")
    monkeypatch.setattr(jobs, "_POLL_S", 0.02)
    for name in ("works", "fails", "crashes", "waits"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    (tmp_path / "photos" / "out").symlink_to(tmp_path)
    client = serve(root=(f"archive={tmp_path / 'photos'}",))
    assert client.post("/v1/collections", json={"name": "photos"}).status_code == 201
    return client


def index(client, folder, **headers):
    answer = client.post(
        "/v1/collections/photos/index", json={"folder": f"archive/{folder}"}, headers=headers
    )
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"{ROUTE}/{answer.json()['id']}"
    return answer.json()["id"]


def wait(client, id, *states):
    for _ in range(6000):
        job = client.get(f"{ROUTE}/{id}").json()
        if job["state"] in states:
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def test_a_folder_is_indexed(client, tmp_path):
    job = wait(client, index(client, "works"), "done")
    assert job["result"]["added"] == 3
    assert job["result"]["failed"] == [{"path": "archive/works/a.png", "reason": "x"}]
    assert (job["collection"], job["args"]["folder"]) == ("photos", "archive/works")
    assert str(tmp_path) not in json.dumps(job)
    assert [each["id"] for each in client.get(ROUTE).json()["jobs"]] == [job["id"]]
    for asked, n in (("kind=index&collection=photos", 1), ("kind=map", 0), ("collection=other", 0)):
        assert len(client.get(f"{ROUTE}?{asked}").json()["jobs"]) == n
    text = client.get("/metrics").text
    assert 'nearsight_jobs{kind="index",state="done"} 1.0' in text


@pytest.mark.parametrize(
    ("folder", "status"),
    [
        ("archive/out", 403),
        ("archive/..", 403),
        ("other", 403),
        ("/etc", 403),
        ("archive/none", 404),
        ("archive/a\0", 404),
    ],
)
def test_only_folders_below_a_root(client, folder, status):
    answer = client.post("/v1/collections/photos/index", json={"folder": folder})
    assert answer.status_code == status
    assert repr(folder) in answer.json()["detail"]
    assert client.get(ROUTE).json()["jobs"] == []


def test_failures_are_told(client):
    assert wait(client, index(client, "fails"), "failed")["error"].startswith("the storage cannot be written")
    assert "ended with 9" in wait(client, index(client, "crashes"), "failed")["error"]


def test_events_end(client):
    id = index(client, "works")
    with client.stream("GET", f"{ROUTE}/{id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        text = stream.read().decode()
    events = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("event")]
    assert set(events[:-1]) <= {"progress"}
    assert events[-1] == "end"
    again = client.get(f"{ROUTE}/{id}/events", headers={"last-event-id": "3"})
    assert again.status_code == 204


def test_a_running_job_is_cancelled_and_resumed(client):
    id = index(client, "waits")
    wait(client, id, "running")
    assert client.delete(f"{ROUTE}/{id}").status_code == 202
    wait(client, id, "cancelled")
    assert client.delete(f"{ROUTE}/{id}").status_code == 409
    assert client.post(f"{ROUTE}/{id}/resume").status_code == 202
    wait(client, id, "running")
    assert client.post(f"{ROUTE}/{id}/resume").status_code == 409
    waiting = index(client, "works")
    told = f"jobs run one at a time: it waits for {id} (index)"
    assert client.get(f"{ROUTE}/{waiting}").json()["waits_for"] == told
    assert {each["id"]: each["waits_for"] for each in client.get(ROUTE).json()["jobs"]} == {
        id: None,
        waiting: told,
    }
    assert client.delete(f"{ROUTE}/{waiting}").json()["state"] == "cancelled"
    client.delete(f"{ROUTE}/{id}")
    wait(client, id, "cancelled")


def test_an_idempotency_key_gives_the_same_job(client):
    first = index(client, "works", **{"idempotency-key": "a"})
    assert index(client, "works", **{"idempotency-key": "a"}) == first
    assert index(client, "works", **{"idempotency-key": "b"}) != first
    answer = client.post(
        "/v1/collections/photos/index", json={"folder": "archive/fails"}, headers={"idempotency-key": "a"}
    )
    assert answer.status_code == 409


def test_a_repeated_request_is_answered_as_the_first_also_where_its_job_is_in_the_way(client, monkeypatch):
    def fit(folder, **headers):
        body = {"name": "scratches", "folder": f"archive/{folder}"}
        return client.post("/v1/collections/photos/detectors", json=body, headers=headers)

    first = fit("works", **{"idempotency-key": "a"})
    ended = wait(client, first.json()["id"], "failed")  # the stand-in can only index
    monkeypatch.setattr(anomaly.Inspection, "exists", lambda self: True)
    again = fit("works", **{"idempotency-key": "a"})
    assert (again.status_code, again.headers["location"]) == (202, first.headers["location"])
    assert again.json() == ended
    for answer in (fit("works"), fit("fails", **{"idempotency-key": "a"})):
        assert answer.status_code == 409
        assert "there is a detector" in answer.json()["detail"]
    assert client.delete("/v1/collections/photos").status_code == 204
    assert fit("works", **{"idempotency-key": "a"}).json()["id"] == ended["id"]


def test_a_job_does_not_go_on_in_another_collection_of_the_same_name(client):
    ids = [index(client, "fails"), index(client, "waits")]
    wait(client, ids[0], "failed")
    wait(client, ids[1], "running")
    assert client.delete("/v1/collections/photos").status_code == 204
    client.post("/v1/collections", json={"name": "photos"}).raise_for_status()
    for id, state in zip(ids, ("failed", "cancelled"), strict=True):
        answer = client.post(f"{ROUTE}/{id}/resume")
        assert answer.status_code == 409, answer.text
        assert "was deleted" in answer.json()["detail"]
        assert client.get(f"{ROUTE}/{id}").json()["state"] == state
    assert wait(client, index(client, "fails"), "failed")


def test_unknown_jobs(client):
    for answer in (
        client.get(f"{ROUTE}/none"),
        client.delete(f"{ROUTE}/none"),
        client.get(f"{ROUTE}/none/events"),
        client.post(f"{ROUTE}/none/resume"),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")
    assert client.get(ROUTE, params={"state": "odd"}).status_code == 422


def test_a_stop_interrupts_and_a_start_goes_on(serve, client, tmp_path):
    id = index(client, "waits")
    wait(client, id, "running")
    client.__exit__(None, None, None)
    assert client.service.jobs.table.get(id).state == "interrupted"
    client.__exit__ = lambda *error: None
    again = serve(root=(f"archive={tmp_path / 'photos'}",))
    wait(again, id, "running")
    again.delete(f"{ROUTE}/{id}")
    wait(again, id, "cancelled")


def test_a_job_that_starts_while_the_service_stops_is_interrupted(client, monkeypatch):
    start = asyncio.create_subprocess_exec

    async def late(*args, **options):
        await asyncio.sleep(0.3)
        return await start(*args, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", late)
    id = index(client, "waits")
    wait(client, id, "running")
    client.portal.call(client.service.jobs.stop)
    assert client.service.jobs.table.get(id).state == "interrupted"


def test_a_watch_runs_beside_other_jobs_and_goes_on_after_a_restart(client, tmp_path):
    table = client.service.jobs.table
    watch, _ = table.add("anomaly_watch", {"folder": str(tmp_path / "photos/waits")})
    wait(client, watch.id, "running")
    assert wait(client, index(client, "works"), "done")["result"]["added"] == 3
    assert table.get(watch.id).state == "running"
    client.portal.call(client.service.jobs.stop)
    assert table.get(watch.id).state == "interrupted"
    table.recover()
    assert table.get(watch.id).state == "queued"
    assert table.claim() is None
    assert table.claim_standing().id == watch.id


@pytest.mark.parametrize(
    ("kind", "scope"), [("faces", "faces"), ("faces_upgrade", "faces"), ("training", "admin")]
)
def test_to_resume_a_job_takes_the_scope_that_starting_it_took(client, tmp_path, kind, scope):
    keys, table = KeyStore(tmp_path / "data"), client.service.jobs.table
    _, writer = keys.add("writer", ["read", "write"])
    _, other = keys.add("other", ["read", "write", scope])
    job, _ = table.add(kind, {"folder": "works"})
    table.finish(job.id, "cancelled")
    answer = client.post(f"{ROUTE}/{job.id}/resume", headers={"x-api-key": writer})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
    assert table.get(job.id).state == "cancelled"
    assert client.post(f"{ROUTE}/{job.id}/resume", headers={"x-api-key": other}).status_code == 202


def test_the_jobs_of_a_collection_end_with_it(client, tmp_path):
    """Else they would go on in a collection that gets its name."""
    table = client.service.jobs.table
    running = index(client, "waits")
    wait(client, running, "running")
    queued = index(client, "works")
    interrupted, _ = table.add("index", {"collection": "photos", "folder": "works"})
    table.finish(interrupted.id, "interrupted")
    copied, _ = table.add("copy", {"target": str(client.service.catalog.place("photos")), "folder": "works"})
    other, _ = table.add("index", {"collection": "others", "folder": str(tmp_path / "works")})
    assert client.delete("/v1/collections/photos").status_code == 204
    for id in (running, queued, interrupted.id, copied.id):
        assert table.get(id).state == "cancelled"
    wait(client, other.id, "done")
    assert client.delete("/v1/collections/photos").status_code == 404


def test_a_collection_whose_job_does_not_end_stays(client, monkeypatch):
    monkeypatch.setattr(jobs, "_PATIENCE_S", 0.05)
    running = index(client, "waits")
    wait(client, running, "running")
    monkeypatch.setattr(client.service.jobs.table, "cancel", client.service.jobs.table.get)
    answer = client.delete("/v1/collections/photos")
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    assert client.get("/v1/collections/photos").status_code == 200
