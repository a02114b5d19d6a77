"""A service whose collection is in PostgreSQL."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from nearsight import Collection
from nearsight.errors import UnknownModelError
from nearsight.server.app import create_app
from nearsight.server.model_pool import ModelSource
from nearsight.server.service import Service
from nearsight.services import job_worker
from nearsight.services.label_sets import LabelSet
from nearsight.services.server_settings import ServerSettings

from fake import FakeBackend


def no_texts():
    raise UnknownModelError("no text encoder")


def test_a_mounted_uri_is_searched_labeled_and_clustered(uri, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(folder / f"{i}.png")
    backend = FakeBackend()
    Collection.create(uri, model=backend).add(folder, progress=False)
    sources = {"default": ModelSource("fake", lambda: backend.spec, lambda: backend, no_texts)}
    settings = ServerSettings(data=str(tmp_path / "data"), mount=(f"shop={uri}",), n_threads=1)
    service = Service(settings, sources)
    monkeypatch.setattr(service.jobs.table, "claim", lambda: None)
    route = "/v1/collections/shop"
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000") as client:
        assert client.get(route).json()["images"] == 12
        image = (folder / "3.png").read_bytes()
        [first, *_] = client.post(f"{route}/search", files={"image": image}).json()["hits"]
        assert (first["path"], round(first["similarity"], 3)) == ("3.png", 1.0)
        added = client.post(f"{route}/items", files={"image": ("a.png", image[:-1] + b"x")})
        assert added.status_code == 200, added.text
        labels = {"changes": [{"ids": [first["id"]], "label": "shoe"}]}
        assert client.post(f"{route}/labels", json=labels).status_code == 200
        assert (
            len(client.post(f"{route}/labels/queue", json={"n": 4, "labeler": "ann"}).json()["images"]) == 4
        )
        answer = client.post(f"{route}/clusters", json={"k": 2, "algorithm": "kmeans"})
        job = service.jobs.table.get(answer.json()["id"])
        assert job_worker.KINDS["clusters"](job.args)["clusters"] == 2
        service.jobs.table.finish(job.id, "done", result={})
        assert len(client.get(f"{route}/clusters").json()["clusters"]) == 2
        assert client.post(f"{route}/search", json={"id": first["id"], "cluster": [0, 1]}).json()["hits"]
        assert uri not in client.get(route).text + answer.text
    assert LabelSet(Collection.open(uri), "label").labels() == {first["id"]: "shoe"}
