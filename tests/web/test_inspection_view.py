"""The inspection view: fit, watch, look, confirm, move the threshold, fit again; in the page of a real service."""

import io
import re
import shutil
import time

import pytest
from PIL import Image

from sample_images import fabric, torn

pytestmark = pytest.mark.slow


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def wait_for(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def judged(client):
    """What the service says of the images that were inspected."""
    return client.get("/v1/collections/line/detectors/fabric/images").json()


def test_a_line_is_inspected(page, page_service, press_at_once, tmp_path):
    client, root = page_service.client, page_service.root / "line"
    # What a first try left.
    shutil.rmtree(root, ignore_errors=True)
    client.delete("/v1/collections/line")
    for seed in range(20):
        save(root / f"good/{seed}.png", fabric(seed))
    (root / "today").mkdir()
    page_service.new_collection("line")

    # Fit on the good folder, with progress; the folders of the collection come after the first words.
    late = []
    page.route("**/v1/collections/line/folders", lambda route: late.append(route), times=1)
    page.goto("#/line/inspection")
    page.get_by_label("Name").fill("fabric")
    wait_for(lambda: late or page.wait_for_timeout(50))
    late[0].continue_()
    page.locator("#folders option").first.wait_for(state="attached")
    assert page.get_by_label("Name").input_value() == "fabric"
    page.get_by_label("Folder of good images").fill("files/line/good")
    page.get_by_label("False alarms that you accept").fill("20")
    page.get_by_text("at least 14 good images").wait_for()
    page.get_by_role("button", name="Fit", exact=True).click()
    page.get_by_text("fitted on 20 good images").wait_for()

    # A watched folder: images are judged as they come, and a file that is half written is not.
    page.get_by_label("Folder to inspect").fill("files/line/today")
    page.get_by_role("button", name="Watch the folder").click()
    page.get_by_text("Watch a folder: files/line/today").wait_for()
    whole = io.BytesIO()
    Image.fromarray(torn(101)).save(whole, "PNG")
    (root / "today/slow.png").write_bytes(whole.getvalue()[:3000])
    save(root / "today/torn.png", torn(100))
    save(root / "today/plain.png", fabric(102))
    page.get_by_role("heading", name="Defects: 1").wait_for()
    # Which image came first is large, and stays so when another one comes.
    page.get_by_role("button", name=re.compile("torn.png")).click()
    page.get_by_role("heading", name="torn.png").wait_for()
    page.get_by_text("Good: 1 image", exact=True).wait_for()
    (root / "today/slow.png").write_bytes(whole.getvalue())
    page.get_by_role("heading", name="Defects: 2").wait_for()
    wait_for(lambda: judged(client).get("failed") == [])
    # A reload follows the watch that runs.
    page.reload()
    page.get_by_role("heading", name="Defects: 2").wait_for()
    page.get_by_role("button", name="Stop watching").click()
    page.get_by_role("button", name="Stop watching").wait_for(state="detached")

    # Heat lies over the image, and goes with the slider.
    canvas = page.locator(".heat canvas")
    wait_for(
        lambda: canvas.evaluate(
            "c => c.width > 1 && c.getContext('2d').getImageData(c.width * .4, c.height * .5, 1, 1).data[3] > 0"
        )
    )
    page.get_by_label("Opacity of the heat").fill("0")
    wait_for(lambda: canvas.evaluate("c => getComputedStyle(c).opacity") == "0")
    page.keyboard.press("h")
    wait_for(lambda: canvas.evaluate("c => getComputedStyle(c).opacity") == "0.7")

    # The threshold: what another one would do, then use it, then go back.
    control = page.get_by_role("region", name="Threshold")
    control.get_by_text("Expected false alarms").wait_for()
    slider = control.get_by_role("slider", name="Threshold")
    slider.focus()
    title = control.get_by_role("heading").inner_text()
    page.keyboard.press("ArrowRight")
    wait_for(lambda: control.get_by_role("heading").inner_text() != title)
    page.get_by_text("1 of 3").wait_for()  # the arrows moved the slider, not the images
    page.keyboard.press("End")
    control.get_by_text("2 images would pass as good").wait_for()
    page.keyboard.press("Home")
    control.get_by_text("Expected false alarms: 100 %").wait_for()
    control.get_by_text("1 image would become a defect").wait_for()
    control.get_by_role("button", name="Use this threshold").click()
    page.get_by_role("heading", name="Defects: 3").wait_for()
    control.get_by_role("button", name=re.compile("Back to 20 %")).click()
    page.get_by_role("heading", name="Defects: 2").wait_for()

    # Confirm by keys; the false alarm leaves the defects, and one decision is taken back.
    first = page.locator("section[aria-label=Image] h2").inner_text()
    page.locator("h1").click()
    press_at_once(page, "g", "d")
    page.get_by_role("heading", name="Defects: 1").wait_for()
    page.get_by_text("1 confirmed good, 1 confirmed as defects").wait_for()
    page.keyboard.press("u")
    page.get_by_text("1 confirmed good, 0 confirmed as defects").wait_for()

    # Fit again: the image that was confirmed as good is learned, and scores less.
    path = f"files/line/today/{first}"
    wait_for(lambda: path in {image["path"] for image in judged(client).get("images", [])})
    [before] = [image for image in judged(client)["images"] if image["path"] == path]
    page.get_by_role("button", name="Fit again with these").click()
    page.get_by_text("fitted on 21 good images").wait_for()
    route = f"/v1/collections/line/detectors/fabric/images/{before['id']}"
    wait_for(lambda: client.get(route).json().get("revision") == 2)
    after = client.get(route).json()
    assert (before["revision"], after["verdict"]) == (1, "good")
    assert after["score"] < before["score"]
    for width in (1200, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    # On a phone, what decides is on the screen at once.
    page.locator("h1").scroll_into_view_if_needed()
    box = page.locator(".decisions").bounding_box()
    assert 0 < box["y"] < box["y"] + box["height"] < 800
    shutil.rmtree(root)
