"""A collection of a service moves to another model, is searched by it meanwhile, and goes back."""

import numpy as np
import pytest
from PIL import Image

from nearsight import Client, Collection
from nearsight.client.operations import Answer
from nearsight.collection.bridged_search import BridgedSearch
from nearsight.errors import NearsightError
from nearsight.services import job_worker
from nearsight.services import upgrade as upgrades

from fake import FakeBackend

ROUTE = "/v1/collections/photos"


@pytest.fixture
def client(serve, tmp_path, monkeypatch):
    """A service with sixty images in three folders; jobs run in this process."""
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    y, x = np.mgrid[0:24, 0:24]
    for name, wave in (("level", y), ("upright", x), ("slanting", x + y)):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = 128 + 100 * np.sin(wave / 3 + rng.uniform(0, 0.5)) + rng.normal(0, 20, (24, 24))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")
    monkeypatch.setattr(upgrades, "_MIN_SAMPLED", 52)
    backends = {"onnx:/secret/place.onnx": FakeBackend(1)}
    monkeypatch.setattr(upgrades, "load_model", lambda name, **_: backends[name])
    client = serve(root=[f"images={folder}"])
    client.folder = folder
    table = client.service.jobs.table
    monkeypatch.setattr(table, "claim", lambda: None)
    client.post("/v1/collections", json={"name": "photos"}).raise_for_status()
    collection = Collection.open(client.service.catalog.directory("photos"), model=FakeBackend())
    collection.add(folder, progress=False)

    def run(**body):
        answer = client.post(f"{ROUTE}/upgrade", json=body)
        assert answer.status_code == 202, answer.text
        job = table.get(answer.json()["id"])
        result = job_worker.KINDS["upgrade"](job.args)
        table.finish(job.id, "done", result=result)
        return client.get(answer.headers["location"]).json()["result"]

    client.upgrade = run
    return client


def test_an_upgrade_from_the_sample_to_the_rollback(client):
    assert client.get(f"{ROUTE}/upgrade").json() == {"phase": None, "model": None, "report": None}
    ids = [item["id"] for item in client.get(f"{ROUTE}/items").json()["items"]]
    by_new = {"id": ids[0], "model": "clip", "k": 4}
    early = client.post(f"{ROUTE}/search", json=by_new)
    assert early.status_code == 409
    assert str(client.service.data) not in early.text
    sample = client.upgrade(model="clip", labels="folder", dry_run=True)
    assert (sample["old_model"], sample["new_model"], sample["switched"]) == ("default", "clip", False)
    assert sample["recall@1"]["new"] > 0
    state = client.get(f"{ROUTE}/upgrade").json()
    assert (state["phase"], state["model"], state["report"]) == ("shadow", "clip", sample)
    assert "secret" not in client.get(f"{ROUTE}/upgrade").text

    # The bridge answers as the library does, and keeps what it embeds.
    answer = client.post(f"{ROUTE}/search", json=by_new).json()
    local = Collection.open(client.service.catalog.directory("photos"), model=FakeBackend())
    wanted = BridgedSearch(local, FakeBackend(1)).search(id=ids[0], k=4)
    assert [hit["id"] for hit in answer["hits"]] == [match.id for match in wanted.matches]
    assert {hit["by"] for hit in answer["hits"]} == {"model"}
    assert (answer["bridge"]["model"], answer["bridge"]["embedded"]) == ("clip", 8)
    assert wanted.n_embedded == 0
    image = {"image": ("a.png", (client.folder / "level" / "3.png").read_bytes())}
    by_image = client.post(f"{ROUTE}/search", files=image, data={"model": "clip", "k": "1"}).json()
    assert by_image["hits"][0]["similarity"] == pytest.approx(1, abs=1e-4)

    done = client.upgrade(model="clip")
    assert done["switched"]
    # The service has noticed: it searches by the new model, and the model has its alias.
    assert client.get(f"{ROUTE}/upgrade").json()["phase"] == "switched"
    hits = client.post(f"{ROUTE}/search", files=image, data={"k": "4"}).json()["hits"]
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-4)
    assert client.post(f"{ROUTE}/upgrade/abandon").status_code == 400
    assert client.post(f"{ROUTE}/upgrade/rollback").json() == {
        "model": "default",
        "already_rolled_back": False,
        "lacking": 0,
    }
    assert client.get(f"{ROUTE}/upgrade").json()["phase"] == "rolled_back"
    assert client.service.catalog.open("photos").fingerprint == FakeBackend().spec.fingerprint


def test_what_cannot_be_done_is_told_without_the_place_of_the_collection(client, tmp_path):
    for what in ("commit", "abandon", "rollback"):
        answer = client.post(f"{ROUTE}/upgrade/{what}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "InvalidParameterError")
        assert "photos" in answer.json()["detail"]
        assert str(tmp_path) not in answer.text


def test_the_client_does_what_the_routes_do(client, monkeypatch):
    """Its requests go to the application in this process."""

    def ask(self, request):
        answer = client.request(request.method, request.path, json=request.json, params=request.params)
        if answer.status_code == 202:
            table = client.service.jobs.table
            job = table.get(answer.json()["id"])
            table.finish(job.id, "done", result=job_worker.KINDS["upgrade"](job.args))
        return Answer(answer.status_code, answer.content, answer.headers)

    monkeypatch.setattr(Client, "_answer", ask)
    with Client("http://127.0.0.1:1") as service:
        photos = service.collection("photos")
        assert photos.upgrade_state()["phase"] is None
        assert not photos.upgrade("clip", dry_run=True)["switched"]
        file = client.folder / "level" / "3.png"
        found = photos.search_by_model("clip", file, k=3)
        assert found.matches[0].similarity == pytest.approx(1, abs=1e-4)
        assert (found.share, found.estimated, found.n_embedded) == (1.0, [], 8)
        # One whose file is gone is refused, estimated where that is asked for.
        file.unlink()
        photos.abandon_upgrade()
        with pytest.raises(NearsightError, match="gone"):
            photos.upgrade("clip")
        assert photos.upgrade("clip", missing="keep")["estimated"] == 1
        assert photos.roll_back_upgrade() == 0
        photos.upgrade("clip", missing="keep", force=True)
        photos.commit_upgrade()
        assert photos.upgrade_state()["phase"] is None
        assert photos.count("vector_estimated = true") == 1


@pytest.mark.parametrize(
    ("what", "body", "status"),
    [
        ("upgrade", {"model": "onnx:/secret/place.onnx"}, 404),
        ("upgrade", {"model": "clip", "labels": "nowhere"}, 400),
        ("upgrade", {"model": "clip", "labels": "../.."}, 400),
        ("upgrade", {"model": "clip", "missing": "ignore"}, 422),
        ("upgrade/commit", {}, 400),
        ("upgrade/abandon", {}, 400),
        ("upgrade/rollback", {}, 400),
        ("search", {"model": "clip", "text": "a dog"}, 400),
        ("search", {"model": "nowhere", "id": "abcd"}, 404),
    ],
)
def test_what_is_wrong_is_refused(client, what, body, status):
    answer = client.post(f"{ROUTE}/{what}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]
