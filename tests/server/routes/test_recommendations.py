"""Recommendations over HTTP give what the library gives; jobs run in this process, so that it is quick."""

import csv
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from nearsight import Collection
from nearsight.errors import StorageError
from nearsight.services import job_worker
from nearsight.services.recommendation_rules import FILENAME, RulesChangedError, StoredRules, revision

from fake import FakeBackend

ROUTE = "/v1/collections/shop"
PRODUCTS = [("dress", 40), ("dress", 45), ("hat", 20), ("hat", 22), ("shoe", 80), ("shoe", None)]


def product(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((160, 120)).save(file, "PNG")
    return file.getvalue()


def orders():
    """Who buys 0 buys 2; who buys 1 buys 4."""
    lines = ["basket,item"]
    for number in range(120):
        lines += [f"{number},{item}.png" for item in ((0, 2), (1, 4))[number % 2]]
    return "\n".join([*lines, "120,gift wrap", "120,0"])


@pytest.fixture(scope="module")
def products(client):
    assert client.post("/v1/collections", json={"name": "shop"}).status_code == 201
    ids = []
    for number, (category, price) in enumerate(PRODUCTS):
        answer = client.post(f"{ROUTE}/items", files=[("image", (f"{number}.png", product(number)))]).json()
        [item] = answer["items"]
        facts = {"category": category} | ({} if price is None else {"price": price})
        client.patch(f"{ROUTE}/items/{item['id']}", json={"metadata": facts})
        ids.append(item["id"])
    return ids


@pytest.fixture
def finish(client, monkeypatch):
    """Run the job that an answer tells of, here and now."""
    table = client.service.jobs.table
    monkeypatch.setattr(table, "claim", lambda: None)

    def run(answer):
        assert answer.status_code == 202, answer.text
        job = table.get(answer.json()["id"])
        result = job_worker.KINDS[job.kind](job.args)
        table.finish(job.id, "done", result=result)
        return result

    return run


def library(client):
    return Collection.open(client.service.catalog.directory("shop"), model=FakeBackend())


def test_rules_are_saved_with_the_collection(client, products):
    place = f"{ROUTE}/recommendations/rules"
    assert client.get(place).json() == {"rules": []}
    rules = ["category != item.category", "price BETWEEN 0.5 * item.price AND 1.5 * item.price"]
    assert client.put(place, json={"rules": rules}).json() == {"rules": rules}
    assert client.put(place, json={"rules": ["colour = item.colour"]}).status_code == 400
    assert client.put(place, json={"rules": ["price < 9"] * 21}).status_code == 422
    assert client.get(place).json() == {"rules": rules}
    stored = StoredRules(library(client))
    assert stored.read() == rules
    (library(client).directory / FILENAME).write_text("[]")
    with pytest.raises(StorageError, match="damaged"):
        stored.read()
    stored.write([])
    assert client.get(place).json() == {"rules": []}


def test_of_two_who_save_rules_the_second_overwrites_only_what_it_has_read(client, products):
    place = f"{ROUTE}/recommendations/rules"
    read = client.get(place).headers["etag"]
    first = client.put(place, json={"rules": ["price < 9"]}, headers={"if-match": read})
    late = client.put(place, json={"rules": ["price < 5"]}, headers={"if-match": read})
    assert (first.status_code, late.status_code, late.json()["error"]["code"]) == (200, 412, "rules_changed")
    assert client.get(place).json() == {"rules": ["price < 9"]}
    assert client.get(place).headers["etag"] == first.headers["etag"] != read
    # Who does not say what is replaced writes last.
    for header in ({}, {"if-match": "*"}, {"if-match": first.headers["etag"]}):
        client.put(place, json={"rules": ["price < 9"]})
        assert client.put(place, json={"rules": []}, headers=header).status_code == 200
        assert client.get(place).json() == {"rules": []}
    stored = StoredRules(library(client))
    wanted = [[f"price < {n}"] for n in range(8)]
    results = []

    def save(rules):
        try:
            stored.write(rules, before=revision([]))
            results.append(rules)
        except RulesChangedError:
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(save, wanted))
    # One of eight at once, and it is what is saved.
    assert [stored.read()] == results
    stored.write([])


def test_images_that_look_alike_under_rules(client, products):
    place = f"{ROUTE}/items/{products[0]}/recommendations"
    answer = client.get(place, params={"k": 3}).json()
    expected = library(client).recommend(products[0], k=3, progress=False).items
    assert [(each["id"], each["why"]) for each in answer["items"]] == [(e.id, e.why) for e in expected]
    [evidence] = answer["items"][0]["evidence"]
    assert (evidence["kind"], evidence["id"]) == ("similarity", products[0])
    assert answer["allowed"] == 6
    rules = ["category != item.category", "price <= 0.5 * item.price"]
    ruled = client.get(place, params={"rule": rules}).json()
    assert ({each["id"] for each in ruled["items"]}, ruled["allowed"]) == ({products[2]}, 1)
    # The shoe without a price has no rule about prices.
    free = client.get(f"{ROUTE}/items/{products[5]}/recommendations", params={"rule": rules[1]}).json()
    assert free["allowed"] == 6
    for params in (
        {"rule": "nope = item.price"},
        {"rule": "price ="},
        {"k": 0},
        {"rule": ["price > 1"] * 21},
    ):
        assert client.get(place, params=params).status_code in (400, 422)
    assert client.get(f"{ROUTE}/items/0000/recommendations").status_code == 404
    assert client.get(place, params={"baskets": "none"}).json()["error"]["code"] == "baskets_not_found"


def test_baskets_are_put_used_listed_replaced_and_deleted(client, products, finish):
    place = f"{ROUTE}/baskets/orders"
    facts = finish(client.put(place, files={"file": ("orders.csv", orders().encode())}))
    assert (facts["baskets"], facts["images"], facts["learned"]) == (121, 6, True)
    assert client.get(f"{ROUTE}/baskets").json() == {"baskets": [facts]}
    assert facts["unknown"] == {"gift wrap": 1}
    asked = {"baskets": "orders", "k": 2}
    answer = client.get(f"{ROUTE}/items/{products[0]}/recommendations", params=asked).json()
    best = answer["items"][0]
    assert (best["id"], answer["baskets"]) == (products[2], 121)
    assert "bought with 0 in 60 of its 61 baskets" in best["why"]
    [together] = [each for each in best["evidence"] if each["kind"] == "together"]
    assert (together["times"], together["of"]) == (60, 61)
    assert together["lift"] == pytest.approx(60 * 121 / (61 * 60))
    history = {**asked, "also": [products[1]]}
    both = client.get(f"{ROUTE}/items/{products[0]}/recommendations", params=history).json()
    assert {each["id"] for each in both["items"]} == {products[2], products[4]}
    # What replaces it is used at once; nothing of the table is kept.
    csv_text = "basket,item\n" + "\n".join(f"{n},{item}" for n in range(9) for item in (0, 3))
    finish(client.put(place, content=csv_text, headers={"content-type": "text/csv"}))
    answer = client.get(f"{ROUTE}/items/{products[0]}/recommendations", params=asked).json()
    assert (answer["items"][0]["id"], answer["baskets"], answer["learned"]) == (products[3], 9, False)
    assert not list(client.service.data.rglob("tables/*.csv"))
    assert client.delete(place).status_code == 204
    assert client.get(f"{ROUTE}/baskets").json() == {"baskets": []}
    assert client.delete(place).status_code == 404


def test_a_table_of_the_server(client, products, finish, tmp_path):
    (tmp_path / "orders.csv").write_text(orders())
    (tmp_path / "bad.csv").write_text("basket,item\n1,x\n2,y\n")
    client.service.catalog.roots["tables"] = tmp_path.resolve()
    place = f"{ROUTE}/baskets/nightly"
    assert finish(client.put(place, json={"file": "tables/orders.csv"}))["baskets"] == 121
    assert (tmp_path / "orders.csv").exists()
    with pytest.raises(Exception, match=r"tables/bad\.csv") as refused:
        finish(client.put(place, json={"file": "tables/bad.csv"}))
    assert str(tmp_path) not in str(refused.value)
    client.delete(place)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"content": "basket,thing\n1,2", "headers": {"content-type": "text/csv"}}, 400),
        ({"content": b"\0\1", "headers": {"content-type": "text/csv"}}, 400),
        ({"files": {"other": b"basket,item"}}, 400),
        ({"json": {"file": 3}}, 400),
        ({"json": {"file": "nowhere/orders.csv"}}, 403),
    ],
)
def test_bad_tables_start_no_job(client, products, options, status):
    before = len(client.service.jobs.table.list())
    answer = client.put(f"{ROUTE}/baskets/bad", **options)
    assert answer.status_code == status, answer.text
    assert str(client.service.data) not in answer.text
    assert client.put(f"{ROUTE}/baskets/-x", **options).status_code == 400
    assert len(client.service.jobs.table.list()) == before


def test_a_table_for_every_image(client, products, finish):
    assert client.get(f"{ROUTE}/recommendations").json()["error"]["code"] == "no_result"
    body = {"k": 2, "rule": ["category != item.category"]}
    some = {**body, "ids": [products[4], products[1]]}
    assert finish(client.post(f"{ROUTE}/recommendations", json=some)) == {"images": 2, "rows": 4}
    listed = list(csv.DictReader(io.StringIO(client.get(f"{ROUTE}/recommendations").text)))
    assert [row["id"] for row in listed] == [products[4]] * 2 + [products[1]] * 2
    each = client.post(f"{ROUTE}/recommendations/each", json=some).json()["results"]
    assert [result["for"] for result in each] == [[id] for id in some["ids"]]
    found = [image["id"] for result in each for image in result["items"]]
    assert found == [row["recommended_id"] for row in listed]
    for ids, status in (([], 422), (["0000"], 404), ([products[0]] * 201, 422)):
        asked = client.post(f"{ROUTE}/recommendations/each", json={"ids": ids})
        assert asked.status_code == status
    assert client.post(f"{ROUTE}/recommendations", json={"ids": ["0000"]}).status_code == 404
    assert finish(client.post(f"{ROUTE}/recommendations", json=body)) == {"images": 6, "rows": 12}
    answer = client.get(f"{ROUTE}/recommendations")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    for id in products:
        asked = {"k": 2, "rule": body["rule"]}
        expected = client.get(f"{ROUTE}/items/{id}/recommendations", params=asked).json()["items"]
        listed = [row for row in rows if row["id"] == id]
        assert [(row["recommended_id"], row["why"]) for row in listed] == [
            (each["id"], each["why"]) for each in expected
        ]
    assert all("/" not in row["path"] for row in rows)
    for bad in ({"rule": ["x ="]}, {"baskets": "none"}, {"k": 0}):
        assert client.post(f"{ROUTE}/recommendations", json=bad).status_code in (400, 404, 422)
