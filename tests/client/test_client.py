"""The client gives what the library gives."""

import asyncio
import csv
import inspect
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from fake import FakeBackend

pytest.importorskip("fastapi")

from nearsight import AsyncClient, Client, Collection, Embedder
from nearsight.client import job_operations, operations
from nearsight.client.recommendation_operations import save_recommendation_rules
from nearsight.client.requests import Answer, Request, raise_if_refused
from nearsight.errors import (
    CollectionNotFoundError,
    FilterError,
    ImageError,
    InvalidParameterError,
    ServiceError,
    UnknownIdError,
    VectorError,
)
from nearsight.server.app import create_app
from nearsight.server.model_pool import ModelSource
from nearsight.server.service import Service
from nearsight.services.keys import KeyStore
from nearsight.services.server_settings import ServerSettings

from coroutines import run_coroutine

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def address(tmp_path_factory, serve_on_loopback):
    data = tmp_path_factory.mktemp("data")
    backend = FakeBackend()

    def no_texts():
        raise InvalidParameterError("none")

    sources = {"default": ModelSource("fake", lambda: backend.spec, lambda: backend, no_texts)}
    settings = ServerSettings(data=str(data), n_threads=1, root=(f"data={data}",))
    with serve_on_loopback(create_app(Service(settings, sources))) as url:
        yield url


@pytest.fixture
def client(address):
    with Client(address) as client:
        yield client


@pytest.fixture(scope="module")
def remote(address, photos):
    """A collection of the six photos; nobody may change it."""
    with Client(address) as client:
        collection = client.create_collection("photos")
        report = collection.add(
            str(photos), metadata=lambda path: {"even": path.endswith(("0.png", "2.png"))}
        )
        assert (report.added, report.failed) == (6, [])
        assert collection.add(str(photos)).unchanged == 6
        yield collection


@pytest.fixture(scope="module")
def local(tmp_path_factory, photos):
    collection = Collection.create(tmp_path_factory.mktemp("local") / "c", model=FakeBackend())
    collection.add(str(photos), progress=False)
    return collection


def facts(matches):
    return [(match.id, round(match.similarity, 5)) for match in matches]


def test_vectors_are_those_of_the_library(client, photos):
    images = [np.full((20, 30, 3), value, np.uint8) for value in (10, 200)]
    expected = Embedder(FakeBackend(), n_threads=1, progress=False).embed([str(photos), *images]).vectors
    np.testing.assert_allclose(client.embed([str(photos), *images]), expected, atol=1e-6)
    assert client.models()[0]["id"] == "default"


def test_more_than_one_request_holds(client, jpeg):
    many = [jpeg(seed) for seed in range(70)]
    expected = Embedder(FakeBackend(), n_threads=1, progress=False).embed(many).vectors
    np.testing.assert_allclose(client.embed(many), expected, atol=1e-6)


def test_the_same_items(remote, local):
    expected = {item.id: item for item in local.items()}
    items = {item.id: item for item in remote.items()}
    assert items.keys() == expected.keys()
    assert len(remote) == len(local)
    for id, item in items.items():
        for name in ("width", "height", "size_bytes", "orientation"):
            assert getattr(item, name) == getattr(expected[id], name)
        assert item.added.tzinfo is not None
    assert remote.count("even = true") == 2
    assert remote.metadata_types() == {"even": "bool"}
    some = list(items)[:3]
    np.testing.assert_allclose(remote.vectors(some), local.vectors(some), atol=1e-6)
    assert remote.thumbnails(some) == local.thumbnails(some)
    assert remote.get(some[0][:8]).id == some[0]
    assert remote.original(some[0]).startswith(b"\x89PNG")
    assert remote.info()["images"] == 6


def test_the_same_table(remote, local, monkeypatch):
    monkeypatch.setattr(operations, "_PAGE", 4)
    table, expected = remote.to_arrow(), local.to_arrow()
    assert [(field.name, field.type) for field in table.schema] == [
        *((field.name, field.type) for field in expected.schema),
        ("metadata.even", pa.bool_()),
    ]
    assert table.column("id").to_pylist() == [item.id for item in remote.items()]
    assert table.column("metadata.even").to_pylist().count(True) == 2
    names = ["id", "width", "orientation", "vector", "thumbnail"]
    table, expected = (each.to_arrow(names).sort_by("id") for each in (remote, local))
    assert table.column_names == names
    assert table.drop_columns("vector").to_pylist() == expected.drop_columns("vector").to_pylist()
    vectors = (np.array(each.column("vector").to_pylist()) for each in (table, expected))
    np.testing.assert_allclose(*vectors, atol=1e-6)
    assert remote.to_arrow(["even"], "even = true").to_pylist() == [{"even": True}] * 2
    with pytest.raises(InvalidParameterError, match="there is no column 'odd'"):
        remote.to_arrow(["odd"])


def test_many_thumbnails_are_one_request_a_page(address, local, monkeypatch):
    monkeypatch.setattr(operations, "_THUMBNAILS", 4)
    some = [item.id for item in local.items()]
    with Client(address) as client:
        requests, run = [], client._answer
        monkeypatch.setattr(client, "_answer", lambda request: requests.append(request) or run(request))
        collection = client.collection("photos")
        assert collection.thumbnails(some) == local.thumbnails(some)
        assert [request.json["ids"] for request in requests] == [some[:4], some[4:]]
        assert collection.thumbnails([]) == {}
        with pytest.raises(UnknownIdError, match="f" * 32):
            collection.thumbnails([*some, "f" * 32])


def test_many_vectors_are_one_request_a_page(address, local, monkeypatch):
    monkeypatch.setattr(operations, "_PAGE", 4)
    some = [item.id for item in local.items()]
    # One of them twice, by the beginning of its id.
    asked = [*some, some[0][:8]]
    expected = local.vectors([*some, some[0]])
    with Client(address) as client:
        requests, run = [], client._answer
        monkeypatch.setattr(client, "_answer", lambda request: requests.append(request) or run(request))
        collection = client.collection("photos")
        vectors = collection.vectors(asked)
        assert [request.json["ids"] for request in requests] == [asked[:4], asked[4:]]
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
        assert collection.vectors([]).shape == (0, expected.shape[1])
        with pytest.raises(UnknownIdError, match="f" * 32):
            collection.vectors([*some, "f" * 32])


def test_the_same_searches(remote, local, photos):
    image = photos / "3.png"
    [first, other, *_] = [item.id for item in local.items()]
    vector = local.vectors([first])[0]
    for query in (
        {"query": str(image)},
        {"query": [str(image), image.read_bytes()]},
        {"query": Image.open(image)},
        {"id": first},
        {"vector": vector},
        {"query": str(image), "id": [first], "k": 2},
        {"id": first, "not_query": str(image), "not_id": other, "not_vector": vector},
    ):
        assert facts(remote.search(**query)) == facts(local.search(**query))


def test_images_are_added_changed_and_removed(client, jpeg, tmp_path):
    collection = client.create_collection("scratch")
    (tmp_path / "bad.jpg").write_text("Dear diary")
    report = collection.add([jpeg(1), str(tmp_path / "bad.jpg")], metadata={"stars": 3.0})
    assert (report.added, [failure.path for failure in report.failed]) == (1, [str(tmp_path / "bad.jpg")])
    [item] = collection.items()
    assert item.metadata == {"stars": 3.0}
    assert collection.update_metadata(item.id, {"stars": None}) == 1
    assert collection.undo_metadata() == {"change": 1, "changed": 1, "kept": 0}
    assert collection.change_metadata({"stars": 1.0}, where="stars = 3") == {"changed": 1, "change": 2}
    # A key that was taken from all images is still one, as in the library.
    collection.update_metadata(item.id, {"shelf": "a"})
    collection.update_metadata(item.id, {"shelf": None})
    assert collection.metadata_types()["shelf"] == "string"
    assert collection.remove([item.id]) == 1
    with pytest.raises(ImageError, match="bad"):
        collection.add(str(tmp_path / "bad.jpg"), on_error="raise")
    client.delete_collection("scratch")
    assert "scratch" not in [each["name"] for each in client.collections()]


def test_adding_nothing_is_warned_of(remote, tmp_path):
    with pytest.warns(UserWarning, match=f"there is no image in {tmp_path}"):
        assert remote.add(tmp_path).added == 0


def test_a_url_opens_a_collection(address, remote, local, photos):
    for url in (f"{address}/photos", f"{address}/v1/collections/photos/"):
        collection = Collection.open(url)
        assert len(collection) == 6
        collection._client.close()
    with pytest.raises(CollectionNotFoundError, match="none"):
        Collection.open(f"{address}/none")
    with pytest.raises(InvalidParameterError, match="names no collection"):
        Collection.open(address)


def test_errors_are_those_of_the_library(remote, tmp_path):
    with pytest.raises(UnknownIdError):
        remote.get("0000")
    with pytest.raises(FilterError):
        remote.count("nope = 1")
    with pytest.raises(ImageError):
        remote.search(b"Dear diary")
    for vector, fault in (([1.0, 2.0], "it has 2"), ([0.0] * 64, "all are 0"), ([], "no list of numbers")):
        with pytest.raises(VectorError, match=f"vector must have 64 finite numbers.*{fault}"):
            remote.search(vector=vector)
    for k in (0, "3"):
        with pytest.raises(InvalidParameterError, match=f"k is {k!r}"):
            remote.search(id="0000", k=k)
    with pytest.raises(InvalidParameterError, match="limit is '9'"):
        remote.page(limit="9")
    with pytest.raises(ServiceError) as refused:
        remote.index("nowhere/at/all")
    assert refused.value.status == 403


def test_a_service_that_is_not_there():
    with Client("http://127.0.0.1:1") as client, pytest.raises(ServiceError, match="nearsight serve"):
        client.models()
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidParameterError, match="'127.0.0.1:1' is no address.*write http://"):
            kind("127.0.0.1:1")


@pytest.fixture
def told(monkeypatch):
    """Let the service answer what the test says; return the list of waits."""
    waits = []

    def tell(*answers):
        rest = iter(answers)
        monkeypatch.setattr("nearsight.client.client._answer", lambda response: next(rest))
        monkeypatch.setattr("nearsight.client.client.time.sleep", waits.append)
        return waits

    return tell


def test_a_job_is_waited_for(client, told):
    def job(state):
        return Answer(200, json.dumps({"id": "a", "state": state, "error": None}).encode())

    waits = told(job("queued"), job("running"), job("done"), job("failed"))
    assert client.wait("a")["state"] == "done"
    assert waits == [0.0, job_operations.POLL_S, job_operations.POLL_S]
    with pytest.raises(ServiceError, match="has failed"):
        client.wait("a")


def test_a_busy_service_is_asked_again(client, told):
    busy = Answer(429, b"{}", {"retry-after": "3"})
    waits = told(busy, busy, Answer(200, b'{"data": []}'))
    assert client.models() == []
    assert waits == [0.0, 3.0, 3.0]


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b'{"detail": "x"}', b'{"detail": "x", "error": "y"}']
)
def test_answers_of_something_else_are_told(content):
    with pytest.raises(ServiceError, match="502"):
        raise_if_refused(Answer(502, content))


@pytest.mark.slow
def test_the_shop(remote, local, tmp_path):
    ids = {Path(item.path).stem: item.id for item in local.items()}
    expected = local.recommend(ids["0"], k=3, progress=False)
    assert remote.recommend(ids["0"], k=3).items[0].evidence[0].kind == "similarity"
    assert [each.id for each in remote.recommend(ids["0"], k=3).items] == [each.id for each in expected.items]
    (tmp_path / "orders.csv").write_text("basket,item\n" + "".join(f"{n},0\n{n},3\n" for n in range(9)))
    assert remote.fit_baskets("orders", tmp_path / "orders.csv")["baskets"] == 9
    assert [each["name"] for each in remote.baskets()] == ["orders"]
    found = remote.recommend(ids["0"], baskets="orders", k=1, rules=["width <= 2 * item.width"])
    assert (found.items[0].id, found.n_baskets) == (ids["3"], 9)
    assert remote.recommendation_table(k=1).count(b"looks like") == 6
    assert remote.recommendation_table([ids["0"], ids["2"]], k=1).count(b"looks like") == 2
    each = remote.recommend_each([ids["2"], ids["0"]], k=3)
    assert list(each) == [ids["2"], ids["0"]]
    assert each[ids["0"]] == remote.recommend(ids["0"], k=3)
    remote.save_recommendation_rules(["width <= 2 * item.width"])
    assert remote.recommendation_rules() == ["width <= 2 * item.width"]
    with pytest.raises(InvalidParameterError, match="meanwhile"):
        remote.save_recommendation_rules(["width > 1"], before=[])
    remote.save_recommendation_rules([], before=["width <= 2 * item.width"])
    assert remote.recommendation_rules() == []
    remote.delete_baskets("orders")
    assert remote.baskets() == []


def test_a_table_has_the_rows_of_the_library(remote, local, tmp_path):
    [first, *_] = local.items()
    assert remote.export(tmp_path / "all.csv") == local.export(tmp_path / "local.csv") == 6
    with open(tmp_path / "all.csv", encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == [item.id for item in remote.items()]
    assert rows[first.id]["even"] == str(remote.get(first.id).metadata["even"]).lower()
    assert remote.export(tmp_path / "two.csv", where="even = true") == 2
    assert remote.export(str(tmp_path / "one.csv"), ids=[first.id]) == 1
    assert remote.export(tmp_path / "none.csv", ids=[]) == 0
    with pytest.raises(InvalidParameterError, match=r"\.csv"):
        remote.export(tmp_path / "all.parquet")
    with pytest.raises(FilterError):
        remote.export(tmp_path / "new.csv", where="nowhere > 1")
    assert not (tmp_path / "new.csv").exists()


def test_rules_that_somebody_saves_between_reading_and_writing_stay(client, remote):
    def late():
        steps = save_recommendation_rules(remote, ["width > 2"], before=[])
        write = steps.send((yield next(steps)))
        yield Request("PUT", write.path, json={"rules": ["width > 1"]})
        yield write

    with pytest.raises(InvalidParameterError, match="meanwhile|changed"):
        client.run(late())
    assert remote.recommendation_rules() == ["width > 1"]
    remote.save_recommendation_rules([], before=["width > 1"])
    assert remote.recommendation_rules() == []


def test_a_key_is_sent(tmp_path, serve_on_loopback, monkeypatch):
    _, secret = KeyStore(tmp_path).add("a", ["read", "embed"])
    backend = FakeBackend()
    sources = {"default": ModelSource("fake", lambda: backend.spec, lambda: backend, lambda: None)}
    service = Service(ServerSettings(data=str(tmp_path), n_threads=1), sources)
    with serve_on_loopback(create_app(service)) as url:
        monkeypatch.delenv("NEARSIGHT_API_KEY", raising=False)
        with Client(url) as client, pytest.raises(ServiceError, match="a key is needed; .*NEARSIGHT_API"):
            client.models()
        with Client(url, key=secret) as client:
            assert len(client.models()) == 1
        monkeypatch.setenv("NEARSIGHT_API_KEY", secret)
        with Client(url) as client:
            assert client.collections() == []


def test_a_call_that_is_cancelled_while_files_are_read_is_cancelled():
    reads, may_end = threading.Event(), threading.Event()

    def reading():
        reads.set()
        may_end.wait(30)
        yield Request("GET", "/v1/models")

    async def main():
        async with AsyncClient("http://127.0.0.1:1") as client:
            call = asyncio.create_task(client.run(reading()))
            await asyncio.to_thread(reads.wait, 30)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            may_end.set()

    try:
        run_coroutine(main())
    finally:
        may_end.set()


def test_the_asynchronous_client_does_the_same(address, remote, local, photos, tmp_path):
    async def main():
        async with AsyncClient(address) as client:
            collection = client.collection("photos")
            image = str(photos / "3.png")
            matches, vectors, n = await asyncio.gather(
                collection.search(image), client.embed([image]), collection.count()
            )
            ids = {item.id async for item in collection.items()}
            assert {*(await collection.to_arrow(["id"])).column("id").to_pylist()} == ids
            np.testing.assert_allclose(await collection.vectors([*ids]), local.vectors([*ids]), atol=1e-6)
            made = await client.create_collection("async")
            report = await made.add([image])
            twin = await client.create_collection("twin", like="photos")
            assert await twin.copy_from("photos", list(ids)) == len(ids)
            assert await twin.export(tmp_path / "twin.csv") == len(ids)
            await twin.save_recommendation_rules(["width > 1"], before=[])
            with pytest.raises(InvalidParameterError, match="meanwhile"):
                await twin.save_recommendation_rules([], before=[])
            await client.delete_collection("twin")
            await client.delete_collection("async")
            with pytest.raises(UnknownIdError):
                await collection.get("0000")
            return matches, vectors, n, ids, report

    matches, vectors, n, ids, report = run_coroutine(main())
    assert facts(matches) == facts(local.search(str(photos / "3.png")))
    np.testing.assert_allclose(vectors[0], local.embed_query(str(photos / "3.png")), atol=1e-6)
    assert (n, len(ids), report.added) == (6, 6, 1)


def test_both_clients_have_the_same_methods():
    from nearsight.client import AsyncRemoteCollection, RemoteCollection

    pairs = [(Client, AsyncClient), (RemoteCollection, AsyncRemoteCollection)]
    # What belongs together, such as `collection.faces`, is an object with methods of its own.
    groups = [tuple(inspect.get_annotations(c.faces.fget, eval_str=True)["return"] for c in pairs[1])]
    for blocking, awaiting in pairs + groups:
        names = {name for name in dir(blocking) if not name.startswith("_")}
        assert names == {name for name in dir(awaiting) if not name.startswith("_")}
        for name in names:
            one, other = getattr(blocking, name), getattr(awaiting, name)
            if isinstance(one, property):
                assert isinstance(other, property)
                continue
            assert one.__name__ == other.__name__ == name
            assert one.__doc__
            assert other.__doc__
            assert [*inspect.signature(one).parameters] == [*inspect.signature(other).parameters]
