"""People in the page of a real service, with the real face models on photographs of one real person."""

import io
import time
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

from nearsight.faces.models import is_available

pytestmark = pytest.mark.slow

PEOPLE = "/v1/collections/portraits/faces"


def photographs():
    """Return seven images of one person: other light, other sizes, other cuts."""
    skimage = pytest.importorskip("skimage")
    whole = Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")
    whole = whole.crop((60, 0, 420, 330))
    bright, dark = (ImageEnhance.Brightness(whole).enhance(factor) for factor in (1.15, 0.85))
    images = [
        whole,
        bright,
        dark,
        whole.resize((300, 275)),
        whole.crop((40, 0, 330, 300)),
        whole.crop((0, 0, 330, 280)),
    ]
    return [*images, whole.resize((420, 385))]


def upload(service, images, start):
    files = []
    for i, image in enumerate(images, start):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=95)
        files.append(("image", (f"{i}.jpg", file.getvalue(), "image/jpeg")))
    service.client.post("/v1/collections/portraits/items", files=files).raise_for_status()


def people(service):
    listed = service.client.get(PEOPLE).json()["people"]
    return {person["name"] or "": (person["faces"], person["suggested"]) for person in listed}


def wait_for_searches(service, n):
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        jobs = service.client.get("/v1/jobs").json()["jobs"]
        if sum(job["kind"] == "faces" and job["state"] == "done" for job in jobs) == n:
            return
        time.sleep(0.2)
    pytest.fail(f"the search for faces has not ended: {jobs}")


def test_people_are_found_named_corrected_hidden_and_forgotten(page, page_service, press_at_once):
    if not is_available():
        pytest.skip("needs the face models")
    images = photographs()
    page_service.new_collection("portraits")
    upload(page_service, images[:5], 0)
    page.goto("#/portraits/people")
    page.get_by_role("button", name="Find faces").click()
    page.locator(".person").wait_for()
    # Named by the keyboard.
    page.keyboard.press("n")
    page.keyboard.type("Eileen Collins")
    page.keyboard.press("Enter")
    page.locator(".person strong").get_by_text("Eileen Collins").wait_for()
    assert people(page_service) == {"Eileen Collins": (5, 0)}
    page.locator(".person a").click()
    page.get_by_role("tab", name="5 images").wait_for()
    page.locator(".cell[data-id]").first.wait_for()
    assert page.locator(".cell[data-id]").count() == 5
    # Two faces are split off under another name, and the two people are merged again.
    page.get_by_role("tab", name="5 faces").click()
    page.wait_for_function(
        "() => document.querySelectorAll('.face img').length === 5 && [...document.querySelectorAll('.face img')].every((img) => img.naturalWidth === 160)"
    )
    page.locator(".face").nth(1).focus()
    press_at_once(page, "x", "ArrowRight", "x", "s")
    # The dialog has the focus in its field.
    page.keyboard.type("A twin")
    page.keyboard.press("Enter")
    page.get_by_role("tab", name="3 faces").wait_for()
    page.get_by_role("button", name="All people").click()
    page.get_by_label("Choose A twin").check()
    page.get_by_label("Choose Eileen Collins").check()
    page.get_by_role("button", name="Merge").click()
    page.get_by_role("button", name="Undo merge").wait_for()
    assert people(page_service) == {"Eileen Collins": (5, 0)}
    page.keyboard.press("u")
    page.get_by_label("Choose A twin").wait_for()
    page.get_by_role("button", name="Undo split").click()
    page.get_by_label("Choose A twin").wait_for(state="detached")
    # Of new images, faces are only suggested; what is decided holds in the next search.
    upload(page_service, images[5:], 5)
    page.get_by_role("button", name="Look into new images").click()
    page.get_by_text("2 to confirm").wait_for()
    page.locator(".person a").click()
    page.get_by_role("heading", name="Is this Eileen Collins?").wait_for()
    page.keyboard.press("y")
    page.get_by_role("tab", name="6 faces, 1 to confirm").wait_for()
    page.get_by_role("button", name="No", exact=True).click()
    page.get_by_role("heading", name="Is this Eileen Collins?").wait_for(state="detached")
    page.get_by_role("button", name="All people").click()
    page.get_by_role("button", name="Look into new images").click()
    wait_for_searches(page_service, 3)
    assert people(page_service) == {"Eileen Collins": (6, 0)}
    # Hidden people stay reachable.
    page.locator(".person a").focus()
    page.keyboard.press("h")
    page.get_by_role("button", name="1 hidden").click()
    page.get_by_label("Choose Eileen Collins").check()
    page.get_by_role("button", name="Show again").click()
    page.get_by_text("Nobody is hidden").wait_for()
    page.get_by_role("button", name="0 hidden").click()
    # What will be deleted is said before.
    page.set_viewport_size({"width": 390, "height": 780})
    page.locator(".person a").focus()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.keyboard.press("f")
    assert "6 faces" in page.get_by_role("dialog").inner_text()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    page.get_by_text("Forgotten: Eileen Collins").first.wait_for()
    assert people(page_service) == {}
    page.get_by_role("button", name="Undo").wait_for(state="detached")
