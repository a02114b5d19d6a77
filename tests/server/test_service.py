"""What all requests share: nothing that takes long holds up what is short."""

import base64
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from nearsight.server.routes import items


@pytest.fixture
def held(serve, jpeg):
    """A service with two collections, clients, and an event that what takes long waits for."""
    client, may_end = serve(), threading.Event()
    for name in ("one", "two"):
        client.post("/v1/collections", json={"name": name}).raise_for_status()
    images = [("image", (f"{i}.jpg", jpeg(i))) for i in range(2)]
    client.post("/v1/collections/one/items", files=images).raise_for_status()
    with ThreadPoolExecutor(25) as pool:
        yield client, pool, may_end
        may_end.set()


def test_searches_wait_for_no_analysis_and_too_many_analyses_are_refused(held, monkeypatch, jpeg):
    client, pool, may_end = held
    begun = threading.Semaphore(0)

    def reader(name):
        begun.release()
        may_end.wait()
        raise ZeroDivisionError

    monkeypatch.setattr(client.service.face_banks, "reader", reader)
    images = [base64.b64encode(jpeg(i)).decode() for i in range(2)]

    def verify(_):
        return client.post("/v1/collections/one/faces/verify", json={"images": images}).status_code

    answers = [pool.submit(verify, i) for i in range(2)]
    for _ in answers:
        assert begun.acquire(timeout=15)
    answers += [pool.submit(verify, i) for i in range(22)]
    # 16 wait, and 6 are told to come again.
    done, _ = wait(answers, 15, "FIRST_COMPLETED")
    assert {each.result() for each in done} == {429}
    search = pool.submit(client.post, "/v1/collections/one/search", json={"image": images[0], "k": 1})
    assert search.result(15).status_code == 200
    add = pool.submit(client.post, "/v1/collections/two/items", json={"images": images})
    assert add.result(15).json()["added"] == 2
    assert pool.submit(client.get, "/health").result(15).status_code == 200
    may_end.set()
    assert sorted(each.result(15) for each in answers) == [429] * 6 + [500] * 18


def test_searches_wait_for_no_image_that_is_added(held, monkeypatch):
    client, pool, may_end = held
    begun = threading.Semaphore(0)

    def copy(*args, **options):
        begun.release()
        may_end.wait()
        return 0

    monkeypatch.setattr(items, "copy_images", copy)
    ids = [each["id"] for each in client.get("/v1/collections/one/items").json()["items"]]
    body = {"source": "one", "ids": ids}
    copies = [pool.submit(client.post, "/v1/collections/two/items/copy", json=body) for _ in range(5)]
    for _ in range(4):
        assert begun.acquire(timeout=15)
    search = pool.submit(client.post, "/v1/collections/one/search", json={"id": ids[0]})
    assert search.result(15).status_code == 200
    may_end.set()
    assert [each.result(15).json() for each in copies] == [{"added": 0}] * 5
