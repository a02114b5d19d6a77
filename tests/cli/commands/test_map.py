"""`map`: what it prints, what it writes, and the page in a real browser."""

import json
import re
import shutil
import warnings

import pyarrow.parquet as pq
import pytest

from nearsight import Collection

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def imaged(nearsight, photos):
    return nearsight.with_images(photos, "--meta", "season=</script><b>winter")


def test_points_and_what_became_of_them(imaged, tmp_path, save_image):
    first = imaged.json("map")
    assert set(first) == {"points", "method", "trustworthiness", "new", "placed", "moved", "file"}
    assert set(first["points"][0]) == {"id", "x", "y", "cluster"}
    assert (len(first["points"]), first["moved"], first["new"], first["placed"]) == (6, True, 6, 0)
    assert {point["cluster"] for point in first["points"]} == {None}
    imaged("index", save_image(tmp_path / "new.png", 77))
    second = imaged.json("map", "--color", "season")
    assert (len(second["points"]), second["moved"], second["new"], second["placed"]) == (7, False, 1, 1)
    places = {point["id"]: (point["x"], point["y"]) for point in second["points"]}
    assert all(places[point["id"]] == (point["x"], point["y"]) for point in first["points"])
    assert second["points"][0]["cluster"] == "</script><b>winter"
    assert "none moved" in imaged("map").stdout
    assert "New map of 7 images" in imaged("map", "--refit").stdout
    assert len(imaged.json("map", "--where", "width = 200")["points"]) == 1


def test_clusters_are_the_colors_where_there_are_some(nearsight, photos):
    nearsight("index", photos, "--meta", "cluster=7")
    assert {point["cluster"] for point in nearsight.json("map")["points"]} == {7}


def test_saved_clusters_color_the_map_without_metadata(nearsight, photos, tmp_path):
    nearsight("index", photos, "--meta", "title=A photograph")
    clusters = nearsight.json("cluster", "--k", 2, "--no-names")["clusters"]
    expected = {id: cluster["id"] for cluster in clusters for id in cluster["ids"]}
    points = nearsight.json("map", "--html", tmp_path / "map.html")["points"]
    assert {point["id"]: point["cluster"] for point in points} == expected
    html = (tmp_path / "map.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert set(data["names"]) == {"A photograph"}
    assert len(set(data["paths"])) == 6
    assert [data["keys"]["cluster"][data["ids"].index(id)] for id in expected] == list(expected.values())
    assert '<option value="cluster" selected>' in html
    assert "cluster_label" not in re.findall(r'<option value="(.*?)"', html)
    # Clusters of another model say nothing about these vectors.
    (nearsight.collection / "clusters.npz").write_bytes(b"damaged")
    assert {point["cluster"] for point in nearsight.json("map")["points"]} == {None}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--color", "nothing"], "no image has the metadata key 'nothing'"),
        (["--out", "x.csv"], "must end in .parquet"),
        (["--html", "{folder}/x.parquet"], "must end in .html or .htm"),
        (["--method", "umap"], "moves every image"),
    ],
)
def test_bad_questions(imaged, tmp_path, words, message):
    imaged("map", "--method", "pca")
    result = imaged("map", *(word.format(folder=tmp_path) for word in words), "--json", code=2)
    assert message in json.loads(result.stdout)["error"]["message"]


def test_a_table(imaged, tmp_path):
    imaged("map", "--out", tmp_path / "map.parquet")
    table = pq.read_table(tmp_path / "map.parquet")
    assert len(table) == 6
    assert all(row["bytes"].startswith(b"\xff\xd8") for row in table["image"].to_pylist())


def test_a_page_holds_all_it_needs_and_no_markup_of_others(imaged, tmp_path):
    pytest.importorskip("plotly")
    output = imaged.json("map", "--color", "season", "--html", tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text()
    assert "<b>winter" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert data["ids"] == [point["id"] for point in output["points"]]
    assert data["keys"] == {"season": ["</script><b>winter"] * 6}
    assert all(data["images"])
    assert "connect-src" not in page.split("<title>")[0]
    assert "default-src 'none'" in page.split("<title>")[0]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(imaged, tmp_path, playwright):
    pytest.importorskip("plotly")

    collection = Collection.open(imaged.collection)
    for number, item in enumerate(list(collection.items())):
        label = {0: "jersey", 1: None}.get(number % 3)
        collection.update_metadata(
            item.id, {"kind": number % 3 if number % 3 < 2 else -1, "kind_label": label}
        )
    imaged("map", "--html", tmp_path / "map.html")
    with playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS) as browser:
        page = browser.new_page(viewport={"width": 1300, "height": 1500})
        faults, requests = [], []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: requests.append(request.url))
        page.goto((tmp_path / "map.html").as_uri())
        page.wait_for_selector("#plot .nsewdrag")
        for scheme, key in (("light", ""), ("dark", "season")):
            page.emulate_media(color_scheme=scheme)
            page.select_option("#color", key)
            _hover_and_lasso(page)
        page.select_option("#color", "kind")
        names = page.evaluate("document.getElementById('plot').data.map((trace) => trace.name)")
        assert names == ["in no cluster", "0 jersey", "1"]
        # The name lies in the middle of the images of its cluster.
        shown = page.evaluate("document.getElementById('plot').layout.annotations.map((a) => a.text)")
        assert shown == ["jersey"]
        page.fill("#find", "JERSEY png")
        page.wait_for_function("document.getElementById('found').textContent === '2 found'")
        assert len(page.input_value("#ids").split("\n")) == 2
        picked = page.evaluate("document.getElementById('plot').data.map((t) => t.selectedpoints.length)")
        assert picked == [0, 2, 0]
        page.fill("#find", "")
        page.wait_for_function("document.getElementById('count').textContent === 'Nothing selected'")
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert faults == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in requests)


def _hover_and_lasso(page):
    page.evaluate("document.getElementById('look').replaceChildren()")
    # The lowest point: others may lie beneath the buttons or the legend, which moves them once it is drawn.
    for _ in range(40):
        row, x, y = page.evaluate(
            """() => {
              const plot = document.getElementById("plot"), l = plot._fullLayout, t = plot.data[0];
              const at = plot.getBoundingClientRect(), { xaxis: h, yaxis: v } = l;
              const low = t.y.indexOf(Math.min(...t.y));
              const x = at.x + h._offset + h.d2p(t.x[low]), y = at.y + v._offset + v.d2p(t.y[low]);
              return [t.customdata[low], x, y];
            }"""
        )
        page.mouse.move(x - 3, y - 3)
        page.mouse.move(x, y, steps=3)
        page.wait_for_timeout(250)
        if page.locator("#look img").count():
            break
    page.wait_for_function("document.querySelector('#look img').naturalWidth > 0")
    box = page.locator("#plot .nsewdrag").bounding_box()
    ids = page.evaluate("JSON.parse(document.getElementById('data').textContent).ids")
    assert page.inner_text("#id") == ids[row]
    left, top = box["x"] + 2, box["y"] + 2
    right, bottom = box["x"] + box["width"] - 2, box["y"] + box["height"] - 2
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 5)):
        page.mouse.move(x, y, steps=6)
    page.mouse.up()
    page.wait_for_function("document.getElementById('count').textContent === '6 selected'")
    assert len(page.input_value("#ids").split("\n")) == 6
    assert page.locator("#picked img").count() == 6
    assert page.is_enabled("#copy")


def test_a_collection_that_cannot_be_written_to_still_answers(imaged, monkeypatch):
    monkeypatch.setattr("nearsight.analyses.map.os.access", lambda *_: False)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        output = imaged("map", "--method", "pca")
    assert "New map of 6 images by PCA" in output.stdout
    assert "the map is not saved" in output.stderr
    assert not (imaged.collection / "map.npz").exists()
