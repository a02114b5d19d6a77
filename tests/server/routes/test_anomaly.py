"""Detectors over HTTP: the worker runs in this process, so that it is quick."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from nearsight import AnomalyDetector
from nearsight.server.app import create_app
from nearsight.server.service import Service
from nearsight.services import anomaly_jobs, job_worker
from nearsight.services.server_settings import ServerSettings

from sample_images import fabric, torn

pytestmark = pytest.mark.slow
ROUTE = "/v1/collections/line/detectors"
FABRIC = f"{ROUTE}/fabric"


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """Good images, and a folder with two good and two torn ones, one damaged, and a secret beside it."""
    folder = tmp_path_factory.mktemp("factory")
    for seed in range(40):
        save(folder / f"images/good/{seed}.png", fabric(seed))
    for seed in (103, 105):  # far below the threshold
        save(folder / f"images/today/good-{seed}.png", fabric(seed))
    for seed in (100, 102):
        save(folder / f"images/today/torn-{seed}.png", torn(seed))
    (folder / "images/today/broken.png").write_bytes(b"\x89PNG no image")
    return folder


@pytest.fixture(scope="module")
def service(factory, source):
    settings = ServerSettings(data=str(factory / "data"), n_threads=2, root=(f"line={factory / 'images'}",))
    app = Service(settings, {"default": source()})
    with (
        pytest.MonkeyPatch.context() as patch,
        TestClient(
            create_app(app), base_url="http://127.0.0.1:8000", raise_server_exceptions=False
        ) as client,
    ):
        patch.setattr(app.jobs.table, "claim", lambda: None)
        patch.setattr(app.jobs.table, "claim_standing", lambda: None)
        client.service = app
        assert client.post("/v1/collections", json={"name": "line"}).status_code == 201
        yield client


def run(client, route, **body):
    """Ask for a job, and run it here and now; return its result as clients see it."""
    answer = client.post(route, json=body)
    assert answer.status_code == 202, answer.text
    table = client.service.jobs.table
    job = table.get(answer.json()["id"])
    table.finish(job.id, "done", result=job_worker.KINDS[job.kind](job.args))
    shown = client.get(answer.headers["location"]).json()
    assert "/" not in str(shown["args"]).replace("line/", "")
    return shown["result"]


@pytest.fixture(scope="module")
def fabrics(service):
    """A fitted detector that has scored the folder."""
    fit = run(
        service,
        ROUTE,
        name="fabric",
        folder="line/good",
        false_alarm_rate=0.1,
        n_patches=100,
        max_tiles=1,
        level="patch",
    )
    assert (fit["images"], fit["held_out"], fit["failed"]) == (40, 9, [])
    score = run(service, f"{FABRIC}/folders", folder="line/today")
    assert (score["images"], score["defects"], score["n_failed"]) == (4, 2, 1)
    assert score["failed"][0]["path"] == "line/today/broken.png"
    return service


def ids(client, **query):
    images = client.get(f"{FABRIC}/images", params=query).json()["images"]
    return {image["path"].rsplit("/")[-1]: image["id"] for image in images}


def test_what_was_scored_is_listed_with_the_most_anomalous_first(fabrics, factory):
    document = fabrics.get(f"{FABRIC}/images").json()
    assert [image["path"] for image in document["images"]][:2] in (
        ["line/today/torn-100.png", "line/today/torn-102.png"],
        ["line/today/torn-102.png", "line/today/torn-100.png"],
    )
    assert document["counts"]["defects"] == 2
    assert document["failed"][0]["path"] == "line/today/broken.png"
    [detector] = fabrics.get(ROUTE).json()["detectors"]
    assert str(factory) not in str((document, detector, fabrics.get(FABRIC).json()))
    # What the library says of the same files.
    [file] = (factory / "data/detectors").glob("*/fabric/detector-*.npz")
    paths = sorted((factory / "images/today").glob("[gt]o*.png"))
    own = {result.path: result.score for result in AnomalyDetector.load(file).score(paths)}
    assert {image["path"]: image["score"] for image in document["images"]} == {
        f"line/today/{path.name}": own[str(path)] for path in paths
    }
    # A second look scores nothing again.
    again = run(fabrics, f"{FABRIC}/folders", folder="line/today")
    assert (again["images"], again["unchanged"]) == (0, 5)


def test_a_heatmap_is_a_grid_and_a_drawing(fabrics):
    id = ids(fabrics)["torn-100.png"]
    data = fabrics.get(f"{FABRIC}/images/{id}/heatmap").content
    width, height = np.frombuffer(data[:4], "<u2")
    grid = np.frombuffer(data[4:], "<f4").reshape(height, width)
    assert (width, height) == (96, 96)
    y, x = np.unravel_index(grid.argmax(), grid.shape)
    assert abs(y - 49) < 16
    assert abs(x - 39) < 16
    for route in ("heatmap?format=png", "preview", "original"):
        answer = fabrics.get(f"{FABRIC}/images/{id}/{route}")
        assert Image.open(io.BytesIO(answer.content)).size == (96, 96)
    assert fabrics.get(f"{FABRIC}/images/{'0' * 32}/preview").status_code == 404


def test_uploads_are_scored_as_the_folder_is(fabrics):
    expected = {
        image["path"].rsplit("/")[-1]: image["score"]
        for image in fabrics.get(f"{FABRIC}/images").json()["images"]
    }
    file = io.BytesIO()
    Image.fromarray(torn(100)).save(file, "PNG")
    files = [("image", ("torn-100.png", file.getvalue())), ("image", ("x.png", b"no image"))]
    answer = fabrics.post(f"{FABRIC}/score", params={"keep": False}, files=files).json()
    assert answer["scores"][0]["score"] == expected["torn-100.png"]
    assert answer["failed"][0]["path"] == "x.png"
    assert fabrics.get(f"{FABRIC}/images").json()["total"] == 4
    assert fabrics.post(f"{FABRIC}/score").status_code == 400


def test_a_threshold_says_how_often_it_alarms_falsely_and_who_changes_sides(fabrics, factory):
    document = fabrics.get(f"{FABRIC}/threshold").json()
    good, held_out = document["good_scores"], document["held_out"]
    for point in document["curve"]:
        above = sum(score > point["threshold"] for score in good)
        assert point["expected_rate"] == pytest.approx(min(1, (above + 1) / (held_out + 1)))
        low, high = point["rate_interval"]
        assert low <= point["expected_rate"] <= high
        assert point["images_above"] == sum(score > point["threshold"] for score, _ in document["scores"])
    top = max(score for score, _ in document["scores"])
    effect = fabrics.get(f"{FABRIC}/threshold/effect", params={"at": top + 1}).json()
    assert {image["path"].rsplit("/")[-1] for image in effect["become_good"]} == {
        "torn-100.png",
        "torn-102.png",
    }
    assert (effect["become_defects"], effect["n_changed"]) == ([], 2)
    low = fabrics.get(f"{FABRIC}/threshold/effect", params={"at": -100}).json()
    assert {image["path"].rsplit("/")[-1] for image in low["become_defects"]} == {
        "good-103.png",
        "good-105.png",
    }
    assert low["expected_rate"] == 1
    changed = fabrics.put(f"{FABRIC}/threshold", json={"threshold": top + 1}).json()
    assert (changed["counts"]["defects"], changed["threshold"]) == (0, top + 1)
    assert changed["calibrated_threshold"] == document["threshold"]
    back = fabrics.put(f"{FABRIC}/threshold", json={"threshold": None}).json()
    assert (back["counts"]["defects"], back["threshold"]) == (2, document["threshold"])
    assert fabrics.put(f"{FABRIC}/threshold", json={"threshold": "nan"}).status_code == 422


def test_confirmed_images_change_sides_and_are_learned(fabrics, factory):
    """A false alarm is learned and a confirmed defect left out; both survive the refit."""
    torn_id, other = ids(fabrics)["torn-100.png"], ids(fabrics)["torn-102.png"]
    assert (
        fabrics.post(f"{FABRIC}/verdicts", json={"ids": [torn_id], "verdict": "good"}).json()["changed"] == 1
    )
    answer = fabrics.post(f"{FABRIC}/verdicts", json={"ids": [other], "verdict": "defect"}).json()
    assert (answer["counts"]["false_alarms"], answer["counts"]["defects"]) == (1, 1)
    assert set(ids(fabrics, side="defect")) == {"torn-102.png"}
    assert set(ids(fabrics, is_decided=False)) == {"good-103.png", "good-105.png"}
    # The file may leave its folder.
    (factory / "images/today/torn-100.png").unlink()
    # A confirmed defect in the folder of good images is not learned.
    (factory / "images/good/contaminated.png").write_bytes(
        (factory / "images/today/torn-102.png").read_bytes()
    )
    before = fabrics.get(f"{FABRIC}/images/{torn_id}").json()["score"]
    fit = run(fabrics, f"{FABRIC}/refit")
    assert (fit["images"], fit["learned"], fit["scored_again"]) == (41, 1, 4)
    after = fabrics.get(f"{FABRIC}/images/{torn_id}").json()
    assert after["verdict"] == "good"
    assert after["score"] < before
    assert after["revision"] == 2
    assert (
        fabrics.post(f"{FABRIC}/verdicts", json={"ids": [torn_id, other], "verdict": None}).json()["changed"]
        == 2
    )
    assert fabrics.get(f"{FABRIC}/images").json()["counts"]["undecided"] == 4
    (factory / "images/good/contaminated.png").unlink()


def test_a_detector_of_items_learns_their_files(fabrics, factory):
    good = sorted((factory / "images/good").iterdir())[:3]
    files = [("image", (path.name, path.read_bytes())) for path in good]
    fabrics.post("/v1/collections/line/items", files=files).raise_for_status()
    answer = fabrics.post(ROUTE, json={"name": "items", "where": "width = 96"})
    job = fabrics.service.jobs.table.get(answer.json()["id"])
    learned = anomaly_jobs.good_images(job.args)
    assert sorted(Path(path).read_bytes() for path in learned) == sorted(path.read_bytes() for path in good)
    fabrics.delete(f"/v1/jobs/{job.id}")


@pytest.mark.parametrize(
    ("method", "route", "body", "status"),
    [
        ("POST", ROUTE, {"name": "new"}, 400),
        ("POST", ROUTE, {"name": "new", "folder": "line/good", "where": "width = 96"}, 400),
        ("POST", ROUTE, {"name": "new", "folder": "line/../.."}, 403),
        ("POST", ROUTE, {"name": "new", "folder": "/etc"}, 403),
        ("POST", ROUTE, {"name": "../new", "folder": "line/good"}, 422),
        ("POST", ROUTE, {"name": "fabric", "folder": "line/good"}, 409),
        ("POST", ROUTE, {"name": "new", "where": "nope = 1"}, 400),
        ("POST", ROUTE, {"name": "new", "ids": ["feed"]}, 404),
        ("POST", f"{FABRIC}/folders", {"folder": "line/none"}, 404),
        ("POST", f"{FABRIC}/verdicts", {"ids": ["0" * 32], "verdict": "good"}, 404),
        ("POST", f"{FABRIC}/verdicts", {"ids": ["0" * 32], "verdict": "nice"}, 422),
        ("GET", f"{ROUTE}/none", None, 404),
        ("GET", f"{ROUTE}/..%2F..", None, 404),
        ("GET", "/v1/collections/none/detectors", None, 404),
    ],
)
def test_bad_requests_start_nothing(fabrics, method, route, body, status):
    before = len(fabrics.service.jobs.table.list())
    assert fabrics.request(method, route, json=body).status_code == status
    assert len(fabrics.service.jobs.table.list()) == before


def test_a_deleted_detector_leaves_nothing(fabrics, factory):
    """The last test here: the others need the detector."""
    watch = fabrics.post(f"{FABRIC}/folders", json={"folder": "line/today", "watch": True}).json()
    assert fabrics.delete(FABRIC).status_code == 204
    assert fabrics.get(f"/v1/jobs/{watch['id']}").json()["state"] == "cancelled"
    assert fabrics.get(FABRIC).status_code == 404
    assert not list((factory / "data/detectors").glob("*/fabric"))
    assert (factory / "images/today/good-103.png").exists()
