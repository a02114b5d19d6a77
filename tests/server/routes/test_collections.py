"""Collections over HTTP give what the library gives."""

import base64
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection, Embedder
from nearsight.services.cluster_edits import ClusterEdits
from nearsight.services.clusters import save_clustering
from nearsight.services.collections import search_verified

from fake import DIM, FakeBackend

ROUTE = "/v1/collections"


def upload(client, *images, name="photos", **metadata):
    files = [("image", (f"{i}.jpg", data, "image/jpeg")) for i, data in enumerate(images)]
    data = {"metadata": json.dumps(metadata)} if metadata else {}
    answer = client.post(f"{ROUTE}/{name}/items", files=files, data=data)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def photos(client, jpeg):
    """A collection of twelve images; nobody may change it. Returns the ids."""
    assert client.post(ROUTE, json={"name": "photos"}).status_code == 201
    reports = [upload(client, jpeg(i), number=float(i), even=i % 2 == 0) for i in range(12)]
    return [report["items"][0]["id"] for report in reports]


@pytest.fixture
def empty(client):
    """The name of an empty collection, which is deleted at the end."""
    assert client.post(ROUTE, json={"name": "scratch"}).status_code == 201
    yield "scratch"
    assert client.delete(f"{ROUTE}/scratch").status_code == 204


def test_collections_are_created_listed_and_deleted(client):
    answer = client.post(ROUTE, json={"name": "new", "model": "clip", "storage": "float16"})
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{ROUTE}/new"
    facts = client.get(f"{ROUTE}/new").json()
    assert (facts["images"], facts["dim"], facts["storage"]) == (0, DIM, "float16")
    assert facts["fingerprint"] == FakeBackend(1).spec.fingerprint.digest
    assert "new" in [each["name"] for each in client.get(ROUTE).json()["collections"]]
    assert client.post(ROUTE, json={"name": "new"}).status_code == 409
    directory = client.service.catalog.directory("new")
    assert directory.is_dir()
    assert client.delete(f"{ROUTE}/new").status_code == 204
    assert client.get(f"{ROUTE}/new").status_code == 404
    assert not directory.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a" * 65, "a b", "-x", "x\0"])
def test_names_are_limited(client, name):
    assert client.post(ROUTE, json={"name": name}).status_code == 400
    assert client.get(f"{ROUTE}/..%2f..%2fetc").status_code in (400, 404)


def test_unknown_collections(client, jpeg):
    for answer in (
        client.get(f"{ROUTE}/none"),
        client.get(f"{ROUTE}/none/items"),
        client.post(f"{ROUTE}/none/search", json={"vector": [0.1] * DIM}),
        client.post(f"{ROUTE}/none/items", files={"image": jpeg()}),
        client.post(f"{ROUTE}/none/search", files={"image": jpeg()}),
    ):
        assert answer.status_code == 404, answer.text
        assert answer.json()["error"]["code"] == "collection_not_found"


def test_uploads_are_on_disk_when_they_are_answered(client, empty, jpeg):
    report = upload(client, jpeg(1), b"Dear diary", jpeg(2), name=empty, season="winter")
    assert (report["added"], report["exists"], report["failed"]) == (2, 0, 1)
    assert report["items"][1]["reason"]
    other = Collection.open(client.service.catalog.directory(empty))
    assert len(other) == 2
    item = other.get(report["items"][0]["id"])
    assert item.metadata == {"season": "winter"}
    np.testing.assert_allclose(
        other.vectors([item.id])[0],
        Embedder(FakeBackend(), n_threads=1, progress=False).embed([jpeg(1)]).vectors[0],
        atol=1e-6,
    )
    shown = client.get(f"{ROUTE}/{empty}/items/{item.id}").json()
    assert shown["path"] == "0.jpg"
    assert str(client.service.data) not in json.dumps(shown)
    assert upload(client, jpeg(2), name=empty)["exists"] == 1


def test_uploads_as_json_and_metadata_for_each(client, empty, jpeg):

    images = [base64.b64encode(jpeg(i)).decode() for i in range(2)]
    body = {"images": images, "metadata": [{"n": 1.0}, {"n": 2.0}]}
    report = client.post(f"{ROUTE}/{empty}/items", json=body).json()
    found = [client.get(f"{ROUTE}/{empty}/items/{each['id']}").json()["metadata"] for each in report["items"]]
    assert found == [{"n": 1.0}, {"n": 2.0}]


@pytest.mark.parametrize(
    "options",
    [
        {"json": {}},
        {"json": {"images": "x"}},
        {"json": {"images": ["https://example.org/a.jpg"]}},
        {"json": {"images": ["/9j/"], "metadata": [{}, {}]}},
        {"files": {"other": b"x"}},
        {"files": [("image", b"x")] * 33},
        {"files": {"image": b"x"}, "data": {"metadata": "{"}},
        {"files": {"image": b"x"}, "data": {"metadata": '{"bad key!": 1}'}},
    ],
)
def test_bad_uploads_are_refused(client, empty, options):
    assert client.post(f"{ROUTE}/{empty}/items", **options).status_code == 400
    assert client.get(f"{ROUTE}/{empty}/items").json()["total"] == 0


def test_pages_follow_the_order_of_arrival(client, photos):
    seen, cursor, n_pages = [], None, 0
    while True:
        page = client.get(
            f"{ROUTE}/photos/items", params={"limit": 5, **({"cursor": cursor} if cursor else {})}
        ).json()
        seen += [item["id"] for item in page["items"]]
        n_pages += 1
        if not (cursor := page["next"]):
            break
    assert (seen[: len(photos)], n_pages) == (photos, 3)
    window = client.get(f"{ROUTE}/photos/items", params={"offset": 7, "limit": 2}).json()
    assert [item["id"] for item in window["items"]] == photos[7:9]
    filtered = client.get(f"{ROUTE}/photos/items", params={"where": "even = true AND number > 3"}).json()
    assert [item["metadata"]["number"] for item in filtered["items"]] == [4, 6, 8, 10]


@pytest.mark.parametrize(
    "params",
    [
        {"where": "nope = 1"},
        {"where": "id IN (SELECT id FROM x)"},
        {"where": "(" * 200 + "width > 1" + ")" * 200},
        {"where": "width > 1 OR " * 3000 + "width > 1"},
        {"cursor": "x"},
        {"cursor": "b2E"},
    ],
)
def test_bad_pages_are_refused(client, photos, params):
    assert client.get(f"{ROUTE}/photos/items", params=params).status_code == 400


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 1001}, {"offset": -1}])
def test_pages_are_bounded(client, photos, params):
    assert client.get(f"{ROUTE}/photos/items", params=params).status_code == 422


def test_metadata_is_changed_and_images_removed(client, empty, jpeg):
    ids = [item["id"] for item in upload(client, jpeg(1), jpeg(2), jpeg(3), name=empty)["items"]]
    route = f"{ROUTE}/{empty}/items"
    assert client.patch(f"{route}/{ids[0]}", json={"metadata": {"tag": "a"}}).json()["metadata"] == {
        "tag": "a"
    }
    tagged = client.patch(route, json={"ids": ids[1:], "metadata": {"tag": "b"}}).json()
    assert tagged == {"changed": 2, "change": 1}
    assert client.patch(route, json={"where": "tag = 'b'", "metadata": {"tag": None}}).json() == {
        "changed": 2,
        "change": 2,
    }
    assert client.patch(route, json={"where": "tag = 'b'", "metadata": {"tag": None}}).json() == {
        "changed": 0,
        "change": None,
    }
    assert client.post(f"{route}/undo", json={}).json() == {"change": 2, "changed": 2, "kept": 0}
    assert client.get(route, params={"where": "tag = 'b'"}).json()["total"] == 2
    client.patch(f"{route}/{ids[1]}", json={"metadata": {"tag": "c"}})
    assert client.post(f"{route}/undo", json={"change": 1}).json() == {"change": 1, "changed": 1, "kept": 1}
    again = client.post(f"{route}/undo", json={"change": 1})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "nothing_to_undo")
    assert client.get(route, params={"where": "tag = 'a'"}).json()["total"] == 1
    assert client.patch(route, json={"metadata": {}}).status_code == 400
    assert client.delete(f"{route}/{ids[0]}").json() == {"removed": 1}
    assert client.delete(f"{route}/{ids[0]}").status_code == 404
    assert client.post(f"{route}/delete", json={"ids": ids[1:]}).json() == {"removed": 2}
    assert client.get(route).json()["total"] == 0
    uploads = client.service.catalog.uploads(empty)
    assert [path for path in uploads.rglob("*") if path.is_file()] == []


def test_a_table_of_some_images_is_one_request(client, photos, empty, jpeg):
    route = f"{ROUTE}/photos/items/export"
    answer = client.post(route, json={"ids": [photos[3], photos[4][:12]]})
    assert answer.headers["content-type"].startswith("text/csv")
    header, *rows = csv.reader(answer.text.splitlines())
    assert header == [
        "id",
        "path",
        *Collection.open(client.service.catalog.directory("photos")).metadata_types(),
    ]
    facts = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert {id: (row["number"], row["even"]) for id, row in facts.items()} == {
        photos[3]: ("3", "false"),
        photos[4]: ("4", "true"),
    }
    assert len(client.post(route, json={"where": "number >= 0"}).text.splitlines()) == 13
    assert client.post(route, json={"ids": ["0" * 12]}).status_code == 404
    assert client.post(route, json={}).status_code == 400
    # What a spreadsheet would take for a formula is marked as text.
    id = upload(client, jpeg(77), name=empty, note="=1+1")["items"][0]["id"]
    table = client.post(f"{ROUTE}/{empty}/items/export", json={"ids": [id]}).text
    assert table.splitlines()[1].endswith(",'=1+1")


def test_images_are_copied_to_a_collection_of_the_same_model(client, photos, empty, jpeg):
    id = upload(client, jpeg(31), name=empty, season="winter")["items"][0]["id"]
    other = f"{ROUTE}/winter"
    try:
        assert client.post(ROUTE, json={"name": "winter", "like": empty}).status_code == 201
        for n_new in (1, 0):
            answer = client.post(f"{other}/items/copy", json={"source": empty, "ids": [id]})
            assert answer.json() == {"added": n_new}
        assert client.post(f"{other}/items/copy", json={"source": "photos", "ids": photos[:2]}).json() == {
            "added": 2
        }
        paths = ("", "/thumbnail", "/original", "/vector")
        before = [client.get(f"{ROUTE}/{empty}/items/{id}{path}").content for path in paths[1:]]
        # What happens to the one collection does not happen to the other.
        assert client.delete(f"{ROUTE}/{empty}/items/{id}").json() == {"removed": 1}
        facts, *after = [client.get(f"{other}/items/{id}{path}") for path in paths]
        assert [each.content for each in after] == before
        assert facts.json()["metadata"] == {"season": "winter"}
        hits = client.post(f"{other}/search", json={"id": id, "k": 9}).json()["hits"]
        assert {hit["id"] for hit in hits} <= {id, *photos[:2]}
        assert client.post(ROUTE, json={"name": "more", "like": "nothing"}).status_code == 404
        assert client.post(ROUTE, json={"name": "winter", "like": "photos"}).status_code == 409
    finally:
        assert client.delete(other).status_code == 204
    # The other collection keeps its files when this one goes.
    assert client.get(f"{ROUTE}/photos/items/{photos[0]}/original").status_code == 200


def test_thumbnails_are_cached_for_ever(client, photos):
    answer = client.get(f"{ROUTE}/photos/items/{photos[0]}/thumbnail")
    assert answer.headers["content-type"] == "image/jpeg"
    assert "immutable" in answer.headers["cache-control"]
    assert "sandbox" in answer.headers["content-security-policy"]
    with Image.open(io.BytesIO(answer.content)) as thumbnail:
        assert thumbnail.size == (64, 48)
    again = client.get(
        f"{ROUTE}/photos/items/{photos[0]}/thumbnail", headers={"if-none-match": answer.headers["etag"]}
    )
    assert again.status_code == 304
    assert client.get(f"{ROUTE}/photos/items/{'0' * 32}/thumbnail").status_code == 404


def test_originals_tell_nothing_but_pixels(client, empty):
    exif = Image.Exif()
    exif[0x0110] = "SpyCam"
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "JPEG", exif=exif)
    id = upload(client, file.getvalue(), name=empty)["items"][0]["id"]
    answer = client.get(f"{ROUTE}/{empty}/items/{id}/original")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"SpyCam" not in answer.content
    whole = client.get(f"{ROUTE}/{empty}/items/{id}/file")
    assert whole.content == file.getvalue()
    assert whole.headers["content-disposition"] == "attachment"
    for path in client.service.catalog.uploads(empty).rglob("*.jpg"):
        path.write_bytes(b"another file")
    assert client.get(f"{ROUTE}/{empty}/items/{id}/original").json()["error"]["code"] == "file_gone"


def hits(answer):
    assert answer.status_code == 200, answer.text
    return [(hit["id"], round(hit["similarity"], 4)) for hit in answer.json()["hits"]]


def test_search_gives_what_the_library_gives(client, photos, jpeg):
    collection = Collection.open(client.service.catalog.directory("photos"), model=FakeBackend())
    route = f"{ROUTE}/photos/search"

    def expected(*args, **options):
        return [(m.id, round(m.similarity, 4)) for m in collection.search(*args, k=4, **options)]

    image = base64.b64encode(jpeg(40)).decode()
    other = base64.b64encode(jpeg(41)).decode()
    vector = collection.vectors([photos[3]])[0]
    assert hits(client.post(route, json={"image": image, "k": 4})) == expected(jpeg(40))
    assert hits(client.post(route, files={"image": jpeg(40)}, data={"k": "4"})) == expected(jpeg(40))
    raw = {"content": jpeg(40), "headers": {"content-type": "image/jpeg"}, "params": {"k": 4}}
    assert hits(client.post(route, **raw)) == expected(jpeg(40))
    both = client.post(route, json={"image": [image, other], "k": 4})
    assert hits(both) == expected([jpeg(40), jpeg(41)])
    assert hits(client.post(route, json={"id": photos[0], "k": 4})) == expected(id=photos[0])
    mixed = {"id": photos[:2], "image": image, "k": 4, "where": "even = true"}
    assert hits(client.post(route, json=mixed)) == expected(jpeg(40), id=photos[:2], where="even = true")
    assert hits(client.post(route, json={"vector": vector.tolist(), "k": 4})) == expected(vector=vector)
    unwanted = {
        "id": photos[0],
        "not_image": other,
        "not_id": [photos[1]],
        "not_vector": vector.tolist(),
        "k": 4,
    }
    assert hits(client.post(route, json=unwanted)) == expected(
        id=photos[0], not_query=jpeg(41), not_id=photos[1], not_vector=vector
    )
    files = [("image", jpeg(40)), ("not_image", jpeg(41))]
    assert hits(client.post(route, files=files, data={"k": "4", "not_id": photos[1]})) == expected(
        jpeg(40), not_query=jpeg(41), not_id=photos[1]
    )
    save_clustering(collection, collection.cluster(3, words=[]).renamed({0: "First"}))
    [members, *_] = [each.ids for each in ClusterEdits(collection).read().clusters]
    for cluster in (0, "0", "first", ["First", 0]):
        found = hits(client.post(route, json={"vector": vector.tolist(), "cluster": cluster, "k": 1000}))
        assert {id for id, _ in found} == set(members)
    even = client.post(route, json={"vector": vector.tolist(), "cluster": 0, "where": "even = true"})
    assert {id for id, _ in hits(even)} < set(members)
    assert client.post(route, json={"id": photos[0], "cluster": "none"}).status_code == 400
    listed = f"{ROUTE}/photos/items"
    for asked in ({"cluster": "first"}, {"cluster": 0}, {"cluster": ["first", "0"], "where": "even = true"}):
        answer = client.get(listed, params={**asked, "limit": 1000}).json()
        assert {item["id"] for item in answer["items"]} == (
            {id for id, _ in hits(even)} if "where" in asked else set(members)
        )
        assert answer["total"] == len(answer["items"])
    assert client.get(listed, params={"cluster": "none"}).status_code == 400
    two = collection.vectors(photos[3:5])
    assert hits(client.post(route, json={"vector": two.tolist(), "k": 4})) == expected(vector=two)


def test_many_vectors_in_the_order_of_their_ids(client, photos):
    asked = [photos[3], photos[1][:8]]
    route = f"{ROUTE}/photos/items/vectors"
    items = client.post(route, json={"ids": asked}).json()["items"]
    assert items == [client.get(f"{ROUTE}/photos/items/{id}/vector").json() for id in asked]
    encoded = client.post(route, json={"ids": asked, "encoding_format": "base64"}).json()["items"]
    for one, other in zip(encoded, items, strict=True):
        vector = np.frombuffer(base64.b64decode(one["vector"]), "<f4")
        assert vector.tolist() == np.array(other["vector"], np.float32).tolist()
    assert client.post(route, json={"ids": ["f" * 32]}).status_code == 404
    assert client.post(route, json={"ids": asked * 501}).status_code == 422


def test_many_thumbnails_in_the_order_of_their_ids(client, photos):
    asked = [photos[3], photos[1][:8], photos[3]]
    route = f"{ROUTE}/photos/items/thumbnails"
    items = client.post(route, json={"ids": asked}).json()["items"]
    assert [item["id"] for item in items] == [photos[3], photos[1], photos[3]]
    for item in items:
        alone = client.get(f"{ROUTE}/photos/items/{item['id']}/thumbnail").content
        assert base64.b64decode(item["thumbnail"]) == alone
    assert client.post(route, json={"ids": ["f" * 32]}).status_code == 404
    assert client.post(route, json={"ids": asked * 334}).status_code == 422


def test_the_very_same_object_comes_first(client, photos, jpeg):
    pytest.importorskip("cv2")
    collection = Collection.open(client.service.catalog.directory("photos"), model=FakeBackend())
    route = f"{ROUTE}/photos/search"
    verified = [(m.id, round(m.similarity, 4)) for m in search_verified(collection, id=photos[0], k=4)]
    assert hits(client.post(route, json={"id": photos[0], "verify": True, "k": 4})) == verified
    sent = {"files": {"image": jpeg(3)}, "data": {"verify": "true", "k": "4"}}
    assert hits(client.post(route, **sent))[0][0] == search_verified(collection, jpeg(3), k=1)[0].id


def test_search_by_text(serve, jpeg, source, fake_texts):
    client = serve({"clip": source(texts=fake_texts)})
    client.post(ROUTE, json={"name": "photos"})
    upload(client, *[jpeg(i) for i in range(5)])
    collection = Collection.open(client.service.catalog.directory("photos"))
    vector = fake_texts(FakeBackend()).embed(["a dog"])[0]
    expected = [m.id for m in collection.search(vector=vector, k=3)]
    answer = client.post(f"{ROUTE}/photos/search", json={"text": "a dog", "k": 3})
    assert [id for id, _ in hits(answer)] == expected


def test_search_pages(client, photos):
    route = f"{ROUTE}/photos/search"
    whole = hits(client.post(route, json={"id": photos[0], "k": 8}))
    first = client.post(route, json={"id": photos[0], "k": 3})
    assert first.json()["next"] == 3
    second = client.post(route, json={"id": photos[0], "k": 3, "offset": 3})
    assert hits(first) + hits(second) == whole[:6]
    assert client.post(route, json={"id": photos[0], "k": 1000}).json()["next"] is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"k": 0, "id": "x"}, 400),
        ({"k": 10**6, "id": "x"}, 400),
        ({"id": "not an id"}, 404),
        ({"id": "0000"}, 404),
        ({"vector": [1.0] * 3}, 400),
        ({"vector": [0.0] * DIM}, 400),
        ({"vector": ["x"] * DIM}, 400),
        ({"vector": [[[1.0]]]}, 400),
        ({"vector": [1.0] * DIM, "where": "nope > 1"}, 400),
        ({"text": " "}, 400),
        ({"text": 3}, 400),
        ({"not_id": 3, "vector": [1.0] * DIM}, 400),
        ({"vector": [1.0] * DIM, "not_vector": [1.0]}, 400),
        ({"vector": [1.0] * DIM, "cluster": True}, 400),
        ({"id": ["a", "b"], "verify": True}, 400),
        ({"id": "a", "text": "a dog", "verify": True}, 400),
        ({"vector": [1.0] * DIM, "cluster": "nowhere"}, 400),
        ({"image": 3}, 400),
        ({"image": "@@"}, 400),
        ({"image": "RGVhciBkaWFyeQ=="}, 400),
    ],
)
def test_bad_searches_are_refused(client, photos, body, status):
    answer = client.post(f"{ROUTE}/photos/search", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


def test_a_mounted_collection_brings_its_model(serve, tmp_path, photos, client, jpeg):
    folder = client.service.catalog.directory("photos")
    other = serve(mount=(f"shelf={folder}",))
    assert [each["name"] for each in other.get(ROUTE).json()["collections"]] == ["shelf"]
    assert len(hits(other.post(f"{ROUTE}/shelf/search", files={"image": jpeg(3)}))) == 10
    assert other.delete(f"{ROUTE}/shelf").status_code == 403
    assert (folder / "collection.json").exists()


def test_scopes(serve, tmp_path, jpeg):
    from nearsight.services.keys import KeyStore

    _, read = KeyStore(tmp_path / "data").add("read", ["read"])
    _, write = KeyStore(tmp_path / "data").add("write", ["write", "read"])
    client = serve()
    route = f"{ROUTE}/photos"
    headers = {"x-api-key": read}
    assert client.post(ROUTE, json={"name": "photos"}, headers=headers).status_code == 403
    assert client.post(ROUTE, json={"name": "photos"}, headers={"x-api-key": write}).status_code == 201
    assert client.post(f"{route}/items", files={"image": jpeg()}, headers=headers).status_code == 403
    assert client.get(f"{route}/items", headers=headers).status_code == 200
    assert client.delete(route, headers={"x-api-key": write}).status_code == 403
    assert client.get(f"{route}/items/0000/file", headers={"x-api-key": write}).status_code == 403


def test_names_that_are_no_utf_8_are_listed(serve, tmp_path, strange):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (30, 20), "red").save(folder / strange)
    collection = Collection.create(tmp_path / "shelf", model=FakeBackend())
    collection.add(str(folder), progress=False)
    client = serve(mount=(f"shelf={tmp_path / 'shelf'}",))
    [item] = client.get(f"{ROUTE}/shelf/items").json()["items"]
    assert (item["path"][:3], item["path"][-4:]) == ("caf", ".png")
    assert "\n" not in item["path"]
    assert len(hits(client.post(f"{ROUTE}/shelf/search", json={"id": item["id"][:6]}))) == 0


def test_a_collection_tells_the_folders_of_its_images(serve, tmp_path, jpeg):
    for red, name in enumerate(("line/good", "line/torn", "others")):
        (tmp_path / "roots" / name).mkdir(parents=True)
        Image.new("RGB", (30, 20), (red, 0, 0)).save(tmp_path / "roots" / name / "1.png")
    collection = Collection.create(tmp_path / "shelf", model=FakeBackend())
    collection.add(str(tmp_path / "roots/line"), progress=False)
    roots = [f"{name}={tmp_path / 'roots' / name}" for name in ("others", "line")]
    client = serve(mount=(f"shelf={tmp_path / 'shelf'}",), root=roots)
    # Not those of another root, nor uploads.
    upload(client, jpeg(), name="shelf")
    told = client.get(f"{ROUTE}/shelf/folders").json()
    assert told == {"folders": ["line", "line/good", "line/torn"], "roots": ["others", "line"]}
    client.post(ROUTE, json={"name": "new"})
    assert client.get(f"{ROUTE}/new/folders").json()["folders"] == []


def test_an_upload_may_cost_no_more_than_any_image(serve):
    client = serve(max_pixels=1000)
    client.post(ROUTE, json={"name": "photos"})
    file = io.BytesIO()
    Image.new("RGB", (100, 100)).save(file, "PNG")
    report = upload(client, file.getvalue())
    assert report["failed"] == 1
    assert "pixels" in report["items"][0]["reason"]


def test_a_member_that_is_misspelled_is_refused_wherever_it_is_sent(client):
    client.post(ROUTE, json={"name": "photos"})
    problem = client.post(f"{ROUTE}/photos/search", json={"vector": [0.1] * DIM, "where_": "width > 9"})
    assert problem.status_code == 422
    assert "'where_' is not known here; did you mean where" in problem.json()["detail"]
    problem = client.post(f"{ROUTE}/photos/items/delete", json={"ids": [], "where_": "width > 9"})
    assert (problem.status_code, problem.json()["error"]["param"]) == (422, "body.where_")
    assert problem.json()["detail"].startswith("body.where_ is not known here")
    described = client.get("/openapi.json").json()
    for path, operations in described["paths"].items():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {})
            if name := content.get("application/json", {}).get("schema", {}).get("$ref"):
                schema = described["components"]["schemas"][name.rpartition("/")[2]]
                assert schema["additionalProperties"] is False, path
