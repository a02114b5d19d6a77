"""Faces over HTTP, with faces that are squares; the worker of the job runs in this process."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_faces import ColorRecognizer, SquareDetector, fake_impostor_quantiles, photograph
from PIL import Image

from nearsight import Collection
from nearsight.errors import InvalidParameterError
from nearsight.faces import FaceBank
from nearsight.services import faces as face_services
from nearsight.services import job_worker

from fake import FakeBackend

ROUTE = "/v1/collections/album"


def encoded(*faces, seed=0):
    file = io.BytesIO()
    photograph(*faces, seed=seed).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def models(monkeypatch):
    values = fake_impostor_quantiles()
    monkeypatch.setattr("nearsight.faces.pipeline.load_detector", lambda name: SquareDetector())
    monkeypatch.setattr(
        "nearsight.faces.pipeline.load_recognizer", lambda name, cache_dir=None: ColorRecognizer()
    )
    for module in ("bank", "results"):
        monkeypatch.setattr(f"nearsight.faces.{module}.impostor_quantiles", lambda fingerprint: values)


@pytest.fixture
def album(serve, monkeypatch):
    """A service with four photographs of ann and bob, and two of cy; nobody has looked for faces."""
    client = serve()
    table = client.service.jobs.table
    monkeypatch.setattr(table, "claim", lambda: None)
    client.post("/v1/collections", json={"name": "album"}).raise_for_status()
    images = [encoded(("ann", 10, 20, 60), ("bob", 150, 30, 60), seed=i) for i in range(4)]
    images += [encoded(("cy", 60, 30, 60), seed=50 + i) for i in range(2)]
    add(client, images)

    def run(id):
        table.finish(id, "done", result=job_worker.KINDS["faces"](table.get(id).args))

    def find():
        answer = client.post(f"{ROUTE}/faces", json={})
        assert answer.status_code == 202, answer.text
        run(answer.json()["id"])
        return client.get(answer.headers["location"]).json()["result"]

    client.find, client.run = find, run
    return client


def add(client, images):
    files = [("image", (f"{i}.png", data)) for i, data in enumerate(images)]
    client.post(f"{ROUTE}/items", files=files).raise_for_status()


def post(client, what, **body):
    answer = client.post(f"{ROUTE}/faces/{what}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def people(client, **query):
    return client.get(f"{ROUTE}/faces", params=query).json()


def sizes(client, **query):
    return {p["name"] or p["id"]: (p["faces"], p["suggested"]) for p in people(client, **query)["people"]}


def faces(client, id):
    return client.get(f"{ROUTE}/faces/people/{id}").json()["faces"]


def test_people_are_found_named_corrected_and_forgotten(album):
    assert album.get(f"{ROUTE}/faces").json()["error"]["code"] == "no_result"
    assert album.get(f"{ROUTE}/analyses").json()["analyses"] == []
    result = album.find()
    assert album.get(f"{ROUTE}/analyses").json()["analyses"] == ["faces"]
    assert (result["faces"], result["images"], result["groups"], result["failed"]) == (10, 6, 3, [])
    assert sizes(album) == {"g1": (4, 0), "g2": (4, 0), "g3": (2, 0)}
    # The library sees the same bank.
    library = FaceBank.open(face_services.bank_directory(album.service.catalog.directory("album")))
    assert [len(group.faces) for group in library.people.groups()] == [4, 4, 2]
    [first, second, *_] = faces(album, "g1")
    assert "/" not in first["path"]
    with Image.open(io.BytesIO(album.get(f"{ROUTE}/faces/{first['id']}/crop").content)) as crop:
        assert (crop.size, crop.format) == ((160, 160), "JPEG")
    # Named once: of new images, the job only suggests.
    named = post(album, "name", id="g1", name="Ann")
    assert (named["faces"], named["id"][:2]) == (4, "p-")
    add(album, [encoded(("ann", 30, 40, 60), seed=100 + i) for i in range(3)])
    assert album.find()["images"] == 3
    assert sizes(album)["Ann"] == (4, 3)
    right, wrong, _ = [face["id"] for face in faces(album, named["id"]) if not face["enrolled"]]
    assert post(album, "confirm", faces=[right])["faces"] == 1
    post(album, "reject", faces=[wrong])
    album.find()
    assert sizes(album)["Ann"] == (5, 1)
    images = album.get(f"{ROUTE}/faces/people/{named['id']}/images").json()["ids"]
    assert len(images) == 5
    assert first["image"] in images
    # Split, merge, and undo both.
    split = post(album, "split", faces=[first["id"], second["id"]])
    assert sizes(album)[split["id"]] == (2, 0)
    merged = post(album, "merge", ids=[split["id"], "g3"], name="Cy")
    assert sizes(album)["Cy"] == (4, 0)
    assert album.post(f"{ROUTE}/faces/undo", json={"change": split["change"]}).status_code == 400
    assert post(album, "undo", change=merged["change"])["action"] == "merge"
    assert post(album, "undo", change=split["change"])["action"] == "split"
    assert sizes(album)["Ann"] == (5, 1)
    # Hidden is hidden after the next job, too.
    assert post(album, "hide", ids=["g2"])["changed"] == 1
    album.find()
    assert "g2" not in sizes(album)
    assert sizes(album, hidden=True) == {"g2": (4, 0)}
    assert people(album)["names"] == ["Ann"]
    assert post(album, "forget", ids=["g2"])["removed"] == 4
    assert post(album, "forget", faces=[wrong])["removed"] == 1
    album.find()
    assert sizes(album, hidden=True) == {}
    assert people(album)["change"] is None
    assert post(album, "forget", everything=True)["removed"] == 8
    assert album.get(f"{ROUTE}/faces").status_code == 404


def test_persons_are_enrolled_and_identified(album):
    ids = [item["id"] for item in album.get(f"{ROUTE}/items").json()["items"]]
    # Two images can be compared before anybody looked for faces.
    answer = album.post(f"{ROUTE}/faces/verify", json={"ids": ids[4:]}).json()
    assert answer["same"]
    assert answer["similarity"] > answer["threshold"]
    assert answer["false_match_rate"] <= 0.01
    ann = encoded(("ann", 60, 40, 80), seed=300)
    answer = album.post(f"{ROUTE}/faces/enroll", files=[("image", ("a.png", ann))], data={"name": "Ann"})
    assert answer.json()["enrolled"] == {"Ann": 1}
    assert album.post(f"{ROUTE}/faces/enroll", json={"name": "Cy", "ids": ids[4:]}).json()["faces"] == 3
    party = encoded(("cy", 10, 20, 60), ("dee", 150, 30, 50), seed=400)
    found = album.post(f"{ROUTE}/faces/identify", files=[("image", ("p.png", party))]).json()
    assert [(face["name"], face["unknown"]) for face in found["faces"]] == [("Cy", False), (None, True)]
    found = album.post(f"{ROUTE}/faces/identify", json={"ids": ids[:1]}).json()
    assert {face["name"] for face in found["faces"]} == {"Ann", None}
    bank = FaceBank.open(face_services.bank_directory(album.service.catalog.directory("album")))
    item = Collection.open(album.service.catalog.directory("album"), model=FakeBackend()).get(ids[0])
    [expected] = face_services.identify(bank, [item.path])["faces"][:1]
    assert found["faces"][0] == {**expected, "path": found["faces"][0]["path"]}
    files = [("image", ("p.png", ann))]
    assert album.post(f"{ROUTE}/faces/verify", files=files, data={"ids": ids[4]}).json()["same"] is False
    broken = album.post(f"{ROUTE}/faces/identify", files=[("image", ("p.png", b"no image"))]).json()
    assert (len(broken["failed"]), broken["faces"]) == (1, [])


@pytest.mark.parametrize(
    ("what", "body", "status"),
    [
        ("name", {"id": "g9", "name": "x"}, 404),
        ("name", {"id": "g1", "name": " "}, 422),
        ("confirm", {"faces": ["ffff"]}, 404),
        ("reject", {"faces": []}, 422),
        ("merge", {"ids": ["g1"]}, 422),
        ("forget", {}, 400),
        ("forget", {"unnamed": True, "everything": True}, 400),
        ("undo", {}, 400),
        ("identify", {"ids": []}, 400),
        ("verify", {"ids": []}, 400),
        ("identify", {"images": ["https://example.org/a.jpg"]}, 400),
        ("enroll", {"images": ["AAAA"]}, 400),
    ],
)
def test_what_is_wrong_is_told(album_once, what, body, status):
    answer = album_once.post(f"{ROUTE}/faces/{what}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


@pytest.fixture(scope="module")
def album_once(client):
    """One service for all of these: nothing changes in it."""
    client.post("/v1/collections", json={"name": "album"}).raise_for_status()
    directory = face_services.bank_directory(client.service.catalog.directory("album"))
    from nearsight.faces import FaceReader

    bank = FaceBank.create(directory, reader=FaceReader(SquareDetector(), ColorRecognizer(), progress=False))
    bank.scan([photograph(("ann", 10, 20, 60), seed=i) for i in range(2)])
    return client


def test_a_key_needs_the_scope_faces(serve):
    from nearsight.services.keys import KeyStore

    client = serve()
    store = KeyStore(client.service.data)
    secrets = {scope: store.add(scope, [scope])[1] for scope in ("admin", "write", "faces")}
    headers = {scope: {"Authorization": f"Bearer {secret}"} for scope, secret in secrets.items()}
    client.post("/v1/collections", json={"name": "album"}, headers=headers["admin"]).raise_for_status()
    for scope, status in (("write", 403), ("faces", 404), ("admin", 404)):
        assert client.get(f"{ROUTE}/faces", headers=headers[scope]).status_code == status
        undo = client.post(f"{ROUTE}/faces/undo", json={}, headers=headers[scope])
        assert undo.status_code == status


def test_the_client_does_what_the_routes_do(album, monkeypatch, tmp_path):
    """Its requests go to the application in this process."""
    from nearsight.client import Client
    from nearsight.client.operations import Answer
    from nearsight.errors import UnknownIdError

    def ask(self, request):
        answer = album.request(
            request.method,
            request.path,
            json=request.json,
            files=request.files,
            data=request.data,
            params=request.params,
        )
        if answer.status_code == 202:
            album.run(answer.json()["id"])
        return Answer(answer.status_code, answer.content, answer.headers)

    monkeypatch.setattr(Client, "_answer", ask)
    with Client("http://127.0.0.1:1") as client:
        faces = client.collection("album").faces
        assert [person["faces"] for person in faces.find()] == [4, 4, 2]
        ann = faces.name_person("g1", "Ann")
        a, b, *_ = (face["id"] for face in faces.person(ann))
        assert faces.crop(a, side_px=32)[:3] == b"\xff\xd8\xff"
        assert len(faces.images(ann)) == 4
        assert faces.export(tmp_path / "faces.json") == faces.export(tmp_path / "faces.npz") == 10
        with pytest.raises(InvalidParameterError, match=r"faces\.csv.*\.json or \.npz"):
            faces.export(tmp_path / "faces.csv")
        beth = faces.split([a, b], name="Beth")
        assert {person["id"]: person["faces"] for person in faces.people()} == {
            "g2": 4,
            ann: 2,
            beth: 2,
            "g3": 2,
        }
        assert faces.undo() == "split"
        assert faces.reject([a]) == 1
        assert faces.confirm([a], name="Ann") == 1
        assert faces.merge(["g2", ann]) == ann
        assert faces.hide([ann]) == 1
        assert [person["name"] for person in faces.people(hidden=True)] == ["Ann"]
        [item, *_] = album.get(f"{ROUTE}/items").json()["items"]
        assert faces.enroll(photograph(("dee", 60, 40, 80), seed=9), name="Dee")["enrolled"] == {"Dee": 1}
        assert faces.identify(photograph(("dee", 50, 40, 80), seed=8))["faces"][0]["name"] == "Dee"
        assert len(faces.identify(ids=[item["id"]])["faces"]) == 2
        assert not faces.verify(photograph(("dee", 50, 40, 80), seed=8), ids=[item["id"]])["same"]
        assert faces.forget(faces_ids=[b]) == 1
        assert faces.forget(everything=True) == 10
        assert len(faces.find()) == 3
        with pytest.raises(UnknownIdError):
            faces.person("p-nobody")


def test_faces_are_exported_as_the_command_line_does(album, tmp_path):
    assert album.get(f"{ROUTE}/faces/export").json()["error"]["code"] == "no_result"
    album.find()
    post(album, "name", id="g1", name="Ann")
    bank = FaceBank.open(face_services.bank_directory(album.service.catalog.directory("album")))
    for kind in ("json", "npz"):
        assert face_services.export_faces(bank, tmp_path / f"own.{kind}") == 10
        answer = album.get(f"{ROUTE}/faces/export", params={"format": kind})
        assert answer.headers["content-disposition"].endswith(f'filename="album-faces.{kind}"')
        assert str(tmp_path).encode() not in answer.content
        (tmp_path / f"sent.{kind}").write_bytes(answer.content)
    own, sent = (json.loads((tmp_path / f"{name}.json").read_text())["faces"] for name in ("own", "sent"))
    assert [face.pop("path") for face in sent] == [Path(face.pop("path")).name for face in own]
    assert sent == own
    assert {face["person"] for face in sent} == {"Ann", ""}
    with np.load(tmp_path / "own.npz") as own, np.load(tmp_path / "sent.npz") as sent:
        assert (own["vectors"] == sent["vectors"]).all()
        assert list(own["ids"]) == list(sent["ids"])
    assert album.get(f"{ROUTE}/faces/export", params={"format": "csv"}).status_code == 422


def test_faces_of_an_earlier_recognizer_are_computed_again(album, monkeypatch):
    class Newer(ColorRecognizer):
        spec = replace(ColorRecognizer.spec, weights_sha256="0" * 64)

    assert album.post(f"{ROUTE}/faces/upgrade", json={}).json()["error"]["code"] == "no_result"
    album.find()
    monkeypatch.setattr("nearsight.faces.pipeline.load_recognizer", lambda name, cache_dir=None: Newer())
    bank = FaceBank.open(face_services.bank_directory(album.service.catalog.directory("album")))
    Path(bank.faces()[0].path).unlink()
    table = album.service.jobs.table

    def upgrade(**body):
        id = album.post(f"{ROUTE}/faces/upgrade", json=body).json()["id"]
        return id, job_worker.KINDS["faces_upgrade"](table.get(id).args)

    with pytest.raises(InvalidParameterError, match="drop_missing") as error:
        upgrade()
    assert "/" not in str(error.value)
    id, result = upgrade(drop_missing=True)
    assert (result["faces"], result["n_removed"]) == (8, 1)
    table.finish(id, "done", result=result)
    [shown] = album.get(f"/v1/jobs/{id}").json()["result"]["removed"]
    assert "/" not in shown
    assert upgrade()[1]["faces"] == 0
