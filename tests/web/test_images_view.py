"""The page of a real service, used as a person does: browse, search, look at, tag, add."""

import io

import pytest
from PIL import Image

from nearsight.collection.upgrade import Upgrade

from fake import FakeBackend
from sample_images import texture

pytestmark = pytest.mark.slow


FIRST_TEN_ARE_BLUE = """() => {
    const cells = [...document.querySelectorAll('.cell[data-id]')].sort((a, b) => a.dataset.index - b.dataset.index);
    return cells.length > 9 && cells.slice(0, 10).every((cell) => cell.textContent.includes('blue'));
}"""


def add(service, name, images, **metadata):
    files = [("image", (path, data, "image/png")) for path, data in images.items()]
    service.post(f"/v1/collections/{name}/items", files=files).raise_for_status()


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def png(color, size=(60, 44)):
    return encoded(Image.new("RGB", size, color))


@pytest.fixture(scope="session")
def colors(page_service):
    """A collection of forty images: shades of red and of blue."""
    client = page_service.client
    page_service.new_collection("colors")
    for kind, shade in (("red", lambda n: (250 - n, 2 * n, 0)), ("blue", lambda n: (0, 2 * n, 250 - n))):
        images = {f"{kind}{n:02}.png": png(shade(n)) for n in range(20)}
        add(client, "colors", images)
    return "colors"


def titles(page):
    return page.locator(".cell[data-id] span").all_inner_texts()


def test_images_are_browsed_opened_and_more_like_one_are_found(page, colors):
    page.goto(f"#/{colors}/images")
    page.locator(".cell[data-id]").first.wait_for()
    assert "40 images" in page.locator("main").inner_text()
    page.get_by_label("red03.png", exact=True).dblclick()
    page.get_by_role("dialog").get_by_text("1 of 40").or_(page.get_by_text("4 of 40")).wait_for()
    # Also without keys, as on a phone.
    title = page.get_by_role("dialog").locator("h2").inner_text()
    page.get_by_role("button", name="Next image").click()
    page.wait_for_function(f"() => document.querySelector('dialog h2').textContent !== '{title}'")
    page.get_by_role("button", name="Previous image").click()
    page.wait_for_function(f"() => document.querySelector('dialog h2').textContent === '{title}'")
    page.get_by_role("button", name="More like this").click()
    page.wait_for_function("() => document.querySelector('.cell span')?.textContent.includes('·')")
    assert all("red" in title for title in titles(page)[:10])
    # The name opens an image, and selects nothing.
    page.locator(".cell span").first.click()
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_text("1 image selected").first.wait_for()
    # A reload leads to the same search.
    page.reload()
    page.locator(".cell[data-id]").first.wait_for()
    assert all("red" in title for title in titles(page)[:10])
    # It becomes a minus beside another one, and stays it.
    page.locator(".cell", has_text="blue05.png").click()
    page.get_by_role("button", name="Like the selected").click()
    page.get_by_role("button", name="like this", exact=True).first.click()
    page.wait_for_function(FIRST_TEN_ARE_BLUE)
    page.reload()
    page.wait_for_function(FIRST_TEN_ARE_BLUE)
    assert page.locator(".chip.minus").count() == 1
    # The score of several parts is no similarity.
    assert not any("·" in title for title in titles(page))


def test_a_chosen_file_searches_and_a_filter_narrows(page, colors, tmp_path):
    # All images are listed late: after the search that follows.
    late = []
    page.route("**/items?*", lambda route: late.append(route), times=1)
    page.goto(f"#/{colors}/images")
    (same := tmp_path / "query.png").write_bytes(png((5, 5, 240)))
    page.get_by_label("Search by an image").set_input_files(same)
    page.wait_for_function(FIRST_TEN_ARE_BLUE)
    with page.expect_response("**/items?*") as listed:
        late[0].continue_()
    listed.value.finished()
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert page.evaluate(FIRST_TEN_ARE_BLUE)
    # The same file can be chosen once more.
    page.get_by_role("button", name="Remove").click()
    page.locator(".chip").wait_for(state="detached")
    page.get_by_label("Search by an image").set_input_files(same)
    page.locator(".chip").wait_for()
    page.get_by_role("button", name="Filter").click()
    page.get_by_label("Only images with").fill("path LIKE '%red%'")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('.cell span')?.textContent.includes('red')")
    # A condition that is chosen narrows further.
    page.get_by_label("Field").select_option("path")
    page.get_by_label("Condition").select_option("contains")
    page.get_by_label("Value", exact=True).fill("red07")
    page.get_by_role("button", name="Add to the filter").click()
    page.wait_for_function("() => document.querySelectorAll('.cell[data-id]').length === 1")
    page.get_by_role("button", name="Clear", exact=True).first.click()
    page.get_by_text("40 images").last.wait_for()


def test_a_wrong_filter_says_what_is_wrong(page, colors):
    page.goto(f"#/{colors}/images?where=widht%20%3E%203")
    page.get_by_role("alert").wait_for()
    assert "widht" in page.get_by_role("alert").inner_text()
    page.refused.append(400)
    # What was found before is not taken for the answer.
    page.get_by_role("button", name="Clear", exact=True).click()
    page.locator(".cell[data-id]").first.wait_for()
    page.get_by_label("Only images with").fill("widht > 3")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    assert page.locator(".cell").count() == 0
    # The back button leads to the search before.
    page.go_back()
    page.locator(".cell[data-id]").first.wait_for()
    page.get_by_text("40 images").last.wait_for()
    assert page.get_by_role("alert").count() == 0
    assert page.locator(".chip").count() == 0


def test_a_service_that_is_away_is_told_in_plain_words(page, colors):
    page.goto(f"#/{colors}/images")
    page.locator(".cell[data-id]").first.wait_for()
    page.route("**/v1/**", lambda route: route.abort())
    for view in ("Duplicates", "Add images"):
        page.get_by_role("link", name=view, exact=True).click()
        page.get_by_text("the service does not answer").wait_for()
        assert page.get_by_role("alert").count() == 1
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Load the page again").click()
    page.get_by_text("Choose images").wait_for()
    assert page.get_by_role("alert").count() == 0
    page.errors.clear()


def test_who_comes_back_to_the_page_sees_what_has_changed(page, page_service):
    page_service.new_collection("elsewhere")
    page.goto("#/elsewhere/images")
    page.get_by_role("heading", name="No image yet").wait_for()
    add(page_service.client, "elsewhere", {"late.png": png((9, 9, 9))})
    page.evaluate("() => dispatchEvent(new Event('focus'))")
    page.get_by_label("late.png", exact=True).wait_for()
    # A collection that was made meanwhile is no unknown one.
    page_service.new_collection("just-made")
    page.evaluate("() => { location.hash = '#/just-made/map'; }")
    page.get_by_role("heading", name="No image yet").wait_for()


def test_selected_images_are_tagged_and_taken_out(page, page_service, colors):
    page.clock.install()
    page.goto(f"#/{colors}/images")
    page.locator(".cell[data-id]").first.wait_for()
    page.get_by_label("blue00.png", exact=True).click()
    page.get_by_label("blue01.png", exact=True).click(modifiers=["Control"])
    page.keyboard.press("t")
    # It lies in the middle of the page, its title above its fields.
    middle = """() => { const box = (its) => document.querySelector(`dialog ${its}`).getBoundingClientRect(), all = box("header").width;
        const { left, right, top, bottom } = document.querySelector("dialog").getBoundingClientRect();
        return [left + right - innerWidth, top + bottom - innerHeight, box("header").bottom <= box("form").top]; }"""
    assert page.evaluate(middle) == [0, 0, True]
    page.get_by_label("Name").fill("season")
    page.get_by_label("Value").fill("winter")
    page.get_by_role("dialog").get_by_role("button", name="Tag").click()
    page.get_by_role("dialog").wait_for(state="detached")

    def n_winter():
        route = f"/v1/collections/{colors}/items"
        return page_service.client.get(route, params={"where": "season = 'winter'"}).json()["total"]

    assert n_winter() == 2
    # What can be taken back stays; what was done goes by itself.
    page.clock.fast_forward(30_000)
    page.get_by_text("2 images tagged").wait_for()
    page.keyboard.press("Control+z")
    page.get_by_text("2 tags taken back").wait_for()
    page.mouse.move(1, 1)
    page.clock.fast_forward(12_000)
    page.get_by_text("2 tags taken back").wait_for(state="detached")
    assert n_winter() == 0
    # They make a collection of their own.
    page.keyboard.press("c")
    page.get_by_label("Name").fill("two-blues")
    page.get_by_role("button", name="Create").click()
    page.wait_for_url("**/#/two-blues/images")
    page.get_by_label("blue01.png", exact=True).wait_for()
    assert sorted(titles(page)) == ["blue00.png", "blue01.png"]


def test_a_collection_that_moves_is_searched_by_either_model(page, page_service):
    client = page_service.client
    page_service.new_collection("moving")
    images = {f"{n:02}.png": encoded(texture(60, 44, n)) for n in range(60)}
    for start in (0, 30):
        add(client, "moving", dict([*images.items()][start : start + 30]))
    page.goto("#/moving/images")
    page.locator(".cell[data-id]").first.wait_for()
    assert page.locator(".edited select").count() == 0
    # An upgrade is under way: of fifty-two images, vectors of both models are there.
    collection = page_service.service.catalog.open("moving")
    Upgrade(collection, FakeBackend(1), model="onnx:/new.onnx").sample(52, progress=False)
    page.reload()
    page.get_by_text("This collection is moving to the model new.").wait_for()
    page.get_by_label("07.png", exact=True).dblclick()
    page.get_by_role("button", name="More like this").click()
    page.locator(".edited select").select_option("new")
    page.get_by_text("of the images have its vectors").wait_for()
    page.reload()
    page.get_by_text("of the images have its vectors").wait_for()
    [id] = [
        item["id"]
        for item in client.get("/v1/collections/moving/items").json()["items"]
        if item["path"].endswith("07.png")
    ]
    by_new = client.post("/v1/collections/moving/search", json={"id": id, "model": "new", "k": 500}).json()
    assert titles(page)[:3] == [
        f"{hit['similarity']:.3f} · {hit['path'].split('/')[-1]}" for hit in by_new["hits"][:3]
    ]
    # What only the model in use can do is said.
    page.get_by_label("Search by words").fill("a texture")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("leave out text").wait_for()
    page.refused.append(400)
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_text("60 images").last.wait_for()


def test_a_view_of_no_images_leads_to_where_they_are_added(page, page_service):
    page_service.new_collection("bare")
    for view in ("images", "map", "clusters", "people", "duplicates", "audit", "shop"):
        page.goto(f"#/bare/{view}")
        page.get_by_role("heading", name="No image yet").wait_for()
        assert page.locator("main button.main:not([data-search] ~ *)").count() == 0, view
    page.get_by_role("link", name="Add images").last.click()
    button = page.get_by_text("Choose images")
    plain = button.evaluate("(its) => getComputedStyle(its).backgroundColor")
    # A button of the accent's color keeps it under the mouse: its text is white.
    button.hover()
    assert button.evaluate("(its) => getComputedStyle(its).backgroundColor") == plain
    folder = page.get_by_role("button", name="Add the folder")
    folder.hover()
    assert folder.evaluate("(its) => getComputedStyle(its).backgroundColor") == plain


def test_dropped_files_are_uploaded_and_what_failed_is_told(page, page_service):
    page_service.new_collection("uploads")
    page.goto("#/uploads/add")
    page.get_by_label("Choose images").set_input_files(
        [
            {"name": "good.png", "mimeType": "image/png", "buffer": png((1, 200, 3))},
            {"name": "broken.png", "mimeType": "image/png", "buffer": b"no image"},
        ]
    )
    page.get_by_text("1 image added").wait_for()
    assert "broken.png" in page.locator(".failures").inner_text()
    assert page_service.client.get("/v1/collections/uploads/items").json()["total"] == 1


def test_a_folder_that_is_being_added_is_seen_among_the_images(page, page_service, monkeypatch):
    client, table = page_service.client, page_service.service.jobs.table
    (page_service.root / "archive").mkdir(parents=True, exist_ok=True)
    page_service.new_collection("growing")
    # The test is who moves the jobs on.
    start = table.claim
    monkeypatch.setattr(table, "claim", lambda: None)
    first, second = (
        client.post(f"/v1/collections/growing/{kind}", json=body).json()["id"]
        for kind, body in (("audit", {}), ("index", {"folder": "files/archive"}))
    )
    start()
    table.report(first, message="looking", done=3, total=40)
    page.goto("#/growing/images")
    card = page.locator(".job", has_text="Add images: files/archive")
    card.get_by_text("waiting for “Audit” in growing, 3 of 40").wait_for()
    table.finish(first, "done", result={})
    start()
    table.report(second, message="embedding", done=7, total=9)
    card.get_by_text("embedding: 7 of 9").wait_for()
    add(client, "growing", {"new.png": png((0, 250, 0))})
    failed = [{"path": "files/archive/broken.png", "reason": "it is truncated"}]
    table.finish(second, "done", result={"added": 1, "failed": failed})
    card.wait_for(state="detached")
    page.get_by_label("new.png", exact=True).wait_for()
    # What failed is tried again by another job.
    page.goto("#/growing/add")
    page.get_by_text("broken.png").wait_for()
    page.get_by_role("button", name="Try these again").click()
    card.get_by_text("waiting for its turn").wait_for()
    [third, _] = client.get("/v1/jobs", params={"kind": "index", "collection": "growing"}).json()["jobs"]
    assert (third["state"], third["args"]["folder"]) == ("queued", "files/archive")
    client.delete(f"/v1/jobs/{third['id']}").raise_for_status()


def test_the_page_fits_a_phone_in_the_dark(page, colors):
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 780})
    page.goto(f"#/{colors}/images")
    page.locator(".cell[data-id]").first.wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 29)"
    # What can be searched for is read to its end.
    room = """() => { const field = document.querySelector("[data-search]"), style = getComputedStyle(field);
        const pen = Object.assign(document.createElement("canvas").getContext("2d"), { font: style.font });
        return field.clientWidth - 2 * parseFloat(style.paddingLeft) - pen.measureText(field.placeholder).width; }"""
    assert page.evaluate(room) >= 0
    # What can be done with the selected images is one line, and covers none of them.
    page.locator(".cell[data-id]").first.click()
    bar = page.get_by_role("region", name="Selection").bounding_box()
    grid = page.locator(".grid-view").bounding_box()
    assert bar["height"] < 50
    assert bar["y"] >= grid["y"] + grid["height"]
    assert bar["y"] + bar["height"] <= page.get_by_role("navigation", name="Views").bounding_box()["y"]


def test_the_list_of_keys_opens(page, colors):
    page.goto(f"#/{colors}/images")
    page.locator(".cell[data-id]").first.wait_for()
    page.keyboard.press("?")
    text = page.get_by_role("dialog").inner_text()
    for words in ("next image", "search", "tag the selected images"):
        assert words in text


def test_a_key_is_asked_for_where_one_is_needed(browser, page_service_with_key):
    page = browser.new_page(base_url=page_service_with_key.url)
    page.goto("/")
    page.get_by_label("Key").fill("ns_wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Key").fill(page_service_with_key.key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Collections").wait_for()
    page.close()
