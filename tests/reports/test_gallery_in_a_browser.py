"""Open the page in a real browser: images decode, nothing complains, it fits a phone, dark is dark."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from nearsight.reports.gallery import Card, Row, Section, write_gallery

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser(playwright):
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def address(indexed, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "results.html"
    indexed("search", photos / "3.png", "--html", out)
    return out.as_uri()


@pytest.fixture
def visit(visit_page, address):
    return lambda **options: visit_page(address, **options)


@pytest.fixture
def visit_page(browser):
    pages = []

    def open_page(address, **options):
        page = browser.new_page(**options)
        page.set_default_timeout(120_000)
        page.complaints, page.requests = [], []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(address)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.mark.slow
def test_every_image_decodes_and_nothing_complains(visit):
    page = visit()
    widths = page.evaluate(
        "async () => { await Promise.all([...document.images].map(i => i.decode()));"
        " return [...document.images].map(i => i.naturalWidth) }"
    )
    assert len(widths) == 7
    assert all(width > 0 for width in widths)
    assert page.complaints == []
    assert page.requests
    assert all(url.startswith(("file:", "data:")) for url in page.requests)


def test_dark_is_dark_and_light_is_light(visit):
    def brightness(scheme):
        page = visit(color_scheme=scheme)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in color.removeprefix("rgb(").rstrip(")").split(",")[:3]) / 3

    assert brightness("dark") < 60
    assert brightness("light") > 200


@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_no_width_needs_sideways_scrolling(visit, width):
    page = visit(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_keyboard_reaches_every_original(visit):
    page = visit()
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.href || ''"))
    assert len({target for target in reached if target.startswith("file:")}) == 6


def test_a_click_enlarges_and_the_arrows_go_on(visit):
    page = visit()
    page.click(".grid li:nth-child(2) img")
    large = page.locator("dialog[open] img")
    page.wait_for_function("() => document.querySelector('dialog[open] img').src.startsWith('file:')")
    assert large.evaluate("image => image.naturalWidth") == 160  # the original, not the thumbnail
    assert "(3 of 7)" in page.inner_text("dialog .caption")
    page.keyboard.press("ArrowRight")
    assert "(4 of 7)" in page.inner_text("dialog .caption")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.complaints == []


def test_thumbnails_in_a_folder_are_loaded_when_they_come_into_view(visit_page, tmp_path):
    cards = []
    for i in range(300):
        pixels = np.random.default_rng(i).integers(0, 256, (96, 128, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG")
        cards.append(Card(f"/gone/{i}.jpg", file.getvalue(), metadata={"a": "b"}))
    write_gallery(tmp_path / "r.html", "t", [Section("All", rows=[Row(cards[0], cards)])])
    page = visit_page((tmp_path / "r.html").as_uri(), viewport={"width": 390, "height": 800})
    # "networkidle" never comes where the processor is busy; and what is no function is evaluated anew at each
    # look, which the page's policy refuses from the second one on.
    page.wait_for_function("() => document.querySelector('.grid img').naturalWidth > 0")
    n_loaded = sum(url.endswith(".jpg") for url in page.requests)
    assert 0 < n_loaded < 150
    page.evaluate("document.querySelector('.grid li:last-child').scrollIntoView()")
    page.wait_for_function("() => document.querySelector('.grid li:last-child img').naturalWidth > 0")
    assert page.complaints == []


def test_a_blank_is_filled_in_and_the_filled_commands_are_gathered(visit_page, tmp_path):
    sections = [Section(f"Group g{i}", commands=[f'name g{i} "NAME"'], blank="NAME") for i in (1, 2, 3)]
    write_gallery(tmp_path / "faces.html", "Groups", sections)
    page = visit_page((tmp_path / "faces.html").as_uri())
    fields = page.get_by_role("textbox")
    assert fields.count() == 3
    assert not page.get_by_text("Filled in").is_visible()
    fields.nth(0).fill("Ada Lovelace")
    fields.nth(2).fill("O'Neil $(x)")
    assert [text.strip() for text in page.locator("pre").all_inner_texts()] == [
        'name g1 "Ada Lovelace"',
        'name g2 "NAME"',
        r"name g3 'O'\''Neil $(x)'",
        'name g1 "Ada Lovelace"\n' + r"name g3 'O'\''Neil $(x)'",
    ]
    fields.nth(0).fill("")
    assert page.locator("pre").first.inner_text().strip() == 'name g1 "NAME"'
    assert not page.complaints


def test_words_on_a_narrow_card_stay_whole(visit_page, tmp_path):
    facts = {
        "nearest class": "pullover",
        "changed": "2026-11-28",
        "why": "bought with bread in 12 of 40 baskets",
    }
    cards = [Card(f"{n}.jpg", None, metadata=facts) for n in range(3)]
    write_gallery(tmp_path / "a.html", "x", [Section(rows=[Row(Card("q.jpg", None), cards)])])
    page = visit_page((tmp_path / "a.html").as_uri(), viewport={"width": 390, "height": 844})
    heights = page.evaluate(
        "() => [...document.querySelectorAll('.grid .meta dd')].slice(0, 3).map(dd => [dd.textContent,"
        " Math.round(dd.offsetHeight / parseFloat(getComputedStyle(dd).lineHeight))])"
    )
    lines = dict(heights)
    assert (lines["pullover"], lines["2026-11-28"]) == (1, 1)
    assert lines[facts["why"]] <= 4
