"""The map, clusters, duplicates and the audit, in the page of a real service."""

import io
import time

import pytest

from sample_images import texture

pytestmark = pytest.mark.slow


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def album(page_service):
    """Twenty-four images and a smaller copy of one; every analysis has run."""
    client = page_service.client
    client.post("/v1/collections", json={"name": "album"}).raise_for_status()
    images = {f"{n:02}.png": texture(240, 180, n) for n in range(24)}
    files = [("image", (name, encoded(image), "image/png")) for name, image in images.items()]
    small = images["00.png"].resize((160, 120))
    files.append(("image", ("small.png", encoded(small), "image/png")))
    client.post("/v1/collections/album/items", files=files).raise_for_status()
    options = {"clusters": {"k": 2}, "duplicates": {}, "audit": {}, "map": {"method": "pca"}}
    for kind, body in options.items():
        job = client.post(f"/v1/collections/album/{kind}", json=body).json()
        deadline = time.monotonic() + 900
        while job["state"] not in ("done", "failed", "cancelled") and time.monotonic() < deadline:
            time.sleep(0.2)
            job = client.get(f"/v1/jobs/{job['id']}").json()
        assert job["state"] == "done", job
    return "album"


def test_a_lasso_on_the_map_selects_images_that_a_tag_reaches(page, page_service, album):
    page.goto(f"#/{album}/map")
    page.locator(".legend li").first.wait_for()
    assert page.locator(".legend li").count() == 2
    box = page.locator(".map-overlay").bounding_box()
    # The rounded corners of the map belong to nobody.
    right, bottom = box["width"] - 20, box["height"] - 20
    corners = [(20, 20), (right, 20), (right, bottom), (20, bottom)]
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    for left, top in corners:
        page.mouse.move(box["x"] + left, box["y"] + top, steps=4)
    page.mouse.up()
    page.get_by_text("25 images selected").first.wait_for()
    page.keyboard.press("t")
    page.get_by_label("Value").fill("all")
    page.get_by_role("dialog").get_by_role("button", name="Tag").click()
    page.get_by_role("dialog").wait_for(state="detached")
    answer = page_service.client.get("/v1/collections/album/items", params={"where": "tag = 'all'"}).json()
    assert answer["total"] == 25
    # A cluster that is switched off cannot be selected.
    page.keyboard.press("Escape")
    page.locator(".legend input").first.uncheck()
    page.locator(".map-overlay").focus()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    for left, top in corners:
        page.mouse.move(box["x"] + left, box["y"] + top, steps=4)
    page.mouse.up()
    text = page.locator(".selection strong").inner_text()
    assert 0 < int(text.split()[0]) < 25


def test_a_cluster_is_opened_and_renamed(page, page_service, album):
    page.goto(f"#/{album}/clusters")
    page.locator(".stack").first.click()
    page.locator(".cell[data-id]").first.wait_for()
    page.get_by_label("Name of the cluster").fill("warm things")
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("button", name="All clusters").click()
    page.get_by_text("warm things").wait_for()
    names = [c["name"] for c in page_service.client.get("/v1/collections/album/clusters").json()["clusters"]]
    assert "warm things" in names


def test_a_decision_about_duplicates_is_remembered(page, page_service, album):
    page.goto(f"#/{album}/duplicates")
    page.get_by_text("1 group of near-duplicates").wait_for()
    page.locator(".pair").get_by_text("00.png").wait_for()
    page.get_by_role("button", name="Slider").click()
    page.get_by_label("Share of the suggested image").fill("20")
    page.keyboard.press("n")
    page.get_by_text("Nothing left to decide").wait_for()
    [decision] = page_service.client.get("/v1/collections/album/duplicates/decisions").json()["decisions"]
    assert decision["decision"] == "different"
    page.reload()
    page.get_by_text("Nothing left to decide").wait_for()


def test_the_audit_names_issues_by_kind(page, page_service, album):
    expected = page_service.client.get("/v1/collections/album/audit").json()["counts"]
    page.goto(f"#/{album}/audit")
    page.get_by_text("issue").first.wait_for()
    for kind, n in expected.items():
        page.get_by_role("heading", name=f"{kind.replace('_', ' ')} ({n})").wait_for()
