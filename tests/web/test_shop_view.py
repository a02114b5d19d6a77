"""The shop, in the page of a real service: from orders to a table, from item to item and back."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

CATEGORIES = ("cups", "plates", "forks")


def product(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((160, 120)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def shop(page_service):
    """Nine products in three categories, with prices; two of three are in stock."""
    client = page_service.client
    page_service.new_collection("shop")
    ids = []
    for number in range(9):
        files = [("image", (f"{100 + number}.png", product(number), "image/png"))]
        [item] = client.post("/v1/collections/shop/items", files=files).json()["items"]
        facts = {
            "title": f"Product {number}",
            "category": CATEGORIES[number // 3],
            "price": 10.0 + number,
            "in_stock": number % 3 > 0,
        }
        client.patch(f"/v1/collections/shop/items/{item['id']}", json={"metadata": facts}).raise_for_status()
        ids.append(item["id"])
    return ids


@pytest.fixture(autouse=True)
def no_rules_nor_orders(page_service, shop):
    """A second try of a test begins as the first did."""
    route = "/v1/collections/shop"
    page_service.client.put(f"{route}/recommendations/rules", json={"rules": []}).raise_for_status()
    for each in page_service.client.get(f"{route}/baskets").json()["baskets"]:
        page_service.client.delete(f"{route}/baskets/{each['name']}").raise_for_status()


@pytest.fixture
def orders(tmp_path):
    """Who buys 100 buys 104; who buys 101 buys 105."""
    file = tmp_path / "orders.csv"
    lines = [f"{n},{item}" for n in range(60) for item in ((100, 104), (101, 105))[n % 2]]
    file.write_text("\n".join(["basket,item", *lines]))
    return file


def shelf(page, title):
    return page.get_by_role("region", name=title).locator(".shelf a")


def test_a_large_shop_is_shown_page_by_page(page, page_service):
    page_service.new_collection("large")
    files = [("image", (f"{number}.png", product(number), "image/png")) for number in range(70)]
    for start in range(0, 70, 30):
        part = files[start : start + 30]
        page_service.client.post("/v1/collections/large/items", files=part).raise_for_status()
    pages, items = page.get_by_role("navigation", name="Pages"), page.locator(".shelf a")
    page.goto("#/large/shop")
    pages.get_by_text("1 to 60 of 70").wait_for()
    titles = items.all_inner_texts()
    assert pages.get_by_role("link", name="Previous").count() == 0
    pages.get_by_role("link", name="Next").click()
    pages.get_by_text("61 to 70 of 70").wait_for()
    assert sorted([*titles, *items.all_inner_texts()]) == sorted(f"{number}.png" for number in range(70))
    assert pages.get_by_role("link", name="Next").count() == 0
    # Who comes back from an item is on its page.
    items.last.click()
    page.get_by_role("button", name="← Back").click()
    pages.get_by_text("61 to 70 of 70").wait_for()
    pages.get_by_role("link", name="Previous").click()
    pages.get_by_text("1 to 60 of 70").wait_for()
    # A search has pages of its own, and what fits on one has none.
    page.get_by_label("Search the shop").fill("png")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("heading", name="Found for “png”").wait_for()
    pages.get_by_role("link", name="Next").click()
    pages.get_by_text("61 to 70 of 70").wait_for()
    page.get_by_role("heading", name="Found for “png”").wait_for()
    page.get_by_label("Search the shop").fill("33.png")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("heading", name="Found for “33.png”").wait_for()
    assert items.all_inner_texts() == ["33.png"]
    assert pages.count() == 0


def test_from_orders_to_a_table(page, page_service, shop, orders):
    page.goto("#/shop/shop")
    page.get_by_label("Search the shop").fill("100")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("heading", name="Found for “100”").wait_for()
    page.get_by_role("link", name="Product 0").click()
    page.get_by_role("heading", name="Product 0").wait_for()
    shelf(page, "Looks alike").first.wait_for()
    assert shelf(page, "Looks alike").count() == 8
    assert page.get_by_text("9 images allowed").count() == 1

    # Orders are uploaded; what is bought together appears, with the reason.
    page.get_by_role("button", name="Add orders…").click()
    page.get_by_label("Table").set_input_files(str(orders))
    page.get_by_role("button", name="Learn").click()
    # The dialog may be closed meanwhile.
    page.keyboard.press("Escape")
    best = shelf(page, "Bought together").first
    best.wait_for()
    assert best.locator("strong").inner_text() == "Product 4"
    assert best.locator("span").all_inner_texts() == ["in 30 of its 30 orders", "2.0 × as often as by chance"]

    # A rule is seen at once, and holds for the next item and after a reload.
    page.get_by_label("Field").select_option("category")
    page.get_by_label("Condition").select_option("differs")
    page.get_by_role("button", name="Add rule").click()
    page.get_by_text("6 images allowed").wait_for()
    page.get_by_label("Field").select_option("in_stock")
    with page.expect_response(lambda answer: answer.request.method == "PUT" and answer.ok):
        page.get_by_role("button", name="Add rule").click()
    page.get_by_text("4 images allowed").wait_for()
    # The same rule is there once.
    with page.expect_response(lambda answer: answer.request.method == "PUT" and answer.ok):
        page.get_by_role("button", name="Add rule").click()
    assert page.get_by_role("button", name="Remove the rule in stock").count() == 1
    titles = shelf(page, "Looks alike").locator("strong").all_inner_texts()
    assert sorted(titles) == ["Product 4", "Product 5", "Product 7", "Product 8"]
    shelf(page, "Bought together").first.click()
    page.get_by_role("heading", name="Product 4").wait_for()
    page.get_by_text("4 images allowed").wait_for()
    page.reload()
    page.get_by_role("heading", name="Product 4").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Product 0").wait_for()

    # Somebody else changes the rules meanwhile: theirs hold, and the change of this page is not lost.
    route = "/v1/collections/shop/recommendations/rules"
    theirs = [*page_service.client.get(route).json()["rules"], "price > 0"]
    page_service.client.put(route, json={"rules": theirs}).raise_for_status()
    page.get_by_label("Field").select_option("price")
    page.get_by_label("Condition").select_option("at most")
    page.get_by_label("Value").fill("1000")
    page.get_by_role("button", name="Add rule").click()
    page.get_by_text("Somebody else has changed the rules.").wait_for()
    assert page_service.client.get(route).json()["rules"] == theirs
    page.get_by_text("price > 0").wait_for()
    # The change is shown before the service has answered; a removal may come only after the answer.
    with page.expect_response(lambda answer: answer.request.method == "PUT" and answer.ok):
        page.get_by_role("button", name="Make my change again").click()
    page.get_by_text("Somebody else has changed the rules.").wait_for(state="detached")
    page.get_by_role("button", name="Remove the rule price at most").wait_for()
    page.refused.append(412)
    with page.expect_response(lambda answer: answer.request.method == "PUT" and answer.ok):
        page.get_by_role("button", name="Remove the rule price at most").click()
    assert page_service.client.get(route).json()["rules"] == theirs

    # The table for every item follows the rules.
    page.get_by_role("button", name="Export CSV…").click()
    page.get_by_role("dialog").get_by_text("category: differs; in stock: yes").wait_for()
    page.get_by_label("Items each").fill("2")
    page.get_by_role("button", name="Make the table").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    number = {id: place for place, id in enumerate(shop)}
    assert len(rows) == 18
    for row in rows:
        item, other = number[row["id"]], number[row["recommended_id"]]
        assert item // 3 != other // 3
        assert other % 3 > 0
    page.keyboard.press("Escape")

    # A rule is taken away; orders are deleted.
    page.get_by_role("button", name="Remove the rule category").click()
    page.get_by_text("6 images allowed").wait_for()
    page.get_by_role("button", name="Orders…", exact=True).click()
    page.get_by_role("dialog").get_by_text("60 orders of 9 items").wait_for()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Really delete").click()
    page.get_by_role("dialog").get_by_text("60 orders").wait_for(state="detached")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Add orders…").wait_for()

    # A phone shows all of it without scrolling sideways.
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.querySelector('main').scrollWidth <= 390")
