"""Every view in every look: axe-core finds nothing, and nothing is wider than a phone."""

import io

import pytest
from PIL import Image

from sample_images import texture

pytestmark = pytest.mark.slow

LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1200, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 800}},
}
# What can be opened in a view, by the name of its button; what is not there is passed over.
OPENED = ("Clear up all certain…", "Trash…", "Split…", "Keys")
NOTHING_RUNS = "() => !document.querySelector('.wait, progress:not([value])')"


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def wardrobe(page_service, finish):
    """Images with metadata, a near-duplicate, and the results of the analyses that need nothing else."""
    client = page_service.client
    page_service.new_collection("wardrobe")
    # The longest name that there can be.
    page_service.new_collection("all-clothes-of-the-last-hundred-years".ljust(64, "-"))
    images = {f"{n:02}.png": texture(160, 120, n) for n in range(12)}
    images["small.png"] = images["00.png"].resize((120, 90), Image.Resampling.BICUBIC)
    files = [("image", (name, encoded(image), "image/png")) for name, image in images.items()]
    answer = client.post("/v1/collections/wardrobe/items", files=files).json()
    ids = [item["id"] for item in answer["items"]]
    client.patch("/v1/collections/wardrobe/items", json={"ids": ids[:6], "metadata": {"kind": "shoe"}})
    for kind, body in {"clusters": {"k": 2}, "duplicates": {}, "audit": {}, "map": {"method": "pca"}}.items():
        finish(client, client.post(f"/v1/collections/wardrobe/{kind}", json=body).json())
    client.post(
        "/v1/collections/wardrobe/clusters/move", json={"ids": ids[:1], "to": None}
    ).raise_for_status()
    return "wardrobe"


def violations(page, where):
    """What axe-core finds wrong, in a few words each."""
    axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
    # Colors that are on their way have no contrast yet.
    page.evaluate("() => Promise.all(document.getAnimations().map((each) => each.finished.catch(() => {})))")
    found = axe_playwright.Axe().run(page).response["violations"]
    return [
        f"{where}: {each['id']}: {node['html'][:160]}: {node['failureSummary'][:200]}"
        for each in found
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("look", LOOKS)
def test_every_view_is_open_to_everybody(page, page_service, wardrobe, look):
    page.emulate_media(color_scheme=LOOKS[look]["color_scheme"], reduced_motion="reduce")
    page.set_viewport_size(LOOKS[look]["viewport"])
    page.goto("/")
    page.get_by_role("link", name="wardrobe").first.wait_for()
    found = violations(page, "collections")
    page.goto(f"#/{wardrobe}/images")
    page.locator("nav.views a").first.wait_for()
    # The views are those that the page itself names: a new one is looked at from its first day on.
    views = page.locator("nav.views a").evaluate_all("(all) => all.map((each) => each.getAttribute('href'))")
    assert len(views) >= 6
    for view in [*views, f"#/{wardrobe}/clusters?cluster=0"]:
        page.goto(view)
        page.locator("nav.views a[aria-current=page]").wait_for()
        page.wait_for_function(NOTHING_RUNS)
        found += violations(page, f"{view} ({look})")
        for name in OPENED:
            button = page.get_by_role("button", name=name, exact=True)
            if name == "Keys" and view != views[0]:
                continue
            if button.count() and button.first.is_enabled():
                button.first.click()
                page.locator("dialog[open]").wait_for()
                found += violations(page, f"{view} → {name} ({look})")
                page.keyboard.press("Escape")
                page.locator("dialog").wait_for(state="detached")
        wide = page.evaluate(
            "() => Math.max(...['html', 'main'].map((its) => document.querySelector(its)).map((each) => each.scrollWidth - each.clientWidth))"
        )
        assert wide <= 0, f"{view} is {wide} px too wide"
    assert found == []
