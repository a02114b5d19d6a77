"""Labels and classifiers over HTTP give what the library gives; what is answered is on disk."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.analyses.classification import FittedClassifier
from nearsight.services import job_worker
from nearsight.services.documents import label_check_document

from fake import FakeBackend

ROUTE = "/v1/collections/shelf"
COLORS = {"warm": (220, 90, 40), "cold": (40, 80, 220)}


def colored(label, seed):
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(COLORS[label]) + rng.normal(0, 40, (9, 12, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def truth(client):
    """What the sixty images of a collection show, by id."""
    assert client.post("/v1/collections", json={"name": "shelf"}).status_code == 201
    labels = ["warm", "cold"] * 30
    truth = {}
    for start in range(0, 60, 20):
        files = [
            ("image", (f"{n}.png", colored(labels[n], n), "image/png")) for n in range(start, start + 20)
        ]
        items = client.post(f"{ROUTE}/items", files=files).json()["items"]
        truth |= {item["id"]: labels[start + at] for at, item in enumerate(items)}
    return truth


@pytest.fixture
def shelf(client, truth):
    """The collection without labels and classifiers."""
    ids = list(truth)
    change = {"changes": [{"ids": ids, "label": None}]}
    client.post(f"{ROUTE}/labels", json=change)
    client.put(f"{ROUTE}/labels/classes", json={"classes": []})
    for name in client.get(f"{ROUTE}/classifiers").json()["classifiers"]:
        assert client.delete(f"{ROUTE}/classifiers/{name}").status_code == 204
    return ids


def library(client):
    return Collection.open(client.service.catalog.directory("shelf"), model=FakeBackend())


def give(client, truth, ids):
    changes = [{"ids": [id for id in ids if truth[id] == c], "label": c} for c in COLORS]
    answer = client.post(f"{ROUTE}/labels", json={"changes": changes})
    assert answer.status_code == 200, answer.text
    return answer.json()["changes"]


def test_labels_are_metadata_that_can_be_undone(client, truth, shelf):
    assert client.put(f"{ROUTE}/labels/classes", json={"classes": ["cold", "warm"]}).status_code == 200
    first, second = give(client, truth, shelf[:4])
    assert {item.id: item.metadata["label"] for item in library(client).items("label IS NOT NULL")} == {
        id: truth[id] for id in shelf[:4]
    }
    facts = client.get(f"{ROUTE}/labels").json()
    assert facts["classes"] == [{"label": "cold", "images": 2}, {"label": "warm", "images": 2}]
    assert (facts["labeled"], facts["images"]) == (4, 60)
    by_filter = {"changes": [{"where": "label = 'warm'", "label": "hot"}]}
    assert client.post(f"{ROUTE}/labels", json=by_filter).status_code == 200
    undone = client.post(f"{ROUTE}/labels/undo", json={}).json()
    assert (undone["label"], set(undone["labels"].values())) == ("hot", {"warm"})
    # A change in the middle is taken back where nothing else was decided since.
    client.post(f"{ROUTE}/labels", json={"changes": [{"ids": [shelf[0]], "label": "cold"}]})
    undone = client.post(f"{ROUTE}/labels/undo", json={"change": first}).json()
    assert undone["labels"] == {shelf[2]: None}
    pages, cursor = [], None
    while cursor is not None or not pages:
        query = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = client.get(f"{ROUTE}/labels/items", params=query).json()
        pages += [(each["id"], each["label"]) for each in page["items"]]
        cursor = page["next"]
    assert pages == [(shelf[0], "cold"), (shelf[1], "cold"), (shelf[3], "cold")]
    table = list(csv.DictReader(io.StringIO(client.get(f"{ROUTE}/labels/export").text)))
    assert [(row["id"], row["path"], row["label"]) for row in table][1] == (shelf[1], "1.png", "cold")
    assert second > first


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("post", "labels", {"changes": [{"ids": ["0" * 32], "label": "x"}]}, 404),
        ("post", "labels", {"changes": [{"label": "x"}]}, 400),
        ("post", "labels", {"changes": [{"ids": [], "label": " "}]}, 400),
        ("post", "labels", {"changes": [{"where": "nope = 1", "label": "x"}]}, 400),
        ("post", "labels", {"key": "../x", "changes": [{"ids": [], "label": "x"}]}, 400),
        ("put", "labels/classes", {"classes": ["Shirt", "shirt"]}, 400),
        ("post", "labels/undo", {"change": 999}, 409),
        ("post", "labels/queue", {"n": 0}, 422),
        ("post", "classifiers", {}, 400),
        ("post", "classifiers", {"key": "src"}, 400),
        ("post", "classifiers", {"name": "../x"}, 400),
        ("post", "labels/check", {}, 400),
        ("put", "classifiers/copy", {"source": "none"}, 404),
        ("post", "classifiers/none/predictions", {"ids": []}, 404),
        ("post", "classifiers/none/save", {"save_as": "kind"}, 404),
    ],
)
def test_bad_requests_change_nothing(client, truth, shelf, method, path, body, status):
    answer = client.request(method, f"{ROUTE}/{path}", json=body)
    assert answer.status_code == status, answer.text
    # Not by a filter: there may be no such field yet.
    assert not any(item.metadata.get("label") for item in library(client).items())


def test_a_classifier_is_fitted_kept_and_asked(client, truth, shelf):
    give(client, truth, shelf[:24])
    facts = client.post(f"{ROUTE}/classifiers", json={}).json()
    assert {each["label"]: each["examples"] for each in facts["classes"]} == {"cold": 12, "warm": 12}
    expected = list(library(client).classify())
    collected, cursor = [], None
    while cursor is not None or not collected:
        query = {"limit": 30, **({"cursor": cursor} if cursor else {})}
        page = client.get(f"{ROUTE}/classifiers/default/predictions", params=query).json()
        collected += page["predictions"]
        cursor = page["next"]
    assert {each["id"]: each["label"] for each in collected} == {p.id: p.label for p in expected}
    assert np.mean([truth[each["id"]] == each["label"] for each in collected]) > 0.9
    assert client.put(f"{ROUTE}/classifiers/first", json={}).json() == {"name": "first"}
    assert client.get(f"{ROUTE}/classifiers").json() == {"classifiers": ["default", "first"]}
    some = client.post(f"{ROUTE}/classifiers/first/predictions", json={"ids": shelf[30:32]}).json()
    assert [each["id"] for each in some["predictions"]] == shelf[30:32]
    # Images that are sent get the labels of the same images in the collection, and are not added.
    files = [("image", (f"new{n}.png", colored(["warm", "cold"][n % 2], n), "image/png")) for n in (30, 31)]
    sent = client.post(f"{ROUTE}/classifiers/first/predict", files=files).json()["predictions"]
    assert [{**each, "path": f"{n}.png"} for n, each in enumerate(sent, 30)] == some["predictions"]
    assert client.post(f"{ROUTE}/classifiers/first/predict", files={"other": b""}).status_code == 400
    file = client.get(f"{ROUTE}/classifiers/first/file").content
    path = client.service.data / "first.npz"
    path.write_bytes(file)
    assert sorted(FittedClassifier.load(path).ids) == sorted(shelf[:24])
    answer = client.post(f"{ROUTE}/classifiers/default/save", json={"save_as": "kind"})
    job = client.service.jobs.table.get(answer.json()["id"])
    client.post(f"/v1/jobs/{job.id}")
    job_worker.KINDS["predictions"](job.args)
    known = {p.id: p.label for p in expected if not p.unknown}
    assert {item.id: item.metadata["kind"] for item in library(client).items("kind IS NOT NULL")} == known


def test_the_queue_shows_the_unlabeled_and_measures_on_random_ones(client, truth, shelf):
    first = client.post(f"{ROUTE}/labels/queue", json={"n": 8}).json()["images"]
    assert [each["label"] for each in first] == [None] * 8
    assert sum(each["check"] for each in first) == 2
    assert client.get(f"{ROUTE}/labels/accuracy").json()["calibration"] == "too_few"
    give(client, truth, [each["id"] for each in first])
    client.post(f"{ROUTE}/classifiers", json={})
    skipped = [
        first_of["id"] for first_of in client.post(f"{ROUTE}/labels/queue", json={"n": 2}).json()["images"]
    ]
    rest = client.post(f"{ROUTE}/labels/queue", json={"n": 100, "skipped": skipped}).json()["images"]
    assert {each["id"] for each in rest} == set(shelf) - {each["id"] for each in first} - set(skipped)
    assert all(each["label"] in COLORS for each in rest)
    give(client, truth, shelf)
    assert client.post(f"{ROUTE}/labels/queue", json={}).json()["images"] == []
    accuracy = client.get(f"{ROUTE}/labels/accuracy").json()
    n = accuracy["judged"]
    assert n == sum(int(id[0], 16) < 4 for id in shelf)
    # The images are always the same, and so are the hashes of their content.
    assert n >= 8
    low, high = accuracy["interval"]
    assert low < accuracy["accuracy"] <= high


def test_wrong_labels_are_doubted_until_they_are_confirmed_or_changed(client, truth, shelf):
    give(client, truth, shelf)
    wrong = [id for id in shelf if truth[id] == "warm"][:2]
    client.post(f"{ROUTE}/labels", json={"changes": [{"ids": wrong, "label": "cold"}]})
    document = client.post(f"{ROUTE}/labels/check", json={}).json()
    labels = {item.id: item.metadata["label"] for item in library(client).items()}
    expected = label_check_document(library(client).check_labels(labels, progress=False))
    assert document["confusion"] == expected["confusion"]
    assert set(wrong) <= {each["id"] for each in document["suspects"]}
    assert client.post(f"{ROUTE}/labels/confirm", json={"ids": wrong[:1]}).json() == {"confirmed": 1}
    client.post(f"{ROUTE}/labels", json={"changes": [{"ids": wrong[1:], "label": "warm"}]})
    again = client.get(f"{ROUTE}/labels/check").json()
    assert {each["id"] for each in again["suspects"]} == {
        each["id"] for each in document["suspects"] if each["id"] not in wrong
    }


def test_many_labels_are_fitted_and_checked_by_jobs(client, truth, shelf, monkeypatch):
    from nearsight.server.routes import classify, labels

    monkeypatch.setattr(classify, "_MOST_AT_ONCE", 10)
    monkeypatch.setattr(labels, "_MOST_CHECKED_AT_ONCE", 10)
    table = client.service.jobs.table
    monkeypatch.setattr(table, "claim", lambda: None)
    give(client, truth, shelf)
    for path, kind in (("classifiers", "classifier"), ("labels/check", "label_check")):
        answer = client.post(f"{ROUTE}/{path}", json={})
        assert answer.status_code == 202, answer.text
        job_worker.KINDS[kind](table.get(answer.json()["id"]).args)
    assert client.get(f"{ROUTE}/classifiers").json() == {"classifiers": ["default"]}
    assert client.get(f"{ROUTE}/labels/check").json()["images"] == 60
