"""Labels, in the page of a real service: from the classes to the table, by keys."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from sample_images import encoded

pytestmark = pytest.mark.slow

COLORS = {"warm": (220, 90, 40), "cold": (40, 80, 220)}


@pytest.fixture(scope="session")
def truth(page_service):
    """What the sixty images of the collection show, by id."""
    client = page_service.client
    page_service.new_collection("shelf")
    truth = {}
    for start in range(0, 60, 20):
        labels = ["warm", "cold"] * 10
        files = []
        for n, label in enumerate(labels, start):
            noise = np.random.default_rng(n).normal(0, 40, (9, 12, 3))
            pixels = np.clip(np.array(COLORS[label]) + noise, 0, 255).astype(np.uint8)
            image = Image.fromarray(pixels).resize((240, 180), Image.Resampling.BICUBIC)
            files.append(("image", (f"{n:02}.png", encoded(image, "PNG"), "image/png")))
        items = client.post("/v1/collections/shelf/items", files=files).json()["items"]
        truth |= {item["id"]: label for item, label in zip(items, labels, strict=True)}
    return truth


def test_images_are_labeled_by_keys_and_doubted_labels_are_corrected(page, page_service, truth):
    def labels():
        items = page_service.client.get("/v1/collections/shelf/labels/items").json()["items"]
        return {item["id"]: item["label"] for item in items}

    def shown():
        return page.locator(".stage img").get_attribute("src").split("/items/")[1].split("/")[0]

    def press(key, id):
        page.keyboard.press(key)
        page.wait_for_function("id => !document.querySelector('.stage img')?.src.includes(id)", arg=id)

    page.goto("#/shelf/labels")
    page.get_by_role("textbox", name="Classes").fill("warm\ncold")
    # Until the first images come, nobody is told that none is left.
    late = []
    page.route("**/labels/queue", lambda route: late.append(route), times=1)
    with page.expect_request("**/labels/queue"):
        page.get_by_role("button", name="Label with 2 classes").click()
    page.get_by_text("Choosing images…").wait_for()
    late[0].continue_()
    page.locator(".stage img").wait_for()
    page.get_by_text("After 8 labeled images").wait_for()
    wrong = shown()
    press("2" if truth[wrong] == "warm" else "1", wrong)
    skipped = shown()
    press("s", skipped)
    page.get_by_role("button", name="Undo the skip").wait_for()
    press("z", shown())
    assert shown() == skipped
    press("0", skipped)
    undone = shown()
    press("1", undone)
    page.get_by_role("button", name="Undo warm").wait_for()
    page.get_by_text("all saved").wait_for()
    page.keyboard.press("z")
    page.wait_for_function("id => document.querySelector('.stage img').src.includes(id)", arg=undone)
    for _ in range(43):
        id = shown()
        press("1" if truth[id] == "warm" else "2", id)
    page.get_by_text("44 of 60 images labeled").wait_for()
    page.get_by_text("all saved").wait_for()
    page.get_by_text("should get the right label").wait_for()
    given = labels()
    assert len(given) == 44
    assert skipped not in given
    assert {id for id, label in given.items() if truth[id] != label} == {wrong}

    # The one wrong label is doubted first. A decision is remembered.
    page.get_by_role("link", name="Likely mistakes").click()
    page.get_by_text("looks like").first.wait_for()
    assert shown() == wrong
    page.get_by_text("Which classes are confused").click()
    assert page.locator(".confusion tbody tr").count() == 2
    # Enter belongs to what has the focus.
    page.get_by_role("heading", name="Labels").click()
    press("Enter", wrong)
    page.get_by_text("all saved").wait_for()
    assert labels() == given | {wrong: truth[wrong]}
    page.reload()
    page.get_by_text("all saved").wait_for()
    assert page.locator(f".stage img[src*='{wrong}']").count() == 0

    # A class that comes later has the next key. Labeled images are filtered and exported.
    page.get_by_role("link", name="Classes").click()
    page.get_by_role("textbox", name="Classes").fill("warm\ncold\nneither")
    page.get_by_role("button", name="Label with 3 classes").click()
    page.locator(".stage img").wait_for()
    last = shown()
    press("3", last)
    page.get_by_text("all saved").wait_for()
    assert labels()[last] == "neither"
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    rows = csv.DictReader(io.StringIO(download.value.path().read_text()))
    assert {row["id"]: row["label"] for row in rows} == labels()
    page.get_by_label("Show").select_option(index=4)
    page.locator(".cell[data-id]").first.wait_for()
    assert "metadata.label" in page.url
