"""Take the pictures of the service's page that README shows.

    nearsight serve --mount clothes=COLLECTION
    python tools/page_pictures.py http://127.0.0.1:8080 clothes

The collection needs the results of its clusters, map and near-duplicates; their views make them. Chromium is
Debian's. Of an animation, each frame is a step of what a person does.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

TARGET = Path(__file__).parent.parent / "docs" / "images"
QUERY = "running shoes"
# Part of the plot's width and height, from its left upper corner: around a third of the points.
LASSO = [(0.06, 0.06), (0.38, 0.04), (0.5, 0.25), (0.45, 0.5), (0.2, 0.6), (0.05, 0.5)]
FRAME_SIZE = 840, 525
MILLISECONDS = {"still": 2200, "typing": 350}


def frame(page: Page) -> Image.Image:
    """Return the page as it looks, in the size of the animation."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    return image.resize(FRAME_SIZE, Image.Resampling.LANCZOS)


def settled(page: Page) -> None:
    """Wait for images, and for what moves to stand still."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)
    page.wait_for_function("() => [...document.images].every(({ complete }) => complete)")


def animate(page: Page, address: str) -> None:
    """Search by words, then draw a lasso on the map."""
    frames: list[tuple[Image.Image, int]] = []
    page.goto(f"{address}/images")
    settled(page)
    frames.append((frame(page), MILLISECONDS["still"]))
    for word in QUERY.split():
        page.keyboard.type(f" {word}") if len(frames) > 1 else page.get_by_label("Search by words").fill(word)
        frames.append((frame(page), MILLISECONDS["typing"]))
    page.keyboard.press("Enter")
    # Each match is told with its similarity.
    page.wait_for_function("() => document.querySelector('.cell span')?.textContent.includes('·')")
    settled(page)
    frames.append((frame(page), MILLISECONDS["still"]))
    page.goto(f"{address}/map")
    settled(page)
    frames.append((frame(page), MILLISECONDS["still"]))
    box = page.locator("canvas").first.bounding_box()
    assert box is not None
    corners = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in LASSO]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for at, corner in enumerate(corners[1:], 1):
        page.mouse.move(*corner, steps=8)
        if at % 2:
            frames.append((frame(page), MILLISECONDS["typing"]))
    page.mouse.up()
    settled(page)
    frames.append((frame(page), MILLISECONDS["still"]))
    images, durations = zip(*frames, strict=True)
    images[0].save(
        TARGET / "page.webp", save_all=True, append_images=images[1:], duration=durations, loop=0, quality=70
    )
    page.screenshot(path=TARGET / "page-map.jpg", type="jpeg", quality=80)
    page.get_by_role("button", name="Clear", exact=True).click()


def main(url: str, collection: str) -> None:
    """Write all pictures of one collection's views."""
    address = f"{url.rstrip('/')}/#/{collection}"
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        animate(page, address)
        page.set_viewport_size({"width": 1024, "height": 680})
        for view in ("clusters", "duplicates"):
            page.goto(f"{address}/{view}")
            settled(page)
            page.screenshot(path=TARGET / f"page-{view}.jpg", type="jpeg", quality=80)
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
