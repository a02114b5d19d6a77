"""Analyses over HTTP give what the library gives; the worker runs in this process, so that it is quick."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.services import documents, job_worker

from fake import FakeBackend

ROUTE = "/v1/collections/photos"


def photograph(seed, quality=95, size=(160, 120)):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture(scope="module")
def photos(client):
    """Twelve images, and re-encoded ones of three of them."""
    assert client.post("/v1/collections", json={"name": "photos"}).status_code == 201
    images = [photograph(seed) for seed in range(12)] + [photograph(seed, 60) for seed in range(3)]
    files = [("image", (f"{i}.jpg", data)) for i, data in enumerate(images)]
    answer = client.post(f"{ROUTE}/items", files=files)
    return [item["id"] for item in answer.json()["items"]]


@pytest.fixture
def run(client, photos, monkeypatch):
    """Ask for an analysis, and run its job here and now."""
    table = client.service.jobs.table
    monkeypatch.setattr(table, "claim", lambda: None)

    def start(kind, **body):
        answer = client.post(f"{ROUTE}/{kind}", json=body)
        assert answer.status_code == 202, answer.text
        job = table.get(answer.json()["id"])
        result = job_worker.KINDS[kind](job.args)
        table.finish(job.id, "done", result=result)
        shown = client.get(answer.headers["location"]).json()
        assert (shown["state"], shown["result"], shown["args"]) == ("done", result, body)
        return result

    return start


def library(client):
    return Collection.open(client.service.catalog.directory("photos"), model=FakeBackend())


def test_there_is_no_result_before_a_job(client, photos):
    for kind in ("audit", "map"):
        answer = client.get(f"{ROUTE}/{kind}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_result")
    assert client.get(f"{ROUTE}/analyses").json() == {"analyses": []}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("duplicates", {"where": "nope = 1"}),
        ("duplicates", {"false_alarm_rate": 2}),
        ("clusters", {"k": 0}),
        ("clusters", {"algorithm": "magic"}),
        ("map", {"method": "magic"}),
        ("audit", {"false_alarm_rate": 0}),
    ],
)
def test_bad_requests_start_no_job(client, photos, kind, body):
    before = len(client.service.jobs.table.list())
    assert client.post(f"{ROUTE}/{kind}", json=body).status_code in (400, 422)
    assert len(client.service.jobs.table.list()) == before


def test_duplicates_and_decisions(client, photos, run):
    summary = run("duplicates")
    expected = documents.duplicates_document(library(client).find_duplicates(progress=False))["groups"]
    answer = client.get(f"{ROUTE}/duplicates").json()
    assert summary["groups"] == answer["total"] == len(expected) == 3
    assert {tuple(sorted(each["ids"])) for each in answer["groups"]} == {
        tuple(sorted(each["ids"])) for each in expected
    }
    assert str(client.service.data) not in json.dumps(answer)
    page = client.get(f"{ROUTE}/duplicates", params={"limit": 2}).json()
    assert (len(page["groups"]), page["next"]) == (2, 2)
    ids = answer["groups"][0]["ids"]
    decision = {"ids": ids, "decision": "different"}
    assert client.post(f"{ROUTE}/duplicates/decisions", json=decision).json() == {"pairs": 1}
    assert client.get(f"{ROUTE}/duplicates").json()["total"] == 2
    run("duplicates")
    assert client.get(f"{ROUTE}/duplicates").json()["total"] == 2
    listed = client.get(f"{ROUTE}/duplicates/decisions").json()["decisions"]
    assert listed == [{"ids": sorted(ids), "decision": "different"}]
    client.post(f"{ROUTE}/duplicates/decisions", json={"ids": ids, "decision": "undecided"})
    assert client.get(f"{ROUTE}/duplicates").json()["total"] == 3
    assert (
        client.post(
            f"{ROUTE}/duplicates/decisions", json={"ids": ids[:1], "decision": "different"}
        ).status_code
        == 422
    )


def test_clusters_are_found_and_renamed(client, photos, run):
    assert run("clusters", k=2, algorithm="kmeans")["clusters"] == 2
    document = client.get(f"{ROUTE}/clusters").json()
    assert sorted(id for each in document["clusters"] for id in each["ids"]) == sorted(photos)
    answer = client.patch(f"{ROUTE}/clusters/1", json={"name": "sunsets"})
    assert answer.json()["name"] == "sunsets"
    assert client.get(f"{ROUTE}/clusters").json()["clusters"][1]["name"] == "sunsets"
    from nearsight.analyses.clusters import Clustering
    from nearsight.services.clusters import clustering_file

    assert Clustering.load(clustering_file(library(client))).clusters[1].name == "sunsets"
    assert client.patch(f"{ROUTE}/clusters/7", json={"name": "x"}).status_code == 404
    assert client.patch(f"{ROUTE}/clusters/1", json={"name": ""}).status_code == 422


def test_clusters_are_merged_split_and_undone(client, photos, run, monkeypatch):
    run("clusters", k=3, algorithm="kmeans")
    first = client.get(f"{ROUTE}/clusters").json()
    assert first["edits"] == []
    merged = client.post(
        f"{ROUTE}/clusters/merge", json={"ids": [1, 0], "revision": first["revision"]}
    ).json()
    assert sorted(len(c["ids"]) for c in merged["clusters"]) == sorted(
        [first["clusters"][0]["size"] + first["clusters"][1]["size"], first["clusters"][2]["size"]]
    )
    assert len(merged["edits"]) == 1
    # Numbers of a state that is gone may mean other clusters.
    stale = client.post(f"{ROUTE}/clusters/merge", json={"ids": [1, 0], "revision": first["revision"]})
    assert (stale.status_code, "changed meanwhile" in stale.text) == (400, True)
    moved = merged["clusters"][0]["ids"][:2]
    after = client.post(f"{ROUTE}/clusters/move", json={"ids": moved, "to": None}).json()
    assert after["clusters"][-1]["ids"] == moved
    answer = client.post(f"{ROUTE}/clusters/0/split", json={"k": 2})
    assert answer.status_code == 202
    job = client.service.jobs.table.get(answer.json()["id"])
    assert job_worker.KINDS["cluster_split"](job.args) == {"clusters": 4}
    split = client.get(f"{ROUTE}/clusters").json()
    assert (len(split["clusters"]), len(split["edits"])) == (4, 3)
    assert sorted(id for c in split["clusters"] for id in c["ids"]) == sorted(photos)
    for _ in range(3):
        back = client.post(f"{ROUTE}/clusters/undo", json={}).json()
    assert [set(c["ids"]) for c in back["clusters"]] == [set(c["ids"]) for c in first["clusters"]]
    assert client.post(f"{ROUTE}/clusters/undo", json={}).status_code == 400
    for path, body in (("merge", {"ids": [0, 9]}), ("move", {"ids": moved, "to": 9}), ("9/split", {})):
        assert client.post(f"{ROUTE}/clusters/{path}", json=body).status_code == 404
    run("clusters", k=2, algorithm="kmeans", where="width = 160")
    assert client.post(f"{ROUTE}/clusters/merge", json={"ids": [0, 1]}).json()["error"]["code"] == "not_saved"
    run("clusters", k=2, algorithm="kmeans")


def test_clusters_leave_out_images_that_have_left(client, photos, run):
    run("clusters", k=2, algorithm="kmeans")
    before = client.get(f"{ROUTE}/clusters").json()
    gone = before["clusters"][0]["representative"]
    entry = client.post(f"{ROUTE}/trash", json={"ids": [gone]}).json()["entry"]
    left = client.get(f"{ROUTE}/clusters").json()
    assert gone not in json.dumps(left)
    first, whole = left["clusters"][0], before["clusters"][0]
    assert first["ids"] == [id for id in whole["ids"] if id != gone]
    assert (first["size"], first["representative"]) == (whole["size"] - 1, whole["representatives"][1])
    assert left["revision"] == before["revision"]
    # A cluster without any keeps its number, since edits name it.
    others = client.post(f"{ROUTE}/trash", json={"ids": first["ids"]}).json()["entry"]
    empty, rest = client.get(f"{ROUTE}/clusters").json()["clusters"]
    assert (empty["id"], empty["size"], empty["representative"], rest) == (0, 0, None, before["clusters"][1])
    for each in (others, entry):
        client.post(f"{ROUTE}/trash/{each['id']}/restore").raise_for_status()
    assert client.get(f"{ROUTE}/clusters").json() == before


def test_the_map_is_binary(client, photos, run):
    assert run("map", refit=True, method="pca")["points"] == len(photos)
    answer = client.get(f"{ROUTE}/map")
    n = len(answer.content) // 26
    x, y = (np.frombuffer(answer.content, "<f4", n, offset) for offset in (0, 4 * n))
    category = np.frombuffer(answer.content, "<u2", n, 8 * n)
    ids = [answer.content[10 * n + 16 * i :][:16].hex() for i in range(n)]
    layout = library(client).layout_2d(progress=False)
    assert ids == layout.ids
    np.testing.assert_array_equal(np.stack([x, y], 1), layout.positions)
    assert set(category.tolist()) <= {0, 1, 65535}
    again = client.get(f"{ROUTE}/map", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    # An image that has left has no position, and its old one when it comes back; the values keep their order.
    entry = client.post(f"{ROUTE}/trash", json={"ids": [ids[4]]}).json()["entry"]
    left = client.get(f"{ROUTE}/map", headers={"if-none-match": answer.headers["etag"]})
    assert left.status_code == 200
    positions = np.frombuffer(left.content, "<f4", 2 * n).reshape(2, n)
    assert np.flatnonzero(np.isnan(positions).any(0)).tolist() == [4]
    np.testing.assert_array_equal(np.delete(positions, 4, 1), np.delete(np.stack([x, y]), 4, 1))
    assert left.content[8 * n :] == answer.content[8 * n :]
    values = client.get(f"{ROUTE}/map/values", params={"field": "width"}).json()
    assert np.flatnonzero(np.frombuffer(base64.b64decode(values["codes"]), "<u2") == 65535).tolist() == [4]
    client.post(f"{ROUTE}/trash/{entry['id']}/restore").raise_for_status()
    back = client.get(f"{ROUTE}/map")
    assert (back.content, back.headers["etag"]) == (answer.content, answer.headers["etag"])


def test_the_values_of_a_field_color_the_map(client, photos, run):
    run("map", refit=True, method="pca")
    client.patch(f"{ROUTE}/items", json={"ids": photos[:4], "metadata": {"kind": "shoe"}})
    values = client.get(f"{ROUTE}/map/values", params={"field": "kind"}).json()
    codes = np.frombuffer(base64.b64decode(values["codes"]), "<u2")
    places = client.get(f"{ROUTE}/map").content
    ids = [places[at : at + 16].hex() for at in range(len(places) // 26 * 10, len(places), 16)]
    assert {id for id, code in zip(ids, codes.tolist(), strict=True) if code == 0} == set(photos[:4])
    assert (values["categories"], values["n_none"]) == ([["shoe", 4]], len(ids) - 4)
    assert client.get(f"{ROUTE}/map/values", params={"field": "nope"}).status_code == 400


def test_duplicates_go_to_the_trash_and_come_back(client, photos, run):
    run("duplicates")
    groups = client.get(f"{ROUTE}/duplicates").json()["groups"]
    before = client.get(f"{ROUTE}/items").json()
    certain = [group for group in groups if group["certain"]]
    assert certain
    answer = client.post(f"{ROUTE}/trash", json={"redundant_of": [group["keep"] for group in certain]}).json()
    assert answer["refused"] == []
    others = {id for group in certain for id in group["ids"][1:]}
    assert set(answer["entry"]["ids"]) == others
    left = client.get(f"{ROUTE}/items").json()
    assert {each["id"] for each in left["items"]} == set(photos) - others
    assert client.get(f"{ROUTE}/duplicates").json()["total"] == len(groups) - len(certain)
    [entry] = client.get(f"{ROUTE}/trash").json()["entries"]
    assert str(client.service.data) not in json.dumps(entry)
    assert client.post(f"{ROUTE}/trash/{entry['id']}/restore").status_code == 200
    assert client.get(f"{ROUTE}/items").json() == before
    assert client.get(f"{ROUTE}/duplicates").json()["groups"] == groups
    assert client.post(f"{ROUTE}/trash/{entry['id']}/restore").status_code == 400
    # An image that somebody names goes whatever the group says; files outside the roots stay.
    one = client.post(f"{ROUTE}/trash", json={"ids": photos[5:6]}).json()["entry"]
    assert client.get(f"{ROUTE}/items/{photos[5]}").status_code == 404
    client.post(f"{ROUTE}/trash/{one['id']}/restore")
    for body in ({}, {"ids": photos[:1], "redundant_of": photos[:1]}):
        assert client.post(f"{ROUTE}/trash", json=body).status_code == 400
    assert client.post(f"{ROUTE}/trash", json={"redundant_of": ["0" * 32]}).status_code == 404


def test_audit(client, photos, run):
    summary = run("audit")
    document = client.get(f"{ROUTE}/audit").json()
    assert len(document["issues"]) == summary["issues"]
    assert document["images"] == len(photos)
    assert all("/" not in path for issue in document["issues"] for path in issue["paths"])
    # Issues of an image that leaves are settled; those of other images stay as they are.
    gone = document["issues"][0]["ids"][0]
    entry = client.post(f"{ROUTE}/trash", json={"ids": [gone]}).json()["entry"]
    # Its thumbnail is still shown.
    assert client.get(f"{ROUTE}/items/{gone}/thumbnail").content[:2] == b"\xff\xd8"
    assert client.get(f"{ROUTE}/items/{'0' * 32}/thumbnail").status_code == 404
    left = client.get(f"{ROUTE}/audit").json()
    assert left["issues"] == [issue for issue in document["issues"] if gone not in issue["ids"]]
    assert sum(left["counts"].values()) == len(left["issues"]) < len(document["issues"])
    client.post(f"{ROUTE}/trash/{entry['id']}/restore").raise_for_status()
    assert client.get(f"{ROUTE}/audit").json() == document
