"""Collections in a database: its password is written nowhere, and one that never answers holds up nobody."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from models.layouts import write_layout
from server.processes import running, until

from nearsight import Collection
from nearsight.cli.main import cli
from nearsight.models import load_model
from nearsight.services.jobs import JobTable

httpx2 = pytest.importorskip("httpx2")

pytestmark = pytest.mark.slow


@pytest.fixture
def database(postgres):
    return postgres


def test_no_password_is_written_down(database, tmp_path, jpeg, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "data" / "files"))
    password = quote(database.password, safe="")
    place = database.uri.replace("postgres@", f"postgres:{password}@") + "?collection=shop"
    away = f"postgres://postgres:secret-of-ann@127.0.0.1:{database.port}/postgres?collection=y"
    model = f"dir:{write_layout(tmp_path / 'model', outputs={'image_embeds': [64]})}"
    Collection.create(place, model=load_model(model, device="cpu"))
    words = ["--model", f"default={model}", "--mount", f"shop={place}", "--mount", f"away={away}"]
    told = []
    with running(tmp_path, *words) as process:
        client = process.client()
        client.timeout = 600

        def ask(method, path, status, **options):
            answer = client.request(method, path, **options)
            assert answer.status_code == status, answer.text
            told.append(f"{answer.headers} {answer.text}")
            return answer.json()

        files = [("image", (f"{n}.jpg", jpeg(n))) for n in range(4)]
        ask("POST", "/v1/collections/shop/items", 200, files=files)
        job = ask("POST", "/v1/collections/shop/audit", 202, json={})
        # The job's process connects with the password.
        until(lambda: ask("GET", f"/v1/jobs/{job['id']}", 200)["state"] == "done")
        told.append(client.get(f"/v1/jobs/{job['id']}/events").text)
        args = JobTable(tmp_path / "data").get(job["id"]).args
        assert args["directory"] == f"{database.uri}?collection=shop"
        ask("POST", "/v1/collections/shop/search", 400, json={"where": "nope = 1", "vector": [1.0] * 64})
        ask("POST", "/v1/collections/away/search", 507, json={"vector": [1.0] * 64})
        ask("POST", "/v1/collections/away/audit", 507, json={})
        # One that fails with an error of the library.
        job = ask("POST", "/v1/collections/shop/clusters", 202, json={"k": 99})
        until(lambda: ask("GET", f"/v1/jobs/{job['id']}", 200)["state"] in ("failed", "done"))
        process.stop()
        told.append(process.text())
    for words in (["--mount", f"/shop={away}"], ["--mount", away], ["--mount", f"a={away}", "--mount", away]):
        result = CliRunner().invoke(cli, ["serve", "--port", "0", "--data", str(tmp_path / "other"), *words])
        assert result.exit_code
        told.append(result.output)
    secrets = {password, database.password, "secret-of-ann"}
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                told.append(file.read().decode("latin-1"))
    assert not [text for text in told for secret in secrets if secret in text]


def test_a_server_that_is_stopped_holds_up_nobody_else(database, tmp_path, jpeg, monkeypatch):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setenv("PGPASSWORD", database.password)
    monkeypatch.setenv("NEARSIGHT_FILES", str(tmp_path / "data" / "files"))
    place = f"{database.uri}?collection=stopped"
    model = f"dir:{write_layout(tmp_path / 'model', outputs={'image_embeds': [64]})}"
    Collection.create(place, model=load_model(model, device="cpu"))
    words = ["--model", f"default={model}", "--mount", f"shop={place}", "--deadline-s", "4", "--grace-s", "1"]
    with running(tmp_path, *words) as process:
        client = process.client()
        client.post("/v1/collections", json={"name": "photos"})
        files = [("image", (f"{n}.jpg", jpeg(n))) for n in range(3)]
        for name in ("shop", "photos"):
            assert client.post(f"/v1/collections/{name}/items", files=files).status_code == 200
        parent = psutil.Process(database.pid)
        stopped = [parent, *parent.children(recursive=True)]
        for each in stopped:
            each.suspend()
        try:
            # More than there are threads; whoever asks for others is answered at once.
            with ThreadPoolExecutor(8) as pool:
                waiting = [pool.submit(client.get, "/v1/collections/shop/items") for _ in range(8)]
                for _ in range(5):
                    hits = client.post("/v1/collections/photos/search", json={"vector": [1.0] * 64})
                    assert len(hits.json()["hits"]) == 3
                listed = {each["name"]: each for each in client.get("/v1/collections").json()["collections"]}
                assert listed["photos"]["images"] == 3
                assert "does not answer" in listed["shop"]["problem"]
                answers = [each.result() for each in waiting]
            assert {each.status_code for each in answers} == {503}
            assert {each.json()["error"]["code"] for each in answers} == {"collection_away"}
        finally:
            for each in stopped:
                each.resume()
        shop = "/v1/collections/shop"
        until(lambda: client.get(shop).status_code == 200)
        assert client.get(shop).json()["images"] == 3
        # And a stop waits for no answer that may never come.
        for each in stopped:
            each.suspend()
        try:
            with ThreadPoolExecutor(1) as pool, suppress(httpx2.TransportError):
                asked = pool.submit(client.get, f"{shop}/items")
                until(lambda: psutil.Process(process.popen.pid).num_threads() and not asked.done())
                assert process.stop() == 0
                asked.result()
        finally:
            for each in stopped:
                each.resume()
