"""The map, clusters, duplicates and the audit, in the page of a real service."""

import io

import pytest

from sample_images import texture

pytestmark = pytest.mark.slow


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def album(page_service, finish):
    """Twenty-four images and a smaller copy of one; every analysis has run."""
    client = page_service.client
    page_service.new_collection("album")
    images = {f"{n:02}.png": texture(240, 180, n) for n in range(24)}
    files = [("image", (name, encoded(image), "image/png")) for name, image in images.items()]
    small = images["00.png"].resize((160, 120))
    files.append(("image", ("small.png", encoded(small), "image/png")))
    client.post("/v1/collections/album/items", files=files).raise_for_status()
    options = {"clusters": {"k": 3}, "duplicates": {}, "audit": {}, "map": {"method": "pca"}}
    for kind, body in options.items():
        finish(client, client.post(f"/v1/collections/album/{kind}", json=body).json())
    return "album"


def lasso_all(page):
    box = page.locator(".map-overlay").bounding_box()
    # The rounded corners of the map belong to nobody.
    right, bottom = box["width"] - 20, box["height"] - 20
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    for left, top in ((20, 20), (right, 20), (right, bottom), (20, bottom)):
        page.mouse.move(box["x"] + left, box["y"] + top, steps=4)
    page.mouse.up()


def test_a_lasso_on_the_map_selects_images_that_a_tag_reaches(page, page_service, album):
    page.goto(f"#/{album}/map")
    page.locator(".legend li").first.wait_for()
    assert page.locator(".legend li").count() == 3
    lasso_all(page)
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
    lasso_all(page)
    text = page.locator(".selection strong").inner_text()
    assert 0 < int(text.split()[0]) < 25


def test_an_analysis_that_stopped_says_why_and_goes_on(page, page_service, album):
    table = page_service.service.jobs.table
    asked = {"kind": "map", "collection": album, "limit": 1}
    [job] = page_service.client.get("/v1/jobs", params=asked).json()["jobs"]
    table.finish(job["id"], "failed", error="the disk is full")
    page.goto(f"#/{album}/map")
    page.get_by_role("alert").get_by_text("the disk is full").wait_for()
    page.get_by_role("button", name="Try again").wait_for()
    # The map of before is there all the same, and can be left as it is.
    page.locator(".legend li").first.wait_for()
    page.get_by_role("button", name="Leave it").click()
    page.get_by_role("alert").wait_for(state="detached")
    assert table.get(job["id"]).state == "cancelled"
    page_service.service.catalog.result_file(album, "map").unlink()
    table.finish(job["id"], "interrupted")
    page.reload()
    page.get_by_role("alert").get_by_text("the service stopped before it was done").wait_for()
    page.get_by_role("button", name="Go on").click()
    page.locator(".legend li").first.wait_for()
    assert page.get_by_role("alert").count() == 0


def test_the_map_is_colored_by_a_field(page, page_service, album):
    ids = [item["id"] for item in page_service.client.get("/v1/collections/album/items").json()["items"]]
    for n in range(12):
        page_service.client.patch(
            "/v1/collections/album/items",
            json={"ids": ids[2 * n : 2 * n + 2], "metadata": {"brand": f"brand {n}"}},
        )
    page.goto(f"#/{album}/map")
    page.get_by_label("Color by").select_option("brand")
    page.locator(".legend").get_by_text("other values").wait_for()
    rows = page.locator(".legend li").all_inner_texts()
    assert [row.split()[-1] for row in rows] == ["2"] * 10 + ["4", "1"]
    page.get_by_label("Color by").select_option("added")
    page.locator(".scale-ends").wait_for()
    # Nothing of other views' scales is drawn here.
    assert page.locator(".scale").evaluate("(scale) => getComputedStyle(scale, '::before').content") == "none"
    assert (
        page.locator(".scale-bar").evaluate("(bar) => getComputedStyle(bar).backgroundImage").count("rgb")
        == 9
    )
    assert page.locator(".legend li").count() == 0
    # A phone has two values in a line.
    page.set_viewport_size({"width": 390, "height": 780})
    page.get_by_label("Color by").select_option("brand")
    page.locator(".legend").get_by_text("other values").wait_for()
    first, second = (page.locator(".legend li").nth(at).bounding_box() for at in (0, 1))
    assert first["y"] == second["y"]


def test_images_that_have_left_the_collection_are_not_on_the_map(page, page_service, album):
    client, route = page_service.client, f"/v1/collections/{album}"
    for entry in client.get(f"{route}/trash").json()["entries"]:
        client.post(f"{route}/trash/{entry['id']}/restore").raise_for_status()
    ids = [item["id"] for item in client.get(f"{route}/items").json()["items"]]
    entry = client.post(f"{route}/trash", json={"ids": ids[:3]}).json()["entry"]
    page.goto(f"#/{album}/map")
    page.get_by_text("3 images of this map have left the collection.").wait_for()
    lasso_all(page)
    page.get_by_text("22 images selected").first.wait_for()
    page.get_by_label("Color by").select_option("width")
    page.locator(".legend li", has_text="160").wait_for()
    assert sum(int(row.split()[-1]) for row in page.locator(".legend li").all_inner_texts()) == 22
    # They are there again when they come back.
    client.post(f"{route}/trash/{entry['id']}/restore").raise_for_status()
    page.evaluate("() => dispatchEvent(new Event('focus'))")
    page.get_by_text("have left the collection").wait_for(state="detached")
    lasso_all(page)
    page.get_by_text("25 images selected").first.wait_for()


def clusters(page_service):
    document = page_service.client.get("/v1/collections/album/clusters").json()
    return [set(cluster["ids"]) for cluster in document["clusters"]]


def test_stacks_are_merged_split_and_exchange_images_by_mouse_and_by_keyboard(page, page_service, album):
    start = clusters(page_service)
    page.goto(f"#/{album}/clusters")
    stacks = page.locator(".stack-cell:has(input)")
    stacks.nth(2).wait_for()
    # By the keyboard: pick two, merge, undo.
    for at in (0, 2):
        stacks.nth(at).locator(".stack").focus()
        page.keyboard.press("p")
    page.keyboard.press("m")
    page.get_by_role("heading", name="2 clusters").wait_for()
    assert clusters(page_service) == [start[0] | start[2], start[1]]
    page.locator(".edited").get_by_text("merged").wait_for()
    page.keyboard.press("Control+z")
    page.get_by_role("heading", name="3 clusters").wait_for()
    assert clusters(page_service) == start
    # By the mouse: one stack onto another.
    stacks.nth(2).drag_to(stacks.nth(1))
    page.get_by_role("heading", name="2 clusters").wait_for()
    assert clusters(page_service) == [start[0], start[1] | start[2]]
    # Within a stack: an image goes to another by the keyboard, and one by the mouse.
    stacks.nth(1).locator(".stack").click()
    page.get_by_label("Name of the cluster").fill("warm things")
    page.get_by_role("button", name="Rename").click()
    page.locator(".edited").get_by_text("renamed").wait_for()
    page.locator(".grid").focus()
    moved = page.locator(".cell[data-index='0']").get_attribute("data-id")
    page.keyboard.press("Space")
    page.keyboard.press("v")
    page.get_by_text("Move 1 image to").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_function("(id) => !document.querySelector(`.cell[data-id='${id}']`)", arg=moved)
    assert moved in clusters(page_service)[0]
    dragged = page.locator(".cell[data-index='1']").get_attribute("data-id")
    page.locator(".cell[data-index='1']").drag_to(page.locator(".target").get_by_text("New cluster"))
    page.wait_for_function("(id) => !document.querySelector(`.cell[data-id='${id}']`)", arg=dragged)
    assert clusters(page_service)[2] == {dragged}
    # Split what is left.
    page.get_by_role("button", name="Split…").click()
    page.get_by_role("dialog").get_by_role("button", name="Split").click()
    page.get_by_role("heading", name="4 clusters").wait_for()
    assert set().union(*clusters(page_service)) == set().union(*start)
    assert clusters(page_service)[0] == start[0] | {moved}
    # A split that was interrupted is told where it was asked for.
    asked = {"kind": "cluster_split", "collection": album, "limit": 1}
    [job] = page_service.client.get("/v1/jobs", params=asked).json()["jobs"]
    page_service.service.jobs.table.finish(job["id"], "interrupted")
    page.reload()
    page.get_by_text("Split a cluster").wait_for()
    page.get_by_role("button", name="Go on").wait_for()
    page.get_by_role("button", name="Leave it").click()
    page.get_by_role("alert").wait_for(state="detached")


def test_duplicates_go_to_the_trash_and_back_and_decisions_are_remembered(page, page_service, album):
    def n_images():
        return page_service.client.get("/v1/collections/album/items").json()["total"]

    page.goto(f"#/{album}/duplicates")
    page.get_by_text("1 group of near-duplicates").wait_for()
    page.locator(".pair").get_by_text("00.png").wait_for()
    titles = page.locator(".pair figcaption strong")
    assert titles.all_inner_texts() == ["Suggested to keep", "The other"]
    page.keyboard.press("w")
    page.wait_for_function("() => document.querySelector('figcaption strong').textContent === 'The other'")
    page.keyboard.press("w")
    page.keyboard.press("z")
    zoomed = "() => [...document.querySelectorAll('.pane img')].every((each) => each.style.transform === 'scale(4)')"
    page.wait_for_function(zoomed)
    page.get_by_role("button", name="Slider").click()
    page.get_by_label("Share of the suggested image").fill("20")
    page.wait_for_function("() => document.querySelector('.above').style.clipPath.endsWith('20%)')")
    page.get_by_role("button", name="Clear up all certain…").click()
    page.get_by_role("dialog").get_by_text("small.png").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Put 1 file into the trash").click()
    page.get_by_text("Nothing left to decide").wait_for()
    assert n_images() == 24
    page.get_by_role("button", name="Undo").click()
    page.locator(".pair").get_by_text("00.png").wait_for()
    assert n_images() == 25
    page.keyboard.press("x")
    page.get_by_text("Nothing left to decide").wait_for()
    page.get_by_role("button", name="Trash…").click()
    page.wait_for_function("() => document.querySelector('dialog img')?.naturalWidth > 0")
    page.get_by_role("dialog").get_by_role("button", name="Put back").click()
    page.get_by_role("dialog").get_by_text("It is empty").wait_for()
    page.keyboard.press("Escape")
    page.locator(".pair").get_by_text("00.png").wait_for()
    page.keyboard.press("n")
    page.get_by_text("Nothing left to decide").wait_for()
    [decision] = page_service.client.get("/v1/collections/album/duplicates/decisions").json()["decisions"]
    assert decision["decision"] == "different"
    page.reload()
    page.get_by_text("Nothing left to decide").wait_for()
    assert n_images() == 25


def test_what_the_selection_puts_into_the_trash_leaves_the_duplicates_too(page, page_service, album):
    decided = page_service.client.get("/v1/collections/album/duplicates/decisions").json()["decisions"]
    for decision in decided:
        page_service.client.post(
            "/v1/collections/album/duplicates/decisions",
            json={"ids": decision["ids"], "decision": "undecided"},
        ).raise_for_status()
    page.goto(f"#/{album}/images")
    page.get_by_label("small.png", exact=True).click()
    page.goto(f"#/{album}/duplicates")
    page.locator(".pair").get_by_text("00.png").wait_for()
    # An image that is asked for after it has gone is an error in the browser's console.
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Trash", exact=True).click()
    page.get_by_text("Nothing left to decide").wait_for()
    # It is offered once to take that back.
    page.locator(".bars").get_by_text("In the trash: small.png").wait_for()
    assert page.get_by_role("button", name="Undo").count() == 1
    # The bars are one above the other.
    page.goto(f"#/{album}/images")
    page.get_by_label("03.png", exact=True).click()
    boxes = [bar.bounding_box() for bar in page.locator(".bars > *").all()]
    assert len(boxes) == 2
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
    page.keyboard.press("Control+z")
    page.get_by_text("1 file put back").wait_for()
    page.goto(f"#/{album}/duplicates")
    page.locator(".pair").get_by_text("00.png").wait_for()
    # On a phone, all that can be decided is in one line.
    page.set_viewport_size({"width": 390, "height": 844})
    boxes = [button.bounding_box() for button in page.locator(".decisions button").all()]
    assert len({box["y"] for box in boxes}) == 1
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)


def test_the_audit_names_issues_and_what_is_marked_goes_to_the_trash_and_back(page, page_service, album):
    expected = page_service.client.get("/v1/collections/album/audit").json()["counts"]
    page.goto(f"#/{album}/audit")
    page.get_by_text("issue").first.wait_for()
    for kind, n in expected.items():
        page.get_by_role("heading", name=f"{kind.replace('_', ' ')} ({n})").wait_for()
    # A marked image goes into the trash, and its issues with it; both come back.
    page.locator(".pile button").first.focus()
    page.keyboard.press("Space")
    marked = page.locator(".pile [data-id]").first.get_attribute("data-id")
    assert page.locator(".pile button").first.get_attribute("aria-pressed") == "true"
    with page.expect_download() as download:
        page.get_by_role("button", name="Export CSV").click()
    header, row = download.value.path().read_text().splitlines()
    assert (header.split(",")[:2], row.split(",")[0]) == (["id", "path"], marked)
    page.keyboard.press("Shift+Delete")
    page.locator(f".pile [data-id='{marked}']").wait_for(state="detached")
    assert page_service.client.get(f"/v1/collections/album/items/{marked}").status_code == 404
    page.keyboard.press("Control+z")
    page.get_by_text("1 file put back").wait_for()
    page.locator(f".pile [data-id='{marked}']").first.wait_for()
    assert page_service.client.get("/v1/collections/album/audit").json()["counts"] == expected


@pytest.mark.parametrize("at", [0, -1], ids=["in order", "the latest first"])
def test_what_is_written_stays_whatever_comes_late(page, page_service, late_answers, album, at):
    [first] = page_service.client.get(f"/v1/collections/{album}/items", params={"limit": 1}).json()["items"]
    views = [
        "images",
        f"images?where=width+%3E+1&like={first['id']}",
        "map",
        "clusters",
        "clusters?cluster=0",
    ]
    views += ["shop", f"shop?item={first['id']}", "labels", "inspection", "add"]
    lost = []
    late_answers.hold_back()
    for view in views:
        page.goto("about:blank")
        page.goto(f"#/{album}/{view}")
        lost += [f"{view}: {each}" for each in late_answers.write_while_they_come(at)]
    assert lost == []
